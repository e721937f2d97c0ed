"""The page of a fit: its words and pictures are right, and it stays small."""

from __future__ import annotations

import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from warte.core.curve import BOTTOM, LEFT, RIGHT, TOP
from warte.spectra.fit import FIT_COLUMNS, LINE_COLUMNS
from warte.spectra.fit.curves import Curve
from warte.spectra.lines import BLUE_WINDOW, CLASSES, RED_WINDOW, WAVELENGTH
from warte.spectra.report import MOST_CARDS, candidates, words, write_report
from warte.spectra.report.diagram import bpt_diagram
from warte.spectra.report.overview import double, failed, overview
from warte.spectra.report.scatter import MOST_NAMED
from warte.spectra.report.window import MOST_PIXELS, window_picture, window_pictures
from warte.spectra.spectrum import C_KM_S

NAMES = ("H-beta", "[O III] 4959", "[O III] 5007", "H-alpha", "[N II] 6548", "[N II] 6583")


@dataclass(frozen=True)
class Lost:
    name: str
    reason: str


def lines_of(file: str, fluxes: dict[str, float], components: tuple = (1,)) -> pd.DataFrame:
    rows = [
        (file, line, one, flux / len(components), 0.05 * abs(flux), 100.0 * at - 50, 4.0,
         120.0, 5.0, flux / 9, 0.2)
        for at, one in enumerate(components)
        for line, flux in fluxes.items()
    ]  # fmt: skip
    columns = [
        "file", "line", "component", "flux", "flux_err", "velocity_km_s", "velocity_err_km_s",
        "sigma_km_s", "sigma_err_km_s", "ew_angstrom", "ew_err_angstrom",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def fluxes(log_nii_ha: float, log_oiii_hb: float) -> dict[str, float]:
    nii, oiii = 286 * 10**log_nii_ha, 100 * 10**log_oiii_hb
    values = (100.0, oiii / 2.98, oiii, 286.0, nii / 3.05, nii)
    return dict(zip(NAMES, values, strict=True))


def fits_of(files: list[str], **columns: object) -> pd.DataFrame:
    given: dict[str, object] = {
        "redshift": 0.1, "components": 1, "chi2_reduced": 1.02, "log_evidence_ratio": -3.0,
        "p_two": 0.02, "flags": "", "reason": "",
    }  # fmt: skip
    return pd.DataFrame({"file": files, **(given | columns)})


def curve_of(file: str, *, gap: tuple[float, float] = (0, 0), seed: int = 0) -> Curve:
    """Two components at -50 and +300 km/s, with white noise."""
    grid = 10 ** np.arange(np.log10(4780), np.log10(6800), 1e-4)
    windows = (BLUE_WINDOW, RED_WINDOW)
    grid = grid[[any(low <= at <= high for low, high in windows) for at in grid]]
    continuum = 10 + (grid - 5000) / 1000
    parts = []
    for name, velocity, strength in (("1", -50.0, 1.0), ("2", 300.0, 0.4)):
        total = np.zeros_like(grid)
        for line, flux in fluxes(-0.1, 0.8).items():
            sigma = WAVELENGTH[line] * 130 / C_KM_S
            away = (grid - WAVELENGTH[line] * (1 + velocity / C_KM_S)) / sigma
            total += strength * flux / sigma / np.sqrt(2 * np.pi) * np.exp(-(away**2) / 2)
        parts.append((name, total))
    model = continuum + sum(total for _, total in parts)
    err = np.sqrt(model) / 3
    flux = model + err * np.random.default_rng(seed).standard_normal(len(grid))
    missing = (grid > gap[0]) & (grid < gap[1])
    flux[missing], err[missing] = np.nan, np.nan
    return Curve(file, grid, flux, err, model, tuple(parts), continuum, windows)


def page_of(folder: Path, **given: object) -> str:
    usual: dict = {"settings": {"engine": "batched"}}
    write_report(folder, **(usual | given))
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def small() -> dict:
    files = ["sf.fits", "pair<&>.fits", "seyfert.fits", "weak.fits", "bad.fits"]
    lines = pd.concat(
        [
            lines_of("sf.fits", fluxes(-0.6, -0.3)),
            lines_of("pair<&>.fits", fluxes(-0.1, 0.8), (1, 2)),
            lines_of("seyfert.fits", fluxes(-0.1, 0.9)),
            lines_of("weak.fits", {"H-beta": 3.0}),
        ]
    )
    fits = fits_of(
        files,
        components=[1, 2, 1, 1, 0],
        log_evidence_ratio=[-3.0, 41.5, -2.0, 0.0, np.nan],
        reason=["", "", "", "", "no redshift: give --z"],
    )
    return {"fits": fits, "lines": lines}


def test_overview_joins_and_sorts(small: dict) -> None:
    classes = pd.DataFrame(
        {"file": ["weak.fits", "new.fits", "sf.fits"], "class": ["passive", "LINER", "Seyfert"]}
        | {f"p_{name}": [0.9 if name == "passive" else 0.02, 0.1, 0.3] for name in CLASSES}
        | {"p_two_components": [0.01, 0.9, 0.2], "reason": ""}
    )
    table = overview(**small, classes=classes, failures=[Lost("cut.fits", "breaks off")])
    assert list(table["file"]) == [
        "pair<&>.fits", "seyfert.fits", "weak.fits", "sf.fits", "new.fits", "bad.fits", "cut.fits",
    ]  # fmt: skip
    # The diagram decides before the network, which decides where lines are weak.
    assert list(table["class"]) == [
        "Seyfert",
        "Seyfert",
        "passive",
        "star-forming",
        "LINER",
        "",
        "",
    ]
    assert list(double(table)) == [True] + 6 * [False]
    assert list(failed(table)) == 5 * [False] + 2 * [True]
    assert table.set_index("file")["reason"].to_dict()["cut.fits"] == "breaks off"
    assert table.loc[2, "p_network"] == 0.9 and table.loc[2, "p_network_two"] == 0.01
    assert candidates(**small) == ["pair<&>.fits", "seyfert.fits"]


def test_page(tmp_path: Path, small: dict) -> None:
    (tmp_path / "fits.csv").write_text("")
    curves = [curve_of("pair<&>.fits", gap=(5005, 5012)), curve_of("seyfert.fits")]
    html = page_of(
        tmp_path, **small, curves=curves, failures=[Lost("cut.fits", "breaks off")],
        warnings=["mind the gap", "mind the gap"], seconds={"fit": 2.0},
    )  # fmt: skip
    for text in (
        "<h1>2 of 4 spectra are Seyferts; 1 has two components</h1>",
        "3 classified by their line ratios; 2 without a result",
        "no redshift: give --z",
        "breaks off",
        "<dd>100.0 ± 5.7 km/s</dd>",  # apart in velocity
        'href="fits.csv"',
        "pair&lt;&amp;&gt;.fits: Seyfert, two components",
        "41.5",
        "-0.100 ± 0.031",  # hypot(0.05, 0.05) / ln 10
    ):
        assert text in html, text
    assert html.count("mind the gap") == 1
    assert "pair<&>" not in html and "nan" not in html.lower().replace("nanometre", "")
    assert 'href="lines.csv"' not in html  # not there
    assert html.count('class="card"') == 2
    links, ids = set(re.findall(r'href="#([^"]+)"', html)), re.findall(r' id="([^"]+)"', html)
    assert links <= set(ids) and {"candidate-1", "candidate-2"} <= links
    assert not re.search(r'(?:src|href)="(?:https?:)?//', html)


def test_page_of_nothing_and_of_classes_alone(tmp_path: Path) -> None:
    none = {
        "fits": pd.DataFrame(columns=list(FIT_COLUMNS)),
        "lines": pd.DataFrame(columns=list(LINE_COLUMNS)),
    }
    page_of(tmp_path, fits=pd.DataFrame(), lines=pd.DataFrame())
    html = page_of(tmp_path, **none, failures=[Lost("a.fits", "no spectrum")])
    assert "No spectrum could be used" in html and "no spectrum" in html
    classes = pd.DataFrame(
        {"file": ["a", "b"], "class": ["Seyfert", ""], "p_Seyfert": [0.8, np.nan]}
        | {"p_two_components": [0.4, np.nan], "reason": ["", "no pixel left"]}
    )
    html = page_of(tmp_path, **none, classes=classes)
    assert "1 of 1 spectra is a Seyfert; 0 have two components" in html
    assert "Seyfert, 80 %" in html and "no pixel left" in html and "nan" not in html


def numbers(path: str) -> list[tuple[float, float]]:
    """Places of a path of M and L."""
    found = re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)
    return [(float(x), float(y)) for x, y in found]


def paths_of(svg: str) -> list[str]:
    return [element.get("d", "") for element in ET.fromstring(svg).iter() if "path" in element.tag]


def test_diagram_puts_points_and_curves_where_they_belong() -> None:
    lines = pd.concat(
        [
            lines_of("mid", fluxes(-0.5, 0.0)),
            lines_of("pair", fluxes(0.2, 0.9), (1, 2)),
            lines_of("far", fluxes(2.0, -3.0)),  # outside the axes
            lines_of("weak", {"H-beta": 3.0}),
        ]
    )
    files = ["mid", "pair", "far", "weak"]
    table = overview(fits_of(files, components=[1, 2, 1, 1]), lines)
    svg = bpt_diagram(table, {"pair": "candidate-1"})
    ET.fromstring(svg)
    circles = {
        title: (float(x), float(y))
        for x, y, title in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"[^>]*><title>(\w+):', svg)
    }
    assert set(circles) == {"mid", "pair", "far"}
    middle = ((LEFT + 640 - RIGHT) / 2, (TOP + 480 - BOTTOM) / 2)
    assert circles["mid"] == pytest.approx(middle, abs=0.06)  # the middle of both axes
    assert circles["far"] == pytest.approx((640 - RIGHT, 480 - BOTTOM), abs=0.06)
    assert re.findall(r'<a href="#([\w-]+)"', svg) == ["candidate-1"]
    assert svg.count('stroke-width="1.5"') == 1  # the ring round the pair
    # Kewley's curve at x = -0.5 is at y = 0.561.
    curve = np.array(numbers(next(one for one in paths_of(svg) if one.count("L") > 100)))
    level = np.interp(middle[0], *curve.T)
    kewley, kauffmann = (middle[1] - y / 3 * (480 - TOP - BOTTOM) for y in (0.561, 0.191))
    assert min(abs(level - kewley), abs(level - kauffmann)) < 0.3


def test_window_shows_data_gaps_and_components() -> None:
    curve = curve_of("a<b>", gap=(5005, 5012))
    svg = window_picture(curve, BLUE_WINDOW)
    upper, lower = (part + "</svg>" for part in svg.split("</svg>")[:2])
    assert "<b>" not in svg and "nan" not in svg
    for part in (upper, lower):
        ET.fromstring(part)
        assert any(path.count("M") == 2 and "V" in path for path in paths_of(part))  # one gap
    inside = (curve.wavelength >= BLUE_WINDOW[0]) & (curve.wavelength <= BLUE_WINDOW[1])
    steps = [
        path for path in paths_of(upper) if path.count("V") == np.isfinite(curve.flux[inside]).sum()
    ]
    assert len(steps) == 1
    assert all(name in upper for name in ("Hβ", "[O III] 4959", "[O III] 5007"))
    assert "component 1" in upper and "component 2" in upper and "Hα" not in upper
    # The model's highest place is on [O III] 5007 of component 1, at -50 km/s.
    model = next(path for path in reversed(paths_of(upper)) if path.count("L") > 200)
    x, y = np.array(numbers(model)).T
    low, high = curve.wavelength[inside][[0, -1]]
    top = low + (x[y.argmin()] - LEFT) / (600 - LEFT - RIGHT) * (high - low)
    assert top == pytest.approx(5008.24 * (1 - 50 / C_KM_S), abs=1.5)
    # Far from lines the components lie on the continuum, which is dashed.
    dashed = next(
        one for one in ET.fromstring(upper).iter() if one.get("stroke-dasharray") == "5 4"
    )
    for element in ET.fromstring(upper).iter():
        if element.get("stroke-width") == "1.4":
            assert numbers(element.get("d", ""))[0] == numbers(dashed.get("d", ""))[0]
    both = window_pictures(curve)
    assert both.count("<svg") == 4 and "Hα" in both


def test_windows_without_data_and_with_very_many_pixels() -> None:
    curve = curve_of("a", gap=(6000, 7000))
    assert window_picture(curve, RED_WINDOW) == ""
    assert window_pictures(curve).count("<svg") == 2
    fine = np.arange(4780, 5100, 0.02)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(fine.size)
    ones = np.ones_like(fine)
    dense = Curve(
        "d", fine, 5 + noise, ones, 5 * ones, (("1", 0 * ones),), 5 * ones, (BLUE_WINDOW,)
    )
    svg = window_picture(dense, BLUE_WINDOW)
    assert len(svg) < 80_000 and "nan" not in svg
    lower = svg.split("</svg>")[1] + "</svg>"
    steps = next(path for path in paths_of(lower) if path.count("V") > 100)
    assert MOST_PIXELS / 2 < steps.count("V") <= MOST_PIXELS
    # Means of pixels over their smaller errors scatter as the pixels did.
    up = np.array([float(y) for y in re.findall(r"V([\d.]+)", steps)])
    height = 115 - TOP - BOTTOM
    assert np.std(up) * 8 / height == pytest.approx(1.0, abs=0.1)
    single = Curve("s", fine[:1], fine[:1], ones[:1], fine[:1], (), fine[:1], (BLUE_WINDOW,))
    assert "nan" not in window_picture(single, BLUE_WINDOW)


def test_page_stays_small_for_many_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    count = 10_000
    files = [f"spec-{at:05d}.fits" for at in range(count)]
    names = ("H-beta", "[O III] 5007", "H-alpha", "[N II] 6583")
    flux = 100 * 10 ** rng.normal([0, 0.3, 0.45, 0.2], 0.3, (count, 4))
    lines = pd.DataFrame(
        {
            "file": np.repeat(files, 4), "line": names * count, "component": 1,
            "flux": flux.ravel(), "flux_err": 1.0, "velocity_km_s": 0.0,
            "velocity_err_km_s": 1.0, "sigma_km_s": 100.0, "sigma_err_km_s": 1.0,
        }
    )  # fmt: skip
    reasons = np.where(np.arange(count) < 700, "no line in range", "")
    curve = curve_of("spec-09999.fits")
    html = page_of(
        tmp_path, fits=fits_of(files, reason=reasons, components=2), lines=lines, curves=[curve]
    )
    assert len(html) < 1_500_000
    assert html.count('class="card"') == MOST_CARDS
    assert html.count("<circle") <= MOST_NAMED + MOST_CARDS
    assert "The first 500 of 700 files" in html and "The first 500 of" in html
    assert f"pictures of the first {MOST_CARDS} of" in html


def test_words() -> None:
    assert words.headline(340, 12, 3) == "12 of 340 spectra are Seyferts; 3 have two components"
    assert words.headline(1, 1, 1) == "1 of 1 spectra is a Seyfert; 1 has two components"
    pairs = [(677.38, 7.41), (968.18, 88.8), (0.0012345, 0.00012), (123456.0, 4321.0), (-50.2, 0.0),
             (np.nan, 1.0), (1.0, np.inf), (9.96, 0.996), (1e-17, 1e-18)]  # fmt: skip
    assert [words.measured(*pair) for pair in pairs] == [
        "677.4 ± 7.4", "968 ± 89", "0.00123 ± 0.00012", "123,500 ± 4,300", "-50.2", "", "1",
        "9.96 ± 1.00", "1e-17 ± 1e-18",
    ]  # fmt: skip
    assert [words.chance(p) for p in (1.0, 0.98, 0.001, np.nan)] == [
        "over 99 %", "98 %", "under 1 %", "",
    ]  # fmt: skip


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_browser_draws_the_page_without_complaint(tmp_path: Path, small: dict) -> None:
    page_of(tmp_path, **small, curves=[curve_of("pair<&>.fits", gap=(5005, 5012))])
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
         "--no-first-run", "--disable-background-networking",
         f"--user-data-dir={tmp_path}/home",
         "--enable-logging=stderr", "--v=0", "--dump-dom", f"file://{tmp_path / 'report.html'}"],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count('class="card"') == 2 and done.stdout.count("<svg") == 5
