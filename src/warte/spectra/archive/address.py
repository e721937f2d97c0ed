"""Where a spectrum lies in the archive of SDSS, and how a download behaves."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from types import ModuleType
from urllib.parse import urlsplit

from warte.core.errors import MissingExtraError, SettingsError

FIRST_RELEASE = 8  # the first with a file for each spectrum
LEGACY = ("26", "104", "103")  # reductions of the SDSS spectrographs, of SEGUE-2 and SEGUE-1
FIRST_BOSS_PLATE = 3510  # plates from this one on were observed with the BOSS spectrographs
# The reduction of the BOSS plates in each data release, as the directories of the archive say.
BOSS: dict[int, tuple[str, ...]] = {
    8: (),
    9: ("v5_4_45",),
    10: ("v5_5_12",),
    11: ("v5_6_5",),
    12: ("v5_7_0", "v5_7_2"),
    13: ("v5_9_0",),
    14: ("v5_10_0",),
    15: ("v5_10_0",),
    16: ("v5_13_0",),
    17: ("v5_13_2",),
}
SAFE_RUN2D = re.compile(r"\w+(?:\.\w+)*")  # a name of a folder: no slash, no ".."
# From major version 6 on (SDSS-V) files are named by field and catalogue number.
_SDSS_V = re.compile(r"v([6-9]|\d\d+)_")


@dataclass(frozen=True)
class DownloadSettings:
    """What is fetched from where, and how hard the archive is asked.

    Raises:
        SettingsError: a value is out of range; the message names the flag.
    """

    release: int = 17  # data release of SDSS, 8 or later
    base_url: str = ""  # address of the archive; empty: SDSS's own
    lite: bool = True  # files without the single exposures: 0.2 MB in the place of 0.5 to 3 MB
    run2d: tuple[str, ...] = ()  # reductions tried where the list names none; empty: the release's
    workers: int = 4  # files fetched at the same time
    rate_per_s: float = 5.0  # requests per second at most, those of all workers together
    retries: int = 4  # further attempts at a file after the first
    timeout_s: float = 30.0  # seconds without an answer or a byte after which an attempt ends
    pause_s: float = 1.0  # seconds before the first further attempt; doubled for each one after it

    def __post_init__(self) -> None:
        check_release(self.release)
        check_address(self.base_url, "--sas")
        for name in self.run2d:
            if not SAFE_RUN2D.fullmatch(name):
                raise SettingsError(f"--run2d {name} is no reduction; give a name such as v5_13_2")
        for flag, value, least in (("workers", self.workers, 1), ("retries", self.retries, 0)):
            if value < least:
                raise SettingsError(f"--{flag} {value}: give {least} or more")
        for flag, number in (("rate", self.rate_per_s), ("timeout", self.timeout_s)):
            if not (math.isfinite(number) and number > 0):
                raise SettingsError(f"--{flag} {number}: give a number above 0")
        if not (math.isfinite(self.pause_s) and self.pause_s >= 0):
            raise SettingsError(f"--pause {self.pause_s}: give 0 seconds or more")


def check_release(release: int) -> None:
    """Raise SettingsError for a data release without files of single spectra."""
    if release < FIRST_RELEASE:
        raise SettingsError(f"--release {release}: give a data release from {FIRST_RELEASE} on")


def check_address(address: str, flag: str) -> None:
    """Raise SettingsError for what is no web address; empty stands for the default."""
    parts = urlsplit(address)
    if address and not (parts.scheme in ("http", "https") and parts.hostname):
        raise SettingsError(f"{flag} {address}: give an address that begins with https://")


def import_astroquery() -> ModuleType:
    """The module `astroquery.sdss`; nothing is fetched by importing it.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import astroquery.sdss
    except ImportError as problem:
        raise MissingExtraError("astroquery", "spectra") from problem
    return astroquery.sdss


def file_name(plate: int, mjd: int, fiberid: int) -> str:
    """The archive's name of a spectrum."""
    return f"spec-{plate:04d}-{mjd}-{fiberid:04d}.fits"


def reductions(plate: int, run2d: str, settings: DownloadSettings) -> tuple[str, ...]:
    """The reductions in which a plate may lie, the likeliest first.

    run2d: what the list says of it; empty where it says nothing.
    """
    if run2d:
        return (run2d,)
    if settings.run2d:
        return settings.run2d
    if plate < FIRST_BOSS_PLATE:
        return LEGACY
    return BOSS[min(settings.release, max(BOSS))]


def address(
    plate: int, mjd: int, fiberid: int, run2d: str, base: str, settings: DownloadSettings
) -> str:
    """The address of a spectrum in one reduction, by the template of astroquery.

    base: address of the archive without a slash at its end.
    Raises ValueError for a reduction that does not name its files by plate.
    """
    if _SDSS_V.match(run2d):
        raise ValueError(f"the files of run2d {run2d} are not named by plate, mjd and fiberid")
    release = settings.release
    if settings.lite and release > FIRST_RELEASE:
        folder = "spectra/lite"
    else:
        folder = "spectra/full" if release > 15 and run2d not in LEGACY else "spectra"
    template: str = import_astroquery().SDSSClass.SPECTRA_URL_SUFFIX
    return template.format(
        base=base,
        dr=release,
        redux_path="spectro/sdss/redux" if release > 17 else "sdss/spectro/redux",
        run2d=run2d,
        spectra_path=folder,
        plate=plate,
        mjd=mjd,
        fiber=fiberid,
    )
