"""What was put into simulated spectra."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from warte.core.errors import InputError
from warte.spectra.lines import WAVELENGTH
from warte.spectra.simulate.galaxy import Galaxies, LineList
from warte.spectra.simulate.instrument import (
    PIXELS,
    RESOLUTION_KM_S,
    level_near,
    noise_sigma,
    pixel_of,
)
from warte.spectra.simulate.nebula import LINES, PLACE
from warte.spectra.spectrum import C_KM_S, FloatArray

SPECTRA_FILE = "truth.csv"
LINES_FILE = "truth_lines.csv"


@dataclass(frozen=True)
class Truth:
    """Two tables.

    spectra: one row per spectrum: file, object_id, class, components (narrow ones, 0 to 2), z,
        velocity_1_km_s, sigma_1_km_s, velocity_2_km_s, sigma_2_km_s (NaN where there is none),
        flux_ratio ([O III] 5007, second over first; 0 with one), separation_km_s, snr (median per
        pixel), peak_snr_oiii, peak_snr_ha (peak over noise of the narrow lines together).
    lines: one row per line and component: file, line, component ("1", "2" or "broad"), flux (unit
        of the flux x Angstrom, observed frame), velocity_km_s (relative to z), sigma_km_s
        (intrinsic), ew_angstrom (rest frame, over the median starlight within 2500 km/s; NaN where
        the line lies off the grid).
    """

    spectra: pd.DataFrame
    lines: pd.DataFrame


def joined(truths: Sequence[Truth]) -> Truth:
    """The truths of several calls as one."""
    return Truth(
        pd.concat([truth.spectra for truth in truths], ignore_index=True),
        pd.concat([truth.lines for truth in truths], ignore_index=True),
    )


def write_truth(folder: Path, truth: Truth) -> None:
    """Write the two tables as truth.csv and truth_lines.csv into an existing folder."""
    truth.spectra.to_csv(folder / SPECTRA_FILE, index=False)
    truth.lines.to_csv(folder / LINES_FILE, index=False)


def read_truth(folder: Path) -> Truth:
    """The truth that `write_truth` wrote into a folder.

    Raises:
        InputError: one of the files is missing, or is no such table.
    """
    tables = []
    for name, needed in (
        (SPECTRA_FILE, ("file", "class", "components")),
        (LINES_FILE, ("file", "line", "component", "flux", "velocity_km_s", "sigma_km_s")),
    ):
        try:
            table = pd.read_csv(folder / name, dtype={"file": str, "component": str})
        except (OSError, ValueError) as problem:
            reason = getattr(problem, "strerror", None) or str(problem)
            raise InputError(
                f"cannot read {folder / name}: {reason.lower()}; give a folder of "
                "`warte spectra simulate`"
            ) from problem
        missing = [column for column in needed if column not in table]
        if missing:
            raise InputError(
                f"{folder / name} has no column {missing[0]}; give a folder of "
                "`warte spectra simulate`"
            )
        tables.append(table)
    return Truth(*tables)


def make_truth(
    names: list[str],
    galaxies: Galaxies,
    lines: LineList,
    clean: npt.NDArray[np.float32],
    continuum: npt.NDArray[np.float32],
) -> Truth:
    """The tables of N galaxies whose spectra without noise are `clean` (N, P).

    lines: fluxes in 1e-17 erg/s/cm2. continuum: (N, P) without lines.
    """
    motion = galaxies.motion
    noise = noise_sigma(clean)
    spectra = pd.DataFrame(
        {
            "file": names,
            "object_id": [name.removesuffix(".fits") for name in names],
            "class": galaxies.kind,
            "components": motion.components,
            "z": galaxies.z,
            "velocity_1_km_s": motion.velocity_km_s[:, 0],
            "sigma_1_km_s": motion.sigma_km_s[:, 0],
            "velocity_2_km_s": motion.velocity_km_s[:, 1],
            "sigma_2_km_s": motion.sigma_km_s[:, 1],
            "flux_ratio": motion.ratio,
            "separation_km_s": np.abs(np.diff(motion.velocity_km_s, axis=1)[:, 0]),
            "snr": galaxies.snr,
            "peak_snr_oiii": _peak_snr("[O III] 5007", galaxies, lines, noise),
            "peak_snr_ha": _peak_snr("H-alpha", galaxies, lines, noise),
        }
    )
    seen = np.flatnonzero(lines.line >= 0)
    row = lines.row[seen]
    level = level_near(continuum, row, lines.rest[seen] * (1 + galaxies.z[row]))
    table = pd.DataFrame(
        {
            "file": np.array(names, dtype=object)[row],
            "line": np.array(LINES, dtype=object)[lines.line[seen]],
            "component": np.array(["1", "2", "broad"], dtype=object)[lines.component[seen]],
            "flux": lines.flux[seen],
            "velocity_km_s": lines.velocity_km_s[seen],
            "sigma_km_s": lines.sigma_km_s[seen],
            "ew_angstrom": lines.flux[seen] / level / (1 + galaxies.z[row]),
        }
    )
    return Truth(spectra, table)


def _peak_snr(
    name: str, galaxies: Galaxies, lines: LineList, noise: npt.NDArray[np.float32]
) -> FloatArray:
    """(N,) highest point of a line, narrow components together, over the noise of a pixel there."""
    ours = np.flatnonzero((lines.line == PLACE[name]) & (lines.component < 2))
    count, rest = len(galaxies.z), WAVELENGTH[name]
    pixel = np.clip(pixel_of(rest * (1 + galaxies.z)), 0, PIXELS - 1)
    velocity = np.nan_to_num(lines.velocity_km_s[ours])[:, None]
    width = np.hypot(lines.sigma_km_s[ours], RESOLUTION_KM_S[pixel[lines.row[ours]]])[:, None]
    at = np.arange(-1500.0, 1501.0, 50.0)
    scale = rest * (1 + galaxies.z[lines.row[ours]])[:, None] / C_KM_S  # Angstrom per km/s
    profile = np.exp(-0.5 * ((at - velocity) / width) ** 2) / (np.sqrt(2 * np.pi) * width * scale)
    total = np.zeros((count, len(at)))
    np.add.at(total, lines.row[ours], lines.flux[ours, None] * profile)
    return np.asarray(total.max(axis=1) / noise[np.arange(count), pixel])
