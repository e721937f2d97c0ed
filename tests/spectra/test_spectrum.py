"""Spectra from arrays: what is missing stays missing, and wavelengths are those of the vacuum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warte.core.errors import InputError
from warte.spectra.lines import BLUE_GROUPS, RED_GROUPS, WAVELENGTH
from warte.spectra.spectrum import Spectrum, make_spectrum, vacuum_from_air

LAM = np.linspace(4000, 5000, 11)


def plain(**changes: object) -> Spectrum:
    arrays: dict[str, object] = {"flux": np.arange(11.0), "ivar": np.ones(11), "z": 0.1}
    arrays.update(changes)
    lam = arrays.pop("lam", LAM)
    return make_spectrum("a.fits", lam, arrays.pop("flux"), arrays.pop("ivar"), **arrays)  # type: ignore[arg-type]


def test_missing_pixels_are_nan_without_weight() -> None:
    flux, ivar = np.arange(11.0), np.ones(11)
    flux[2], ivar[3], ivar[4], ivar[5], flux[6] = np.nan, 0, np.nan, -1, np.inf
    marked = np.zeros(11, bool)
    marked[7] = True
    spectrum = plain(flux=flux, ivar=ivar, missing=marked)
    assert np.flatnonzero(~spectrum.good).tolist() == [2, 3, 4, 5, 6, 7]
    assert np.isnan(spectrum.flux[~spectrum.good]).all()
    assert (spectrum.ivar[~spectrum.good] == 0).all()
    np.testing.assert_allclose(spectrum.rest_wavelength, LAM / 1.1)


def test_descending_wavelengths_are_turned_round() -> None:
    spectrum = plain(lam=LAM[::-1], flux=np.arange(11.0)[::-1])
    np.testing.assert_array_equal(spectrum.wavelength, LAM)
    np.testing.assert_array_equal(spectrum.flux, np.arange(11.0))
    assert spectrum.flags == ("wavelengths sorted",)


def test_doubled_pixels_are_weighted_means() -> None:
    lam = np.array([1.0, 2.0, 2.0, 3.0, 3.0, 4.0]) * 1000
    ivar = np.array([1.0, 1.0, 3.0, 0.0, 2.0, 0.0])
    spectrum = plain(lam=lam, flux=np.array([5.0, 1.0, 2.0, 9.0, 4.0, 7.0]), ivar=ivar)
    np.testing.assert_allclose(spectrum.flux, [5, 1.75, 4, np.nan])
    np.testing.assert_allclose(spectrum.ivar, [1, 4, 2, 0])
    assert spectrum.flags == ("doubled pixels joined",)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ivar": np.zeros(11)}, "no pixel has"),
        ({"flux": np.full(11, np.nan)}, "no pixel has"),
        ({"lam": np.full(11, -1.0)}, "no pixel has"),
        ({"flux": np.ones(10)}, "have 11, 10 and 11 entries"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(changes: dict, words: str) -> None:
    with pytest.raises(InputError, match=words) as problem:
        plain(**changes)
    assert str(problem.value).startswith("a.fits: ") and "\n" not in str(problem.value)


@given(
    st.lists(
        st.tuples(*[st.floats(allow_nan=True, allow_infinity=True, width=32) for _ in range(3)]),
        max_size=12,
    )
)
def test_any_numbers_give_a_sound_spectrum_or_a_refusal(
    rows: list[tuple[float, float, float]],
) -> None:
    lam, flux, ivar = np.array(rows, dtype=float).reshape(-1, 3).T
    try:
        spectrum = make_spectrum("x", lam, flux, ivar, z=0.0)
    except InputError:
        return
    assert spectrum.good.any() and (np.diff(spectrum.wavelength) > 0).all()


def test_unsound_arrays_cannot_be_made_a_spectrum() -> None:
    ones = np.ones(3)
    for lam, flux, ivar in (
        (np.array([1.0, 1.0, 2.0]), ones, ones),
        (np.arange(1.0, 4.0), ones, np.array([1.0, 0.0, 1.0])),
        (np.arange(1.0, 4.0), np.array([1.0, np.nan, 1.0]), ones),
    ):
        with pytest.raises(ValueError, match="x: "):
            Spectrum("x", lam, flux, ivar, ones, 0.0)


def test_air_wavelengths_become_those_of_the_vacuum() -> None:
    """Air wavelengths of the usual tables against the vacuum ones of the SDSS line list."""
    air = [4861.325, 4958.911, 5006.843, 6562.801, 6583.45]
    vacuum = [4862.68, 4960.295, 5008.240, 6564.61, 6585.27]
    np.testing.assert_allclose(vacuum_from_air(air), vacuum, atol=0.02)
    assert vacuum_from_air([1500.0]) == [1500.0]


def test_groups_begin_with_their_own_unit() -> None:
    for group in (*BLUE_GROUPS, *RED_GROUPS):
        assert group.lines[0][1] == 1.0
        assert all(name in WAVELENGTH for name, _ in group.lines)
