"""What can be chosen about anomalies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from warte.core.errors import SettingsError

Member = Literal["contrast", "local-rx", "rx", "forest", "autoencoder"]
Method = Literal["ensemble", "contrast", "local-rx", "rx", "forest", "autoencoder"]


@dataclass(frozen=True)
class AnomalySettings:
    """How anomalies are found.

    The defaults are one fixed setting for optical, hyperspectral and radar pictures; none of them
    has to be fitted to a scene.
    """

    method: Method = "ensemble"  # one of the methods, or several of them together
    false_alarms: float = 1e-2  # share of background pixels above the threshold of a region's edge
    # Regions that chance makes in a picture without anomalies, at most; in others the share of what
    # is reported.
    false_regions: float = 1e-2
    smallest_px: int = 1  # pixels of the smallest region that is reported
    largest_px: int = 60  # pixels of the largest object that stands out as small (contrast, forest)
    components: int = 16  # principal components that the windowed methods and the forest look at
    inner_px: int = 9  # side of the window around a pixel that is no background (local RX)
    outer_px: int = 25  # side of the window that is its background (local RX)
    trees: int = 100  # of the isolation forest
    epochs: int = 60  # of the autoencoder, over its sample
    seed: int = 0  # of the sample, the forest and the autoencoder

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise SettingsError(
                f"--method is {self.method}; it must be one of {', '.join(get_args(Method))}"
            )
        if not 0 < self.false_alarms < 0.1:
            raise SettingsError(
                f"--false-alarms is {self.false_alarms}; it must lie between 0 and 0.1"
            )
        if not self.false_regions > 0:
            raise SettingsError(f"--false-regions is {self.false_regions}; it must be more than 0")
        self._whole("smallest_px", 1, None)
        self._whole("largest_px", 4, 1000)
        self._whole("components", 1, 30)
        self._whole("inner_px", 1, None)
        self._whole("outer_px", 3, 201)
        self._whole("trees", 1, None)
        self._whole("epochs", 1, None)
        self._whole("seed", 0, None)
        for name in ("inner_px", "outer_px"):
            if getattr(self, name) % 2 == 0:
                raise SettingsError(f"{_flag(name)} is {getattr(self, name)}; it must be odd")
        if self.inner_px >= self.outer_px:
            raise SettingsError(
                f"--inner-px is {self.inner_px}; it must be less than --outer-px {self.outer_px}"
            )

    def _whole(self, name: str, low: int, high: int | None) -> None:
        value = getattr(self, name)
        if value < low or (high is not None and value > high):
            allowed = f"{low} or more" if high is None else f"between {low} and {high}"
            raise SettingsError(f"{_flag(name)} is {value}; it must be {allowed}")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
