"""Pictures and the page of a result: report.html, preview.png and annotated.mp4."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from warte.core.report import Notes, Page, Section, Text, write_page
from warte.sky.evaluate import paths
from warte.sky.read import Recording
from warte.sky.report import content, words
from warte.sky.report.gather import Gatherer, sky_picture
from warte.sky.report.look import View, encode_png
from warte.sky.report.picture import draw_preview
from warte.sky.report.video import AnnotatedVideo
from warte.sky.tables import Tracks

__all__ = ["write_report"]

# Pictures are made of this many tracks, the strongest ones; the table has all.
MOST_CARDS = 200


def write_report(
    out: Path,
    recording: Recording,
    found: Tracks,
    *,
    settings: dict[str, object],
    warnings: list[str],
    seconds: dict[str, float],
    video: bool = True,
    on_frame: Callable[[int], None] | None = None,
) -> None:
    """Write report.html, preview.png and annotated.mp4 into a folder.

    The recording is read once from its start; memory does not grow with its length.

    Parameters
    ----------
    out : an existing folder.
    found : the tracks to show; positions in px of the recording.
    settings : what the search was told, by name; shown as text.
    warnings : one line each; those of the recording are added, each is shown once.
    seconds : wall time of each step so far, in s.
    video : False leaves annotated.mp4 out, which takes most of the time.
    on_frame : called with the number of frames done, for a progress bar.
    """
    view = View.of(recording.width, recording.height)
    tracks = found.tracks.sort_values("track_id")
    routes = paths(Tracks(tracks, found.observations))
    strongest = tracks.sort_values("snr_track", ascending=False)["track_id"].head(MOST_CARDS)
    shown = found.observations[found.observations["track_id"].isin(strongest)]
    faint = set(tracks.loc[tracks["snr_frame"] < words.FAINT_SNR, "track_id"]) & set(strongest)
    gathered = Gatherer(recording.width, recording.height, shown, faint)
    film = None
    if video:
        file, kinds = out / "annotated.mp4", list(tracks["kind"])
        film = AnnotatedVideo(file, view, routes, kinds, recording.fps, recording.levels)
    _watch(recording, gathered, film, on_frame)
    speed_up = 1.0 if film is None else film.playback_fps / recording.fps
    sky = view.show(sky_picture(gathered.mean, gathered.brightest))
    lines = [np.stack([view.place(one.x), view.place(one.y)], axis=1) for one in routes]
    preview = draw_preview(sky, lines, tracks, view)
    (out / "preview.png").write_bytes(encode_png(preview))
    every_warning = list(dict.fromkeys([*warnings, *recording.warnings]))
    sections = [
        content.sky_section(sky, lines, tracks, view),
        *([Section("Warnings", "warnings", [Notes(every_warning)])] if every_warning else []),
        content.tracks_section(tracks, gathered.times, recording.fps, set(strongest)),
        content.cards_section(tracks, shown, gathered, recording.fps),
        Section("How to read this", "reading", [Text(text) for text in words.HOW_TO_READ]),
        content.run_section(out, settings, seconds, gathered.frames, speed_up),
    ]
    page = Page(
        title=f"{recording.path.name}: what moved in the sky",
        headline=words.headline(list(tracks["kind"]), gathered.frames),
        lead=content.lead(recording, gathered),
        sections=[section for section in sections if section.blocks or section.cards],
        footer="Made by Warte. This page is one file and fetches nothing.",
    )
    write_page(out / "report.html", page)


def _watch(
    recording: Recording,
    gathered: Gatherer,
    film: AnnotatedVideo | None,
    on_frame: Callable[[int], None] | None,
) -> None:
    """Go through the recording once; what is needed of each frame is taken from it."""
    with film or nullcontext():
        for frame in recording.frames():
            gathered.add(frame)
            if film is not None:
                film.add(frame)
            if on_frame is not None:
                on_frame(frame.index + 1)
