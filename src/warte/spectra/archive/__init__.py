"""List spectra by SkyServer's SQL or from a CSV file, and download them from SDSS's archive."""

from warte.spectra.archive.address import DownloadSettings, file_name
from warte.spectra.archive.download import DOWNLOAD_COLUMNS, DOWNLOAD_FILE, default_cache, download
from warte.spectra.archive.listing import list_spectra, read_list

__all__ = [
    "DOWNLOAD_COLUMNS",
    "DOWNLOAD_FILE",
    "DownloadSettings",
    "default_cache",
    "download",
    "file_name",
    "list_spectra",
    "read_list",
]
