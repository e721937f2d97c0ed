"""Part real: the night-sky video that was annotated by eye."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.page import Table
from benchmarks.sky.fourframe import FourFrameSettings, fourframe
from benchmarks.sky.jobs import PEER, WARTE, Progress
from warte.core.data import registry
from warte.sky.evaluate import MIN_AGREEMENT, TrackPath, agreement, evaluate, paths
from warte.sky.find import find
from warte.sky.read import read
from warte.sky.tables import Tracks, Truth, read_tracks

VIDEO, TRUTH = "real_video_a.mp4", "real_video_a_truth.json"
RADIUS_PX = 5.0  # the truth was set by eye
PEER_BLOCK = 256  # frames; what meteor cameras keep


def real_tables(seed0: int, device: str, progress: Progress) -> list[Table]:
    """What was found of each object, and what was found beside them, by both methods."""
    if registry.locate(VIDEO) is None or registry.locate(TRUTH) is None:
        told = f"{VIDEO} is not on this machine: set {registry.DATA_VARIABLE}"
        return [Table("Real: skipped", pd.DataFrame({"part": ["real"], "why": [told]}))]
    recording, truth = read(registry.get(VIDEO)), read_tracks(registry.get(TRUTH))
    progress("real", 0, 2)
    found = {WARTE: find(recording, device=device).found}
    progress("real", 1, 2)
    settings = FourFrameSettings(block=PEER_BLOCK)
    found[PEER] = fourframe(recording, np.random.default_rng(seed0), settings)
    progress("real", 2, 2)
    return [_objects(found, truth), *(_nothing(name, one, truth) for name, one in found.items())]


def _objects(found: dict[str, Tracks], truth: Tracks) -> Table:
    rows = []
    names = truth.tracks.set_index("track_id")
    for path in paths(truth):
        told = names.loc[path.track_id]
        row: dict[str, object] = {
            "object": told["name"],
            "kind": told["kind"],
            "seen": told["confidence"],
            "frames": f"{path.first}-{path.last}",
        }
        for method, tracks in found.items():
            row |= {f"{method}: {key}": value for key, value in _claims(tracks, path).items()}
        rows.append(row)
    return Table(
        f"Real: the objects of {VIDEO}",
        pd.DataFrame(rows),
        "tracks: found tracks that follow the object in half of their own frames or more (wanted: "
        "1 for each sure one, meteors of two frames excepted); frames: share of the object's "
        f"frames in which one of them lies within {RADIUS_PX:g} px.",
    )


def _claims(tracks: Tracks, path: TrackPath) -> dict[str, object]:
    """Number of tracks on an object, the share of its frames they follow, and their kinds."""
    kinds = tracks.tracks.set_index("track_id")["kind"]
    covered = np.zeros(len(path.x), bool)
    on_it = []
    for one in paths(tracks):
        agrees = agreement(one, path, RADIUS_PX) <= 1
        if agrees.sum() >= max(1.0, MIN_AGREEMENT * len(one.x)):
            on_it.append(str(kinds[one.track_id]))
            first = max(one.first, path.first) - path.first
            covered[first : first + len(agrees)] |= agrees
    share = f"{covered.mean():.2f}" if on_it else "-"
    return {"tracks": len(on_it), "frames": share, "kind": ", ".join(sorted(set(on_it))) or "-"}


def _nothing(method: str, tracks: Tracks, truth: Tracks) -> Table:
    """The tracks on nothing that is in the truth, with places so that a person can look."""
    ignore = truth.ignore if isinstance(truth, Truth) else None
    scores = evaluate(tracks, truth, radius_px=RADIUS_PX, ignore=ignore)
    false = scores.found.loc[scores.found["verdict"] == "false", "found_id"]
    listed = tracks.tracks[tracks.tracks["track_id"].isin(false)]
    rows = [
        {
            "track": row.track_id,
            "kind": row.kind,
            "frames": f"{row.start_frame}-{row.end_frame}",
            "from x, y": f"{row.x0_px:.0f}, {row.y0_px:.0f}",
            "to x, y": f"{row.x1_px:.0f}, {row.y1_px:.0f}",
            "SNR": f"{row.snr_track:.1f}",
        }
        for row in listed.itertuples()
    ]
    shown = pd.DataFrame(rows or [{"track": "none"}])
    return Table(f"Real: {method}'s tracks on nothing in the truth ({len(rows)})", shown)
