"""A server on this machine that answers as SkyServer's SQL page and SDSS's archive do."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from astropy.io import fits

SQL_PATH = re.compile(r"/dr\d+/en/tools/search/x_results\.aspx")
LEGACY = "/dr17/sdss/spectro/redux/26/spectra/lite/{0:04d}/spec-{0:04d}-{1}-{2:04d}.fits"

# What SkyServer sends for a query it cannot run, and for too many queries in a minute.
ERROR_PAGE = b"""<html><head><title>SDSS Query Results</title><style>h2 {color: red}</style></head>
<body bgcolor=white><h2>An error occured</h2><h3 BGCOLOR=pink><font color=red>
SQL returned the following error: <br>     Invalid column name &#39;platte&#39;.</font></h3>
</body></html>
"""
TOO_MANY = (
    b'#Table1\nerror_message\n"ERROR: Maximum 60 queries allowed per minute. Rejected query: '
    b'SELECT plate"\n'
)


@dataclass
class Answer:
    """One answer of the server."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    sent: int | None = None  # bytes of the body that are sent before the connection is cut
    delay_s: float = 0.0


@dataclass
class Site:
    """What the server has, and what it was asked.

    script: for a path the answers to the next requests; after them, the file is sent.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    script: dict[str, list[Answer]] = field(default_factory=dict)
    sql: Answer = field(default_factory=Answer)
    ranges: bool = True
    changed: bool = False  # since the beginning of a file was sent
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # path, headers
    queries: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)  # of the requests, seconds

    def add(self, plate: int, mjd: int, fiberid: int, path: str = LEGACY, **kind: Any) -> str:
        """Put a spectrum into the archive; returns its path there."""
        place = path.format(plate, mjd, fiberid)
        self.files[place] = spectrum_file(**kind)
        return place


def spectrum_file(pixels: int = 600, seed: int = 0, columns: str = "flux loglam ivar") -> bytes:
    """A file like those of the archive: an empty image and three tables."""
    rng = np.random.default_rng(seed)
    hdus: list[Any] = [fits.PrimaryHDU()]
    for name in ("COADD", "SPECOBJ", "SPZLINE"):
        table = [
            fits.Column(column, "E", array=rng.standard_normal(pixels))
            for column in columns.split()
        ]
        hdus.append(fits.BinTableHDU.from_columns(table, name=name))
    file = io.BytesIO()
    fits.HDUList(hdus).writeto(file)
    return file.getvalue()


def csv_answer(*rows: str) -> Answer:
    """SkyServer's answer with these lines, the names of the columns first."""
    return Answer(body=("#Table1\n" + "".join(f"{row}\n" for row in rows)).encode())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, as those of the archive
    timeout = 5

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client did not wait
            super().handle()

    def do_GET(self) -> None:
        site: Site = self.server.site  # type: ignore[attr-defined]
        parts = urlsplit(self.path)
        site.asked.append((parts.path, dict(self.headers.items())))
        site.times.append(time.monotonic())
        if SQL_PATH.fullmatch(parts.path):
            site.queries.append(parse_qs(parts.query)["cmd"][0])
            answer = site.sql
        elif site.script.get(parts.path):
            answer = site.script[parts.path].pop(0)
        else:
            answer = self._file(site, parts.path)
        time.sleep(answer.delay_s)
        self._send(answer)

    def _file(self, site: Site, path: str) -> Answer:
        if path not in site.files:
            return Answer(404, b"<html>Not Found</html>")
        body = site.files[path]
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if site.changed and "If-Unmodified-Since" in self.headers:
            return Answer(412)
        if not (site.ranges and wanted):
            return Answer(200, body)
        start = int(wanted[1])
        if start >= len(body):
            return Answer(416, headers={"Content-Range": f"bytes */{len(body)}"})
        span = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return Answer(206, body[start:], {"Content-Range": span})

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body[: answer.sent])
        if answer.sent is not None:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def serve() -> Iterator[Site]:
    """Run the server; `Site.url` is its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        site = Site(f"http://127.0.0.1:{server.server_port}")
        server.site = site  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
