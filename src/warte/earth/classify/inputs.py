"""From the bands of a scene to what a model sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from warte.core.data.tiles import Window
from warte.core.errors import InputError
from warte.earth.classify import around, clouds
from warte.earth.scene import Float32Array, Pixels, Scene

LOOKS = 9  # windows of a scene that are looked at before it is classified (windows)
LOOK = 512  # side of such a window (pixels)

Kind = Literal["bands", "surroundings", "clouds"]


@dataclass(frozen=True)
class Inputs:
    """What a model sees of a scene.

    kind: "bands" alone; "surroundings": with means and spreads of boxes; "clouds": how pixels
    differ from the ground around them and what lies towards the sun (see `clouds`). bands: by
    name. radii: of the boxes (pixels). centre, scale: of each channel, for networks; empty where
    channels are used as they are.
    """

    kind: Kind
    bands: tuple[str, ...]
    radii: tuple[int, ...] = ()
    centre: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What was found about a whole scene before its windows are classified.

    shadow: rows and columns from clouds to their shadows (pixels), None if not known. limits: for
    each band its median.
    """

    shadow: tuple[int, int] | None
    medians: tuple[float, ...]


def survey(scene: Scene, inputs: Inputs) -> Facts:
    """Look at some windows of a scene, which are the same whatever the tiles.

    Raises:
        InputError: no pixel there is valid.
    """
    parts = [
        scene.read(window, inputs.bands) for window in looks(scene.grid.rows, scene.grid.columns)
    ]
    parts = [part for part in parts if part.valid.any()]
    if not parts:
        raise InputError(f"{scene.name} has no valid pixel where it was looked at; nothing to do")
    values = np.concatenate([part.values[:, part.valid] for part in parts], axis=1)
    medians = tuple(float(value) for value in np.median(values, axis=1))
    return Facts(direction(parts) if inputs.kind == "clouds" else None, medians)


def direction(parts: list[Pixels]) -> tuple[int, int] | None:
    """Where the shadows of the clouds lie in some windows of a scene."""
    return clouds.shadow_direction([(part.values, part.window) for part in parts])


def looks(rows: int, columns: int) -> list[Window]:
    """Up to 3 x 3 windows, evenly over a picture; one for a small picture."""

    def starts(length: int) -> list[int]:
        if length <= LOOK:
            return [0]
        number = min(round(LOOKS**0.5), -(-length // LOOK))
        return [round(step * (length - LOOK) / (number - 1)) for step in range(number)]

    return [
        Window(row, column, min(LOOK, rows), min(LOOK, columns))
        for row in starts(rows)
        for column in starts(columns)
    ]


def reach(inputs: Inputs, facts: Facts) -> int:
    """How far the channels of a pixel look (pixels)."""
    if inputs.kind == "clouds":
        return clouds.reach(facts.shadow)
    return max(inputs.radii, default=0)


def channels(values: Float32Array, window: Window, inputs: Inputs, facts: Facts) -> Float32Array:
    """What the model sees, (channels, rows, columns) float32, NaN where not known.

    values: (bands, rows, columns), NaN where not valid. window: where they lie in the scene.
    """
    if inputs.kind == "bands":
        return values
    if inputs.kind == "surroundings":
        return around.features(values, inputs.radii)
    return np.stack(list(clouds.channels(values, window, facts.shadow).values()))


def normalised(channels: Float32Array, inputs: Inputs) -> Float32Array:
    """Channels for a network: centred, scaled, 0 where not known, and a mask of what is known.

    Returns (channels + 1, rows, columns); the last is 1 where the pixel is valid, else 0.
    """
    centre = np.asarray(inputs.centre, np.float32)[:, None, None]
    scale = np.asarray(inputs.scale, np.float32)[:, None, None]
    valid = np.asarray(np.isfinite(channels).any(axis=0))
    out = np.nan_to_num((channels - centre) / scale, nan=0.0)
    return np.concatenate([out, valid[None].astype(np.float32)]).astype(np.float32)
