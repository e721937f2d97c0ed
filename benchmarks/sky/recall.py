"""Parts faint, codec, errors and kind: how much is found, how well, and as what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from benchmarks.page import Table, rate
from benchmarks.sky.jobs import PEER, WARTE, WARTE_H264, Job, Outcome
from warte.core.score import inside_interval, poisson_interval
from warte.sky.evaluate import pool

SNRS = (0.5, 0.65, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 8.0)
QUICK_SNRS = (1.0, 2.0, 5.0)
ERROR_SNRS = (1.0, 2.0, 3.0, 5.0, 10.0, 20.0)
SPEED_EDGES = (0.0, 5.0, 10.0, np.inf)  # pixels per frame
SPEED_NAMES = ("below 5 px/frame", "5 to 10", "above 10")
KINDS = ("satellite", "aircraft", "meteor")
FAINTEST = 1.0  # SNR at which nine of ten are wanted, near to the least that can be found
MORE = 3  # times as many clips are run there


def faint_jobs(
    seed0: int, clips: int, snrs: Sequence[float], codec: bool, device: str
) -> list[Job]:
    """Satellites that trail over the whole frame and that are points, and empty clips."""
    jobs = []
    after = (WARTE_H264,) if codec else ()
    for snr in snrs:
        number = SNRS.index(snr) if snr in SNRS else len(SNRS) + int(10 * snr)
        for exposure in (1.0, 0.0):
            extra = after if exposure == 1.0 else ()
            for clip in range(clips * (MORE if snr == FAINTEST else 1)):
                seed = seed0 + 10_000 * number + 5_000 * int(exposure == 0.0) + clip
                methods = (WARTE, *extra, PEER)
                jobs.append(Job("faint", seed, snr, exposure, methods, device))
    jobs += [
        Job("empty", seed0 + 500_000 + clip, methods=(WARTE, *after, PEER), device=device)
        for clip in range(2 * clips)
    ]
    return jobs


def error_jobs(seed0: int, clips: int, device: str) -> list[Job]:
    """Satellites of six brightnesses, several in each clip, searched by Warte alone: the peer
    states no errors."""
    return [
        Job("crowd", seed0 + 600_000 + 1000 * number + clip, snr, 1.0, (WARTE,), device)
        for number, snr in enumerate(ERROR_SNRS)
        for clip in range(clips)
    ]


def kind_jobs(seed0: int, clips: int, device: str) -> list[Job]:
    """Two satellites, an aircraft and two meteors in each clip."""
    return [
        Job("kinds", seed0 + 700_000 + clip, methods=(WARTE,), device=device)
        for clip in range(clips)
    ]


def curve(outcomes: Sequence[Outcome], method: str, exposure: float | None = None) -> pd.DataFrame:
    """Table of snr, hits, trials of one method; exposure None takes both series."""
    rows: dict[float, list[int]] = {}
    for one in outcomes:
        wanted = one.method == method and one.job.scene == "faint"
        if wanted and exposure in (None, one.job.exposure):
            entry = rows.setdefault(one.job.snr, [0, 0])
            entry[0] += int((one.scores.truths["found_id"] > 0).sum())
            entry[1] += len(one.scores.truths)
    listed = [(snr, hits, trials) for snr, (hits, trials) in sorted(rows.items())]
    return pd.DataFrame(listed, columns=["snr", "hits", "trials"])


def faint_tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """Recall by SNR, by SNR and speed, and false tracks."""
    series: dict[str, pd.DataFrame] = {
        "Warte, trailed": curve(outcomes, WARTE, 1.0),
        "Warte, points": curve(outcomes, WARTE, 0.0),
        "four-frame, trailed": curve(outcomes, PEER, 1.0),
        "four-frame, points": curve(outcomes, PEER, 0.0),
    }
    recall = Table(
        "Faint: recall by per-frame SNR",
        _recall_rows(series),
        "Lossless clips of 100 frames of 640x480 with one satellite of 0.3 to 15 px/frame; "
        "trailed: the shutter is open for the whole frame, points: for an instant. In brackets "
        "95 % Wilson intervals.",
    )
    return [recall, _by_speed(outcomes), _false_table(outcomes)]


def codec_tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """What compression costs: the same clips before and after H.264."""
    series = {
        "lossless": curve(outcomes, WARTE, 1.0),
        "after H.264": curve(outcomes, WARTE_H264, 1.0),
    }
    recall = Table(
        "Codec: Warte's recall by per-frame SNR, before and after H.264",
        _recall_rows(series),
        "The trailed clips of the part faint, and the same after x264 at CRF 23, 8 bit. The SNR is "
        "that before compression.",
    )
    return [recall, _false_table(outcomes, "Codec: false tracks")]


def _recall_rows(series: dict[str, pd.DataFrame]) -> pd.DataFrame:
    first = next(iter(series.values()))
    columns: dict[str, list[object]] = {
        "SNR": [f"{snr:g}" for snr in first["snr"]],
        "clips": [int(trials) for trials in first["trials"]],
    }
    for name, table in series.items():
        pairs = zip(table["hits"], table["trials"], strict=True)
        columns[name] = [rate(int(hits), int(trials)) for hits, trials in pairs]
    return pd.DataFrame(columns)


def _by_speed(outcomes: Sequence[Outcome]) -> Table:
    faint = [one for one in outcomes if one.job.scene == "faint" and one.method == WARTE]
    rows = []
    for snr in sorted({one.job.snr for one in faint}):
        row = {"SNR": f"{snr:g}"}
        for number, name in enumerate(SPEED_NAMES):
            low, high = SPEED_EDGES[number : number + 2]
            here = [one for one in faint if one.job.snr == snr and low <= one.speed_px < high]
            hits = sum(int((one.scores.truths["found_id"] > 0).sum()) for one in here)
            row[name] = rate(hits, len(here))
        rows.append(row)
    return Table("Faint: Warte's recall by per-frame SNR and speed", pd.DataFrame(rows))


def false_rate(outcomes: Sequence[Outcome], method: str, scene: str) -> tuple[int, int]:
    """Number of false tracks and of frames searched."""
    here = [one.scores for one in outcomes if one.method == method and one.job.scene == scene]
    return sum(one.count("false") for one in here), sum(one.frames or 0 for one in here)


def _false_table(outcomes: Sequence[Outcome], title: str = "Faint: false tracks") -> Table:
    rows = []
    for method in (WARTE, WARTE_H264, PEER):
        for scene, name in (("faint", "with one satellite"), ("empty", "empty")):
            number, frames = false_rate(outcomes, method, scene)
            if frames == 0:
                continue
            low, high = (1000.0 * end / frames for end in poisson_interval(number))
            per = f"{1000.0 * number / frames:.2f} ({low:.2f}-{high:.2f})"
            rows.append((method, name, frames, number, per))
    columns = ["method", "clips", "frames", "false tracks", "per 1000 frames"]
    return Table(title, pd.DataFrame(rows, columns=columns))


def error_table(outcomes: Sequence[Outcome]) -> Table:
    """How many of the stated 68 % intervals hold the truth, by SNR."""
    rows = []
    for snr in sorted({one.job.snr for one in outcomes}):
        here = [one.scores for one in outcomes if one.job.snr == snr]
        found = [track for scores in here for _, track in scores.residuals.groupby("truth_id")]
        rows.append(
            {
                "SNR": f"{snr:g}",
                "satellites": sum(len(scores.truths) for scores in here),
                "found": len(found),
                "positions": sum(len(track) for track in found),
                "inside 68 % (position)": coverage(found, ("x", "y")),
                "inside 68 % (flux)": coverage(found, ("flux",)),
                "median error px": _median_error(found),
            }
        )
    return Table(
        "Errors: share of the truth inside the stated 68 % intervals",
        pd.DataFrame(rows),
        "Wanted for positions: 0.63 to 0.73. In brackets the 95 % interval over tracks "
        "(bootstrap), because the errors within one track go together. Eight satellites in a clip.",
    )


def inside_shares(tables: Sequence[pd.DataFrame], axes: Sequence[str]) -> np.ndarray:
    """(clips, 2): number of values inside their interval, and number of values, of each clip."""
    counts = []
    for table in tables:
        inside = []
        for axis in axes:
            away, err = (
                ("dflux", "flux_err") if axis == "flux" else (f"d{axis}_px", f"{axis}_err_px")
            )
            inside.append(inside_interval(table[away], table[err]))
        joined = np.concatenate(inside)
        counts.append((int(joined.sum()), len(joined)))
    return np.array(counts, dtype=np.float64).reshape(-1, 2)


def coverage(tables: Sequence[pd.DataFrame], axes: Sequence[str]) -> str:
    """Share inside, with its interval over clips; '-' where nothing was found."""
    counts = inside_shares(tables, axes)
    if not len(counts):
        return "-"
    share = counts[:, 0].sum() / counts[:, 1].sum()
    draws = np.random.default_rng(0).integers(0, len(counts), (2000, len(counts)))
    sums = counts[draws].sum(axis=1)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    return f"{share:.2f} ({low:.2f}-{high:.2f})"


def _median_error(tables: Sequence[pd.DataFrame]) -> float:
    if not tables:
        return float("nan")
    both = pd.concat(tables)
    return float(np.median(np.hypot(both["dx_px"], both["dy_px"])))


def kind_tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """Confusion of kinds, and recall and F1 of each."""
    scores = pool([one.scores for one in outcomes])
    summary = scores.to_dict()["summary"]
    rows = []
    for kind in KINDS:
        of_kind = scores.truths[scores.truths["kind"] == kind]
        hits = int((of_kind["found_id"] > 0).sum())
        f1 = summary[f"f1_{kind}"]
        rows.append((kind, len(of_kind), rate(hits, len(of_kind)), np.nan if f1 is None else f1))
    macro = summary["macro_f1"]
    told = "nothing was found" if macro is None else f"{macro:.3f}"
    counts = scores.confusion().loc[list(KINDS)].reset_index()
    return [
        Table(
            "Kind: what each mover is taken for",
            pd.DataFrame(rows, columns=["kind", "movers", "found", "F1 of the found ones"]),
            f"Macro-F1: {told} (wanted: 0.90). Clips of 150 frames with two satellites, an "
            "aircraft and two meteors, SNR 12 (meteors 24 at their peak). False tracks: "
            f"{scores.count('false')} in {scores.frames} frames.",
        ),
        Table("Kind: counts (row: true, column: found)", counts),
    ]
