"""The diagram of line ratios: published curves, real galaxies, errors against drawn noise."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest

from warte.spectra.bpt import bpt_class, kauffmann_2003, kewley_2001, ratios, schawinski_2007

FOUR = ("H-beta", "[O III] 5007", "H-alpha", "[N II] 6583")


def lines_of(file: str, flux: tuple[float, ...], err: tuple[float, ...], one: object = 1) -> list:
    return [(file, name, one, *pair) for name, *pair in zip(FOUR, flux, err, strict=True)]


def table_of(*rows: list) -> pd.DataFrame:
    every = [row for some in rows for row in some]
    return pd.DataFrame(every, columns=["file", "line", "component", "flux", "flux_err"])


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        # Areas of the SDSS pipeline (SPZLINE) with its own subclass.
        (-0.223, 0.559, "Seyfert"),  # spec-0295-51585-0596, AGN
        (-0.419, 1.000, "Seyfert"),  # Mrk 477, a Seyfert 2
        (-0.6, -0.3, "star-forming"),
        (-0.2, -0.2, "composite"),
        (0.1, 0.3, "LINER"),
        # Where a curve has no value everything lies above it.
        (0.2, -5.0, "composite"),
        (0.6, -5.0, "LINER"),
        (0.47, -5.0, "LINER"),
        (0.05, -50.0, "composite"),
        (0.6, 2.0, "Seyfert"),
        # Left of the crossing at -1.28: on the star-forming side of Kauffmann's curve.
        (-2.0, 0.98, "star-forming"),
        (-2.0, 1.05, "Seyfert"),
        (np.nan, 0.3, ""),
        (-0.2, np.nan, ""),
        (-np.inf, 0.3, "star-forming"),
    ],
)
def test_class_of_a_place(x: float, y: float, expected: str) -> None:
    assert bpt_class(x, y) == expected
    assert bpt_class([x, x], [y, y]).tolist() == [expected] * 2


def test_curves_pass_through_published_places() -> None:
    # Kewley et al. 2006 (MNRAS 372, 961), figure 1: both curves near x = -0.5 and x = 0.
    assert kewley_2001(-0.5) == pytest.approx(0.561, abs=0.001)
    assert kewley_2001(0.0) == pytest.approx(-0.108, abs=0.001)
    assert kauffmann_2003(-0.5) == pytest.approx(0.191, abs=0.001)
    assert np.isnan(kewley_2001([0.47, 0.5, 3.0])).all() and np.isfinite(kewley_2001(0.469))
    assert np.isnan(kauffmann_2003([0.05, 1.0])).all() and kauffmann_2003(0.049) < -500
    crossing = -1.2805  # where both are equal, by hand
    assert kewley_2001(crossing) == pytest.approx(float(kauffmann_2003(crossing)), abs=1e-3)
    assert schawinski_2007([0.0, -1.0]).tolist() == pytest.approx([0.45, -0.6])


def test_classes_lie_one_above_another() -> None:
    """Upwards in the diagram, the order is always the same and no place is without a class."""
    order = {"star-forming": 0, "composite": 1, "LINER": 2, "Seyfert": 3}
    x, y = np.meshgrid(np.linspace(-2.5, 1.5, 401), np.linspace(-3, 2, 501))
    found = bpt_class(x, y)
    rank = np.vectorize(order.__getitem__)(found)
    assert (np.diff(rank, axis=0) >= 0).all()
    assert set(found.ravel()) == set(order)


def test_ratios_and_their_errors() -> None:
    flux, err = (187.14, 677.38, 968.18, 579.22), (5.07, 7.41, 8.88, 7.12)
    (row,) = ratios(table_of(lines_of("a", flux, err))).to_dict("records")
    assert row["log_nii_ha"] == pytest.approx(-0.223, abs=5e-4)
    assert row["log_oiii_hb"] == pytest.approx(0.559, abs=5e-4)
    drawn = np.random.default_rng(0).normal(flux, err, (200_000, 4))
    assert row["log_oiii_hb_err"] == pytest.approx(
        np.log10(drawn[:, 1] / drawn[:, 0]).std(), rel=0.01
    )
    assert row["log_nii_ha_err"] == pytest.approx(
        np.log10(drawn[:, 3] / drawn[:, 2]).std(), rel=0.01
    )
    assert (row["nii_ha_limit"], row["oiii_hb_limit"], row["bpt_class"]) == ("", "", "Seyfert")


def test_components_are_summed_and_broad_ones_left_out() -> None:
    parts = table_of(
        lines_of("b", (60.0, 300.0, 200.0, 100.0), (3.0,) * 4, 1),
        lines_of("b", (40.0, 100.0, 86.0, 43.0), (4.0,) * 4, 2),
        [("b", "H-alpha", "broad", 9000.0, 10.0), ("b", "H-beta", "broad", 3000.0, 10.0)],
        lines_of("a", (1.0, 1.0, 1.0, 1.0), (0.01,) * 4, 1),
    )
    again = pd.read_csv(io.StringIO(parts.to_csv(index=False)))  # components become text
    for table in (parts, again):
        found = ratios(table)
        assert list(found["file"]) == ["b", "a"]
        assert found.loc[0, "log_nii_ha"] == pytest.approx(np.log10(0.5))
        assert found.loc[0, "log_oiii_hb"] == pytest.approx(np.log10(4))
        assert found.loc[0, "log_oiii_hb_err"] == pytest.approx(
            np.hypot(5 / 400, 5 / 100) / np.log(10)
        )
        assert list(found["bpt_class"]) == ["Seyfert", "LINER"]


def test_weak_lines_give_limits() -> None:
    err = (1.0,) * 4
    found = ratios(
        table_of(
            lines_of("nii", (10.0, 20.0, 30.0, 2.0), err),
            lines_of("hb", (-1.0, 20.0, 30.0, 20.0), err),
            lines_of("none", (1.0, 2.0, 3.0, 3.0), err),
            lines_of("gone", (10.0, np.nan, 30.0, 20.0), err),
            lines_of("vague", (10.0, 20.0, 30.0, 20.0), (1.0, 1.0, np.nan, 1.0)),
            [("half", "H-alpha", 1, 30.0, 1.0)],
            lines_of("part", (10.0, 20.0, 30.0, 20.0), err)
            + lines_of("part", (np.nan, 2.0, 3.0, 2.0), err, 2),
        )
    ).set_index("file")
    assert found.loc["nii", "nii_ha_limit"] == "upper"
    assert found.loc["nii", "log_nii_ha"] == pytest.approx(-1.0)  # 3 sigma over 30
    assert np.isnan(found.loc["nii", "log_nii_ha_err"])
    assert found.loc["nii", "log_oiii_hb"] == pytest.approx(np.log10(2))
    assert found.loc["hb", "oiii_hb_limit"] == "lower"
    assert found.loc["hb", "log_oiii_hb"] == pytest.approx(np.log10(20 / 3))
    assert (found["bpt_class"] == "").all()
    for file, ratio in (("none", "nii_ha"), ("gone", "oiii_hb"), ("vague", "nii_ha"),
                        ("half", "nii_ha"), ("half", "oiii_hb"), ("part", "oiii_hb")):  # fmt: skip
        assert np.isnan(found.loc[file, f"log_{ratio}"]), (file, ratio)
        assert found.loc[file, f"{ratio}_limit"] == ""


def test_no_lines() -> None:
    assert ratios(table_of()).empty
    broad = table_of([("a", "H-alpha", "broad", 9.0, 1.0)])
    assert ratios(broad)["bpt_class"].tolist() == [""]
