"""Trained networks: logits for the pixels of a window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from warte.earth.classify.card import Card
from warte.earth.classify.inputs import Facts, Inputs, channels, normalised
from warte.earth.classify.predict import Model
from warte.earth.model import ModelSettings, alignment, build, build_patch, receptive_field
from warte.earth.scene import Float32Array, Pixels

PATCH_BATCH = 256  # patches at once


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
