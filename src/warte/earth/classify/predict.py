"""A trained model from its folder, and probabilities of classes for the pixels of a window."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.special import softmax
from torch import nn

from warte.core.data.checksum import sha256_of_file
from warte.core.errors import InputError
from warte.earth.classify.card import CARD, WEIGHTS, Card, read_card
from warte.earth.classify.inputs import Facts, Inputs, channels, normalised, reach
from warte.earth.classify.trees import Trees
from warte.earth.model import ModelSettings, alignment, build, build_patch, receptive_field
from warte.earth.scene import Float32Array, Pixels

PATCH_BATCH = 256  # patches at once


class Model(Protocol):
    """What gives logits; it can be a network or trees."""

    def reach(self) -> int:
        """How far the answer for a pixel looks beyond the channels (pixels)."""
        ...

    def logits(self, pixels: Pixels, inputs: Inputs, facts: Facts) -> Float32Array:
        """(classes, rows, columns) of the pixels of a window, in that window."""
        ...


@dataclass(frozen=True)
class Boosting:
    """Boosted trees on the channels of each pixel."""

    trees: Trees

    def reach(self) -> int:
        """See `Model`."""
        return 0

    def logits(self, pixels: Pixels, inputs: Inputs, facts: Facts) -> Float32Array:
        """See `Model`. What is not valid stays NaN."""
        seen = channels(pixels.values, pixels.window, inputs, facts)
        out = np.full((self.trees.classes, *pixels.valid.shape), np.nan, np.float32)
        out[:, pixels.valid] = self.trees.scores(seen[:, pixels.valid].T).T
        return out


@dataclass(frozen=True)
class UNet:
    """A network that answers for each pixel."""

    settings: ModelSettings
    network: nn.Module

    def reach(self) -> int:
        """See `Model`."""
        return receptive_field(self.settings)

    def logits(self, pixels: Pixels, inputs: Inputs, facts: Facts) -> Float32Array:
        """See `Model`."""
        seen = normalised(channels(pixels.values, pixels.window, inputs, facts), inputs)
        padded, place = aligned(seen, pixels, alignment(self.settings))
        with torch.inference_mode():
            answer = self.network(torch.from_numpy(padded)[None])[0]
        found: Float32Array = answer.numpy()[(slice(None), *place)]
        return found


@dataclass(frozen=True)
class Patches:
    """A network that gives one answer for each patch of a raster of patches over the scene."""

    settings: ModelSettings
    network: nn.Module
    side: int

    def reach(self) -> int:
        """See `Model`. A patch is seen whole where its pixel is."""
        return self.side

    def logits(self, pixels: Pixels, inputs: Inputs, facts: Facts) -> Float32Array:
        """See `Model`."""
        side = self.side
        seen = normalised(channels(pixels.values, pixels.window, inputs, facts), inputs)
        # The part of a patch beyond the edge is missing, as training sees it too.
        padded, place = aligned(seen, pixels, side, repeat=False)
        bands, rows, columns = padded.shape
        parts = padded.reshape(bands, rows // side, side, columns // side, side)
        parts = parts.transpose(1, 3, 0, 2, 4).reshape(-1, bands, side, side)
        with torch.inference_mode():
            answers = [
                self.network(
                    torch.from_numpy(np.ascontiguousarray(parts[start : start + PATCH_BATCH]))
                )
                for start in range(0, len(parts), PATCH_BATCH)
            ]
        grid = torch.cat(answers).numpy().reshape(rows // side, columns // side, -1)
        found: Float32Array = grid.transpose(2, 0, 1).repeat(side, 1).repeat(side, 2)
        return found[(slice(None), *place)]


def aligned(
    seen: Float32Array, pixels: Pixels, multiple: int, *, repeat: bool = True
) -> tuple[Float32Array, tuple[slice, slice]]:
    """Channels made longer so that they begin and end at multiples of the scene's raster.

    Added at the upper left are copies of the edge, or zeros (where `repeat` is False), which only
    the margin of a window sees. Returns them and where the window lies in them.
    """
    top, left = pixels.window.row % multiple, pixels.window.column % multiple
    rows, columns = seen.shape[1:]
    bottom, right = -(top + rows) % multiple, -(left + columns) % multiple
    width = ((0, 0), (top, bottom), (left, right))
    padded = np.pad(seen, width, mode="edge") if repeat else np.pad(seen, width)
    return padded, (slice(top, top + rows), slice(left, left + columns))


@dataclass(frozen=True)
class Predictor:
    """A model and its card."""

    card: Card
    model: Model

    def reach(self, facts: Facts) -> int:
        """How far the answer for a pixel looks (pixels), for a scene."""
        return self.model.reach() + reach(self.card.inputs, facts)

    def probabilities(self, pixels: Pixels, facts: Facts) -> Float32Array:
        """Calibrated probabilities (classes, rows, columns), NaN where not valid."""
        logits = self.model.logits(pixels, self.card.inputs, facts)
        out = calibrated(logits, self.card.temperature, self.card.offsets)
        out[:, ~pixels.valid] = np.nan
        return out


def calibrated(
    logits: npt.NDArray[np.floating], temperature: float, offsets: tuple[float, ...]
) -> Float32Array:
    """softmax(logits / temperature + offsets) over the first axis."""
    shift = np.asarray(offsets).reshape(-1, *[1] * (logits.ndim - 1))
    out: Float32Array = softmax(logits.astype(np.float64) / temperature + shift, axis=0)
    return out.astype(np.float32)


def digest(folder: Path) -> str:
    """A checksum of the files of a model."""
    return " ".join(sha256_of_file(folder / name) for name in (CARD, WEIGHTS))


@lru_cache(maxsize=2)
def _loaded(folder: str, stamp: int) -> Predictor:
    return _load(Path(folder))


def load(folder: Path) -> Predictor:
    """The model of a folder; it is kept, so that the windows of a scene read it once.

    Raises:
        InputError: there is no model, or it is damaged.
    """
    try:
        stamp = (folder / WEIGHTS).stat().st_mtime_ns
    except OSError as problem:
        raise InputError(
            f"{folder} holds no model: there is no {WEIGHTS}; give the folder that "
            "`warte earth train` made"
        ) from problem
    return _loaded(str(folder), stamp)


def _load(folder: Path) -> Predictor:
    card = read_card(folder)
    path = folder / WEIGHTS
    try:
        arrays = load_file(path)
        if card.method == "boosting":
            return Predictor(card, Boosting(Trees(**arrays)))
        return Predictor(card, network_of(card, arrays))
    except (SafetensorError, OSError, TypeError, KeyError, RuntimeError, ValueError) as problem:
        raise InputError(f"{path} is damaged or does not fit its card; train again") from problem


def network_of(card: Card, arrays: dict[str, npt.NDArray[np.generic]]) -> Model:
    """The network of a card with its weights.

    Raises RuntimeError where the weights do not fit.
    """
    shape = {key: value for key, value in card.network.items() if key != "side"}
    settings = ModelSettings(**shape)
    network = build(settings) if card.method == "unet" else build_patch(settings)
    network.load_state_dict({key: torch.from_numpy(value) for key, value in arrays.items()})
    network.eval()
    if card.method == "unet":
        return UNet(settings, network)
    return Patches(settings, network, card.network["side"])


def save(folder: Path, card: Card, arrays: dict[str, npt.NDArray[np.generic]]) -> None:
    """Write a model into a folder: its arrays and its card."""
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(whole, folder / WEIGHTS)
    card.write(folder)
