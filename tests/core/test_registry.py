"""Registered files: found where they lie, checked, fetched only when asked."""

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from warte.core.data import registry
from warte.core.data.registry import DataFile
from warte.core.errors import DataError

CONTENTS = b"a picture of the sky"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.path == "/sky.fits"
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(CONTENTS) if known else 0))
        self.end_headers()
        if known:
            self.server.asked.append(self.path)  # type: ignore[attr-defined]
            self.wfile.write(CONTENTS)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as httpd:
        httpd.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join()


@pytest.fixture
def asked(
    server: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Four registered files, an empty cache, no WARTE_DATA; returns what the server was asked."""
    base = f"http://127.0.0.1:{server.server_port}"
    good = hashlib.sha256(CONTENTS).hexdigest()
    files = (
        DataFile("sky.fits", f"{base}/sky.fits", good, "MIT", "the sky", "sky/sky.fits"),
        DataFile("gone.fits", f"{base}/gone.fits", good, "MIT", "no such page", "sky/gone.fits"),
        DataFile("other.fits", f"{base}/sky.fits", "0" * 64, "MIT", "changed", "sky/other.fits"),
        DataFile("cut.mp4", f"{base}/all.mp4", good, "MIT", "cut", "sky/cut.mp4", "cut at frame 9"),
    )
    monkeypatch.setattr(registry, "FILES", files)
    monkeypatch.setattr(registry, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv(registry.DATA_VARIABLE, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return server.asked  # type: ignore[attr-defined, no-any-return]


def _put(folder: Path, contents: bytes = CONTENTS, name: str = "sky.fits") -> Path:
    (folder / "sky").mkdir(parents=True)
    (folder / "sky" / name).write_bytes(contents)
    return folder / "sky" / name


def test_register_is_complete() -> None:
    assert len({file.name for file in registry.FILES}) == len(registry.FILES)
    assert len({file.local for file in registry.FILES}) == len(registry.FILES)
    for file in registry.FILES:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256), file.name
        # A commit in the address, so that the bytes cannot change.
        assert re.fullmatch(r"https://[^ ]+/[0-9a-f]{40}/[^ ]+", file.url), file.name
        assert file.licence and file.description and "\n" not in file.description
        assert not Path(file.local).is_absolute()


@pytest.mark.parametrize("name", [file.name for file in registry.FILES])
def test_real_files_have_their_checksum(name: str, real_file) -> None:
    assert real_file(name).is_file()


def test_data_folder_comes_first(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _put(tmp_path / "data")
    monkeypatch.setenv(registry.DATA_VARIABLE, str(tmp_path / "data"))
    assert registry.get("sky.fits") == path
    assert registry.get("sky.fits", download=True) == path
    assert registry.overview()[0]["where"] == "WARTE_DATA"
    assert asked == []


def test_wrong_checksum_in_the_data_folder(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(tmp_path / "data", b"damaged")
    monkeypatch.setenv(registry.DATA_VARIABLE, str(tmp_path / "data"))
    for download in (False, True):
        with pytest.raises(DataError, match=r"has sha256 .*, not .* as registered; restore it"):
            registry.get("sky.fits", download=download)
    assert asked == []


def test_names_with_a_folder_keep_it(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    base = registry.FILES[0]
    name = "earth/labels/fields.shp"
    monkeypatch.setattr(registry, "FILES", (replace(base, name=name, local=name),))
    path = registry.get(name, download=True)
    assert path == registry.cache_folder() / "earth" / "labels" / "fields.shp"
    assert registry.locate(name) == path
    assert registry.overview()[0]["where"] == "downloaded"


def test_nothing_is_fetched_unless_asked(asked: list[str]) -> None:
    with pytest.raises(DataError, match=r"not on this machine; type: warte data get sky.fits"):
        registry.get("sky.fits")
    assert asked == []
    assert registry.locate("sky.fits") is None
    path = registry.get("sky.fits", download=True)
    assert path.read_bytes() == CONTENTS
    assert registry.get("sky.fits") == registry.locate("sky.fits") == path
    assert registry.get("sky.fits", download=True) == path
    assert asked == ["/sky.fits"]
    assert registry.overview()[0]["where"] == "downloaded"


def test_damaged_download_is_mended(asked: list[str]) -> None:
    path = registry.get("sky.fits", download=True)
    path.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"as registered; type: warte data get sky.fits"):
        registry.get("sky.fits")
    assert registry.get("sky.fits", download=True).read_bytes() == CONTENTS
    assert len(asked) == 2


def test_download_with_another_checksum_is_not_kept(asked: list[str]) -> None:
    with pytest.raises(DataError, match=r"another sha256 than registered; nothing was kept"):
        registry.get("other.fits", download=True)
    assert registry.locate("other.fits") is None


def test_page_that_is_gone(asked: list[str]) -> None:
    with pytest.raises(DataError, match=r"could not download gone.fits from 127.0.0.1 \(HTTPError"):
        registry.get("gone.fits", download=True)


def test_file_that_was_made_from_another(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for download in (False, True):
        with pytest.raises(
            DataError, match=r"cut at frame 9, from http.*set WARTE_DATA to a folder"
        ):
            registry.get("cut.mp4", download=download)
    path = _put(tmp_path / "data", name="cut.mp4")
    monkeypatch.setenv(registry.DATA_VARIABLE, str(tmp_path / "data"))
    assert registry.get("cut.mp4") == path
    assert asked == []


def test_unknown_name(asked: list[str]) -> None:
    with pytest.raises(DataError, match=r"no registered file is called x; `warte data list` shows"):
        registry.get("x")


def test_data_variable_that_names_no_folder(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(registry.DATA_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"WARTE_DATA is .*nowhere, which is not a folder"):
        registry.get("sky.fits")
    with pytest.raises(DataError, match="not a folder"):
        registry.overview()


def test_cache_is_the_users_own() -> None:
    assert registry.cache_folder().name == "warte"
