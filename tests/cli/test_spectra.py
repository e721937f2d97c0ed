"""`warte spectra` from end to end, on simulated spectra and a server on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table

from tests.spectra.skyserver import ERROR_PAGE, Answer, Site, csv_answer, serve
from warte.cli import main
from warte.spectra.fit import FIT_COLUMNS, LINE_COLUMNS
from warte.spectra.lines import CLASSES

COUNT = 16


@pytest.fixture(scope="module")
def galaxies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Spectra with their truth, as the program itself writes them."""
    folder = tmp_path_factory.mktemp("spectra") / "fake"
    words = ["simulate", "--preset", "doubles", "--count", str(COUNT), "--seed", "3"]
    assert main(["spectra", *words, "--out", str(folder), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def results(galaxies: Path) -> Path:
    """A run of classify and fit into one folder."""
    out = galaxies.parent / "run"
    common = ["--out", str(out), "--device", "cpu", "--quiet"]
    assert main(["spectra", "classify", str(galaxies), *common]) == 0
    listed = str(out / "classes.csv")
    assert main(["spectra", "fit", str(galaxies), "--candidates", listed, *common]) == 0
    return out


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve() as running:
        yield running


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    line = captured.err.splitlines()[-1]
    assert line.startswith("error: ")
    return line


def test_classes_have_a_probability_each(results: Path) -> None:
    table = pd.read_csv(results / "classes.csv", keep_default_na=False)
    assert len(table) == COUNT and (table["reason"] == "").all()
    shares = table[[f"p_{name}" for name in CLASSES]].to_numpy(float)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    assert (table["class"] == np.array(CLASSES)[shares.argmax(1)]).all()
    assert (table["class"] == "Seyfert").mean() > 0.7


def test_fits_are_added_to_the_classes(results: Path) -> None:
    names = sorted(path.name for path in results.iterdir())
    assert names == [
        "classes.csv", "fits.csv", "lines.csv", "lines.fits", "report.html", "run.json"
    ]  # fmt: skip
    facts = json.loads((results / "run.json").read_text())
    assert facts["earlier"][0]["spectra"] == COUNT
    fits, lines = pd.read_csv(results / "fits.csv"), pd.read_csv(results / "lines.csv")
    assert tuple(fits.columns) == FIT_COLUMNS and tuple(lines.columns) == LINE_COLUMNS
    assert set(lines["file"]) <= set(fits["file"])
    same = Table.read(results / "lines.fits")
    assert len(same) == len(lines) and str(same["velocity_km_s"].unit) == "km / s"
    np.testing.assert_allclose(same["flux"], lines["flux"])
    page = (results / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "Seyfert" in page and "<svg" in page


def test_found_agrees_with_the_truth(
    results: Path, galaxies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["spectra", "evaluate", str(results), str(galaxies), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    rates = {row["rate"]: row for row in scores["two_components"]}
    assert rates["recall"]["value"] > 0.8 and rates["false_positives"]["hits"] <= 1
    assert scores["auc_two_components"] > 0.9 and scores["failed"] == 0
    assert main(["spectra", "evaluate", str(results), str(galaxies)]) == 0
    assert "Two components" in capsys.readouterr().out


def test_a_bad_file_is_named_and_the_others_go_on(
    galaxies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("sim-0000000.fits", "sim-0000001.fits"):
        (folder / name).write_bytes((galaxies / name).read_bytes())
    (folder / "cut.fits").write_bytes((galaxies / "sim-0000002.fits").read_bytes()[:30_000])
    (folder / "far.txt").write_text("# z = 9\n" + "".join(f"{4000 + n} 1 0.1\n" for n in range(99)))
    for verb, table in (("classify", "classes.csv"), ("fit", "fits.csv")):
        out = tmp_path / verb
        assert main(["spectra", verb, str(folder), "--out", str(out), "--quiet"]) == 0
        rows = pd.read_csv(out / table, keep_default_na=False).set_index("file")
        assert (rows.loc[["cut.fits", "far.txt"], "reason"] != "").all()
        assert (rows.loc[["sim-0000000.fits", "sim-0000001.fits"], "reason"] == "").all()
        assert "warning: cut.fits: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "words"),
    [("classify", "a.txt: no pixel"), ("fit", "a.txt: no window"), ("explore", "give spectra")],
)
def test_a_run_in_which_all_fail_writes_nothing(
    verb: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("# z = 9\n" + "".join(f"{4000 + n} 1 0.1\n" for n in range(99)))
    arguments = [str(tmp_path / "a.txt"), "--out", str(tmp_path / "out"), "--quiet"]
    assert main(["spectra", verb, *arguments]) == 2
    assert words in _error(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_classes_of_other_spectra_and_other_tables_are_refused(
    results: Path, galaxies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["spectra", "fit", str(galaxies), "--out", str(tmp_path / "out"), "--quiet"]
    table = pd.read_csv(results / "classes.csv")
    table.assign(file="other.fits").to_csv(tmp_path / "classes.csv", index=False)
    assert main([*words, "--candidates", str(tmp_path / "classes.csv")]) == 2
    assert "is a candidate in" in _error(capsys)
    assert main([*words, "--candidates", str(galaxies / "truth.csv")]) == 2
    assert "p_two_components" in _error(capsys)
    assert main([*words, "--least-p", "0.5"]) == 2
    assert "--candidates" in _error(capsys)
    assert main([*words[:-1], "--false-positives", "0.5"]) == 2
    assert "0.001 to 0.1" in _error(capsys)


def test_explore_lists_every_spectrum(galaxies: Path, tmp_path: Path) -> None:
    out = tmp_path / "map"
    words = ["--components", "3", "--oddest", "2", "--embed", "pca", "--out", str(out), "--quiet"]
    assert main(["spectra", "explore", str(galaxies), *words]) == 0
    assert len(pd.read_csv(out / "map.csv")) == COUNT
    assert (out / "report.html").stat().st_size > 10_000


def test_the_same_seed_makes_the_same_galaxies(galaxies: Path, tmp_path: Path) -> None:
    words = ["simulate", "--preset", "doubles", "--count", str(COUNT), "--seed", "3", "--quiet"]
    assert main(["spectra", *words, "--out", str(tmp_path / "again")]) == 0
    for name in ("truth.csv", "truth_lines.csv", "sim-0000000.fits"):
        assert (tmp_path / "again" / name).read_bytes() == (galaxies / name).read_bytes()
    settings = ["--snr", "70.5", "--out", str(tmp_path / "never"), "--quiet"]
    assert main(["spectra", "simulate", *settings]) == 2


def test_list_and_download(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.sql = csv_answer("plate,mjd,fiberid,z", "266,51602,1,0.02", "266,51602,2,0.06")
    site.add(266, 51602, 1)
    listed, out = tmp_path / "list.csv", tmp_path / "spectra"
    ask = ["spectra", "list", "SELECT plate, mjd, fiberid, z FROM SpecObj", "--out", str(listed)]
    assert main([*ask, "--skyserver", site.url]) == 0
    assert pd.read_csv(listed)["fiberid"].tolist() == [1, 2]
    capsys.readouterr()
    assert main([*ask, "--skyserver", site.url]) == 2
    assert "--force" in _error(capsys)

    fetch = ["spectra", "download", str(listed), "--out", str(out), "--sas", site.url, "--quiet"]
    fetch += ["--cache", str(tmp_path / "cache"), "--rate", "1000"]
    assert main(fetch) == 0
    captured = capsys.readouterr()
    assert "warning: spec-0266-51602-0002.fits: " in captured.err and "fetched" in captured.out
    table = pd.read_csv(out / "download.csv").set_index("file")
    assert table["status"].to_dict() == {
        "spec-0266-51602-0001.fits": "fetched",
        "spec-0266-51602-0002.fits": "failed",
    }
    assert main([*fetch, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["here already"] == 1


def test_a_server_that_answers_rubbish_is_quoted(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.sql = Answer(body=ERROR_PAGE)
    ask = ["spectra", "list", "SELECT platte", "--out", str(tmp_path / "list.csv")]
    assert main([*ask, "--skyserver", site.url]) == 2
    assert "Invalid column name 'platte'" in _error(capsys)
    assert list(tmp_path.iterdir()) == []


def test_training_writes_weights_that_are_used(
    galaxies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "weights"
    words = ["train", "--only", "network", "--quick", "--spectra", "512", "--seed", "4", "--quiet"]
    assert main(["spectra", *words, "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == {
        "classifier.json", "classifier.safetensors", "run.json"
    }  # fmt: skip
    run = ["--weights", str(out), "--out", str(tmp_path / "run"), "--quiet"]
    assert main(["spectra", "classify", str(galaxies), *run]) == 0
