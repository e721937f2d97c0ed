"""Every domain has the same rooms, and they do what their names promise."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from affine import Affine
from rasterio.crs import CRS

from warte.cli import main
from warte.core.data.tiles import Window
from warte.earth import presets as earth_presets
from warte.earth import report as earth_page
from warte.earth import simulate as ground
from warte.earth import train as earth_training
from warte.earth.anomalies import AnomalySettings, anomalies
from warte.earth.evaluate import evaluate as earth_scores
from warte.earth.read import read as read_scene
from warte.earth.read import read_many
from warte.earth.scene import Grid, scene_of_array
from warte.earth.simulate.files import simulate_to
from warte.earth.write import write_cog
from warte.sky.evaluate import evaluate
from warte.sky.find import FindSettings, find
from warte.sky.model import UNetSettings
from warte.sky.read import read
from warte.sky.report import write_report
from warte.sky.simulate import Satellite, SceneSettings, SimulateSettings, SkySettings, simulate
from warte.sky.tables import parse_utc
from warte.sky.train import ClipSettings, TrainSettings, train
from warte.sky.write import write_recording
from warte.spectra import evaluate as spectra_scores
from warte.spectra import presets as spectra_presets
from warte.spectra import report as spectra_page
from warte.spectra import simulate as galaxies
from warte.spectra import train as spectra_training
from warte.spectra.fit import curves, fit
from warte.spectra.read import read_folder
from warte.spectra.spectrum import Spectrum, make_spectrum
from warte.spectra.write import write_sdss

ROOMS = ("simulate", "read", "write", "model", "train", "evaluate", "report", "presets")


@dataclass(frozen=True)
class Domain:
    """What the tests below ask of a domain, in its own words.

    ``simulate``: seed to data and table of the truth. ``write``: data into a file of the real
    format, whose path it returns. ``read``: that file back, as data. ``easy``: share of the truth
    that is found in an easy case, and how much is found beside it. ``noise``: how much is found in
    noise. ``train``: losses of a tiny run into a folder. ``report``: an easy case's page.
    ``command``: arguments of the program for a file and a folder to be made, and the files that
    must then be there.
    """

    name: str
    simulate: Callable[[int], tuple[np.ndarray, pd.DataFrame]]
    write: Callable[[Path, np.ndarray], Path]
    read: Callable[[Path], np.ndarray]
    easy: Callable[[Path], tuple[float, int]]
    noise: Callable[[Path], int]
    train: Callable[[Path], list[float]]
    report: Callable[[Path], str]
    command: Callable[[Path, Path], list[str]]
    files: tuple[str, ...]


def sky_scene() -> SimulateSettings:
    satellite = Satellite(frame=20, x=80, y=60, vx=1.5, vy=-0.6, snr=20)
    sky = SkySettings(stars_per_mpx=4000, drift_x=0.02)
    return SimulateSettings(frames=40, width=160, height=120, sky=sky, movers=(satellite,))


def sky_simulate(seed: int) -> tuple[np.ndarray, pd.DataFrame]:
    frames, truth = simulate(sky_scene(), np.random.default_rng(seed))
    return frames, truth.observations


def sky_write(folder: Path, data: np.ndarray) -> Path:
    scene = sky_scene()
    path = folder / "clip.mkv"
    write_recording(path, data, fps=scene.fps, start_utc=parse_utc(scene.start_utc))
    return path


def sky_read(path: Path) -> np.ndarray:
    return np.stack([frame.pixels for frame in read(path).frames()])


def sky_easy(folder: Path) -> tuple[float, int]:
    frames, truth = simulate(sky_scene(), np.random.default_rng(0))
    found = find(read(sky_write(folder, frames)), FindSettings(speed_max_px=3.0)).found
    summary: dict[str, Any] = evaluate(found, truth, frames=len(frames)).to_dict()["summary"]
    return summary["matched"] / summary["true tracks"], summary["false"]


def sky_noise(folder: Path) -> int:
    frames = np.random.default_rng(0).normal(40, 3, (48, 120, 160))
    return len(find(read(sky_write(folder, frames)), FindSettings(speed_max_px=3.0)).found.tracks)


def sky_train(folder: Path) -> list[float]:
    losses: list[float] = []
    scene = SceneSettings(snr_low=20, snr_high=60, drift_chance=0, shake_chance=0, cloud_chance=0)
    settings = TrainSettings(
        steps=70,
        batch=4,
        crop=32,
        clips=3,
        first_clips=3,
        validation=0,
        learning_rate=2e-2,
        model=UNetSettings(base=4),
        data=ClipSettings(sizes=((12, 64),), scene=scene, codec_chance=0.0),
    )
    train(settings, out=folder, workers=0, report=lambda *step: losses.append(step[2]))
    return losses


def sky_report(folder: Path) -> str:
    frames, truth = simulate(sky_scene(), np.random.default_rng(0))
    recording = read(sky_write(folder, frames))
    write_report(folder, recording, truth, settings={}, warnings=[], seconds={}, video=False)
    return (folder / "report.html").read_text(encoding="utf-8")


def sky_command(path: Path, out: Path) -> list[str]:
    flags = ["--device", "cpu", "--quiet", "--no-video", "--speed-max", "3"]
    return ["sky", "find", str(path), "--out", str(out), *flags]


REDSHIFT = 0.1


def spectra_settings() -> galaxies.SimulateSettings:
    return replace(
        spectra_presets.doubles(), count=8, z=(REDSHIFT, REDSHIFT), snr=(25.0, 40.0),
        flux_ratio=(0.5, 1.0), separation_km_s=(350.0, 500.0), sigma_km_s=(60.0, 150.0),
    )  # fmt: skip


def spectra_arrays(spectra: list[Spectrum]) -> np.ndarray:
    return np.stack(
        [np.stack([one.wavelength, one.flux, one.ivar, one.resolution_km_s]) for one in spectra]
    )


def spectra_simulate(seed: int) -> tuple[np.ndarray, pd.DataFrame]:
    spectra, truth = galaxies.simulate(spectra_settings(), np.random.default_rng(seed))
    return spectra_arrays(spectra), truth.spectra


def spectra_write(folder: Path, data: np.ndarray) -> Path:
    path = folder / "spectra"
    path.mkdir(exist_ok=True)
    for number, (wavelength, flux, ivar, width) in enumerate(data):
        name = f"sim-{number:07d}.fits"
        spectrum = make_spectrum(name, wavelength, flux, ivar, z=REDSHIFT, resolution_km_s=width)
        write_sdss(path / name, spectrum)
    return path


def spectra_read(path: Path) -> np.ndarray:
    return spectra_arrays(read_folder(path)[0])


def spectra_easy(folder: Path) -> tuple[float, int]:
    spectra, truth = galaxies.simulate(spectra_settings(), np.random.default_rng(0))
    rates = spectra_scores.decisions(fit(spectra).fits, truth).set_index("rate")
    return float(rates.loc["recall", "value"]), int(rates.loc["false_positives", "hits"])


def spectra_noise(folder: Path) -> int:
    settings = replace(spectra_presets.passive(), count=20)
    spectra, _ = galaxies.simulate(settings, np.random.default_rng(0))
    return int((fit(spectra).fits["components"] == 2).sum())


def spectra_train(folder: Path) -> list[float]:
    losses: list[float] = []
    settings = spectra_training.TrainSettings(spectra=1500, chunk=1500, batch=64, held_out=200)
    spectra_training.train(
        settings, out=folder, report=lambda step, steps, loss: losses.append(loss)
    )
    return losses


def spectra_report(folder: Path) -> str:
    spectra, _ = galaxies.simulate(spectra_settings(), np.random.default_rng(0))
    result = fit(spectra)
    shown = spectra_page.candidates(result.fits, result.lines)
    spectra_page.write_report(
        folder,
        fits=result.fits,
        lines=result.lines,
        curves=curves(spectra, result, shown),
        settings={},
    )
    return (folder / "report.html").read_text(encoding="utf-8")


def spectra_command(path: Path, out: Path) -> list[str]:
    return ["spectra", "fit", str(path), "--out", str(out), "--device", "cpu", "--quiet"]


def earth_simulate(seed: int) -> tuple[np.ndarray, pd.DataFrame]:
    settings = replace(earth_presets.fields(), ground=ground.GroundSettings(800.0, 800.0))
    (scene,), truth = ground.simulate(settings, np.random.default_rng(seed))
    return scene.read().values, pd.DataFrame(truth.classes())


def earth_write(folder: Path, data: np.ndarray) -> Path:
    path = folder / "scene.tif"
    count, rows, columns = data.shape
    grid = Grid(rows, columns, Affine(10, 0, 5e5, 0, -10, 5.35e6), CRS.from_epsg(32633))
    write_cog(
        path, grid, [(Window(0, 0, rows, columns), data)], dtype="float32", nodata=None,
        bands=[f"band_{number}" for number in range(1, count + 1)],
    )  # fmt: skip
    return path


def earth_read(path: Path) -> np.ndarray:
    return read_scene(path).read().values


def earth_planted(folder: Path) -> Path:
    """Scenes with three things in a meadow that do not belong there, and where they are."""
    meadow = replace(
        earth_presets.hyperspectral().ground,
        width_m=320.0, height_m=320.0, towns=0.0, forest=0.0, wetland=0.0, river_m=0.0,
        meadow=1.0, bare=0.0,
    )  # fmt: skip
    settings = replace(
        earth_presets.hyperspectral(), ground=meadow, sensors=(ground.spectrometer(30),),
        anomalies=ground.AnomalySettings(3, (11.0, 12.0)),
    )  # fmt: skip
    (folder / "fake").mkdir()
    simulate_to(folder / "fake", settings, 0)
    return folder / "fake"


def earth_easy(folder: Path) -> tuple[float, int]:
    fake = earth_planted(folder)
    (folder / "run").mkdir()
    anomalies(read_many([str(fake / "scenes")])[0], out=folder / "run")
    scores = earth_scores(folder / "run", fake).numbers
    beside = scores["regions_found"] - scores["regions_matched"]
    return float(scores["region_recall"]), int(beside)


def earth_noise(folder: Path) -> int:
    noise = np.random.default_rng(0).normal(0.2, 0.01, (6, 90, 110))
    grid = Grid(90, 110, Affine(10, 0, 5e5, 0, -10, 5.35e6), CRS.from_epsg(32633))
    return anomalies(scene_of_array(noise, grid=grid), out=folder).regions


def earth_train(folder: Path) -> list[float]:
    values, truth = earth_simulate(0)
    classes = np.unique(truth.to_numpy())
    marks = earth_training.Marks(
        tuple(str(number) for number in classes),
        np.searchsorted(classes, truth.to_numpy()).astype(np.int32),
    )
    settings = earth_training.TrainSettings(
        folds=2, cross=0,
        network=earth_training.NetworkSettings(
            steps=70, batch=4, crop=32, width=8, looks=1, learning_rate=1e-2
        ),
    )  # fmt: skip
    found = earth_training.train([scene_of_array(values)], [marks], settings, out=folder)
    return [] if found is None else list(found.losses)


def earth_report(folder: Path) -> str:
    scenes = read_many([str(earth_planted(folder) / "scenes")])
    found = anomalies(scenes[0], AnomalySettings(method="rx"), out=folder)
    earth_page.write_report(folder, scenes, found=found)
    return (folder / "report.html").read_text(encoding="utf-8")


def earth_command(path: Path, out: Path) -> list[str]:
    return ["earth", "cluster", str(path), "--k", "4", "--out", str(out), "--quiet"]


DOMAINS = (
    Domain(
        name="sky",
        simulate=sky_simulate,
        write=sky_write,
        read=sky_read,
        easy=sky_easy,
        noise=sky_noise,
        train=sky_train,
        report=sky_report,
        command=sky_command,
        files=("observations.csv", "preview.png", "report.html", "run.json", "tracks.csv"),
    ),
    Domain(
        name="spectra",
        simulate=spectra_simulate,
        write=spectra_write,
        read=spectra_read,
        easy=spectra_easy,
        noise=spectra_noise,
        train=spectra_train,
        report=spectra_report,
        command=spectra_command,
        files=("fits.csv", "lines.csv", "lines.fits", "report.html", "run.json"),
    ),
    Domain(
        name="earth",
        simulate=earth_simulate,
        write=earth_write,
        read=earth_read,
        easy=earth_easy,
        noise=earth_noise,
        train=earth_train,
        report=earth_report,
        command=earth_command,
        files=("centres.csv", "clusters.tif", "preview.png", "report.html", "run.json"),
    ),
)


@pytest.fixture(params=DOMAINS, ids=lambda domain: domain.name)
def domain(request: pytest.FixtureRequest) -> Domain:
    return request.param  # type: ignore[no-any-return]


def test_rooms_are_where_they_are_looked_for(domain: Domain) -> None:
    for room in ROOMS:
        assert import_module(f"warte.{domain.name}.{room}").__doc__


def test_the_same_seed_gives_the_same_data(domain: Domain) -> None:
    (a, truth_a), (b, truth_b), (c, _) = (domain.simulate(seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(a, b)
    pd.testing.assert_frame_equal(truth_a, truth_b)
    assert len(truth_a) and (a != c).any()


def test_what_simulate_writes_read_reads_back(domain: Domain, tmp_path: Path) -> None:
    data, _ = domain.simulate(0)
    # Whole numbers come back exactly; what is stored as a logarithm or a ratio, to float32.
    exact = np.issubdtype(data.dtype, np.integer)
    back = domain.read(domain.write(tmp_path, data))
    np.testing.assert_allclose(back, data, rtol=0 if exact else 1e-6)


def test_an_easy_case_is_recovered(domain: Domain, tmp_path: Path) -> None:
    assert domain.easy(tmp_path) == (1.0, 0)


def test_pure_noise_yields_nothing(domain: Domain, tmp_path: Path) -> None:
    assert domain.noise(tmp_path) == 0


def test_a_tiny_training_run_lowers_the_loss(domain: Domain, tmp_path: Path) -> None:
    losses = domain.train(tmp_path)
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:20])
    assert list(tmp_path.glob("*.safetensors"))


def test_the_report_renders(domain: Domain, tmp_path: Path) -> None:
    page = domain.report(tmp_path)
    assert page.startswith("<!DOCTYPE html>") and page.rstrip().endswith("</html>")
    assert "<h1>" in page and 'src="http' not in page and "<link " not in page.split("<body")[1]


def test_the_command_runs(domain: Domain, tmp_path: Path) -> None:
    path = domain.write(tmp_path, domain.simulate(0)[0])
    assert main(domain.command(path, tmp_path / "out")) == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == list(domain.files)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "annotated.mp4" not in page
