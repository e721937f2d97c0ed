"""Bright movers: the U-Net's map of moving light, and the blobs in it."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from warte.core.errors import InputError
from warte.sky.find.prepare import Window
from warte.sky.find.register import apply_motion
from warte.sky.model import UNet, UNetSettings, build, compress

WEIGHTS = "unet.safetensors"
SHAPE = "unet"  # entry of the file's header that holds the UNetSettings
THRESHOLD = 0.8  # probability from which a cell belongs to a blob
STRIDE = 6  # frames from one look of the network to the next; 4 finds no more, 8 loses some

DETECTION_COLUMNS = [
    "frame",
    "x",
    "y",
    "x_sensor",
    "y_sensor",
    "snr",
    "probability",
    "cells",
    "length_px",
    "angle_deg",
    "x0",
    "y0",
    "x1",
    "y1",
]


def load(weights: Path | None = None, device: str | torch.device = "cpu") -> UNet:
    """The trained network, ready to use; ``weights`` None: those of the package.

    Raises InputError where the file is not one that ``warte sky train`` wrote.
    """
    path = Path(str(files("warte.sky") / "weights" / WEIGHTS)) if weights is None else weights
    try:
        with safe_open(path, framework="pt", device="cpu") as stored:
            notes = stored.metadata() or {}
            state = {key: stored.get_tensor(key).float() for key in stored.keys()}  # noqa: SIM118
        model = build(UNetSettings(**json.loads(notes[SHAPE])))
        model.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} does not hold weights of the U-Net ({reason}): give a {WEIGHTS} made by "
            "'warte sky train', or none for those of the package"
        ) from error
    return model.to(device).eval()


def spans(count: int, frames: int, stride: int) -> list[tuple[int, int, int]]:
    """(start, first, stop) of each look at a recording of ``count`` frames.

    A look sees ``frames`` frames from ``start`` on and answers for ``first`` to ``stop`` - 1, its
    middle; the looks at both ends answer for their edge as well.
    """
    last = max(0, count - frames)
    starts = [*range(0, last, stride), last]
    edge = (frames - stride) // 2
    out, done = [], 0
    for start in starts:
        stop = count if start == last else min(count, start + edge + stride)
        out.append((start, done, stop))
        done = stop
    return out


@torch.inference_mode()
def motion_map(
    window: Window, model: UNet, device: str | torch.device = "cpu", *, stride: int = STRIDE
) -> np.ndarray:
    """Probability that a cell holds the light of a mover, (T, h, w) float16, 0 to 1.

    ``stride``: frames from one look of the network to the next, 1 to its number of frames; fewer
    looks cost less, but leave some frames without the ones before or after them.
    """
    frames = model.settings.frames
    if not 1 <= stride <= frames:
        raise ValueError(f"stride is {stride}; allowed is 1 to {frames}")
    out = np.zeros(window.cells.shape, np.float16)
    template = compress(torch.from_numpy(window.stars).to(device))[None]
    for start, first, stop in spans(len(out), frames, stride):
        seen = torch.from_numpy(window.cells[start : start + frames]).to(device)
        light = torch.cat([_fill(compress(seen), frames), template])[None]
        light = light.contiguous(memory_format=torch.channels_last)
        chance = torch.sigmoid(model(light)[0, first - start : stop - start])
        out[first:stop] = chance.to(torch.float16).cpu().numpy()
    return out


def _fill(seen: Tensor, frames: int) -> Tensor:
    """A recording shorter than the network's window, continued by empty frames."""
    missing = frames - len(seen)
    return torch.cat([seen, seen.new_zeros(missing, *seen.shape[1:])]) if missing else seen


def detections(
    window: Window, probability: np.ndarray, threshold: float = THRESHOLD
) -> pd.DataFrame:
    """Blobs of moving light, one row per blob and frame, DETECTION_COLUMNS.

    ``frame`` counts from the recording's start. ``x``, ``y``: centre of light in pixels of the
    reference frame (the stars' grid); ``x_sensor``, ``y_sensor``: in the frame itself. ``snr``:
    the brightest cell in sigma; ``probability``: the highest; ``cells``: their number.
    ``length_px``, ``angle_deg`` (0 to 180, y down) and the ends ``x0`` ... ``y1`` (stars' grid):
    of the line that has the blob's second moments, 0 long for a point.
    """
    t, y, x, blob = _blob_cells(probability, threshold)
    count = int(blob.max()) + 1 if len(blob) else 0
    light = window.cells[t, y, x].astype(np.float64)
    chance = probability[t, y, x].astype(np.float64)
    weight = np.maximum(light, 0.05)
    total = np.bincount(blob, weight, count)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(blob, weight * values, count) / total

    mx, my = mean(x), mean(y)
    dx, dy = x - mx[blob], y - my[blob]
    xx, yy, xy = mean(dx * dx), mean(dy * dy), mean(dx * dy)
    # a line of length L has variance L^2 / 12; the width of a point is in both moments
    length = np.sqrt(12.0 * np.hypot(xx - yy, 2 * xy)) * window.cell
    angle = 0.5 * np.arctan2(2 * xy, xx - yy)
    length[np.bincount(blob, minlength=count) < 3] = 0.0
    frame = np.zeros(count, int)
    frame[blob] = t
    snr, best = np.full(count, -np.inf), np.zeros(count)
    np.maximum.at(snr, blob, light)
    np.maximum.at(best, blob, chance)
    px = window.cell * mx + (window.cell - 1) / 2
    py = window.cell * my + (window.cell - 1) / 2
    half_x, half_y = 0.5 * length * np.cos(angle), 0.5 * length * np.sin(angle)
    sensor = to_sensor(window, frame, px, py)
    columns = [
        frame + window.first, px, py, sensor[:, 0], sensor[:, 1], snr, best,
        np.bincount(blob, minlength=count), length, np.rad2deg(angle) % 180.0,
        px - half_x, py - half_y, px + half_x, py + half_y,
    ]  # fmt: skip
    return pd.DataFrame(dict(zip(DETECTION_COLUMNS, columns, strict=True)))


def to_sensor(window: Window, frame: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Places on the stars' grid (pixels) as they lie in the window's frames (from 0), (n, 2)."""
    height, width = window.noise.shape
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    return apply_motion(window.motions[frame], np.stack([x, y], 1) - centre) + centre


def _blob_cells(
    probability: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Frame, row, column and blob number of every cell over the threshold; corners connect."""
    parts, blobs = [np.zeros((4, 0), np.int64)], 0
    for t, chance in enumerate(probability):
        mask = (chance >= threshold).astype(np.uint8)
        if not mask.any():
            continue
        number, labels = cv2.connectedComponents(mask, connectivity=8)
        y, x = np.nonzero(mask)
        parts.append(np.stack([np.full(len(y), t), y, x, labels[y, x] - 1 + blobs]))
        blobs += number - 1
    t, y, x, blob = np.concatenate(parts, axis=1)
    return t, y, x, blob
