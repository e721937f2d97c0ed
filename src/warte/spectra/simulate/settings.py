"""Settings of simulated galaxy spectra."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from warte.core.errors import SettingsError
from warte.spectra.lines import CLASSES

Range = tuple[float, float]


@dataclass(frozen=True)
class SimulateSettings:
    """Which galaxies are drawn, and how well they are observed."""

    count: int = 100
    """Number of spectra that `simulate` makes."""
    class_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    """Relative frequency of each of `lines.CLASSES`, in that order."""
    z: Range = (0.005, 0.35)
    """Redshifts, uniform; within 0 to 0.4."""
    snr: Range = (3.0, 60.0)
    """Median signal to noise of the continuum per pixel, log-uniform; below 70."""
    two_fraction: float = 0.5
    """Share of the spectra with lines (all but the passive) that get two narrow components."""
    separation_km_s: Range = (50.0, 800.0)
    """Distance of the two components in velocity, uniform, km/s."""
    sigma_km_s: Range = (40.0, 600.0)
    """Intrinsic width of narrow components, km/s; single ones stay in the narrower part."""
    flux_ratio: Range = (0.05, 1.0)
    """[O III] 5007 flux of the weaker component over the stronger one's, uniform."""
    wing_fraction: float = 0.4
    """Share of the pairs that are a narrow core with a broad wing; the others are two cores."""
    redshift_error_km_s: float = 25.0
    """Scatter of lines and of stars around the stated redshift, km/s."""
    noise: float = 1.0
    """Factor on the noise that is added; 0 leaves the spectrum clean and its ivar as it was."""
    sky_residual: Range = (1.0, 5.0)
    """Residuals at strong sky lines beyond the stated noise, in units of it."""
    correlation: float = 0.0
    """Correlation of the noise of neighbouring pixels, 0 to 0.45; about 0.2 in SDSS spectra."""
    ivar_error: float = 0.1
    """Stated over true inverse variance lies within 1 +- this."""
    missing: Range = (0.0, 0.05)
    """Share of the pixels lost in runs, uniform, 0 to 0.9."""
    bad_pixels: float = 0.001
    """Share of the pixels lost one by one, 0 to 0.9."""
    cosmics: float = 0.2
    """Mean number of left-over cosmic rays per spectrum."""
    ragged_ends: int = 40
    """Up to this many pixels are missing at each end."""

    def __post_init__(self) -> None:
        self._check_numbers()
        for name, low, high in (
            ("z", 0.0, 0.4),
            ("snr", 0.1, 70.0),
            ("separation_km_s", 0.0, 3000.0),
            ("sigma_km_s", 10.0, 1000.0),
            ("flux_ratio", 1e-3, 1.0),
            ("sky_residual", 0.0, 100.0),
            ("missing", 0.0, 0.9),
        ):
            first, last = getattr(self, name)
            if not low <= first <= last <= high:
                raise SettingsError(
                    f"{name} is ({first}, {last}); allowed is a rising pair within {low} to {high}"
                )

    def _check_numbers(self) -> None:
        weights = np.asarray(self.class_weights, dtype=np.float64)
        if weights.shape != (len(CLASSES),) or (weights < 0).any() or not weights.sum() > 0:
            raise SettingsError(
                f"class_weights is {self.class_weights}; allowed are {len(CLASSES)} numbers of 0 "
                f"or more, not all 0, for {', '.join(CLASSES)}"
            )
        if self.count < 0:
            raise SettingsError(f"count is {self.count}; allowed is 0 or more")
        for name, high in (
            ("two_fraction", 1.0),
            ("wing_fraction", 1.0),
            ("bad_pixels", 0.9),
            ("ivar_error", 0.9),
            ("noise", np.inf),
            ("correlation", 0.45),
            ("cosmics", 1000.0),
            ("redshift_error_km_s", 300.0),
            ("ragged_ends", 1000),
        ):
            value = getattr(self, name)
            if not 0 <= value <= high:
                raise SettingsError(f"{name} is {value}; allowed is 0 to {high}")
