"""A trained model from its folder, and probabilities of classes for the pixels of a window."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.special import softmax

from warte.core.data.checksum import sha256_of_file
from warte.core.errors import InputError
from warte.earth.classify.card import CARD, WEIGHTS, Card, read_card
from warte.earth.classify.inputs import Facts, Inputs, channels, reach
from warte.earth.classify.trees import Trees
from warte.earth.scene import Float32Array, Pixels


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
        from warte.earth.classify.networks import network_of  # it needs PyTorch

        return Predictor(card, network_of(card, arrays))
    except (SafetensorError, OSError, TypeError, KeyError, RuntimeError, ValueError) as problem:
        raise InputError(f"{path} is damaged or does not fit its card; train again") from problem


def save(folder: Path, card: Card, arrays: dict[str, npt.NDArray[np.generic]]) -> None:
    """Write a model into a folder: its arrays and its card."""
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(whole, folder / WEIGHTS)
    card.write(folder)
