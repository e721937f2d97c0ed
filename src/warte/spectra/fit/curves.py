"""What a picture of a fit needs: data, model and its parts of one spectrum."""

from __future__ import annotations

from dataclasses import dataclass

from warte.spectra.fit.layout import Window
from warte.spectra.spectrum import FloatArray


@dataclass(frozen=True)
class Curve:
    """The fitted windows of one spectrum, one after the other, in the frame of the galaxy.

    Flux densities are those of the file's pixels times (1 + z), per Angstrom of rest wavelength,
    so that the area under a line is its flux as observed.

    wavelength: (P,) rest wavelength, vacuum Angstrom, rising.
    flux: (P,) data; NaN where the pixel is missing.
    err: (P,) standard error of the data; NaN where the pixel is missing.
    model: (P,) sum of the continuum and of all components.
    components: (name, (P,) lines of that component alone); names "1", "2" and "broad".
    continuum: (P,) polynomial with the stellar absorption.
    windows: (low, high) of each fitted window, rest Angstrom.
    """

    file: str
    wavelength: FloatArray
    flux: FloatArray
    err: FloatArray
    model: FloatArray
    components: tuple[tuple[str, FloatArray], ...]
    continuum: FloatArray
    windows: tuple[Window, ...]
