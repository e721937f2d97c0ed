"""TerraSAR-X and TanDEM-X detected products, calibrated to sigma nought in dB.

Airbus, Radiometric Calibration of TerraSAR-X Data (TSXX-ITD-TN-0049): sigma nought =
(k * number^2 - NEBN) * sin(incidence angle), with k the calibration factor and NEBN = k times a
polynomial of the range time. The incidence angle is linear between the corners and the centre.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from warte.core.data.tiles import Window
from warte.core.errors import InputError
from warte.earth.read.files import Band, Facts, FillChoice, Stack, stack
from warte.earth.read.metadata import understood, words, xml_of
from warte.earth.read.names import time_of_iso
from warte.earth.scene import BoolArray, Float32Array, Scene

SENSORS = {"TSX-1": "terrasar-x", "TDX-1": "tandem-x"}


@dataclass(frozen=True)
class Noise:
    """Noise equivalent beta nought over k: a polynomial of (time - reference), seconds.

    Times are those of the first and the last column.
    """

    first: float
    last: float
    reference: float
    coefficients: tuple[float, ...]


@dataclass(frozen=True)
class Layer:
    """A channel: k, the plane (constant, per row, per column) of the angle in degrees, noise."""

    factor: float
    angle: tuple[float, float, float]
    noise: Noise | None


@dataclass(frozen=True)
class Calibrated:
    """A reader of sigma nought in dB from one of amplitudes."""

    amplitudes: Stack
    layers: tuple[Layer, ...]

    def read(self, window: Window, bands: Sequence[int]) -> tuple[Float32Array, BoolArray]:
        """See `warte.earth.scene.Reader`."""
        numbers_, valid = self.amplitudes.read(window, bands)
        row = (window.row + np.arange(window.rows, dtype=np.float64))[:, None]
        column = window.column + np.arange(window.columns, dtype=np.float64)
        for place, band in enumerate(bands):
            layer = self.layers[band]
            power = numbers_[place].astype(np.float64) ** 2
            power -= _noise(layer.noise, column, self.amplitudes.grid.columns)
            level, down, across = layer.angle
            sine = np.sin(np.radians(level + down * row + across * column))
            with np.errstate(divide="ignore", invalid="ignore"):
                numbers_[place] = 10 * np.log10(layer.factor * power * sine)
        valid &= np.isfinite(numbers_).all(axis=0)
        return numbers_, valid


def _noise(noise: Noise | None, column: npt.NDArray[np.float64], columns: int) -> object:
    """Noise over k for each column."""
    if noise is None:
        return 0.0
    time = noise.first + (noise.last - noise.first) * column / max(1, columns - 1)
    return np.polynomial.polynomial.polyval(time - noise.reference, noise.coefficients)


def read_terrasar(
    metadata: Path, *, bands: Sequence[str] | None, fill: FillChoice, denoise: bool
) -> Scene:
    """The scene of a product: sigma nought in dB, on the grid of its images.

    Raises:
        InputError: it is damaged, complex, or lacks a band.
    """
    folder, root = metadata.parent, xml_of(metadata)
    files = understood(metadata, lambda: _files(root, folder))
    layers = understood(metadata, lambda: _layers(root, denoise))
    named = [(name, Band(str(path), nodata=0.0)) for name, _, path in files]
    sensor = SENSORS.get(understood(metadata, lambda: words(root, "mission")), "terrasar-x")
    time = time_of_iso(understood(metadata, lambda: words(root, "timeUTC")))
    notes = (
        []
        if not denoise or all(layer.noise for layer in layers.values())
        else ["noise is not taken off: none is given"]
    )
    facts = Facts(metadata.stem, "sigma0_db", time, sensor, tuple(notes))
    scene = stack(facts, named, chosen=bands, fill=fill)
    amplitudes = scene.reader
    assert isinstance(amplitudes, Stack)
    of_name = {name: layers[number] for name, number, _ in files}
    reader = Calibrated(amplitudes, tuple(of_name[name] for name in scene.bands))
    return Scene(scene.name, scene.grid, scene.bands, reader, scene.quantity, scene.time,
                 scene.sensor, scene.paths, scene.notes)  # fmt: skip


def _files(root: ET.Element, folder: Path) -> list[tuple[str, int, Path]]:
    """Polarisation, layer and image of each channel."""
    found = []
    for image in root.iter("imageData"):
        name = Path(words(image, "filename")).name
        place = folder / "IMAGEDATA" / name
        if not place.is_file():
            raise InputError(f"{folder} lacks IMAGEDATA/{name}; fetch the product again")
        found.append((words(image, "polLayer").lower(), int(image.get("layerIndex", "1")), place))
    if not found:
        raise KeyError("imageData")
    return found


def _layers(root: ET.Element, denoise: bool) -> dict[int, Layer]:
    factors = {
        int(constant.get("layerIndex", "1")): float(words(constant, "calFactor"))
        for constant in root.iter("calibrationConstant")
    }
    if not factors:
        raise KeyError("calibrationConstant")
    noises = {
        int(noise.get("layerIndex", "1")): _noise_of(root, noise) for noise in root.iter("noise")
    }
    angle = _angle(root)
    return {
        number: Layer(factor, angle, noises.get(number) if denoise else None)
        for number, factor in factors.items()
    }


def _angle(root: ET.Element) -> tuple[float, float, float]:
    """The plane through the incidence angles of the corners and the centre, by least squares."""
    scene = next(root.iter("sceneInfo"))
    places = [*scene.iter("sceneCornerCoord"), *scene.iter("sceneCenterCoord")]
    table = np.array([
        [float(words(place, name)) for name in ("refRow", "refColumn", "incidenceAngle")]
        for place in places
    ])  # fmt: skip
    if len(table) < 3:
        raise KeyError("sceneCornerCoord")
    # Rows and columns of the annotation begin at 1.
    plane = np.column_stack([np.ones(len(table)), table[:, 0] - 1, table[:, 1] - 1])
    level, down, across = np.linalg.lstsq(plane, table[:, 2], rcond=None)[0]
    return float(level), float(down), float(across)


def _noise_of(root: ET.Element, noise: ET.Element) -> Noise:
    """The noise estimate in the middle of the scene."""
    estimates = list(noise.iter("noiseEstimate"))
    estimate = estimates[len(estimates) // 2]
    powers = {
        int(part.get("exponent", "0")): float(part.text or "")
        for part in estimate.iter("coefficient")
    }
    coefficients = tuple(powers.get(power, 0.0) for power in range(max(powers) + 1))
    time = next(root.iter("rangeTime"))
    ends = float(words(time, "firstPixel")), float(words(time, "lastPixel"))
    return Noise(*ends, float(words(estimate, "referencePoint")), coefficients)
