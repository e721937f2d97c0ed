"""Train the U-Net that sees bright movers."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from math import ceil, cos, pi
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from warte import __version__
from warte.core.errors import SettingsError
from warte.sky.find.detect import SHAPE, STRIDE, THRESHOLD, WEIGHTS, detections, motion_map
from warte.sky.model import UNet, UNetSettings, build, compress, fold
from warte.sky.train.clips import DARK, HELD_OUT, LIGHT, UNSURE, Clip, ClipSettings, make_clip

CARD = "unet.json"
STEPS_PER_UNIT = 25.0  # compressed light is kept in 8 bits: LIMIT lies at 125
AHEAD = 8  # clips in the making per worker


@dataclass(frozen=True)
class TrainSettings:
    """How the U-Net is trained."""

    steps: int = 3000  # updates of the weights (steps)
    batch: int = 16  # crops of a step (crops)
    crop: int = 64  # side of a crop (cells)
    clips: int = 1500  # simulated recordings to draw crops from (clips)
    first_clips: int = 48  # recordings there are at the first step; more join steadily (clips)
    learning_rate: float = 2e-3  # of AdamW at its highest; falls along a cosine (dimensionless)
    weight_decay: float = 1e-4  # of AdamW (dimensionless)
    warmup: int = 100  # steps until the learning rate is at its highest (steps)
    average: float = 0.998  # keep of the running average of weights, per step (fraction)
    lit_share: float = 0.6  # crops around a mover; the others lie anywhere (fraction)
    positive_weight: float = 2.0  # of lit cells in the cross entropy (dimensionless)
    validation: int = 60  # held-out recordings for the figures in the card (clips)
    seed: int = 1  # of recordings, crops and weights
    model: UNetSettings = field(default_factory=UNetSettings)  # shape of the network
    data: ClipSettings = field(default_factory=ClipSettings)  # what it learns from

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "crop", "clips", "first_clips"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; allowed is 1 or more")
        for name in ("lit_share", "average"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; allowed is 0 to 1")
        if self.learning_rate <= 0:
            raise SettingsError(f"learning_rate is {self.learning_rate}; it must be over 0")
        if not 0 <= self.seed < 2**31:
            raise SettingsError(f"seed is {self.seed}; allowed is 0 to {2**31 - 1}")


@dataclass(frozen=True)
class Example:
    """A clip in 8 bits: light (T, h, w) and stars (h, w) compressed, label (T, h, w), lit cells."""

    light: np.ndarray
    stars: np.ndarray
    label: np.ndarray
    lit: np.ndarray  # (n, 3) frame, row, column of some of the lit cells


def make_example(seed: int, settings: ClipSettings, number: int) -> Example:
    """Clip ``number`` as the training loop keeps it."""
    clip = make_clip(seed, number, settings)
    lit = np.argwhere(clip.label == LIGHT)
    some = np.random.default_rng([seed, number + 1, 1]).permutation(len(lit))[:2000]
    return Example(
        _to_bytes(clip.window.cells), _to_bytes(clip.window.stars), clip.label, lit[some]
    )


def _to_bytes(sigma: np.ndarray) -> np.ndarray:
    light = compress(torch.from_numpy(sigma))
    return (light * STEPS_PER_UNIT).round().to(torch.int8).numpy()


def _quiet_worker() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def examples(settings: TrainSettings, workers: int) -> Iterator[Example]:
    """The training clips in order, whatever the number of processes that make them (0: this)."""
    make = partial(make_example, settings.seed, settings.data)
    if workers == 0:
        yield from map(make, range(settings.clips))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_quiet_worker) as pool:
        ahead = [pool.submit(make, n) for n in range(min(settings.clips, AHEAD * workers))]
        try:
            for n in range(settings.clips):
                yield ahead.pop(0).result()
                if (following := n + AHEAD * workers) < settings.clips:
                    ahead.append(pool.submit(make, following))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def draw_crop(
    example: Example, settings: TrainSettings, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A random crop: light and stars (frames + 1, crop, crop), label (frames, crop, crop).

    Where it reaches beyond the picture it is dark and UNSURE. Turned and mirrored at random.
    """
    frames, crop = settings.model.frames, settings.crop
    count, height, width = example.light.shape
    at = rng.integers(0, [count, height, width])
    if len(example.lit) and rng.random() < settings.lit_share:
        at = example.lit[rng.integers(len(example.lit))]
        at = at + np.array([0, *rng.integers(-crop // 3, crop // 3 + 1, 2)])
    t = int(np.clip(at[0] - rng.integers(0, frames), 0, max(0, count - frames)))
    y, x = int(at[1]) - crop // 2, int(at[2]) - crop // 2
    y = int(np.clip(y, min(0, height - crop), max(0, height - crop)))
    x = int(np.clip(x, min(0, width - crop), max(0, width - crop)))
    light = np.zeros((frames + 1, crop, crop), np.int8)
    label = np.full((frames, crop, crop), UNSURE, np.uint8)
    rows, columns = slice(max(0, y), min(height, y + crop)), slice(max(0, x), min(width, x + crop))
    to = (
        slice(rows.start - y, rows.stop - y),
        slice(columns.start - x, columns.stop - x),
    )
    seen = min(frames, count)
    light[:seen, *to] = example.light[t : t + seen, rows, columns]
    light[frames, *to] = example.stars[rows, columns]
    label[:seen, *to] = example.label[t : t + seen, rows, columns]
    if rng.random() < 0.5:
        light, label = light.swapaxes(1, 2), label.swapaxes(1, 2)
    flips = tuple(axis for axis in (1, 2) if rng.random() < 0.5)
    return np.flip(light, flips), np.flip(label, flips)


def loss_of(logits: Tensor, label: Tensor, positive_weight: float) -> Tensor:
    """Cross entropy per 100 cells plus soft Dice loss, both without UNSURE cells.

    logits, label: (B, frames, h, w). Dice: Milletari et al. 2016, arXiv 1606.04797.
    """
    sure = (label != UNSURE).float()
    lit = (label == LIGHT).float()
    weight = sure * (1.0 + (positive_weight - 1.0) * lit)
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, lit, weight, reduction="sum")
    chance = torch.sigmoid(logits) * sure
    dice = 1.0 - (2.0 * (chance * lit).sum() + 1.0) / (chance.sum() + lit.sum() + 1.0)
    return 100.0 * entropy / sure.sum().clamp(min=1.0) + dice


def rate_at(step: int, settings: TrainSettings) -> float:
    """Learning rate of a step: a linear rise, then half a cosine down to 1 %."""
    rise = min(1.0, (step + 1) / max(1, min(settings.warmup, settings.steps // 4)))
    fall = 0.5 * (1.0 + cos(pi * step / settings.steps))
    return settings.learning_rate * rise * max(0.01, fall)


def train(
    settings: TrainSettings | None = None,
    *,
    device: str = "cpu",
    out: Path,
    workers: int = 1,
    report: Callable[[int, int, float], None] | None = None,
) -> dict[str, object]:
    """Train the U-Net; writes ``unet.safetensors`` and ``unet.json`` (its card) into ``out``.

    The same settings give the same weights on the same machine, whatever ``workers``, the number
    of processes that simulate (0: none beside this one). ``report(step, steps, loss)`` is called
    after each step. Returns the card: settings, figures on held-out clips, losses.
    """
    settings = settings or TrainSettings()
    begin = time.perf_counter()
    torch.manual_seed(settings.seed)
    model = build(settings.model, norm=True).to(device).train()
    mean = {key: value.detach().clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    rng = np.random.default_rng([settings.seed, 0, 1])
    pool: list[Example] = []
    source = examples(settings, workers)
    losses = []
    for step in range(settings.steps):
        grow = 1.1 * (step + 1) / settings.steps  # all are there when nine tenths are done
        wanted = min(settings.clips, settings.first_clips + ceil(grow * settings.clips))
        pool += islice(source, wanted - len(pool))
        light, label = draw_batch(pool, settings, rng)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, settings)
        loss = loss_of(model(light.to(device)), label.to(device), settings.positive_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        _average(mean, model, min(settings.average, (step + 1) / (step + 10)))
        losses.append(float(loss.detach()))
        if report is not None:
            report(step + 1, settings.steps, losses[-1])
    source.close()  # type: ignore[attr-defined]
    model.load_state_dict(mean)
    plain = fold(model).cpu()
    figures = validate(plain, settings) if settings.validation else {}
    card = make_card(settings, losses, figures, time.perf_counter() - begin)
    write(plain, card, out)
    return card


def draw_batch(
    pool: list[Example], settings: TrainSettings, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Light (B, frames + 1, crop, crop), channels last, and label (B, frames, crop, crop)."""
    drawn = [draw_crop(pool[rng.integers(len(pool))], settings, rng) for _ in range(settings.batch)]
    light = torch.from_numpy(np.stack([light for light, _ in drawn])).float() / STEPS_PER_UNIT
    label = torch.from_numpy(np.stack([label for _, label in drawn]))
    return light.contiguous(memory_format=torch.channels_last), label


@torch.no_grad()
def _average(mean: dict[str, Tensor], model: UNet, keep: float) -> None:
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            mean[key].lerp_(value, 1.0 - keep)
        else:
            mean[key].copy_(value)


def validate(
    model: UNet, settings: TrainSettings, *, threshold: float = THRESHOLD, stride: int = STRIDE
) -> dict[str, float]:
    """Figures on ``settings.validation`` held-out clips, counted frame by frame.

    ``recall``: part of the lit patches (light of movers that touches, in one frame) met by a
    detection; ``recall_bright``: of those with a cell of 6 sigma; ``precision``: part of the
    detections on light or UNSURE cells; ``false_per_1000_frames``: number of the others, in all
    clips and in those without compression, with it, and without any mover.
    """
    clips = []
    for n in range(settings.validation):
        clip = make_clip(settings.seed, HELD_OUT + n, settings.data)
        chance = motion_map(clip.window, model, stride=stride)
        clips.append(count_blobs(clip, detections(clip.window, chance, threshold)))
    table = pd.DataFrame(clips)

    def false_rate(part: pd.DataFrame) -> float:
        return 1000.0 * float(part.wrong.sum()) / max(1.0, float(part.frames.sum()))

    total = table.sum()
    return {
        "recall": float(total.hit / max(total.lit, 1)),
        "recall_bright": float(total.hit_bright / max(total.lit_bright, 1)),
        "precision": float(1 - total.wrong / max(total.made, 1)),
        "false_per_1000_frames": false_rate(table),
        "false_per_1000_frames_lossless": false_rate(table[~table.codec]),
        "false_per_1000_frames_h264": false_rate(table[table.codec]),
        "false_per_1000_frames_empty": false_rate(table[table.lit == 0]),
    }


def count_blobs(clip: Clip, found: pd.DataFrame) -> dict[str, float]:
    """How many lit patches there are and were met, how many detections were made and wrong."""
    cell = clip.window.cell
    x = ((found.x - (cell - 1) / 2) / cell).round().astype(int).clip(0, clip.label.shape[2] - 1)
    y = ((found.y - (cell - 1) / 2) / cell).round().astype(int).clip(0, clip.label.shape[1] - 1)
    t = found.frame.to_numpy()
    around = np.ones((3, 3), np.uint8)
    near = np.stack([cv2.dilate((frame != DARK).astype(np.uint8), around) for frame in clip.label])
    good = near[t, y, x] > 0
    hit = lit = hit_bright = lit_bright = 0
    for frame, label in enumerate(clip.label):
        number, patches = cv2.connectedComponents((label == LIGHT).astype(np.uint8))
        if number == 1:
            continue
        bright = np.zeros(number)
        np.maximum.at(bright, patches, clip.window.cells[frame])
        patches = cv2.dilate(patches.astype(np.uint16), around)  # a centroid may lie beside it
        here = t == frame
        met = np.isin(np.arange(1, number), patches[y[here], x[here]])
        lit, hit = lit + number - 1, hit + int(met.sum())
        lit_bright += int((bright[1:] > 6).sum())
        hit_bright += int((met & (bright[1:] > 6)).sum())
    return {
        "codec": clip.codec,
        "frames": len(clip.label),
        "made": len(found),
        "wrong": int((~good).sum()),
        "lit": lit,
        "hit": hit,
        "lit_bright": lit_bright,
        "hit_bright": hit_bright,
    }


def write(model: UNet, card: dict[str, object], out: Path) -> None:
    """Write the weights and their card into the folder ``out``."""
    # one entry: the order of several is random, and the same weights should be the same file
    shape = {SHAPE: json.dumps(asdict(model.settings))}
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, out / WEIGHTS, metadata=shape)
    (out / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def make_card(
    settings: TrainSettings, losses: list[float], figures: dict[str, float], seconds: float
) -> dict[str, object]:
    """What a reader of the weights wants to know, ready for JSON."""
    tail = losses[-max(1, len(losses) // 20) :]
    return {
        "model": "U-Net (Ronneberger et al. 2015, arXiv 1505.04597) over 8 frames and a template",
        "command": f"warte sky train --out DIR --steps {settings.steps} --seed {settings.seed}",
        "data": "simulated recordings alone: warte.sky.simulate.random_scene, half of them "
        "through H.264; no real recording",
        "figures": {key: round(value, 4) for key, value in figures.items()},
        "threshold": THRESHOLD,
        "stride": STRIDE,
        "loss_first": round(losses[0], 4),
        "loss_last": round(float(np.mean(tail)), 4),
        "seconds": round(seconds),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "warte": __version__,
        "settings": asdict(settings),
    }
