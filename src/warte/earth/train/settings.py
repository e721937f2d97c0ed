"""How a model of classes is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from warte.core.errors import SettingsError
from warte.earth.classify.card import Method
from warte.earth.classify.inputs import Kind


@dataclass(frozen=True)
class AugmentSettings:
    """How the pictures that a model learns from are changed, as if another sensor had seen them.

    All numbers are drawn anew for each picture. Those of brightness are in the unit of the bands,
    in which a `span` is the distance between the 1 % and 99 % quantiles of a band.
    """

    gain: float = 0.05  # spread of the logarithm of a factor of all bands (dimensionless)
    band_gain: float = 0.02  # the same, of each band by itself (dimensionless)
    offset: float = 0.01  # spread of what is added to each band (spans)
    haze: float = 0.0  # most that is added, more to shorter wavelengths (spans)
    saturation: float = 0.0  # chance that each band is cut at some level of its upper half
    blur: float = 0.0  # largest spread of a Gaussian that the picture is smoothed with (pixels)
    zoom: float = 1.0  # largest factor by which the picture is made smaller or larger
    noise: float = 0.005  # spread of what is added to each pixel (spans)
    drop: float = 0.0  # chance that a band is missing

    def __post_init__(self) -> None:
        for name in ("gain", "band_gain", "offset", "haze", "blur", "noise"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise SettingsError(f"{name} of the augmentation is {value}; allowed is 0 or more")
        for name in ("saturation", "drop"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingsError(
                    f"{name} of the augmentation is {getattr(self, name)}; allowed is 0 to below 1"
                )
        if not 1 <= self.zoom <= 8:
            raise SettingsError(f"zoom of the augmentation is {self.zoom}; allowed is 1 to 8")


@dataclass(frozen=True)
class TreeSettings:
    """Gradient boosting."""

    rounds: int = 150  # trees for each class (trees)
    learning_rate: float = 0.08  # share of each tree that counts (dimensionless)
    leaves: int = 15  # of a tree, at most 16 (leaves)
    smallest: int = 40  # pixels of a leaf (pixels)
    pixels: int = 120_000  # drawn from all copies of all scenes (pixels)
    copies: int = 1  # of each picture, all but the first augmented (pictures)

    def __post_init__(self) -> None:
        for flag, value, low, high in (
            ("--rounds", self.rounds, 1, 10_000),
            ("--leaves", self.leaves, 2, 16),
            ("--smallest", self.smallest, 1, 10**6),
            ("--pixels", self.pixels, 10, 10**8),
            ("--copies", self.copies, 1, 1000),
        ):
            if not low <= value <= high:
                raise SettingsError(f"{flag} is {value}; allowed is {low} to {high}")
        if not 0 < self.learning_rate <= 1:
            raise SettingsError(f"--learning-rate is {self.learning_rate}; allowed is above 0 to 1")


@dataclass(frozen=True)
class NetworkSettings:
    """A network, for each pixel or for each patch."""

    steps: int = 400  # updates of the weights (steps)
    batch: int = 8  # crops or patches of a step (pictures)
    crop: int = 64  # side of the crops that a U-Net learns from (pixels)
    patch: int = 16  # side of the patches of a patch network (pixels)
    learning_rate: float = 2e-3  # at its highest (dimensionless)
    weight_decay: float = 1e-2  # of AdamW (dimensionless)
    looks: int = 6  # times that the held-out groups are looked at; the best weights are kept
    width: int = 16  # channels at full resolution (channels)
    depth: int = 2  # times that the resolution is halved (levels)
    blocks: int = 1  # of each level (blocks)
    kernel: int = 5  # side of the depthwise convolutions, odd (pixels)

    def __post_init__(self) -> None:
        for flag, value, low, high in (
            ("--steps", self.steps, 1, 10**7),
            ("--batch", self.batch, 1, 65536),
            ("--crop", self.crop, 8, 4096),
            ("--patch", self.patch, 4, 256),
            ("--looks", self.looks, 1, 1000),
        ):
            if not low <= value <= high:
                raise SettingsError(f"{flag} is {value}; allowed is {low} to {high}")


@dataclass(frozen=True)
class TrainSettings:
    """How a model is trained."""

    method: Method = "unet"  # a network for each pixel, one for each patch, or boosting
    inputs: Kind | Literal["auto"] = "auto"  # what it sees; auto: surroundings for boosting
    bands: tuple[str, ...] = ()  # by name; none: those that all scenes have
    radii: tuple[int, ...] = (1, 4)  # of the boxes of the surroundings (pixels)
    chip: int = 256  # side of the parts that scenes are read in (pixels)
    chips: int = 64  # most parts that are read, those with labels only (parts)
    block: int = 64  # side of the squares that are held out together, of rasters (pixels)
    folds: int = 5  # parts that groups are dealt into, one of which is held out (parts)
    cross: int = 60  # up to so many groups every part is held out once (groups)
    balance: float = 0.5  # 0: pixels count alike; 1: classes count alike (dimensionless)
    seed: int = 0  # of what is drawn
    trees: TreeSettings = field(default_factory=TreeSettings)  # of boosting
    network: NetworkSettings = field(default_factory=NetworkSettings)  # of networks
    augment: AugmentSettings = field(default_factory=AugmentSettings)  # of the pictures

    def __post_init__(self) -> None:
        if self.method not in ("unet", "patch", "boosting"):
            raise SettingsError(f"--method is {self.method}; allowed are unet, patch and boosting")
        if self.inputs not in ("auto", "bands", "surroundings", "clouds"):
            raise SettingsError(
                f"--inputs is {self.inputs}; allowed are auto, bands, surroundings and clouds"
            )
        if self.inputs == "clouds" and self.method != "boosting":
            raise SettingsError(
                f"--inputs clouds goes with --method boosting only, not with {self.method}: the "
                "crops of a network are smaller than what the ground around is taken from"
            )
        for flag, value, low, high in (
            ("--chip", self.chip, 32, 4096),
            ("--chips", self.chips, 1, 10**6),
            ("--block", self.block, 1, 10**6),
            ("--folds", self.folds, 2, 100),
            ("--cross", self.cross, 0, 10**9),
            ("--seed", self.seed, 0, 2**31 - 1),
        ):
            if not low <= value <= high:
                raise SettingsError(f"{flag} is {value}; allowed is {low} to {high}")
        if not 0 <= self.balance <= 1:
            raise SettingsError(f"--balance is {self.balance}; allowed is 0 to 1")
        if any(not 1 <= radius <= 64 for radius in self.radii):
            raise SettingsError(f"--radii are {self.radii}; allowed is 1 to 64 for each")


def clouds(seed: int = 0) -> TrainSettings:
    """Clouds, their shadows and what is clear, for optical scenes of any sensor.

    The model learns from one sensor what it is to tell in another, so the pictures are changed a
    lot, and what it sees is relative to the ground around (`warte.earth.classify.clouds`).
    """
    return TrainSettings(
        method="boosting",
        inputs="clouds",
        bands=("blue", "green", "red", "nir", "swir16", "swir22"),
        chip=512,
        balance=1.0,
        seed=seed,
        trees=TreeSettings(smallest=100, pixels=240_000, copies=16),
        augment=AugmentSettings(
            gain=0.15, band_gain=0.05, offset=0.01, haze=0.06, saturation=0.5, blur=1.5, zoom=2.0,
            noise=0.004,
        ),
    )  # fmt: skip
