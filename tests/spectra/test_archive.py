"""Lists of spectra and their download, against a server on this machine."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table

from tests.spectra.skyserver import (
    ERROR_PAGE,
    LEGACY,
    TOO_MANY,
    Answer,
    Site,
    csv_answer,
    serve,
    spectrum_file,
)
from warte.core.errors import InputError, MissingExtraError, OutputError, SettingsError
from warte.spectra.archive import (
    DOWNLOAD_COLUMNS,
    DownloadSettings,
    default_cache,
    download,
    file_name,
    list_spectra,
    read_list,
)
from warte.spectra.archive import download as download_function
from warte.spectra.archive.address import address, reductions
from warte.spectra.archive.fetch import CHUNK, Pace, StoppedError, fault_of, part_of

KEYS = ["plate", "mjd", "fiberid"]
SQL = "SELECT TOP 3 plate, mjd, fiberid, z FROM SpecObj"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def site() -> Iterator[Site]:
    with serve() as running:
        yield running


def _settings(site: Site, **changes: Any) -> DownloadSettings:
    quick: dict[str, Any] = {"rate_per_s": 1000.0, "pause_s": 0.01, "timeout_s": 5.0}
    return DownloadSettings(base_url=site.url, **(quick | changes))


def _rows(*fibers: int, plate: int = 266, mjd: int = 51602, **more: Any) -> pd.DataFrame:
    return pd.DataFrame({"plate": plate, "mjd": mjd, "fiberid": list(fibers), **more})


def _get(site: Site, rows: pd.DataFrame, out: Path, **changes: Any) -> pd.DataFrame:
    return download(rows, out, _settings(site, **changes), no_cache=True)


def _closed_port() -> str:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{door.getsockname()[1]}"


def _one_line(problem: pytest.ExceptionInfo[Exception]) -> str:
    text = str(problem.value)
    assert "\n" not in text and len(text) < 500
    return text


# the list by SQL ---------------------------------------------------------------------------------


def test_a_query_becomes_a_table(site: Site) -> None:
    site.sql = csv_answer(
        "Plate,MJD,fiberID,Z,ra,run2d,class,specobjid",
        "266,51602,1,0.0213,146.71,26,GALAXY,299489952322840576",
        "10000,57346,21,-3.1e-05,30.1,v5_13_2,STAR,11259000000000000003",
    )
    found = list_spectra(SQL, base_url=site.url + "/")
    assert list(found.columns) == [*KEYS, "z", "ra", "run2d", "class", "specobjid"]
    assert found[KEYS].dtypes.eq(np.int64).all()
    assert found["plate"].tolist() == [266, 10000]
    assert found["z"].tolist() == [0.0213, -3.1e-05]
    assert found["run2d"].tolist() == ["26", "v5_13_2"]
    assert found["specobjid"].tolist() == [299489952322840576, 11259000000000000003]
    assert site.queries[0].strip() == SQL
    assert site.asked[0][0].startswith("/dr17/")
    list_spectra(SQL, release=16, base_url=site.url)
    assert site.asked[1][0].startswith("/dr16/")


def test_long_integers_beside_empty_cells_are_not_rounded(site: Site) -> None:
    site.sql = csv_answer(
        "plate,mjd,fiberid,bestobjid", "266,51602,1,1237648720693755918", "266,51602,2,"
    )
    found = list_spectra(SQL, base_url=site.url)
    assert found["bestobjid"].tolist() == ["1237648720693755918", ""]


def test_a_list_survives_its_own_csv(site: Site, tmp_path: Path) -> None:
    site.sql = csv_answer(
        "plate,mjd,fiberid,z,run2d,specobjid",
        "266,51602,1,0.02127545,26,299489952322840576",
        "266,51602,2,,103,11259000000000000003",
    )
    found = list_spectra(SQL, base_url=site.url)
    assert found["z"].dtype == np.float64 and np.isnan(found["z"][1])
    found.to_csv(tmp_path / "list.csv", index=False)
    again = read_list(tmp_path / "list.csv")
    pd.testing.assert_frame_equal(again, found)


def test_spectra_selected_twice_are_listed_once(site: Site) -> None:
    site.sql = csv_answer("plate,mjd,fiberid", "266,51602,1", "266,51602,2", "266,51602,1")
    found = list_spectra(SQL, base_url=site.url)
    assert found["fiberid"].tolist() == [1, 2]
    assert found.attrs["notes"] == ["1 rows that name a spectrum again were dropped"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (csv_answer("plate,mjd,fiberid"), "found no spectrum"),
        (Answer(body=b"No objects have been found\n"), "found no spectrum"),
        (csv_answer("plate,mjd", "266,51602"), "no column fiberid (found: plate, mjd)"),
        (Answer(body=ERROR_PAGE), "Invalid column name 'platte'."),
        (Answer(400, ERROR_PAGE), "Invalid column name 'platte'."),
        (Answer(body=TOO_MANY), "Maximum 60 queries allowed per minute"),
        (Answer(400, b'{"Error Code":"BadRequest","ErrorMessage":"near FROM"}'), "near FROM"),
        (Answer(503), "HTTP 503"),
        (Answer(), "is empty"),
        (Answer(body=b"\x00\x01\xfe rubbish \x07\n\x99"), "SkyServer's answer"),
        (csv_answer("plate,mjd,fiberid", "266,51602,1,2"), "line 3: 4 cells"),
        (csv_answer("plate,mjd,fiberid", "266,51602,null"), "line 3: fiberid is 'null'"),
        (Answer(body=csv_answer("plate,mjd,fiberid", "266,51602,1").body, sent=30), "broke off"),
    ],
)
def test_answers_that_are_no_list(site: Site, answer: Answer, words: str) -> None:
    site.sql = answer
    with pytest.raises(InputError) as problem:
        list_spectra(SQL, base_url=site.url)
    assert words in _one_line(problem)
    assert "<" not in str(problem.value)


def test_a_long_error_page_is_cut_to_its_error(site: Site) -> None:
    page = b"<html><body>" + b"<p>menu</p>" * 500 + b"<p>Error: no table Spek</p></body></html>"
    site.sql = Answer(body=page)
    with pytest.raises(InputError, match="Error: no table Spek;"):
        list_spectra(SQL, base_url=site.url)


def test_skyserver_down_or_silent(site: Site) -> None:
    down = _closed_port()
    with pytest.raises(InputError, match=f"cannot reach {down[7:]}: connection refused; check"):
        list_spectra(SQL, base_url=down)
    site.sql = Answer(delay_s=0.5)
    with pytest.raises(InputError, match=r"no answer within 0\.1 s"):
        list_spectra(SQL, base_url=site.url, timeout_s=0.1)


def test_settings_of_a_query() -> None:
    with pytest.raises(SettingsError, match="the SQL query is empty"):
        list_spectra("  ")
    with pytest.raises(SettingsError, match="--release 7"):
        list_spectra(SQL, release=7)
    with pytest.raises(SettingsError, match="--skyserver localhost"):
        list_spectra(SQL, base_url="localhost")


def test_a_missing_astroquery_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "astroquery.sdss", None)
    with pytest.raises(MissingExtraError, match=r"warte\[spectra\]"):
        list_spectra(SQL)


def test_importing_fetches_nothing_and_needs_no_home() -> None:
    program = (
        "import socket\n"
        "def refuse(*_): raise RuntimeError('a connection')\n"
        "socket.socket.connect = refuse\n"
        "socket.getaddrinfo = refuse\n"
        "import sys, warte.spectra.archive as archive\n"
        "assert 'astroquery' not in sys.modules and 'requests' not in sys.modules\n"
        "archive.address.import_astroquery()\n"
    )
    home = {**os.environ, "HOME": os.devnull, "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": ""}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=home, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


# the list from a file ----------------------------------------------------------------------------


def test_a_list_in_any_spelling(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(
        b"\xef\xbb\xbf#Table1\r\n\r\nname,PLATE,Mjd,fiber,RUN2D\r\n"
        b'"a, b",266,51602.0,1,26.0\r\n\r\nc,10000,57346,21,\r\n'
    )
    found = read_list(path)
    assert list(found.columns) == ["name", *KEYS, "run2d"]
    assert found["mjd"].tolist() == [51602, 57346]
    assert found["run2d"].tolist() == ["26", ""]
    assert found["name"].tolist() == ["a, b", "c"]
    assert found.attrs["notes"] == []


def test_the_usual_spelling_wins(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("Plate,fiber,plate,mjd,fiberID,mjd\nx,y,266,51602,1,z\n")
    found = read_list(path)
    assert found[KEYS].iloc[0].tolist() == [266, 51602, 1]
    assert found[["Plate", "fiber"]].iloc[0].tolist() == ["x", "y"]


def test_the_result_of_a_skyserver_form(tmp_path: Path) -> None:
    # Two rows in the columns of a real answer (DR14), whose long numbers a spreadsheet rounded.
    path = tmp_path / "list.csv"
    path.write_text(
        "objid,ra,dec,u,g,r,i,z,run,rerun,camcol,field,specobjid,redshift,plate,mjd,fiberid,class\n"
        "1.24E+18,183.5,0.089,19.4,17.0,15.9,15.5,15.2,752,301,4,267,3.7E+18,-9E-06,3306,54922,491,STAR\n"
        "1.24E+18,183.6,0.126,19.3,18.1,17.4,17.0,16.8,752,301,4,268,3.2E+17,0.123,287,52023,513,GALAXY\n"
    )
    found = read_list(path)
    assert found["plate"].tolist() == [3306, 287]
    assert found["redshift"].tolist() == [-9e-06, 0.123]
    assert found["class"].tolist() == ["STAR", "GALAXY"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n# nothing\n", "is empty"),
        ("plate,mjd,fiberid\n", "lists no spectrum"),
        ("plate,mjd\n266,51602\n", "has no column fiberid"),
        ("266,51602,1\n", "has no column plate or mjd or fiberid"),
        ("plate,mjd,fiberid\n266,51602,1\n\n266,51602,one\n", "line 4: fiberid is 'one'"),
        ("plate,mjd,fiberid\n266,51602,\n", "line 2: fiberid is ''"),
        ("plate,mjd,fiberid\n266,51602,1.5\n", "line 2: fiberid is '1.5'"),
        ("plate,mjd,fiberid\n-1,51602,1\n", "line 2: plate is '-1'; a whole number from 1"),
        ("plate,mjd,fiberid\n266,51602,1001\n", "line 2: fiberid is '1001'"),
        ("plate,mjd,fiberid\n266,inf,1\n", "line 2: mjd is 'inf'"),
        ("plate,mjd,fiberid\n266,51602\n", "line 2: 2 cells where the header has 3"),
        ("plate,mjd,fiberid,run2d\n266,51602,1,../../x\n", "line 2: run2d is '../../x'"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(InputError) as problem:
        read_list(path)
    assert words in _one_line(problem)
    assert str(path) in str(problem.value)


def test_lists_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_list(tmp_path / "none.csv")
    with pytest.raises(InputError, match="is a directory"):
        read_list(tmp_path)
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match="no text file"):
        read_list(tmp_path / "picture.csv")


# addresses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("release", [12, 15, 16, 17, 18])
@pytest.mark.parametrize("run2d", ["26", "104", "v5_13_2"])
@pytest.mark.parametrize(("plate", "fiberid"), [(266, 1), (10000, 1000)])
def test_addresses_are_those_of_astroquery(
    release: int, run2d: str, plate: int, fiberid: int
) -> None:
    from astroquery.sdss import SDSSClass

    matches = Table({"run2d": [run2d], "plate": [plate], "mjd": [57346], "fiberID": [fiberid]})
    theirs = SDSSClass().get_spectra_async(matches=matches, data_release=release)[0]._target
    full = DownloadSettings(release=release, lite=False)
    base = "https://data.sdss.org/sas"
    assert address(plate, 57346, fiberid, run2d, base, full) == theirs
    lite = address(plate, 57346, fiberid, run2d, base, DownloadSettings(release=release))
    assert lite == theirs.replace("spectra/full", "spectra").replace("spectra", "spectra/lite")


def test_the_reduction_follows_the_plate_and_the_release() -> None:
    assert reductions(266, "", DownloadSettings()) == ("26", "104", "103")
    assert reductions(10000, "", DownloadSettings()) == ("v5_13_2",)
    assert reductions(10000, "", DownloadSettings(release=19)) == ("v5_13_2",)
    assert reductions(4055, "", DownloadSettings(release=12)) == ("v5_7_0", "v5_7_2")
    assert reductions(4055, "", DownloadSettings(run2d=("v9",))) == ("v9",)
    assert reductions(4055, "v5_10_0", DownloadSettings(run2d=("v9",))) == ("v5_10_0",)
    assert file_name(266, 51602, 1) == "spec-0266-51602-0001.fits"
    assert file_name(10000, 57346, 1000) == "spec-10000-57346-1000.fits"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"release": 7}, "--release 7"),
        ({"base_url": "ftp://data.sdss.org"}, "--sas ftp:"),
        ({"run2d": ("../..",)}, "--run2d"),
        ({"workers": 0}, "--workers 0: give 1"),
        ({"retries": -1}, "--retries -1"),
        ({"rate_per_s": 0.0}, "--rate 0.0"),
        ({"timeout_s": float("nan")}, "--timeout nan"),
        ({"pause_s": -1.0}, "--pause -1.0"),
    ],
)
def test_settings_out_of_range(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as problem:
        DownloadSettings(**values)
    assert words in _one_line(problem)


# the download ------------------------------------------------------------------------------------


def test_files_are_fetched_checked_and_listed(site: Site, tmp_path: Path) -> None:
    paths = [site.add(266, 51602, fiber, seed=fiber) for fiber in (3, 1, 2)]
    steps: list[tuple[str, int, int | None]] = []
    out = tmp_path / "a" / "b"
    table = download(
        _rows(3, 1, 2), out, _settings(site), no_cache=True, report=lambda *s: steps.append(s)
    )
    assert tuple(table.columns) == DOWNLOAD_COLUMNS
    assert table["file"].tolist() == [f"spec-0266-51602-000{n}.fits" for n in (3, 1, 2)]
    assert (table["status"] == "fetched").all()
    for path, row in zip(paths, table.itertuples(), strict=True):
        body = site.files[path]
        assert (out / str(row.file)).read_bytes() == body
        assert (row.bytes, row.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert steps == [("downloading", done, 3) for done in (1, 2, 3)]
    again = pd.read_csv(out / "download.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(again, table)
    assert sorted(os.listdir(out)) == sorted([*table["file"], "download.csv"])


def test_a_second_run_asks_only_for_what_is_lacking(site: Site, tmp_path: Path) -> None:
    for fiber in (1, 2, 3):
        site.add(266, 51602, fiber)
    _get(site, _rows(1, 2), tmp_path)
    (tmp_path / "spec-0266-51602-0002.fits").write_bytes(spectrum_file()[:-2880])
    (tmp_path / "mine.txt").write_text("stays")
    site.asked.clear()
    table = _get(site, _rows(1, 2, 3), tmp_path)
    assert table["status"].tolist() == ["here already", "fetched", "fetched"]
    assert sorted(path[-9:-5] for path, _ in site.asked) == ["0002", "0003"]
    assert (tmp_path / "mine.txt").read_text() == "stays"
    assert fault_of(tmp_path / "spec-0266-51602-0002.fits") == ""


@pytest.mark.parametrize(
    ("answers", "asked"),
    [
        ([Answer(500), Answer(502, b"<html>bad gateway</html>")], 3),
        ([Answer(429, headers={"Retry-After": "0"})], 2),
        ([Answer(503, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})], 2),
        ([Answer(200, b"<!DOCTYPE html><title>log in</title>")], 2),
        ([Answer(200, b"")], 2),
        ([Answer(200, spectrum_file()[:2880])], 2),
        ([Answer(200, spectrum_file()[:-2880])], 2),
        ([Answer(200, spectrum_file()[:-100])], 2),
        ([Answer(200, spectrum_file(), sent=7000)], 2),
        ([Answer(200, spectrum_file(), sent=0)], 2),
        ([Answer(200, spectrum_file(columns="flux ivar"))], 2),
        ([Answer(200, spectrum_file(), delay_s=1.2)], 2),
    ],
)
def test_what_may_mend_is_asked_again(
    site: Site, tmp_path: Path, answers: list[Answer], asked: int
) -> None:
    path = site.add(266, 51602, 1, seed=1)
    site.script[path] = answers
    # What a broken attempt left is not joined to the good file here, whose bytes differ.
    site.ranges = False
    table = _get(site, _rows(1), tmp_path, timeout_s=0.6)
    assert table["status"].tolist() == ["fetched"]
    assert (tmp_path / table["file"][0]).read_bytes() == site.files[path]
    assert len(site.asked) == asked
    assert len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_file_is_continued_where_the_server_can(
    site: Site, tmp_path: Path, ranges: bool
) -> None:
    path = site.add(266, 51602, 1)
    site.ranges = ranges
    body = site.files[path]
    site.script[path] = [Answer(200, body, sent=10_000)]
    table = _get(site, _rows(1), tmp_path)
    assert table["sha256"][0] == hashlib.sha256(body).hexdigest()
    assert "Range" not in site.asked[0][1]
    start = int(site.asked[1][1]["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 <= 10_000 - start < CHUNK
    assert len(site.asked) == 2


def test_a_later_run_continues_too(site: Site, tmp_path: Path) -> None:
    path = site.add(266, 51602, 1)
    site.script[path] = [Answer(200, site.files[path], sent=9000), Answer(403)]
    with pytest.raises(InputError, match="HTTP 403"):
        _get(site, _rows(1), tmp_path)
    target = tmp_path / "spec-0266-51602-0001.fits"
    assert not target.exists()
    have = part_of(target, site.url + path).stat().st_size
    assert 0 <= 9000 - have < CHUNK
    assert _get(site, _rows(1), tmp_path)["status"].tolist() == ["fetched"]
    assert site.asked[-1][1]["Range"] == f"bytes={have}-"
    assert target.read_bytes() == site.files[path]
    assert sorted(os.listdir(tmp_path)) == ["download.csv", target.name]


def test_beginnings_that_do_not_fit_are_thrown_away(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "spec-0266-51602-0001.fits"
    path = site.add(266, 51602, 1)
    body = site.files[path]
    wrong_piece = Answer(206, body[100:], {"Content-Range": f"bytes 100-{len(body) - 1}/*"})
    old = spectrum_file(seed=9)[:9000]
    assert old != body[:9000]
    for beginning, answers, changed in (
        (body + b"x", [], False),  # 416
        (old, [], True),  # 412: changed in the archive since; the old part would fit unseen
        (b"y" * 5000, [], False),  # joined, found damaged, fetched anew
        (body[:200], [wrong_piece], False),
    ):
        part_of(target, site.url + path).write_bytes(beginning)
        site.script[path] = answers
        site.changed = changed
        assert _get(site, _rows(1), tmp_path)["status"].tolist() == ["fetched"]
        assert target.read_bytes() == body
        target.unlink()
    part_of(target, site.url + path).write_bytes(body[:200])
    site.script[path] = [wrong_piece]
    site.changed = False
    with pytest.raises(InputError, match="another piece of the file came"):
        _get(site, _rows(1), tmp_path, retries=0)


def test_a_server_may_send_a_file_in_pieces(site: Site, tmp_path: Path) -> None:
    path = site.add(266, 51602, 1)
    body = site.files[path]
    part_of(tmp_path / "spec-0266-51602-0001.fits", site.url + path).write_bytes(body[:200])
    piece = Answer(206, body[200:5000], {"Content-Range": f"bytes 200-4999/{len(body)}"})
    site.script[path] = [piece]
    table = _get(site, _rows(1), tmp_path)
    assert table["sha256"][0] == hashlib.sha256(body).hexdigest()
    assert [headers["Range"] for _, headers in site.asked] == ["bytes=200-", "bytes=5000-"]


def test_a_failed_file_does_not_stop_the_others(site: Site, tmp_path: Path) -> None:
    site.add(266, 51602, 1)
    html, gone = (LEGACY.format(266, 51602, fiber) for fiber in (2, 3))
    site.files[html] = b"<html>maintenance</html>"
    site.files[LEGACY.format(266, 51602, 4)] = spectrum_file()[:-2880]
    rows = pd.concat([_rows(1, 2, 3, 4), _rows(5, run2d="v6_0_4")]).fillna("")
    table = _get(site, rows, tmp_path, retries=2).set_index("file")
    assert table["status"].tolist() == ["fetched", "failed", "failed", "failed", "failed"]
    assert (table["bytes"][1:] == 0).all() and (table["sha256"][1:] == "").all()
    reasons = table["reason"].tolist()
    assert reasons[0] == ""
    assert "no FITS file: it begins with '<html>maintenance</html>'" in reasons[1]
    assert f"has no {gone}, nor has any of 2 other reductions it" in reasons[2]
    assert "cut short" in reasons[3]
    assert "v6_0_4 are not named by plate" in reasons[4]
    asked = [path for path, _ in site.asked]
    assert asked.count(html) == 3
    assert asked.count(gone) == 1
    assert sorted(os.listdir(tmp_path)) == ["download.csv", "spec-0266-51602-0001.fits"]


def test_the_reduction_is_found_by_trying(site: Site, tmp_path: Path) -> None:
    site.add(2500, 54178, 7, LEGACY.replace("/26/", "/104/"))
    site.add(10000, 57346, 7, LEGACY.replace("/26/", "/v5_13_2/"))
    site.add(266, 51602, 7, LEGACY.replace("/26/", "/v1_2/"))
    rows = pd.DataFrame(
        {
            "plate": [2500, 10000, 266],
            "mjd": [54178, 57346, 51602],
            "fiberID": 7,
            "run2d": [np.nan, "", "v1_2"],
        }
    )
    assert (_get(site, rows, tmp_path)["status"] == "fetched").all()
    assert len(site.asked) == 4


def test_when_all_fail_the_reasons_are_kept(site: Site, tmp_path: Path) -> None:
    with pytest.raises(InputError) as problem:
        _get(site, _rows(1, 2), tmp_path)
    assert "no file was fetched: spec-0266-51602-0001.fits: 127.0.0.1" in _one_line(problem)
    table = pd.read_csv(tmp_path / "download.csv")
    assert table["status"].tolist() == ["failed", "failed"]


def test_a_server_that_is_down_is_not_asked_for_ever(tmp_path: Path) -> None:
    settings = DownloadSettings(
        base_url=_closed_port(), retries=1, pause_s=0.0, rate_per_s=200.0, workers=2
    )
    with pytest.raises(InputError, match="connection refused"):
        download(_rows(*range(1, 101)), tmp_path, settings, no_cache=True)
    reasons = pd.read_csv(tmp_path / "download.csv")["reason"]
    tried = reasons.str.contains("connection refused").sum()
    assert 10 <= tried <= 40
    assert (
        reasons.str.startswith("not tried: 10 files before it got no answer").sum() == 100 - tried
    )


def test_missing_files_do_not_count_as_a_server_that_is_down(site: Site, tmp_path: Path) -> None:
    site.add(266, 51602, 100)
    table = _get(site, _rows(*range(60, 101)), tmp_path, run2d=("26",))
    assert table["status"].tolist() == ["failed"] * 40 + ["fetched"]


def test_a_server_that_puts_off_too_long_is_not_waited_for(site: Site, tmp_path: Path) -> None:
    path = site.add(266, 51602, 1)
    site.script[path] = [Answer(429, headers={"Retry-After": "3600"})]
    with pytest.raises(InputError, match=r"HTTP 429 .*; asked to wait 3600 s"):
        _get(site, _rows(1), tmp_path)
    assert len(site.asked) == 1


def test_the_wait_a_server_asks_for_holds_all(site: Site, tmp_path: Path) -> None:
    paths = [site.add(266, 51602, fiber) for fiber in (1, 2)]
    site.script[paths[0]] = [Answer(503, headers={"Retry-After": "2"})]
    # A slow machine has a second to hear the answer before the other file's turn.
    _get(site, _rows(1, 2), tmp_path, workers=2, rate_per_s=1.0)
    put_off = [path for path, _ in site.asked].index(paths[0])  # either file may come first
    gaps = np.diff(site.times)
    assert gaps[put_off] >= 1.8 and len(gaps) == 2


def test_pauses_grow(site: Site, tmp_path: Path) -> None:
    path = site.add(266, 51602, 1)
    site.script[path] = [Answer(500) for _ in range(3)]
    _get(site, _rows(1), tmp_path, pause_s=0.05)
    gaps = np.diff(site.times)
    assert np.all(gaps >= [0.05, 0.1, 0.2])


def test_requests_keep_the_pace(site: Site, tmp_path: Path) -> None:
    for fiber in range(1, 9):
        site.add(266, 51602, fiber)
    _get(site, _rows(*range(1, 9)), tmp_path, workers=4, rate_per_s=20.0)
    # Eight requests are seven intervals of 50 ms, whatever the number of workers.
    assert max(site.times) - min(site.times) > 0.3


def test_the_cache_spares_requests(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys.modules["warte.spectra.archive.download"], "cache_folder", lambda: tmp_path / "user"
    )
    assert default_cache() == tmp_path / "user" / "spectra"
    path = site.add(2500, 54178, 7, LEGACY.replace("/26/", "/104/"))
    rows = _rows(7, plate=2500, mjd=54178)
    download(rows, tmp_path / "a", _settings(site))
    asked = len(site.asked)
    table = download(rows, tmp_path / "b", _settings(site))
    assert table[["status", "reason"]].iloc[0].tolist() == ["fetched", "from the cache"]
    assert len(site.asked) == asked
    name = table["file"][0]
    assert (tmp_path / "b" / name).read_bytes() == site.files[path]
    assert (tmp_path / "a" / name).stat().st_nlink == 3
    assert download(rows, tmp_path / "a", _settings(site))["status"][0] == "here already"
    # A damaged copy is not taken, and is replaced.
    (kept,) = (tmp_path / "user").rglob(name)
    kept.unlink()
    kept.write_bytes(b"rubbish")
    download(rows, tmp_path / "c", _settings(site))
    assert kept.read_bytes() == (tmp_path / "c" / name).read_bytes() == site.files[path]
    # Another release is another file.
    with pytest.raises(InputError, match="has no /dr16/"):
        download(rows, tmp_path / "d", _settings(site, release=16))


def test_the_cache_works_without_links_and_may_be_unwritable(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    path = site.add(266, 51602, 1)
    for out in ("a", "b"):
        table = download(_rows(1), tmp_path / out, _settings(site), cache=tmp_path / "cache")
        assert (tmp_path / out / table["file"][0]).read_bytes() == site.files[path]
    assert table["reason"][0] == "from the cache"
    (tmp_path / "file").write_text("")
    table = download(_rows(1), tmp_path / "c", _settings(site), cache=tmp_path / "file" / "x")
    assert table["status"][0] == "fetched"


@pytest.mark.parametrize("way", ["report", "signal"])
def test_ctrl_c_leaves_what_is_complete(site: Site, tmp_path: Path, way: str) -> None:
    for fiber in range(1, 51):
        site.add(266, 51602, fiber)

    def stop(_: str, done: int, __: int | None) -> None:
        if done == 3:
            if way == "report":
                raise KeyboardInterrupt
            signal.raise_signal(signal.SIGINT)

    settings = _settings(site, rate_per_s=20.0, workers=2)
    with pytest.raises(KeyboardInterrupt):
        download(_rows(*range(1, 51)), tmp_path, settings, no_cache=True, report=stop)
    table = pd.read_csv(tmp_path / "download.csv", keep_default_na=False)
    done = table["status"] == "fetched"
    assert len(table) == 50 and 3 <= done.sum() < 40
    assert (table["reason"][~done] == "not tried: the download was stopped").all()
    here = {path.name for path in tmp_path.glob("spec-*.fits")}
    assert here == set(table["file"][done])
    assert all(fault_of(tmp_path / name) == "" for name in here)
    site.asked.clear()
    again = _get(site, _rows(*range(1, 51)), tmp_path)
    assert (again["status"] == "here already").sum() == done.sum()
    assert len(site.asked) == 50 - done.sum()


def test_folders_that_cannot_be_used(site: Site, tmp_path: Path) -> None:
    site.add(266, 51602, 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*file"):
        _get(site, _rows(1), tmp_path / "file")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "download.csv").write_text("plate,mjd,fiberid\n266,51602,1\n")
    with pytest.raises(OutputError, match=r"download\.csv is not the table of an earlier"):
        _get(site, read_list(mine / "download.csv"), mine)
    assert not site.asked
    blocked = tmp_path / "blocked"
    (blocked / "spec-0266-51602-0001.fits").mkdir(parents=True)
    with pytest.raises(InputError, match="cannot write: is a directory"):
        _get(site, _rows(1), blocked)


def test_a_full_disk_ends_the_download(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fiber in range(1, 21):
        site.add(266, 51602, fiber)
    module = sys.modules["warte.spectra.archive.fetch"]
    write = module._write  # type: ignore[attr-defined]

    def full(answer: Any, part: Path, have: int, line: Any) -> int | None:
        if "0003" in part.name:
            raise OSError(28, "No space left on device")
        return write(answer, part, have, line)

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(OutputError, match=r"the disk of .* is full; what is complete was kept"):
        _get(site, _rows(*range(1, 21)), tmp_path, workers=1, rate_per_s=100.0)
    assert (tmp_path / "spec-0266-51602-0002.fits").exists()
    table = pd.read_csv(tmp_path / "download.csv", keep_default_na=False)
    assert table["status"].tolist()[:3] == ["fetched", "fetched", "failed"]


def test_lists_that_cannot_be_downloaded(site: Site, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the list lists no spectrum"):
        _get(site, _rows(), tmp_path)
    with pytest.raises(InputError, match="has no column fiberid"):
        _get(site, _rows(1).drop(columns="fiberid"), tmp_path)
    with pytest.raises(InputError, match="row 1: fiberid is '0'"):
        _get(site, _rows(1, 0), tmp_path)
    assert download_function is download


# whole files -------------------------------------------------------------------------------------


def test_real_spectra_are_whole(real_file: Any, tmp_path: Path) -> None:
    assert fault_of(real_file("spec-0266-51602-0001.fits")) == ""  # with single exposures
    for name in ("spec-0295-51585-0596.fits", "spec-10000-57346-0021.fits"):
        body = real_file(name).read_bytes()
        path = tmp_path / name
        path.write_bytes(body)
        assert fault_of(path) == ""
        for end in range(2880, len(body), 2880):
            path.write_bytes(body[:end])
            assert fault_of(path), f"cut at {end} of {len(body)}"


def test_damage_is_seen(tmp_path: Path) -> None:
    body = spectrum_file()
    path = tmp_path / "x.fits"
    second = body.index(b"XTENSION")
    for damaged, words in (
        (b"", "an empty file"),
        (b"<html>", "begins with '<html>'"),
        (body[:second], "cut short: 1 of at least 4 parts"),
        (body + b"\0" * 2880, "damaged after 4 parts"),
        (body[:second] + b"\xff" * 2880 + body[second + 2880 :], "damaged after 1 parts"),
        (body.replace(b"NAXIS2  ", b"NAXIZ2  "), "damaged after 1 parts"),
        (spectrum_file(columns="flux loglam"), "no flux, loglam and ivar"),
    ):
        path.write_bytes(damaged)
        assert words in fault_of(path)


def test_the_pace_ends_with_the_download() -> None:
    stop = threading.Event()
    pace = Pace(0.001, stop)
    pace.wait()
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(StoppedError):
        pace.wait()
