"""Train the small network that tells satellites, aircraft and meteors apart.

It learns from tracks as ``find`` makes them: simulated recordings are searched with the U-Net,
what was found is matched one to one with the truth, and movers too faint for the U-Net are fitted
along their true path, as the faint search would have done.
"""

from __future__ import annotations

import json
import multiprocessing
import shutil
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from warte import __version__
from warte.core.errors import InputError, SettingsError
from warte.core.score import confusion_matrix, f1_scores, macro_f1
from warte.sky.evaluate import evaluate
from warte.sky.find import FindSettings, detect, find_bright, tabulate, windows
from warte.sky.find.fit import MatchedFrames, fit_path
from warte.sky.find.join import Track, join, track_of
from warte.sky.find.kind import FEATURES, LIMIT, NAMES, Kinds, features, save_kinds
from warte.sky.find.link import MISSING_FRAMES
from warte.sky.find.prepare import prepare
from warte.sky.model import UNet
from warte.sky.read import Recording
from warte.sky.simulate import (
    Aircraft,
    Mover,
    SceneSettings,
    SimulateSettings,
    Tumbling,
    compress_h264,
    mover_position,
    random_scene,
    scene_time,
    simulate,
)
from warte.sky.simulate.movers import View, aircraft_centre, mover_glow
from warte.sky.simulate.scenes import random_aircraft, random_meteor, random_satellite
from warte.sky.tables import KINDS

CARD = "kind.json"
HELD_OUT = 2**31  # clips from this number on are for the figures in the card alone
SERIES = 7  # keeps these clips apart from those that the U-Net learns from
SHARES = (0.3, 0.3, 0.4)  # of NAMES among movers; meteors leave fewer tracks
SPURIOUS = -1  # in place of a kind: a track of nothing
BINS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0 + 1e-9)  # of the probability, for the reliability
FAINT_SCORE = 7.0  # sigma that the track of a faint mover has in all
MEETING_PX = 10.0  # faint movers that come so near another are left out
METEOR_S = 1.5  # no meteor lasts longer


@dataclass(frozen=True)
class KindSettings:
    """How the kind classifier is trained."""

    clips: int = 100  # simulated recordings to learn from (clips)
    scenes: int = 4  # further ones of which only the movers' light is computed (per clip)
    validation: int = 50  # held-out recordings for the figures in the card (clips)
    width: int = 320  # size of a recording (pixels)
    height: int = 240  # size of a recording (pixels)
    frames_low: int = 90  # shortest recording (frames)
    frames_high: int = 180  # longest recording (frames)
    movers: int = 12  # in each recording
    snr_low: float = 0.8  # faintest mover (matched-filter SNR in a frame)
    snr_high: float = 100.0  # brightest mover (same unit), log-uniform between
    codec_chance: float = 0.5  # recordings that go through H.264 (fraction)
    cuts: int = 6  # random pieces of each track to learn from besides the whole (number)
    hidden: int = 24  # units of the hidden layer
    epochs: int = 1500  # at most so many passes over all tracks (epochs)
    patience: int = 150  # stop after so many without a gain on tracks held back (epochs)
    hold_back: float = 0.25  # recordings held back for stopping and calibration (fraction)
    learning_rate: float = 1e-2  # of AdamW (dimensionless)
    weight_decay: float = 0.03  # of AdamW (dimensionless)
    spurious_share: float = 0.08  # weight of tracks of nothing in the loss (fraction)
    seed: int = 1  # of recordings and weights

    def __post_init__(self) -> None:
        for name in ("clips", "movers", "hidden", "epochs", "patience"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; allowed is 1 or more")
        if not 8 <= self.frames_low <= self.frames_high:
            raise SettingsError(
                f"frames_low {self.frames_low} must be in 8 to frames_high {self.frames_high}"
            )
        for name in ("codec_chance", "spurious_share", "hold_back"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; allowed is 0 to below 1")
        if not 0 <= self.seed < 2**31:
            raise SettingsError(f"seed is {self.seed}; allowed is 0 to {2**31 - 1}")


@dataclass(frozen=True)
class Example:
    """A track and what it is.

    ``kind``: index into NAMES, or SPURIOUS. ``how``: 'match' (the track of a mover), 'fragment'
    (a further piece of one), 'faint' (fitted along the true path) or 'false'. ``clip``: its number.
    """

    track: Track
    fps: float
    kind: int
    how: str
    clip: int


def random_recording(
    rng: np.random.Generator, settings: KindSettings
) -> tuple[SimulateSettings, float | None]:
    """A random scene with movers of every kind, and its H.264 rate factor (None: lossless)."""
    fps = float(rng.choice([25.0, 30.0, *np.exp(rng.uniform(np.log(10), np.log(60), 2))]))
    frames = int(rng.integers(settings.frames_low, settings.frames_high + 1))
    scene = random_scene(
        rng,
        SceneSettings(
            frames=frames,
            width=settings.width,
            height=settings.height,
            fps=fps,
            max_movers=0,
            cloud_chance=0.15,
            ramp_chance=0.1,
            quiet_chance=0.2,
        ),
    )
    movers = tuple(random_mover(rng, scene, settings) for _ in range(settings.movers))
    if rng.random() >= settings.codec_chance:
        return replace(scene, movers=movers), None
    noise = scene.camera.gain * np.sqrt(scene.sky.sky_e + scene.camera.read_noise_e**2)
    crf = float(rng.uniform(18, 28)) - (7.0 if noise < 1 else 0.0)
    return replace(scene, movers=movers), crf


def random_mover(
    rng: np.random.Generator, scene: SimulateSettings, settings: KindSettings
) -> Mover:
    """A satellite, an aircraft or a meteor.

    Speeds are drawn per second, because that is what the sky gives: with 10 to 200 arc seconds per
    pixel a satellite's 0.1 to 1 degree per second are 4 to 350 pixels per second.
    """
    size = scene.width, scene.height
    fastest = max((factor for _, factor in scene.playback), default=1.0)
    slower = fastest ** float(rng.uniform(0.5, 1.0)) * scene.fps
    snr = float(np.exp(rng.uniform(np.log(settings.snr_low), np.log(settings.snr_high))))
    kind = rng.choice(NAMES, p=SHARES)
    if kind == "satellite":
        speed = float(np.exp(rng.uniform(np.log(4), np.log(350)))) / slower
        satellite = random_satellite(rng, size, scene.frames, snr, min(speed, 25.0))
        if rng.random() < 0.1:  # a second light curve on top: spinning fast, or blinked by hand
            period, sharp = np.exp(rng.uniform(np.log([2, 2]), np.log([60, 30])))
            spin = Tumbling(float(period), float(rng.uniform(0.6, 1)), float(sharp))
            satellite = replace(satellite, light=(*satellite.light, spin))
        return satellite
    if kind == "aircraft":
        speed = float(np.exp(rng.uniform(np.log(8), np.log(300)))) / slower
        plane = random_aircraft(rng, size, scene.frames, snr, min(speed, 15.0), scene.fps)
        return _other_lamps(rng, plane)
    meteor = random_meteor(rng, size, scene.frames, 3 * snr)
    duration = min(meteor.duration, METEOR_S * scene.fps)
    return replace(meteor, duration=duration)


def _other_lamps(rng: np.random.Generator, plane: Aircraft) -> Aircraft:
    """Now and then fewer steady lamps (the strobe stays), or one so far that it is a point."""
    *steady, strobe = plane.lights
    kept = steady[: int(rng.integers(1 if rng.random() < 0.8 else 0, len(steady) + 1))]
    near = 1.0 if rng.random() < 0.6 else float(rng.uniform(0, 0.3))
    lamps = [replace(lamp, dx=near * lamp.dx, dy=near * lamp.dy) for lamp in (*kept, strobe)]
    return replace(plane, lights=tuple(lamps))


def make_examples(number: int, settings: KindSettings, network: UNet) -> list[Example]:
    """The tracks of clip ``number`` (0 or more) of the endless series ``settings.seed``."""
    rng = np.random.default_rng([settings.seed, number + 1, SERIES])
    scene, crf = random_recording(rng, settings)
    pixels, truth = simulate(scene, rng)
    if crf is not None:
        pixels = compress_h264(pixels, scene.fps, crf, gop=12)
    recording = in_memory(pixels, scene.fps)
    times: list[tuple[float, np.datetime64 | None]] = []
    fits, seen = [], []
    for first, frames in windows(recording, times):
        matched = MatchedFrames(prepare(frames, first, recording.levels))
        speed_max = FindSettings().speed_max_px
        fits += find_bright(matched.window, matched, network, "cpu", speed_max)
        seen.append(matched)
    tracks = join([track_of(fit) for fit in fits])
    scores = evaluate(tabulate(tracks, no_kinds(), scene.fps, times), truth)
    kinds = dict(zip(truth.tracks["track_id"], truth.tracks["kind"], strict=True))
    out = []
    for track, how, truth_id in zip(
        tracks, scores.found["verdict"], scores.found["truth_id"], strict=True
    ):
        kind = NAMES.index(kinds[truth_id]) if truth_id else SPURIOUS
        out.append(Example(track, scene.fps, kind, how, number))
    for truth_id in scores.truths.loc[scores.truths["found_id"] == 0, "truth_id"]:
        mine = truth.observations["track_id"] == truth_id
        rows, others = truth.observations[mine], truth.observations[~mine]
        if meets(rows, others):
            continue
        xy = rows[["x", "y"]].to_numpy() + lamp_offset(scene, rows, kinds[truth_id], rng)
        faint = faint_track(seen, rows["frame"].to_numpy(), xy)
        if faint is not None:
            kind = NAMES.index(kinds[truth_id])
            out.append(Example(faint, scene.fps, kind, "faint", number))
    return out


def light_examples(number: int, settings: KindSettings) -> list[Example]:
    """Tracks of scene ``number`` from what its movers shine alone, with no pictures made.

    They are many for little work, and lie in no other's way.
    """
    rng = np.random.default_rng([settings.seed, number + 1, SERIES, 1])
    scene, _ = random_recording(rng, settings)
    out = []
    for mover in scene.movers:
        track = light_track(mover, scene, rng)
        if track is not None:
            kind = NAMES.index(type(mover).__name__.lower())
            out.append(Example(track, scene.fps, kind, "light", number))
    return out


def light_track(mover: Mover, scene: SimulateSettings, rng: np.random.Generator) -> Track | None:
    """The track that ``find`` would about make of a mover; None where it would make none.

    Its SNR is that of the matched filter with unit noise, its path a fit to noisy positions.
    """
    camera = scene.camera
    view = View((scene.width, scene.height), camera.exposure, camera.psf_sigma_px, scene.playback)
    mover, lamps = one_light(mover, view.sigma, rng)
    place = np.full((scene.frames, 2), np.nan)
    snr = rng.standard_normal(scene.frames)
    for t in range(scene.frames):
        glow = mover_glow(mover, t, view)
        if glow is not None and view.holds(glow.x, glow.y):
            place[t] = glow.x, glow.y
            light = mover.snr * glow.brightness * glow.loss / glow.unit_loss / np.sqrt(lamps)
            # light has noise of its own, and it flickers in the air and in a codec
            snr[t] += min(light, 1e3) * max(0.0, 1 + 0.05 * rng.standard_normal())
    lit = np.flatnonzero(np.isfinite(place[:, 0]))
    part = seen_part(snr, lit[0], lit[-1]) if len(lit) > 2 else slice(0, 0)
    lit = lit[(lit >= part.start) & (lit < part.stop)]
    if len(lit) < 3:
        return None
    at = np.arange(part.start, part.stop)
    error = np.sqrt(2) * np.hypot(view.sigma, 0.29) / np.maximum(snr, 0.7)
    paths = []
    for axis in (0, 1):
        noisy = place[lit, axis] + error[lit] * rng.standard_normal(len(lit))
        degree = int(min(len(lit) - 1, rng.choice([1, 1, 2])))
        paths.append(np.polyval(np.polyfit(lit, noisy, degree, w=1 / error[lit]), at))
    speed = float(np.hypot(*(path[-1] - path[0] for path in paths))) / max(1, len(at) - 1)
    trail = float(speed > rng.uniform(5, 12))
    places = (at, paths[0], paths[1], error[part], error[part])
    return Track(*places, snr[part], snr[part], np.ones(len(at)), trail, lamps)


def one_light(mover: Mover, sigma: float, rng: np.random.Generator) -> tuple[Mover, int]:
    """An aircraft as the matched filter at one of its lamps sees it, or with its lamps joined to
    one track, and the number of lamps in it; other movers as they are."""
    if not isinstance(mover, Aircraft):
        return mover, 1
    here = mover.lights[rng.integers(len(mover.lights))]
    apart = np.array([np.hypot(lamp.dx - here.dx, lamp.dy - here.dy) for lamp in mover.lights])
    seen = [a > 3 * sigma and mover.snr * lamp.brightness > 4 and lamp.period == 0
            for a, lamp in zip(apart, mover.lights, strict=True)]  # fmt: skip
    together = any(seen) and rng.random() < 0.6
    share = np.ones(len(apart)) if together else np.exp(-(apart**2) / (4 * sigma**2))
    share[share < 1e-6] = 0.0
    lights = tuple(
        replace(lamp, dx=here.dx, dy=here.dy, brightness=lamp.brightness * float(part))
        for lamp, part in zip(mover.lights, share, strict=True)
    )
    return replace(mover, lights=lights), 1 + sum(seen) if together else 1


def seen_part(snr: np.ndarray, first: int, last: int) -> slice:
    """The frames that a track would have: from the first to the last that can be seen alone, with
    no long darkness between; all from first to last where the path is seen as a whole only."""
    clear = first + np.flatnonzero(snr[first : last + 1] > 5.0)
    if len(clear) >= 4:
        runs = np.split(clear, np.flatnonzero(np.diff(clear) > MISSING_FRAMES) + 1)
        longest = max(runs, key=len)
        if len(longest) >= 3:
            return slice(int(longest[0]), int(longest[-1]) + 1)
    whole = slice(first, last + 1)
    if last - first >= 7 and snr[whole].sum() / np.sqrt(last - first + 1) > FAINT_SCORE:
        return whole
    return slice(0, 0)


def in_memory(pixels: np.ndarray, fps: float) -> Recording:
    """Frames (T, H, W) uint8 as a recording."""

    def source(start: int) -> Generator[tuple[np.ndarray, float], None, None]:
        for n in range(start, len(pixels)):
            yield pixels[n].astype(np.float32), n / fps

    count, height, width = pixels.shape
    return Recording(Path("simulated"), width, height, count, fps, None, 1.0, 255.0, source)


def no_kinds() -> Kinds:
    """A classifier that knows nothing: every kind is as likely."""
    n = len(FEATURES)
    return Kinds(
        *(np.zeros(n), np.ones(n), np.zeros((n, 1)), np.zeros(1)),
        *(np.zeros((1, len(NAMES))), np.zeros(len(NAMES))),
    )


def meets(rows: pd.DataFrame, others: pd.DataFrame) -> bool:
    """Whether a mover comes so near another that it would be given the other's light."""
    both = rows.merge(others, on="frame", suffixes=("", "_other"))
    return bool((np.hypot(both.x - both.x_other, both.y - both.y_other) < MEETING_PX).any())


def lamp_offset(
    scene: SimulateSettings, rows: pd.DataFrame, kind: str, rng: np.random.Generator
) -> np.ndarray:
    """From the truth's place to a light, (2,) pixels: 0, but for an aircraft that of some lamp."""
    planes = [mover for mover in scene.movers if isinstance(mover, Aircraft)]
    if kind != "aircraft":
        return np.zeros(2)
    times = scene_time(scene.playback, rows["frame"].to_numpy())
    centres = [np.array(aircraft_centre(plane)) for plane in planes]
    off = []
    for plane, centre in zip(planes, centres, strict=True):
        x, y = mover_position(plane, times, scene.playback)
        off.append(float(np.hypot(x + centre[0] - rows["x"], y + centre[1] - rows["y"]).mean()))
    n = int(np.argmin(off))
    lamp = planes[n].lights[rng.integers(len(planes[n].lights))]
    return np.array([lamp.dx, lamp.dy]) - centres[n]


def faint_track(seen: list[MatchedFrames], frames: np.ndarray, xy: np.ndarray) -> Track | None:
    """The track that the faint search would have made of a mover at ``xy`` (n, 2) on the sensor.

    None where it is too faint or too short for that search.
    """
    fits = []
    for matched in seen:
        t = frames - matched.window.first
        here = (t >= 0) & (t < len(matched.window.residual))
        if here.sum() < 8:
            continue
        star = on_stars(matched, t[here], xy[here])
        speed = float(np.hypot(*(star[-1] - star[0]))) / max(1, t[here][-1] - t[here][0])
        fit = fit_path(matched, frames[here], star, float(speed > 5.0), (1, 2))
        if len(fit.frame) >= 8 and fit.score > FAINT_SCORE:
            fits.append(fit)
    joined = join([track_of(fit) for fit in fits])
    return max(joined, key=lambda track: len(track.frame), default=None)


def on_stars(matched: MatchedFrames, t: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Places (n, 2) on the stars' grid from those on the sensor: ``matched.sensor`` undone."""
    a, b, tx, ty = matched.window.motions[t].T
    centre = np.array([(matched.width - 1) / 2, (matched.height - 1) / 2])
    x, y = (xy - centre - np.stack([tx, ty], 1)).T
    return np.stack([a * x + b * y, a * y - b * x], 1) / (a * a + b * b)[:, None] + centre


def cut(track: Track, rng: np.random.Generator, least: float) -> Track:
    """A random piece of a track, from ``least`` of it to all, at least 4 frames."""
    n = len(track.frame)
    length = int(np.clip(round(rng.uniform(least, 1.0) * n), min(4, n), n))
    first = int(rng.integers(0, n - length + 1))
    part = slice(first, first + length)
    names = ("frame", "x", "y", "x_err", "y_err", "snr", "flux", "flux_err")
    return replace(track, **{name: getattr(track, name)[part] for name in names})


def table_of(
    examples: list[Example], cuts: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, F) and kinds (N,) of the tracks and of ``cuts`` random pieces of each."""
    rows, kinds = [], []
    for one in examples:
        # what is left of half a meteor could be anything
        least = 0.7 if one.kind == NAMES.index("meteor") else 0.15
        pieces = [cut(one.track, rng, least) for _ in range(cuts)]
        rows += [features(track, one.fps) for track in (one.track, *pieces)]
        kinds += [one.kind] * (1 + cuts)
    return np.array(rows).reshape(-1, len(FEATURES)), np.array(kinds, int)


def targets_of(kinds: np.ndarray, spurious_share: float) -> tuple[np.ndarray, np.ndarray]:
    """Wanted probabilities (N, 3) and weights (N,) of mean 1: kinds weigh the same together.

    Tracks of nothing want every kind to be as likely, so that they are called unknown.
    """
    target = np.where(
        kinds[:, None] == SPURIOUS, 1 / len(NAMES), kinds[:, None] == np.arange(len(NAMES))
    ).astype(float)
    weight = np.zeros(len(kinds))
    present = [kind for kind in range(len(NAMES)) if (kinds == kind).any()]
    for kind in present:
        weight[kinds == kind] = (1 - spurious_share) / (len(present) * (kinds == kind).sum())
    weight[kinds == SPURIOUS] = spurious_share / max(1, (kinds == SPURIOUS).sum())
    return target, weight / weight.mean()


def fit_kinds(
    train: tuple[np.ndarray, np.ndarray],
    held: tuple[np.ndarray, np.ndarray],
    settings: KindSettings,
) -> Kinds:
    """The network of the epoch that did best on ``held``, calibrated on it.

    train, held: features (N, F) and kinds (N,); the best of them all where ``held`` is empty.
    """
    torch.manual_seed(settings.seed)
    mean, scale = train[0].mean(axis=0), np.maximum(train[0].std(axis=0), 0.05)
    net = nn.Sequential(
        nn.Linear(len(FEATURES), settings.hidden), nn.Tanh(), nn.Linear(settings.hidden, len(NAMES))
    )
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )

    def ready(table: tuple[np.ndarray, np.ndarray]) -> list[Tensor]:
        values = np.clip((table[0] - mean) / scale, -LIMIT, LIMIT)
        arrays = (values, *targets_of(table[1], settings.spurious_share))
        return [torch.from_numpy(array).float() for array in arrays]

    def loss_on(values: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        return -(weight * (target * net(values).log_softmax(dim=1)).sum(dim=1)).mean()

    learn, watch = ready(train), ready(held if len(held[1]) else train)
    best, since, kept = float("inf"), 0, {k: v.clone() for k, v in net.state_dict().items()}
    for _ in range(settings.epochs):
        optimizer.zero_grad()
        loss_on(*learn).backward()
        optimizer.step()
        with torch.no_grad():
            now = float(loss_on(*watch))
        since += 1
        if now < best - 1e-5:
            best, since, kept = now, 0, {k: v.clone() for k, v in net.state_dict().items()}
        if since >= settings.patience:
            break
    state = {key: value.numpy().astype(float) for key, value in kept.items()}
    kinds = Kinds(mean, scale, state["0.weight"].T, state["0.bias"], state["2.weight"].T,
                  state["2.bias"])  # fmt: skip
    values, truth = held if len(held[1]) else train
    return calibrated(kinds, values[truth != SPURIOUS], truth[truth != SPURIOUS])


def calibrated(kinds: Kinds, values: np.ndarray, truth: np.ndarray) -> Kinds:
    """The same classifier as sure as it is right on these tracks (N, F), of kinds (N,).

    One number divides all scores: temperature scaling, Guo et al. 2017, arXiv 1706.04599.
    """
    target, weight = targets_of(truth, 0.0)
    chance = np.log(np.maximum(kinds.probabilities(values), 1e-30))

    def loss(log_temperature: float) -> float:
        score = chance / np.exp(log_temperature)
        score = score - np.log(np.exp(score).sum(axis=1, keepdims=True))
        return float(-(weight * (target * score).sum(axis=1)).mean())

    temperature = float(np.exp(minimize_scalar(loss, bounds=(-1.5, 2.5), method="bounded").x))
    return replace(kinds, out=kinds.out / temperature, out_bias=kinds.out_bias / temperature)


def figures_of(kinds: Kinds, examples: list[Example]) -> dict[str, object]:
    """How well the kinds of tracks are told, and whether the probability is right.

    Confusion and F1 of the movers found by the U-Net, macro-F1 of faint ones; how many of the
    tracks of nothing are unknown; for bins of the probability how often its kind is true.
    """
    told = [kinds.decide(one.track, one.fps) for one in examples]
    table = pd.DataFrame(
        {
            "how": [one.how for one in examples],
            "true": [NAMES[one.kind] if one.kind >= 0 else "unknown" for one in examples],
            "told": [name for name, _ in told],
            "chance": [chance for _, chance in told],
        }
    )
    best = [NAMES[int(kinds.probabilities(features(e.track, e.fps)).argmax())] for e in examples]
    table["right"] = table["true"] == best

    def counts(how: str) -> np.ndarray:
        part = table[table["how"] == how]
        return confusion_matrix(list(part["true"]), list(part["told"]), KINDS)

    found, false = counts("match"), table[table["how"] == "false"]
    figures: dict[str, object] = {"macro_f1": _rounded(macro_f1(found))}
    for name, score in zip(NAMES, f1_scores(found), strict=False):
        figures[f"f1_{name}"] = _rounded(score)
    figures["macro_f1_faint"] = _rounded(macro_f1(counts("faint")))
    figures["tracks"] = dict(Counter(table["how"]))
    figures["confusion"] = {
        name: dict(zip(KINDS, row.tolist(), strict=True))
        for name, row in zip(NAMES, found, strict=False)
    }
    figures["false_told_unknown"] = int((false["told"] == "unknown").sum())
    figures["reliability"] = reliability_of(table[table["how"].isin(["match", "faint"])])
    return figures


def _rounded(score: float) -> float | None:
    """None for NaN, which JSON does not know: there was nothing to tell."""
    return round(float(score), 4) if np.isfinite(score) else None


def reliability_of(table: pd.DataFrame) -> list[dict[str, float]]:
    """Mean of the probability and share that is right in BINS of the former."""
    rows = []
    for _, part in table.groupby(pd.cut(table["chance"], BINS, right=False), observed=True):
        row = {"tracks": len(part), "probability": part["chance"].mean()}
        rows.append(
            {k: round(float(v), 3) for k, v in (row | {"right": part["right"].mean()}).items()}
        )
    return rows


def train_kinds(
    settings: KindSettings | None = None,
    *,
    weights: Path | None = None,
    out: Path,
    workers: int = 0,
    report: Callable[[int, int], None] | None = None,
) -> dict[str, object]:
    """Train the classifier; writes ``kind.safetensors`` and ``kind.json`` (its card) into ``out``.

    ``weights``: folder of the U-Net that finds the tracks, None for that of the package.
    ``workers``: processes that simulate (0: this one); the result does not depend on it.
    ``report(clip, clips)`` is called after each simulated recording. Returns the card. Raises
    SettingsError where the recordings hold too few tracks to learn from.
    """
    settings = settings or KindSettings()
    begin = time.perf_counter()
    network = detect.load(None if weights is None else weights / detect.WEIGHTS)
    numbers = [*range(settings.clips), *range(HELD_OUT, HELD_OUT + settings.validation)]
    learn: list[Example] = []
    held_out: list[Example] = []
    make = partial(make_examples, settings=settings, network=network)
    for done, some in enumerate(in_order(make, numbers, workers), start=1):
        (learn if done <= settings.clips else held_out).extend(some)
        if report is not None:
            report(done, len(numbers))
    scenes = range(settings.scenes * settings.clips)
    light = [one for number in scenes for one in light_examples(number, settings)]
    kinds = learn_kinds(learn, light, settings)
    figures = figures_of(kinds, held_out) if held_out else {}
    card = make_card(settings, figures, len(learn) + len(light), time.perf_counter() - begin)
    save_kinds(kinds, out)
    (out / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


def in_order(
    make: Callable[[int], list[Example]], numbers: list[int], workers: int
) -> Iterator[list[Example]]:
    """``make`` of each number, made by so many processes (0: by this one)."""
    if workers == 0:
        yield from map(make, numbers)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=one_thread) as pool:
        try:
            yield from pool.map(make, numbers)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def one_thread() -> None:
    """Leave the other cores to the other processes."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def learn_kinds(found: list[Example], light: list[Example], settings: KindSettings) -> Kinds:
    """The classifier of these tracks.

    Those found in the last recordings are held back, to stop in time and to calibrate.
    """
    first_held = settings.clips - int(settings.hold_back * settings.clips)
    train = [one for one in found if one.clip < first_held] + light
    held = [one for one in found if one.clip >= first_held]
    if len({one.kind for one in train} - {SPURIOUS}) < 2:
        raise SettingsError(
            f"{settings.clips} clips hold {len(train)} tracks of fewer than two kinds; "
            "give more clips"
        )
    rng = np.random.default_rng([settings.seed, 0, SERIES])
    return fit_kinds(table_of(train, settings.cuts, rng), table_of(held, 0, rng), settings)


def copy_weights(name: str, source: Path | None, out: Path) -> None:
    """Copy the weights 'unet' or 'kind' and their card from ``source`` (None: the package).

    Raises InputError where the weights are not there.
    """
    folder = Path(str(files("warte.sky") / "weights")) if source is None else source
    if not (folder / f"{name}.safetensors").is_file():
        raise InputError(
            f"{folder} holds no {name}.safetensors: give a folder made by 'warte sky train'"
        )
    for file in (f"{name}.safetensors", f"{name}.json"):
        if (folder / file).is_file():
            shutil.copyfile(folder / file, out / file)


def make_card(
    settings: KindSettings, figures: dict[str, object], tracks: int, seconds: float
) -> dict[str, object]:
    """What a reader of the weights wants to know, ready for JSON."""
    return {
        "model": f"{len(FEATURES)} features, one hidden layer of {settings.hidden}, softmax over "
        + ", ".join(NAMES),
        "command": f"warte sky train --only kind --out DIR --seed {settings.seed}",
        "data": "simulated recordings alone, half of them through H.264, searched with the U-Net; "
        "as many of each kind, so probabilities are for kinds that are equally common",
        "tracks": tracks,
        "figures": figures,
        "features": list(FEATURES),
        "seconds": round(seconds),
        "torch": torch.__version__,
        "warte": __version__,
        "settings": asdict(settings),
    }
