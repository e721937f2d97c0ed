"""Clips to learn from: simulated, compressed, prepared as ``find`` does it, and labelled."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations

import cv2
import numpy as np
import pandas as pd

from warte.core.errors import SettingsError
from warte.sky.find.prepare import Window, prepare, to_cells
from warte.sky.find.register import apply_motion
from warte.sky.simulate import (
    Mover,
    SceneSettings,
    SimulateSettings,
    compress_h264,
    mover_position,
    random_scene,
    scene_time,
    simulate,
)
from warte.sky.simulate.movers import View, mover_glow, train_glow
from warte.sky.simulate.psf import Patch, add_patch
from warte.sky.simulate.stars import move_stars
from warte.sky.tables import Tracks

DARK, LIGHT, UNSURE = 0, 1, 2  # labels of a cell in a frame
HELD_OUT = 2**31  # clips from this number on are never trained on
GHOST_FRAMES = 12  # H.264 may leave light where it was until the next key frame
GHOST_SIGMA = 1.0  # what is left behind is brighter than this
LOST_PX = 1.0  # stars that are further from where they should be (plus the shake) are lost
HALO_SIGMA = 0.3  # light under this is darkness


@dataclass(frozen=True)
class ClipSettings:
    """Which recordings a network learns from."""

    # (frames, pixels along each side) of a clip, one drawn for each; short ones are larger
    sizes: tuple[tuple[int, int], ...] = ((96, 160), (96, 160), (48, 208), (32, 256))
    scene: SceneSettings = field(
        default_factory=lambda: SceneSettings(
            snr_low=2.0, snr_high=150.0, quiet_chance=0.35, blink_chance=0.1
        )
    )  # how hard and varied they are
    codec_chance: float = 0.5  # noisy clips that go through H.264 (fraction); of quiet ones 9 in 10
    crf_low: float = 18.0  # mildest compression (x264's constant rate factor)
    crf_high: float = 28.0  # hardest compression (same unit)
    crf_quiet: float = 7.0  # quiet clips get a factor that much lower, or nothing would be left
    snr_sure: float = 3.0  # movers are to be seen from here (matched-filter SNR in a frame)
    snr_unsure: float = 1.5  # between this and snr_sure either answer is right (same unit)

    def __post_init__(self) -> None:
        if not self.sizes or any(t < 1 or side < 32 for t, side in self.sizes):
            raise SettingsError(f"sizes is {self.sizes}; allowed: 1 frame and 32 pixels or more")
        if not 0 <= self.codec_chance <= 1:
            raise SettingsError(f"codec_chance is {self.codec_chance}; allowed is 0 to 1")
        if not 0 <= self.snr_unsure <= self.snr_sure:
            raise SettingsError(
                f"snr_unsure is {self.snr_unsure}; allowed is 0 to snr_sure, {self.snr_sure}"
            )


@dataclass(frozen=True)
class Clip:
    """A prepared recording and its labels.

    ``window``: as ``find`` sees it; ``label`` (T, h, w) uint8: DARK, LIGHT of a mover, or UNSURE;
    ``codec``: whether it went through H.264.
    """

    window: Window
    label: np.ndarray
    codec: bool


def make_clip(seed: int, number: int, settings: ClipSettings | None = None) -> Clip:
    """Clip ``number`` (0 or more) of the endless series ``seed`` (0 to 2**31 - 1).

    Its generator is ``default_rng([seed, number + 1])``: no plain seed under 2**32 gives the same.
    """
    settings = settings or ClipSettings()
    rng = np.random.default_rng([seed, number + 1])
    frames, side = settings.sizes[int(rng.integers(len(settings.sizes)))]
    size = replace(settings.scene, frames=frames, width=side, height=side)
    scene = random_scene(rng, size)
    quiet = scene.camera.gain * np.sqrt(scene.sky.sky_e + scene.camera.read_noise_e**2) < 1.0
    pixels, truth = simulate(scene, rng)
    codec = bool(rng.random() < (0.9 if quiet else settings.codec_chance))
    if codec:
        crf = float(rng.uniform(settings.crf_low, settings.crf_high))
        crf -= settings.crf_quiet if quiet else 0.0
        pixels = compress_h264(pixels, scene.fps, crf, gop=12)
    window = prepare(pixels.astype(np.float32), 0, 1.0)
    return Clip(window, label_cells(window, scene, truth, settings, codec=codec), codec)


def label_cells(
    window: Window,
    scene: SimulateSettings,
    truth: Tracks,
    settings: ClipSettings,
    *,
    codec: bool,
) -> np.ndarray:
    """Which cells hold a mover's light, (T, h, w) uint8: DARK, LIGHT or UNSURE.

    Each mover's light is painted without noise, sent through the same filter and compared with the
    same noise. LIGHT: over 0.3 of its peak or 3 sigma, in frames where it has SNR snr_sure.
    UNSURE: its wings, fainter movers, a meteor's train, and what the template or H.264 took away
    or left behind, and frames in which the registration lost the stars.
    """
    label = np.zeros(window.cells.shape, np.uint8)
    to_cells = partial(_to_cells, window=window, sigma=cell_sigma(window))
    spread = point_area(window)
    for mover, rows in _movers_of(scene, truth):
        clean, glow = _mover_cells(scene, mover, rows, to_cells, window.cells.shape)
        peak = clean.max(axis=(1, 2))
        snr = np.maximum(peak, np.sqrt((clean**2).sum(axis=(1, 2)) / spread))
        sure = (clean > np.clip(0.3 * peak, 0.5, 3.0)[:, None, None]) & (snr >= settings.snr_sure)[
            :, None, None
        ]
        unsure = (clean > HALO_SIGMA) & (snr >= settings.snr_unsure)[:, None, None]
        unsure |= glow > HALO_SIGMA
        sure &= _near_max(window.cells) > 0.3 * clean
        if codec:
            unsure |= _ghosts(clean) & (_near_max(window.cells) > GHOST_SIGMA)
        label[unsure & (label == DARK)] = UNSURE
        label[sure] = LIGHT
    label[lost_frames(window, scene)] = UNSURE
    return label


def lost_frames(window: Window, scene: SimulateSettings) -> np.ndarray:
    """Frames in which the registration lost the stars, (T,) bool: there stars move like movers."""
    sky, camera, size = scene.sky, scene.camera, (scene.width, scene.height)
    centre = np.array([(scene.width - 1) / 2, (scene.height - 1) / 2])
    corners = centre + 0.8 * centre * np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]])
    count = len(window.motions)
    times = scene_time(scene.playback, np.arange(count, dtype=float))

    def stars_at(x: np.ndarray, y: np.ndarray, t: int) -> np.ndarray:
        return np.stack(move_stars(sky, x, y, float(times[t]), size), 1)

    start = 2 * corners - stars_at(corners[:, 0], corners[:, 1], count // 2)  # near enough
    places = np.stack([stars_at(start[:, 0], start[:, 1], t) for t in range(count)])
    moved = apply_motion(window.motions[:, None], places[count // 2] - centre) + centre
    off = np.hypot(*np.moveaxis(moved - places, -1, 0)).max(axis=1)
    jolts = camera.jolt_px if camera.jolt_rate > 0 else 0.0
    shake = np.hypot(camera.walk_px * np.sqrt(count / 2), camera.jitter_px) + jolts
    return np.asarray(off > LOST_PX + 3.0 * shake)


def point_area(window: Window) -> float:
    """Cells over which the square of a point's light is spread: sum c^2 / max c^2."""
    variance = 2 * window.blur**2  # the point's own, and the filter's
    return float(np.pi * variance)


def cell_sigma(window: Window) -> np.ndarray:
    """The noise by which ``window.cells`` were divided, (h, w).

    From differences between frames, which know nothing of what stood still and was removed.
    """
    pick = np.unique(np.linspace(0, len(window.cells) - 1, 12).astype(int))
    one = np.ones(window.cells.shape[1:], np.float32)
    grey = np.stack(
        [_to_cells(window.residual[t].astype(np.float32), int(t), window, one) for t in pick]
    )
    sigma = np.abs(np.diff(window.cells[pick], axis=0)).sum(axis=0)
    return np.maximum(np.abs(np.diff(grey, axis=0)).sum(axis=0) / (sigma + 1e-6), 1e-6)


def _to_cells(picture: np.ndarray, t: int, window: Window, sigma: np.ndarray) -> np.ndarray:
    """A picture (H, W) of the sensor in frame t as cells on the stars' grid, (h, w)."""
    return to_cells(picture, window.cell, window.psf_sigma_px, window.motions[t]) / sigma


def _movers_of(
    scene: SimulateSettings, truth: Tracks
) -> list[tuple[Mover, list[tuple[int, float, float, float]]]]:
    """Each seen mover with its rows of truth (frame, x, y, flux).

    Tracks are numbered in the order of their movers; which movers were never seen and have none
    is told by where the tracks lie.
    """
    tables = truth.observations.groupby("track_id")
    tracks = [tables.get_group(track_id) for track_id in truth.tracks.track_id]

    def apart(mover: Mover, kind: str, rows: pd.DataFrame) -> float:
        if type(mover).__name__.lower() != kind:
            return float("inf")
        times = scene_time(scene.playback, rows.frame.to_numpy(float))
        x, y = mover_position(mover, times, scene.playback)
        return float(np.median(np.hypot(x - rows.x, y - rows.y)))

    off = [
        [apart(mover, kind, rows) for mover in scene.movers]
        for kind, rows in zip(truth.tracks.kind, tracks, strict=True)
    ]
    choices = combinations(range(len(scene.movers)), len(tracks))
    best = min(choices, key=lambda c: sum(off[k][n] for k, n in enumerate(c)))
    out = []
    for n, rows in zip(best, tracks, strict=True):
        table = rows[["frame", "x", "y", "flux"]].itertuples(index=False)
        out.append((scene.movers[n], [(int(f), x, y, flux) for f, x, y, flux in table]))
    return out


def _mover_cells(
    scene: SimulateSettings,
    mover: Mover,
    rows: list[tuple[int, float, float, float]],
    to_cells: partial[np.ndarray],
    shape: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """Light of a mover without noise, (T, h, w) sigma, less what the stars' template took.

    The second array is the light of its train alone.
    """
    camera = scene.camera
    view = View((scene.width, scene.height), camera.exposure, camera.psf_sigma_px, scene.playback)
    clean, left = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    unit, shift = 0.0, (0.0, 0.0)
    seen = {frame: (x, y, flux) for frame, x, y, flux in rows}

    def paint(patch: Patch, t: int) -> np.ndarray:
        picture = np.zeros((scene.height, scene.width), np.float32)
        add_patch(picture, patch, unit)
        return to_cells(picture, t)

    for t in range(min(seen), len(clean)):
        glow = mover_glow(mover, t, view)
        if glow is not None and t in seen:
            x, y, flux = seen[t]
            shift, unit = (x - glow.x, y - glow.y), flux / glow.brightness
            glow = mover_glow(mover, t, view, shift)
        if glow is not None:
            clean[t] = paint(glow.patch, t)
        train = train_glow(mover, t, view, shift)
        if train is not None:
            left[t] = paint(train, t)
    pick = np.unique(np.linspace(0, len(clean) - 1, min(len(clean), 15)).round().astype(int))
    return clean - np.median(clean[pick], axis=0), left


def _near_max(cells: np.ndarray) -> np.ndarray:
    """The largest of a cell and its neighbours in each frame."""
    around = np.ones((3, 3), np.uint8)
    return np.stack([cv2.dilate(frame, around) for frame in cells])


def _ghosts(clean: np.ndarray) -> np.ndarray:
    """Where a mover's light was in the last GHOST_FRAMES frames, and may have been left behind."""
    lit = clean > 1.0
    out = lit.copy()
    for back in range(1, min(GHOST_FRAMES, len(lit))):
        out[back:] |= lit[:-back]
    return out
