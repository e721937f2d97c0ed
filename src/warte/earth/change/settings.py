"""How changes are looked for, and what was found in short."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from warte.core.errors import SettingsError

Method = Literal["steps", "season", "radar"]
METHODS: tuple[Method, ...] = ("steps", "season", "radar")


@dataclass(frozen=True)
class ChangeSettings:
    """How changes are looked for; a setting out of range raises SettingsError."""

    method: Method | None = None  # None: radar bands "radar", dense series "season", else "steps"
    false_alarm: float = 0.001  # share of the unchanged pixels that may be marked by chance
    min_pixels: int = 9  # patches smaller than this are not kept (pixels)
    bands: tuple[str, ...] = ()  # names of the bands, in the files' order; (): those of the files
    normalise: bool = True  # bring the dates to one radiometry by the ground that did not change
    max_shift: float = 3.0  # dates that lie further beside each other are refused (pixels)
    breaks: int = 3  # most changes that are looked for in one pixel of a series
    harmonics: int = 2  # waves of a year that make the season of a dense series
    confirm: int = 3  # observations that must follow and precede a change of a dense series

    def __post_init__(self) -> None:
        if self.method is not None and self.method not in METHODS:
            raise SettingsError(f"--method is {self.method}; allowed: {', '.join(METHODS)}")
        if not 0 < self.false_alarm <= 0.2:
            raise SettingsError(
                f"--false-alarm is {self.false_alarm}; give a share above 0 and up to 0.2"
            )
        for flag, value, low, high in (
            ("--min-pixels", self.min_pixels, 1, 200),
            ("--breaks", self.breaks, 1, 10),
            ("--harmonics", self.harmonics, 1, 4),
            ("--confirm", self.confirm, 1, 20),
        ):
            if not low <= value <= high:
                raise SettingsError(f"{flag} is {value}; give a number from {low} to {high}")
        if not (math.isfinite(self.max_shift) and 0 <= self.max_shift <= 8):
            raise SettingsError(f"--max-shift is {self.max_shift}; give 0 to 8 pixels")
        if len(set(self.bands)) < len(self.bands):
            raise SettingsError(f"--bands names one band twice: {','.join(self.bands)}")


@dataclass(frozen=True)
class Changed:
    """What was found, in short, for run.json.

    method: see ChangeSettings. dates: of the scenes, ISO, in order. bands: that were used.
    pixels, hectares: of each kind that occurs; hectares are NaN without a CRS. share: of the
    valid pixels that are marked. threshold: the score from which a pixel is marked. shifts: rows
    and columns by which each scene lay beside the first clear one (pixels). correlations: the
    canonical correlations of the unchanged ground of each scene with the first, smallest first.
    notes: what the user should know.
    """

    method: Method
    dates: tuple[str, ...]
    bands: tuple[str, ...]
    pixels: Mapping[str, int]
    hectares: Mapping[str, float]
    share: float
    threshold: float
    shifts: tuple[tuple[float, float], ...]
    correlations: tuple[tuple[float, ...], ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)
