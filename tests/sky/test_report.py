"""The report of a small recording: files, pictures, words, and the page in a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest

from warte.sky.read import Frame, Recording
from warte.sky.report import words, write_report
from warte.sky.report.curve import light_curve
from warte.sky.report.gather import (
    CROP_PX,
    Crop,
    Gatherer,
    cut,
    cut_inside,
    sky_picture,
    strip_pictures,
)
from warte.sky.report.look import Stretch, View, place_labels
from warte.sky.tables import Tracks, empty_tracks, format_utc, summarise

WIDTH, HEIGHT, FRAMES, FPS = 120, 90, 40, 25.0
START = np.datetime64("2024-05-01T20:15:03.480000")


def spot(x: float, y: float, flux: float, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A Gaussian point of light, sigma 1.2 px."""
    column = np.exp(-((np.arange(width) - x) ** 2) / 2.88)
    row = np.exp(-((np.arange(height) - y) ** 2) / 2.88)
    return flux / (2 * np.pi * 1.44) * np.outer(row, column)


def found_tracks(utc: bool = True) -> Tracks:
    """A bright satellite, a faint one, and a meteor of one frame."""
    rows = []
    for track_id, frames, snr in ((1, range(5, 36), 20.0), (2, range(40), 1.5), (3, [7], 30.0)):
        for frame in frames:
            when = START + np.timedelta64(frame * 40000, "us") if utc else None
            x, y = (20 + 2 * frame, 30 + frame) if track_id == 1 else (100 - 2 * frame, 60.25)
            rows.append((track_id, frame, format_utc(when), x, y, 0.1, 0.1, 10 * snr, 10.0))
    columns = ["track_id", "frame", "utc", "x", "y", "x_err", "y_err", "flux", "flux_err"]
    kinds = {1: "satellite", 2: "satellite", 3: "meteor"}
    return summarise(pd.DataFrame(rows, columns=columns), kinds, {1: 0.999, 2: 0.9, 3: 0.7}, FPS)


def recording(
    found: Tracks,
    *,
    width: int = WIDTH,
    height: int = HEIGHT,
    frames: int = FRAMES,
    utc: bool = True,
) -> Recording:
    stars = sum(spot(x, y, 900.0, width, height) for x, y in ((15, 70), (60, 60), (90, 20)))

    def source(start: int) -> Iterator[tuple[np.ndarray, float]]:
        for index in range(start, frames):
            rng = np.random.default_rng(index)
            pixels = 30 + 2.35 * rng.standard_normal((height, width)) + stars
            for row in found.observations[found.observations["frame"] == index].itertuples():
                pixels += spot(row.x, row.y, row.flux, width, height)
            yield np.clip(np.rint(pixels), 0, 255).astype(np.float32), index / FPS

    start_utc = START if utc else None
    return Recording(
        Path("night.mp4"), width, height, frames, FPS, start_utc, 1.0, 255.0, source
    )  # fmt: skip


def report(out: Path, film: Recording, found: Tracks, **more: object) -> str:
    given: dict = {"settings": {"mode": "auto"}, "warnings": [], "seconds": {"search": 2.0}}
    write_report(out, film, found, **(given | more))
    return (out / "report.html").read_text(encoding="utf-8")


def test_files_and_words(tmp_path: Path) -> None:
    found = found_tracks()
    (tmp_path / "tracks.csv").write_text("x")
    film = recording(found)
    film.warnings.append("breaks off after frame 39")
    done: list[int] = []
    warnings = ["few stars", "breaks off after frame 39"]
    html = report(tmp_path, film, found, warnings=warnings, on_frame=done.append)
    assert done == list(range(1, FRAMES + 1))
    assert "<h1>2 satellites and 1 meteor in 40 frames</h1>" in html
    assert html.count("breaks off after frame 39") == 1 and "few stars" in html
    assert "20:15:03.68" in html  # first seen: frame 5
    for number in (1, 2, 3):
        assert html.count(f'id="track-{number}"') == 1
        assert f'href="#track-{number}"' in html
    assert html.count('class="large"') == 1  # the faint track's stack
    assert 'href="tracks.csv"' in html and 'href="annotated.mp4"' in html
    assert 'href="observations.csv"' not in html  # not there
    addresses = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert not [one for one in addresses if "//" in one.split(",")[0]]
    assert cv2.imread(str(tmp_path / "preview.png")).shape[2] == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "annotated.mp4", "preview.png", "report.html", "tracks.csv",
    ]  # fmt: skip


def test_without_video(tmp_path: Path) -> None:
    found = found_tracks()
    html = report(tmp_path, recording(found), found, video=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["preview.png", "report.html"]
    assert "annotated.mp4" not in html and 'href="preview.png"' in html


def test_video_shows_the_recording_with_marks(tmp_path: Path) -> None:
    found = found_tracks()
    report(tmp_path, recording(found), found)
    with av.open(str(tmp_path / "annotated.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 25
        shown = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    view = View.of(WIDTH, HEIGHT)
    assert len(shown) == FRAMES
    assert shown[0].shape == (view.height, view.width, 3)
    # Colour is only where marks are: blue rings round track 1 at (60, 50) in frame 20.
    x, y = int(view.place(60.0)), int(view.place(50.0))
    near = shown[20][y - 20 : y + 20, x - 20 : x + 20].astype(int)
    assert (near[..., 0] - near[..., 2]).max() > 60
    far = shown[20][: view.height // 8].astype(int)
    assert np.abs(far[..., 0] - far[..., 2]).max() < 25


@pytest.mark.parametrize("size", [(121, 91), (64, 48), (30, 2000), (2500, 40)])
def test_any_size(tmp_path: Path, size: tuple[int, int]) -> None:
    found = found_tracks(utc=False)
    film = recording(found, width=size[0], height=size[1], frames=9, utc=False)
    html = report(tmp_path, film, found)
    assert "the file does not say when it was made" in html
    with av.open(str(tmp_path / "annotated.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert context.width % 2 == context.height % 2 == 0
        assert max(context.width, context.height) <= 1920


def test_nothing_found(tmp_path: Path) -> None:
    html = report(tmp_path, recording(empty_tracks()), empty_tracks(), seconds={}, settings={})
    assert "Nothing that moves was found in 40 frames" in html
    assert "<svg viewBox" not in html and "Show tracks" not in html
    preview = cv2.imread(str(tmp_path / "preview.png")).astype(int)
    assert np.abs(preview[..., 0] - preview[..., 2]).max() == 0


def test_a_recording_shorter_than_its_tracks(tmp_path: Path) -> None:
    found = found_tracks()
    html = report(tmp_path, recording(found, frames=6), found)
    assert "in 6 frames" in html
    assert html.count('class="card"') == 3


def test_a_constant_recording(tmp_path: Path) -> None:
    film = recording(empty_tracks(), frames=3)
    film.source = lambda start: ((np.full((HEIGHT, WIDTH), 7.0, np.float32), 0.0) for _ in range(3))
    found = found_tracks()
    report(tmp_path, film, Tracks(found.tracks[:1], found.observations[:31]))
    assert (tmp_path / "report.html").exists()


def test_the_stack_shows_a_faint_satellite_and_no_star() -> None:
    found = found_tracks()
    faint = found.observations[found.observations["track_id"] == 2]
    gathered = Gatherer(WIDTH, HEIGHT, faint, {2})
    film = recording(found)
    for frame in film.frames():
        gathered.add(frame)
    stack, count = gathered.stack(2, gathered.mean)
    assert count == FRAMES
    noise = 1.4826 * np.median(np.abs(stack))
    middle = CROP_PX // 2
    peak = np.unravel_index(np.argmax(cv2.GaussianBlur(stack, (0, 0), 1.2)), stack.shape)
    assert max(abs(peak[0] - middle), abs(peak[1] - middle)) <= 1
    assert stack[middle, middle] > 4 * noise
    # The star at (60, 60) that the track runs over is 6 times as bright as the satellite per frame.
    plain = np.mean([cut(f.pixels, 100 - 2 * f.index, 60.25) for f in film.frames()], axis=0)
    assert np.abs(stack[middle, :12]).max() < 0.3 * (plain[middle, :12].max() - np.median(plain))


def test_cut_puts_the_position_in_the_middle() -> None:
    pixels = spot(40.25, 50.5, 100.0).astype(np.float32)
    patch = cut(pixels, 40.25, 50.5)
    grid = np.arange(CROP_PX)
    assert (patch.sum(axis=0) * grid).sum() / patch.sum() == pytest.approx(CROP_PX / 2, abs=0.01)
    assert (patch.sum(axis=1) * grid).sum() / patch.sum() == pytest.approx(CROP_PX / 2, abs=0.01)


def test_cut_outs_at_the_border_end_there() -> None:
    pixels = np.random.default_rng(0).normal(30, 2, (HEIGHT, WIDTH)).astype(np.float32)
    crop = cut_inside(pixels, 3, 88)
    half = CROP_PX // 2
    assert np.isnan(crop[:, : half - 3]).all() and np.isnan(crop[half + 2 :]).all()
    assert (crop[: half + 2, half - 3 :] == pixels[88 - half :, : 3 + half]).all()
    assert np.isfinite(cut_inside(pixels, 60, 45)).all()
    (picture,) = strip_pictures([Crop(0, crop)], "#4cc3ff")
    assert not picture[half + 13 :].any() and picture[:half, half:].any()
    assert np.isnan(cut_inside(pixels, -40, 45)).all()


def test_a_track_that_ends_outside_has_pictures_of_what_is_inside() -> None:
    seen = pd.DataFrame({"track_id": 1, "frame": [0, 1], "x": [2.0, -40.0], "y": 45.0})
    gathered = Gatherer(WIDTH, HEIGHT, seen, set())
    for frame in recording(empty_tracks(), frames=2).frames():
        gathered.add(frame)
    assert [crop.frame for crop in gathered.strips[1]] == [0]


def test_trails_are_seen_in_the_sky() -> None:
    found = found_tracks()
    gathered = Gatherer(WIDTH, HEIGHT, found.observations, set())
    for frame in recording(found).frames():
        gathered.add(frame)
    sky = sky_picture(gathered.mean, gathered.brightest).astype(int)
    trail = np.array([sky[30 + frame, 20 + 2 * frame] for frame in range(6, 35)])
    assert np.median(trail) > np.median(sky) + 40
    assert sky[20, 90] > 100  # a star
    assert gathered.times[7] == pytest.approx(7 / FPS)


def test_gathering_does_not_grow_with_the_recording() -> None:
    gathered = Gatherer(WIDTH, HEIGHT, found_tracks().observations, {2})
    dark = np.zeros((HEIGHT, WIDTH), np.float32)
    held = []
    for index in range(300):
        gathered.add(Frame(index, dark, index / FPS, None))
        if index in (60, 299):
            held.append((len(gathered.times), sum(map(len, gathered.strips.values()))))
    assert held[0] == held[1] == (40, 17)


def test_stretch_shows_faint_and_bright() -> None:
    rng = np.random.default_rng(2)
    pixels = (1000 + 20 * rng.standard_normal((90, 120))).astype(np.float32)
    pixels[10, 10], pixels[20, 20] = 1200, 60000
    shown = Stretch.of(pixels, 1.0).apply(pixels)
    sky = np.median(shown)
    assert 10 < sky < 60
    assert shown[20, 20] == 255
    assert sky + 30 < shown[10, 10] < 255
    assert np.std(shown) < 15


def test_view_and_labels() -> None:
    assert View.of(640, 480) == View(640, 480, 1.0)
    assert View.of(641, 479) == View(642, 480, 1.0)
    assert View.of(3840, 2160) == View(1920, 1080, 0.5)
    assert View.of(160, 120).scale == 3.0
    assert View.of(3840, 2160).place(np.array([0.0, 1.0])).tolist() == [-0.25, 0.25]
    # Ten tracks that end at one place: their labels still do not cover each other.
    paths = [np.array([[20.0 * k, 400.0], [300.0, 200.0]]) for k in range(10)]
    corners = place_labels(paths, [(20.0, 10.0)] * 10, 640, 480)
    for one in range(10):
        for other in range(one):
            apart = np.abs(np.subtract(corners[one], corners[other]))
            assert apart[0] >= 20 or apart[1] >= 10
    assert all(0 <= x <= 620 and 10 <= y <= 480 for x, y in corners)


def test_light_curves() -> None:
    time = np.arange(900) / 25
    svg, group = light_curve(time, np.full(900, 5.0), np.ones(900), "a <b>")
    assert (group, svg.count("<circle")) == (5, 180)
    assert "<b>" not in svg
    assert "5 ± 0.45" in svg  # 1 / sqrt(5)
    svg, group = light_curve(np.array([3.0]), np.array([-2.0]), np.array([0.5]), "one")
    assert group == 1 and "nan" not in svg


def test_words() -> None:
    assert words.headline(["meteor", "satellite", "aircraft", "aircraft"], 1200) == (
        "1 satellite, 2 aircraft and 1 meteor in 1,200 frames"
    )
    assert words.headline(["unknown"] * 2, 1) == "2 unidentified movers in 1 frame"
    assert [words.direction(angle) for angle in (0, 90, 181, 350)] == [
        "to the right", "downwards", "to the left", "to the right",
    ]  # fmt: skip
    assert [words.sureness(p) for p in (1.0, 0.994, 0.5, 0.001)] == [
        "over 99 %", "99 %", "50 %", "under 1 %",
    ]  # fmt: skip
    assert words.clock("2024-05-01T20:15:03.480000Z") == "20:15:03.48"
    assert [words.number(v) for v in (0, 1234.5, 0.01234, 2.5e7, float("nan"))] == [
        "0", "1,234", "0.0123", "2.50e+07", "unknown",
    ]  # fmt: skip


class Remembering(SimpleHTTPRequestHandler):
    """Serves a folder and remembers what was asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Silent."""


def visit(folder: Path, name: str, scratch: Path) -> tuple[list[str], list[str], str]:
    """What a browser asks the server for, its console lines, and the page it ends with."""
    asked: list[str] = []
    handler = type("Handler", (Remembering,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        command = [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={scratch}",
            # The browser's own question for the time is none of the page's.
            "--disable-features=NetworkTimeServiceQuerying",
            # Whatever host a page asks for, it is this server that hears of it.
            f"--host-resolver-rules=MAP * 127.0.0.1:{server.server_address[1]}",
            "--enable-logging=stderr", "--v=0", "--dump-dom",
            f"http://127.0.0.1:{server.server_address[1]}/{name}",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=100,
                check=True,
                env=os.environ | {"HOME": str(scratch)},
            )
        finally:
            server.shutdown()
            thread.join()
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return asked, console, done.stdout


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_browser_fetches_nothing_and_does_not_complain(tmp_path: Path) -> None:
    found = found_tracks()
    report(tmp_path, recording(found), found)
    asked, console, page = visit(tmp_path, "report.html", tmp_path / "chromium")
    assert asked == ["/report.html"]
    assert console == []
    assert page.count('class="card"') == 3
    # The same look at a page that does fetch and complain, so that silence means something.
    fetching = '<!DOCTYPE html><img src="http://example.org/gone.png">'
    (tmp_path / "bad.html").write_text(fetching + '<script>console.error("oh")</script>')
    asked, console, _ = visit(tmp_path, "bad.html", tmp_path / "chromium")
    assert "/gone.png" in asked
    assert len(console) == 1
