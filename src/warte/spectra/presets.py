"""Full settings of simulated spectra by name. Each function returns SimulateSettings."""

from __future__ import annotations

from warte.spectra.simulate import SimulateSettings

SDSS_CORRELATION = 0.2  # of the noise of neighbouring pixels, measured in spectra of faint galaxies


def training() -> SimulateSettings:
    """Every class alike, half of the spectra with lines doubled, all that goes wrong."""
    return SimulateSettings(
        count=100_000, correlation=SDSS_CORRELATION, missing=(0.0, 0.15), cosmics=0.3
    )


def survey() -> SimulateSettings:
    """Galaxies as a survey meets them: mostly quiet or star-forming, 2 % with two components."""
    return SimulateSettings(
        count=10_000,
        class_weights=(0.38, 0.10, 0.05, 0.10, 0.02, 0.35),
        z=(0.02, 0.3),
        snr=(5.0, 40.0),
        # Passive galaxies have no components, so this is 2 % of all.
        two_fraction=0.02 / 0.65,
        correlation=SDSS_CORRELATION,
        missing=(0.0, 0.02),
    )


def doubles() -> SimulateSettings:
    """Seyfert galaxies, one half with two components that are far enough apart to be told."""
    return SimulateSettings(
        count=2_000,
        class_weights=(0.0, 0.0, 1.0, 0.0, 0.0, 0.0),
        snr=(10.0, 40.0),
        sigma_km_s=(60.0, 250.0),
        separation_km_s=(200.0, 600.0),
        flux_ratio=(0.3, 1.0),
        wing_fraction=0.0,
    )


def passive() -> SimulateSettings:
    """Galaxies without lines to speak of: nothing is to be found in them."""
    return SimulateSettings(count=1_000, class_weights=(0.0, 0.0, 0.0, 0.0, 0.0, 1.0))


def demo() -> SimulateSettings:
    """Two dozen good spectra of all classes."""
    return SimulateSettings(count=24, z=(0.02, 0.2), snr=(15.0, 40.0), missing=(0.0, 0.02))
