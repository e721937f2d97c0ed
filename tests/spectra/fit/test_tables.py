"""Tables: errors by finite differences, doublets, bounds, hidden lines, the FITS table."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from astropy import units
from astropy.io import fits as astropy_fits
from astropy.table import Table
from numpy.polynomial import legendre

from warte.core.errors import OutputError
from warte.spectra.fit import tables
from warte.spectra.fit.fitted import Fitted
from warte.spectra.fit.layout import layout_for
from warte.spectra.fit.solve import Lines
from warte.spectra.fit.tables import LINE_COLUMNS, continuum_terms, line_rows, write_lines_fits
from warte.spectra.lines import NII_RATIO, OIII_RATIO, WAVELENGTH

LAYOUT = layout_for((True, True), 2, broad=True, order=2)
NONLINEAR = [-100.0, 80.0, 150.0, 90.0, -20.0, 1500.0]
FLUXES = [10.0, 50.0, 30.0, 20.0, 6.0, 5.0]
CONTINUUM = [4.0, 0.5, -0.2, 3.0, 0.3, 0.1]  # blue window, red window
LINEAR = [*FLUXES, *(0.4 * f for f in FLUXES), 25.0, 90.0, 1.5, *CONTINUUM]


@pytest.fixture(autouse=True)
def errors_by_the_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pixels here are not those of the fits; errors of pairs have their own tests."""

    def plain(found: Fitted, lines: Lines, scale: np.ndarray, **_: object) -> np.ndarray:
        return found.errors * scale[:, None]

    monkeypatch.setattr(tables, "pair_errors", plain)


def found(fixed: tuple[int, ...] = (), count: int = 1) -> Fitted:
    """Fits with a full random covariance; `fixed` parameters have none."""
    rng = np.random.default_rng(3)
    size = LAYOUT.parameters
    root = rng.normal(size=(size, size)) * 0.1
    covariance = root @ root.T
    held = np.zeros(size, dtype=bool)
    held[list(fixed)] = True
    covariance[held] = 0.0
    covariance[:, held] = 0.0
    linear = np.array(LINEAR)
    for at in fixed:
        if at >= LAYOUT.nonlinear:
            linear[at - LAYOUT.nonlinear] = 0.0
    return Fitted(
        LAYOUT,
        np.tile(NONLINEAR, (count, 1)),
        np.tile(linear, (count, 1)),
        np.tile(covariance, (count, 1, 1)),
        np.full(count, 500.0),
        np.full(count, 500.0),
        np.full(count, True),
        np.tile(held, (count, 1)),
    )


def pixels(count: int = 1) -> Lines:
    wavelength = np.concatenate(
        [10 ** np.arange(np.log10(low), np.log10(high), 1e-4) for low, high in LAYOUT.windows]
    )
    grid = torch.from_numpy(wavelength).expand(count, -1)
    width = torch.full((count, len(LAYOUT.lines)), 65.0, dtype=torch.float64)
    return Lines(grid, torch.zeros_like(grid), torch.full_like(grid, 4.0), width)


def rows(fit: Fitted, **changes: np.ndarray) -> pd.DataFrame:
    count = len(fit.chi2)
    covered = changes.get("covered", np.ones((count, len(LAYOUT.lines))))
    return line_rows(fit, pixels(count), covered, changes.get("scale", np.ones(count)))


def one(table: pd.DataFrame, line: str, component: str) -> pd.Series:
    return table[(table["line"] == line) & (table["component"] == component)].iloc[0]


def test_every_line_of_every_component_has_a_row() -> None:
    table = rows(found(count=3))
    assert list(table.columns) == ["row", *LINE_COLUMNS[1:]]
    assert table["row"].tolist() == sorted(table["row"])
    each = table[table["row"] == 1]
    assert each["component"].value_counts().to_dict() == {"1": 8, "2": 8, "broad": 2}
    assert set(each[each["component"] == "broad"]["line"]) == {"H-beta", "H-alpha"}


def test_fluxes_of_doublets_are_tied_and_errors_with_them() -> None:
    table = rows(found())
    for strong, weak, ratio in (
        ("[O III] 5007", "[O III] 4959", OIII_RATIO),
        ("[N II] 6583", "[N II] 6548", NII_RATIO),
    ):
        first, second = one(table, strong, "2"), one(table, weak, "2")
        assert first["flux"] / second["flux"] == pytest.approx(ratio)
        assert first["flux_err"] / second["flux_err"] == pytest.approx(ratio)
    assert one(table, "[O III] 5007", "2")["flux"] == pytest.approx(20.0)
    assert one(table, "H-alpha", "broad")["flux"] == pytest.approx(90.0)
    assert one(table, "H-alpha", "broad")["sigma_km_s"] == 1500.0
    assert one(table, "H-alpha", "2")["velocity_km_s"] == 150.0


def test_errors_are_roots_of_the_variances_times_the_scale() -> None:
    fit = found()
    table, wider = rows(fit), rows(fit, scale=np.array([1.5]))
    at = LAYOUT.nonlinear + 1
    assert one(table, "[O III] 5007", "1")["flux_err"] == pytest.approx(fit.errors[0, at])
    assert one(table, "[O III] 5007", "2")["velocity_err_km_s"] == pytest.approx(fit.errors[0, 2])
    assert one(table, "H-alpha", "broad")["sigma_err_km_s"] == pytest.approx(fit.errors[0, 5])
    columns = [name for name in LINE_COLUMNS if "_err" in name]
    np.testing.assert_allclose(wider[columns], 1.5 * table[columns])


@pytest.mark.parametrize(("line", "window"), [("[O III] 4959", 0), ("[N II] 6548", 1)])
def test_equivalent_width_and_its_error_follow_by_differences(line: str, window: int) -> None:
    fit = found()
    group, ratio = (1, 1 / OIII_RATIO) if window == 0 else (3, 1 / NII_RATIO)
    low, high = LAYOUT.windows[window]
    x = 2 * (WAVELENGTH[line] - low) / (high - low) - 1
    start = LAYOUT.parameters - 6 + 3 * window

    def width(parameters: np.ndarray) -> float:
        level = legendre.legval(x, parameters[start : start + 3])
        return ratio * parameters[LAYOUT.nonlinear + 6 + group] / level  # component 2

    base = fit.parameters[0]
    steps = 1e-5 * np.eye(base.size)
    slope = np.array([(width(base + step) - width(base - step)) / 2e-5 for step in steps])
    row = one(rows(fit), line, "2")
    assert row["ew_angstrom"] == pytest.approx(width(base))
    expected = np.sqrt(slope @ fit.covariance[0] @ slope)
    assert row["ew_err_angstrom"] == pytest.approx(expected, rel=1e-6)


def test_continuum_terms_agree_with_the_fitted_polynomials() -> None:
    from warte.spectra.fit.profile import polynomials

    place, terms = continuum_terms(LAYOUT, "H-alpha")
    at = torch.tensor([[WAVELENGTH["H-alpha"]]], dtype=torch.float64)
    own = polynomials(LAYOUT, at)[0, :, 0].numpy()
    first = LAYOUT.nonlinear + LAYOUT.fluxes + 1
    assert place == slice(first + 3, first + 6)
    np.testing.assert_allclose(own, [0, 0, 0, *terms], atol=1e-12)


def test_a_flux_of_zero_has_the_error_that_it_would_have_alone() -> None:
    at = LAYOUT.nonlinear + 6  # H-beta of component 2
    row = one(rows(found((at,))), "H-beta", "2")
    assert row["flux"] == 0
    # White noise 0.5 per pixel d wide: error^2 = noise^2 2 sqrt(pi) width / d.
    centre = WAVELENGTH["H-beta"] * (1 + 150.0 / 299792.458)
    pixel = centre * 1e-4 * np.log(10)
    width = WAVELENGTH["H-beta"] * np.hypot(90.0, 65.0) / 299792.458
    expected = 0.5 * np.sqrt(2 * np.sqrt(np.pi) * width * pixel)
    assert row["flux_err"] == pytest.approx(expected, rel=1e-3)
    assert row["ew_err_angstrom"] == pytest.approx(row["flux_err"] / 4, rel=0.2)


def test_what_lies_on_a_bound_or_was_not_seen_has_no_error_or_no_flux() -> None:
    covered = np.ones((1, len(LAYOUT.lines)))
    covered[0, LAYOUT.lines.index("H-beta")] = 0.2
    table = rows(found((3,)), covered=covered)
    held = table[table["component"] == "2"]
    assert (held["sigma_km_s"] == 90.0).all()
    assert held["sigma_err_km_s"].isna().all()
    hidden = table[table["line"] == "H-beta"]
    assert hidden[["flux", "flux_err", "ew_angstrom", "ew_err_angstrom"]].isna().all(axis=None)
    assert hidden["velocity_km_s"].notna().all()
    assert table[table["line"] != "H-beta"]["flux"].notna().all()


def test_no_equivalent_width_over_a_continuum_that_is_not_positive() -> None:
    fit = found()
    fit.linear[0, -6:-3] = (-1.0, 0.0, 0.0)
    table = rows(fit)
    assert np.isnan(one(table, "H-beta", "1")["ew_angstrom"])
    assert np.isfinite(one(table, "H-alpha", "1")["ew_angstrom"])


@pytest.mark.parametrize("unit", ["1e-17 erg/s/cm2/Angstrom", "counts of mine"])
def test_lines_fits_has_units_and_reads_back(tmp_path: Path, unit: str) -> None:
    table = rows(found((3,))).rename(columns={"row": "file"}).assign(file="a.fits")
    path = tmp_path / "lines.fits"
    write_lines_fits(path, table, unit)
    with astropy_fits.open(path) as file:
        assert file[1].name == "LINES"
        assert file[1].header["FLUXUNIT"] == unit
    back = Table.read(path)
    assert tuple(back.colnames) == LINE_COLUMNS
    np.testing.assert_array_equal(np.ma.filled(back["flux"], np.nan), table["flux"])
    assert np.isnan(np.ma.filled(back["sigma_err_km_s"], np.nan)).any()
    assert list(back["line"]) == list(table["line"])
    assert set(back["component"]) == {"1", "2", "broad"}
    assert back["velocity_km_s"].unit == units.km / units.s
    if unit.startswith("1e-17"):
        assert back["flux"].unit.is_equivalent("erg / (s cm2)")
        assert (1 * back["flux"].unit).to_value("erg / (s cm2)") == pytest.approx(1e-17)
    with pytest.raises(OutputError, match="cannot be written"):
        write_lines_fits(path, table, unit)
