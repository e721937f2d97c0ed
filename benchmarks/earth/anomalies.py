"""Anomalies in hyperspectral scenes with known truth: each method, the ensemble, and peers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio
import scipy.io
from rasterio.features import geometry_mask
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import LocalOutlierFactor
from threadpoolctl import threadpool_limits

from benchmarks.page import Table
from warte.core.data import registry
from warte.earth.anomalies import AnomalySettings, anomalies, fit
from warte.earth.anomalies.score import weighted
from warte.earth.read import read
from warte.earth.scene import Grid, Scene, scene_of_array

Report = Callable[[str, int, int | None], None]
Image = npt.NDArray[np.float64]

SCENES = (
    "abu-airport-2", "abu-airport-4", "abu-beach-2", "abu-urban-1", "abu-urban-3", "abu-urban-5",
    "hydice",
)  # fmt: skip
ALONE = ("contrast", "local-rx", "rx", "forest", "autoencoder")
RANDOM = ("ensemble", "forest", "autoencoder", "pyod isolation forest")  # several seeds each
SEEDS = 3
# Among these the leave-one-out choice is made: each method alone, and mixtures of them.
MIXTURES: dict[str, dict[str, float]] = {
    **{name: {name: 1.0} for name in ALONE},
    "all alike": dict.fromkeys(ALONE, 1.0),
    "contrast 1, local-rx 1": {"contrast": 1, "local-rx": 1},
    "contrast 1, local-rx 1, forest 1": {"contrast": 1, "local-rx": 1, "forest": 1},
    "contrast 2, local-rx 1, forest 1": {"contrast": 2, "local-rx": 1, "forest": 1},
    "contrast 4, local-rx 1, forest 1": {"contrast": 4, "local-rx": 1, "forest": 1},
    "contrast 4, rx 1": {"contrast": 4, "rx": 1},
    "contrast 4, rx 1, local-rx 1, forest 1": {
        "contrast": 4, "rx": 1, "local-rx": 1, "forest": 1,
    },
}  # fmt: skip
BACKGROUND_PX = 300  # side of a simulated background
TEXTURE_PX = 200  # side of a simulated texture
TEXTURES = (
    "Gaussian", "t, 5 degrees of freedom", "smooth, 0.7 px", "smooth, 1.5 px", "smooth, 3 px",
    "rough and smooth places",
)  # fmt: skip
LOOSE = 1  # regions by chance of the second look at the regions
ASKED = (1e-2, 1e-3, 1e-4)  # shares of false alarms
SHORT = "earth/hyperspectral_anomaly/{}.mat"  # name of a scene in the registry


@dataclass(frozen=True)
class Case:
    """One scene: its picture, and which pixels are anomalies."""

    name: str
    scene: Scene
    truth: npt.NDArray[np.bool_]


def anomaly_tables(seed: int, quick: bool, report: Report) -> list[Table]:
    """Areas under the curve, the leave-one-out choice, regions, and what is false of them."""
    cases = _cases()
    with threadpool_limits(1):
        tables = [_beside(cases, seed, 1 if quick else SEEDS, report)] if cases else []
        tables += [_left_out(cases, seed, report)] if cases else []
        tables += [_regions(cases, seed, report)] if cases else []
        seeds = 1 if quick else SEEDS
        return [*tables, _false_alarms(seed, seeds, report), _false_regions(seed, seeds, report)]


def _cases() -> list[Case]:
    """The scenes that are on this machine."""
    names = [name for name in SCENES if registry.locate(SHORT.format(name)) is not None]
    return [_case(name) for name in names]


def _case(name: str) -> Case:
    path = registry.get(SHORT.format(name))
    truth = scipy.io.loadmat(path, variable_names=["map"])["map"].astype(bool)
    return Case(name, read(path), truth)


def own(scene: Scene, method: str, seed: int) -> Image:
    """The score of a method of this program, (rows, columns)."""
    scorer = fit(scene, AnomalySettings(method=method, seed=seed))  # type: ignore[arg-type]
    return scorer([scene.read()])["anomaly.tif"][0].astype(np.float64)


def plain_rx(scene: Scene) -> Image:
    """RX as it is written in books: all bands, the plain inverse of the covariance."""
    rows = _rows(scene)
    centred = rows - rows.mean(axis=0)
    inverse = np.linalg.inv(np.cov(rows.T))
    return np.einsum("ij,jk,ik->i", centred, inverse, centred).reshape(scene.grid.shape)


def _rows(scene: Scene) -> Image:
    values = scene.read().values
    return values.reshape(len(values), -1).T.astype(np.float64)


def _peer(name: str, scene: Scene, **options: object) -> Image:
    """Scores of a detector of pyod, by its name there, on the bands as they are."""
    model = getattr(import_module(f"pyod.models.{name.lower()}"), name)(**options)
    model.fit(_rows(scene))
    return np.asarray(model.decision_scores_).reshape(scene.grid.shape)


def _outlier_factor(scene: Scene) -> Image:
    model = LocalOutlierFactor(n_neighbors=20)
    model.fit_predict(_rows(scene))
    return -model.negative_outlier_factor_.reshape(scene.grid.shape)


Detector = Callable[[Scene, int], Image]


def _detectors() -> dict[str, Detector]:
    mine: dict[str, Detector] = {
        name: lambda scene, seed, name=name: own(scene, name, seed)  # type: ignore[misc]
        for name in ("ensemble", *ALONE)
    }
    mine |= {
        "RX, written plainly": lambda scene, seed: plain_rx(scene),
        "scikit-learn LOF": lambda scene, seed: _outlier_factor(scene),
    }
    if find_spec("pyod") is None:  # pip install pyod
        return mine
    return mine | {
        "pyod isolation forest": lambda scene, seed: _peer("IForest", scene, random_state=seed),
        "pyod ECOD": lambda scene, seed: _peer("ECOD", scene),
        "pyod KNN": lambda scene, seed: _peer("KNN", scene),
    }


def _beside(cases: list[Case], seed: int, seeds: int, report: Report) -> Table:
    rows = []
    detectors = _detectors()
    for done, (name, detector) in enumerate(detectors.items(), 1):
        runs = seeds if name in RANDOM else 1
        areas, precisions, seconds = _scored(detector, cases, range(seed, seed + runs))
        row: dict[str, object] = {"method": name}
        row |= {
            case.name.removeprefix("abu-"): round(area, 3)
            for case, area in zip(cases, areas.mean(axis=0), strict=True)
        }
        means = areas.mean(axis=1)
        row["mean AUC"] = f"{means.mean():.4f}"
        row["over seeds"] = f"{means.min():.4f}-{means.max():.4f}" if runs > 1 else "-"
        row["mean AP"] = f"{precisions.mean():.3f}"
        row["core s"] = f"{seconds:.2f}"
        rows.append(row)
        report("anomalies", done, len(detectors))
    return Table(
        "Anomalies: area under the ROC curve (AUC)",
        pd.DataFrame(rows),
        "One fixed setting for all scenes; the truth is used for these numbers only. AP: average "
        "precision. Core time: of one scene, mean, from reading the file to the picture of scores.",
    )


def _scored(detector: Detector, cases: list[Case], seeds: range) -> tuple[Image, Image, float]:
    """Areas and precisions (seeds, scenes), and mean core time of a scene in seconds."""
    areas, precisions = np.zeros((2, len(seeds), len(cases)))
    seconds = 0.0
    for run, seed in enumerate(seeds):
        for number, case in enumerate(cases):
            started = time.process_time()
            score = detector(case.scene, seed).ravel()
            seconds += time.process_time() - started
            areas[run, number] = roc_auc_score(case.truth.ravel(), score)
            precisions[run, number] = average_precision_score(case.truth.ravel(), score)
    return areas, precisions, seconds / (len(seeds) * len(cases))


def _left_out(cases: list[Case], seed: int, report: Report) -> Table:
    """For each scene the mixture that is best on the others."""
    areas = pd.DataFrame(
        {case.name: _mixture_areas(case, seed, report) for case in cases}, index=list(MIXTURES)
    )
    rows = []
    for name in areas.columns:
        chosen = areas.drop(columns=name).mean(axis=1).idxmax()
        rows.append({"scene left out": name, "chosen on the others": chosen,
                     "AUC there": float(areas.loc[chosen, name])})  # fmt: skip
    mean = float(np.mean([row["AUC there"] for row in rows]))
    rows.append({"scene left out": "mean", "chosen on the others": "", "AUC there": mean})
    table = pd.DataFrame(rows)
    table["AUC there"] = table["AUC there"].map("{:.4f}".format)
    return Table(
        "Anomalies: methods and weights chosen without the scene that they are tried on",
        table,
        f"Among {len(MIXTURES)} mixtures: each method alone, all alike, and others.",
    )


def _mixture_areas(case: Case, seed: int, report: Report) -> list[float]:
    tails, scores = {}, {}
    for done, name in enumerate(ALONE, 1):
        scorer = fit(case.scene, AnomalySettings(method=name, seed=seed))
        pixels = case.scene.read()
        count = len(scorer.methods.variances)
        view = scorer.background.project(pixels.values, pixels.valid, count)
        scores |= scorer.methods.scores(view)
        tails |= scorer.tails
        report(f"left out: {case.name}", done, len(ALONE))

    def area(weights: Mapping[str, float]) -> float:
        chosen = {name: scores[name] for name in weights}  # type: ignore[index]
        mixed = weighted(chosen, tails, weights)  # type: ignore[arg-type]
        return float(roc_auc_score(case.truth.ravel(), mixed.ravel()))

    return [area(weights) for weights in MIXTURES.values()]


def background(kind: str, generator: np.random.Generator) -> Scene:
    """Six correlated bands without any anomaly: Gaussian, or t with five degrees of freedom."""
    side = BACKGROUND_PX
    drawn = generator.normal(size=(6, side, side))
    if kind == "t":
        drawn /= np.sqrt(generator.chisquare(5, (side, side)) / 5)
    return scene_of_array(np.einsum("ij,jrc->irc", generator.normal(size=(6, 6)), drawn))


def _false_alarms(seed: int, seeds: int, report: Report) -> Table:
    rows = []
    for kind, title in (("gauss", "Gaussian"), ("t", "t, 5 degrees of freedom")):
        for method in ("ensemble", "contrast", "local-rx", "rx"):
            shares = np.zeros((seeds, len(ASKED)))
            for run in range(seeds):
                scene = background(kind, np.random.default_rng([seed, run]))
                score = own(scene, method, seed)
                shares[run] = [(score > -np.log10(asked)).mean() for asked in ASKED]
                report(f"false alarms: {kind}, {method}", run + 1, seeds)
            found = {f"asked {asked:g}": f"{share:.2g}" for asked, share in
                     zip(ASKED, shares.mean(axis=0), strict=True)}  # fmt: skip
            rows.append({"background": title, "method": method, **found})
    return Table(
        "Anomalies: share of pixels above the threshold where there is no anomaly",
        pd.DataFrame(rows),
        f"Simulated, {BACKGROUND_PX} x {BACKGROUND_PX} pixels, six bands, {seeds} of each.",
    )


@dataclass(frozen=True)
class Regions:
    """What a run found. edge: (rows, columns), pixels that a region may have. core_s: seconds."""

    frame: gpd.GeoDataFrame
    edge: npt.NDArray[np.bool_]
    core_s: float


def _found(scene: Scene, settings: AnomalySettings) -> Regions:
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        found = anomalies(scene, settings, out=Path(folder))
        used = time.process_time() - started
        frame = gpd.read_parquet(Path(folder) / "regions.parquet")
        with rasterio.open(Path(folder) / "anomaly.tif") as file:
            return Regions(frame, file.read(1) > found.threshold, used)


def _objects_in(frame: gpd.GeoDataFrame, grid: Grid, labels: npt.NDArray[np.int32]) -> int:
    """How many objects, numbered in `labels`, have a pixel in a region."""
    if not len(frame):
        return 0
    inside = geometry_mask(frame.geometry, grid.shape, grid.transform, invert=True)
    return len(np.unique(labels[inside & (labels > 0)]))


def _regions(cases: list[Case], seed: int, report: Report) -> Table:
    rows = []
    touching = np.ones((3, 3))
    for done, case in enumerate(cases, 1):
        strict = _found(case.scene, AnomalySettings(seed=seed))
        loose = _found(case.scene, AnomalySettings(seed=seed, false_regions=LOOSE)).frame
        near = ndimage.binary_dilation(case.truth, touching)
        labels, objects = ndimage.label(case.truth, touching)
        grid, frame = case.scene.grid, strict.frame
        rows.append({
            "scene": case.name, "objects": objects,
            "with a pixel of the rarest 1 %": len(np.unique(labels[strict.edge & case.truth])),
            "objects in regions": _objects_in(frame, grid, labels),
            "regions": len(frame),
            "regions whose peak is an object": int(near[frame["row"], frame["column"]].sum()),
            f"objects, --false-regions {LOOSE}": _objects_in(loose, grid, labels),
            f"regions, --false-regions {LOOSE}": len(loose),
            "core s": f"{strict.core_s:.1f}",
        })  # fmt: skip
        report("regions", done, len(cases))
    table = pd.DataFrame(rows)
    sums = table.iloc[:, 1:-1].sum().to_dict()
    table.loc[len(table)] = {"scene": "all", **sums, "core s": ""}
    return Table(
        "Anomalies: regions at the defaults",
        table,
        "A peak is an object's if it lies on it or beside it. Regions hold the rarest 1 % of the "
        "background's pixels (--false-alarms): objects without such a pixel can be in none.",
    )


def texture(kind: str, generator: np.random.Generator) -> Scene:
    """Six bands without any anomaly whose pixels are alike, or whose roughness varies."""
    side = TEXTURE_PX
    if kind in ("Gaussian", "t, 5 degrees of freedom"):
        return background("t" if kind[0] == "t" else "gauss", generator)
    sigma = {"smooth, 0.7 px": 0.7, "smooth, 1.5 px": 1.5, "smooth, 3 px": 3.0}.get(kind, 1.0)
    drawn = generator.normal(size=(6, side, side))
    drawn = ndimage.gaussian_filter(drawn, (0, sigma, sigma))
    if kind == "rough and smooth places":
        rough = ndimage.gaussian_filter(generator.normal(size=(side, side)), 20)
        drawn *= np.exp(0.5 * rough / rough.std())
    return scene_of_array(drawn)


def _false_regions(seed: int, seeds: int, report: Report) -> Table:
    settings = AnomalySettings(seed=seed)
    rows = []
    for done, kind in enumerate(TEXTURES, 1):
        counts = [
            len(_found(texture(kind, np.random.default_rng([seed, run])), settings).frame)
            for run in range(seeds)
        ]
        rows.append({"background": kind, "scenes": seeds, "regions": sum(counts)})
        report("false regions", done, len(TEXTURES))
    return Table(
        "Anomalies: regions where there is no anomaly",
        pd.DataFrame(rows),
        "Asked for: 0.01 regions a scene. Simulated, six bands; smooth: a Gaussian filter.",
    )
