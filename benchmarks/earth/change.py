"""Part change: planted changes found by Warte and by the usual ways; real pictures."""

from __future__ import annotations

import datetime
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import rasterio
from affine import Affine
from scipy import ndimage
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from benchmarks.page import Table
from warte.cli.common import Report
from warte.core.data import registry
from warte.core.data.tiles import Window
from warte.core.errors import DataError
from warte.earth.change import Changed, ChangeSettings, change
from warte.earth.change.kinds import BRIGHT, BURN, DARK, EBB, FLOOD, LOSS, NODATA
from warte.earth.read import read
from warte.earth.scene import BoolArray, Float32Array, Grid, Reader, Scene
from warte.earth.simulate import (
    CLEAR,
    Event,
    GroundSettings,
    SimulateSettings,
    SkySettings,
    Truth,
    sentinel_1,
    sentinel_2,
    simulate,
)

SIDE_M = 3200.0
SEEDS, QUICK_SEEDS = 6, 1
BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
# The kinds that are right for what was planted: deforestation, flood, burn, building.
RIGHT = {1: (LOSS,), 2: (FLOOD,), 3: (BURN, LOSS, DARK), 4: (BRIGHT, LOSS)}
NAMES = {1: "deforestation", 2: "flood", 3: "burn", 4: "building"}

Masks = npt.NDArray[np.bool_]
Finder = Callable[[Float32Array, Float32Array], Masks]


def change_tables(seed: int, quick: bool, progress: Report) -> list[Table]:
    """Pairs, a series, radar, and real pictures."""
    seeds = range(seed, seed + (QUICK_SEEDS if quick else SEEDS))
    return [
        _pair_table(seeds, progress),
        _series_table(seeds, progress),
        _radar_table(seeds, progress),
        _real_table(progress),
    ]


def events(date: str, flood: bool) -> tuple[Event, ...]:
    """One of each kind on a day."""
    planted = [
        Event("deforestation", date, 0.25, 0.3, 500),
        Event("burn", date, 0.75, 0.3, 450),
        Event("building", date, 0.5, 0.75, 350),
    ]
    return (*planted, Event("flood", date, radius_m=120.0)) if flood else tuple(planted)


def pair(seed: int, changed: bool) -> tuple[tuple[Scene, ...], Truth]:
    """Two summers, two years apart, with other haze, sun and crops; and what was planted."""
    settings = SimulateSettings(
        ground=GroundSettings(width_m=SIDE_M, height_m=SIDE_M, forest=0.45),
        sensors=(sentinel_2(),),
        dates=("2022-07-05", "2024-07-06"),
        sky=SkySettings(cover=(0.0, 0.0), cirrus=0.0),
        events=events("2023-05-01", True) if changed else (),
    )
    return simulate(settings, np.random.default_rng([seed, 71]))


@dataclass(frozen=True)
class Bands:
    """A reader with some bands of another, and a mask beside it. places: of the bands."""

    inner: Reader
    places: tuple[int, ...]
    mask: BoolArray | None = None

    def read(self, window: Window, bands: Sequence[int]) -> tuple[Float32Array, BoolArray]:
        """See `warte.earth.scene.Reader`."""
        values, valid = self.inner.read(window, [self.places[band] for band in bands])
        return values, valid if self.mask is None else valid & self.mask[window.slices]


def of_bands(scene: Scene, names: Sequence[str], mask: BoolArray | None = None) -> Scene:
    """The scene with these bands only."""
    places = tuple(scene.indices(names))
    return replace(scene, bands=tuple(names), reader=Bands(scene.reader, places, mask))


def run(
    scenes: Sequence[Scene],
    settings: ChangeSettings = ChangeSettings(),  # noqa: B008
) -> tuple[Changed, npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Warte's answer: facts, kinds and dates."""
    with tempfile.TemporaryDirectory() as folder:
        found = change(scenes, settings, out=Path(folder))
        with rasterio.open(Path(folder) / "change.tif") as data:
            kinds = data.read(1)
        with rasterio.open(Path(folder) / "change_date.tif") as data:
            return found, kinds, data.read()


def otsu(values: npt.NDArray[np.floating]) -> float:
    """The threshold of the greatest variance between two classes."""
    counts, bins = np.histogram(values, 256)
    middle = (bins[:-1] + bins[1:]) / 2
    below = np.cumsum(counts) / counts.sum()
    mean = np.cumsum(counts * middle) / counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (mean[-1] * below - mean) ** 2 / (below * (1 - below))
    return float(bins[np.nanargmax(between) + 1])


def standardised(values: Float32Array) -> npt.NDArray[np.float64]:
    """Each band with mean 0 and spread 1."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    flat = (flat - flat.mean(1, keepdims=True)) / flat.std(1, keepdims=True)
    return flat.reshape(values.shape)


def differencing(one: Float32Array, two: Float32Array) -> Masks:
    """Difference of NDVI, absolute, with Otsu's threshold."""
    red, nir = BANDS.index("red"), BANDS.index("nir")
    ndvi = [(v[nir] - v[red]) / (v[nir] + v[red] + 1e-6) for v in (one, two)]
    size = np.abs(ndvi[1] - ndvi[0])
    return np.asarray(size > otsu(size))


def vector(one: Float32Array, two: Float32Array) -> Masks:
    """Change vector of standardised bands, its length with Otsu's threshold."""
    size = np.linalg.norm(standardised(two) - standardised(one), axis=0)
    return np.asarray(size > otsu(size))


def pca_kmeans(one: Float32Array, two: Float32Array) -> Masks:
    """Blocks of the difference, their principal components, two clusters (Celik 2009)."""
    size = np.linalg.norm(standardised(two) - standardised(one), axis=0)
    blocks = np.lib.stride_tricks.sliding_window_view(np.pad(size, 2, mode="reflect"), (5, 5))
    features = PCA(3, random_state=0).fit_transform(blocks.reshape(-1, 25))
    labels = KMeans(2, n_init=4, random_state=0).fit_predict(features).reshape(size.shape)
    return np.asarray(labels == int(size[labels == 1].mean() > size[labels == 0].mean()))


def post_classification(one: Float32Array, two: Float32Array) -> Masks:
    """Six clusters found on both dates together; a change is another cluster."""
    both = np.concatenate([standardised(v).reshape(len(v), -1).T for v in (one, two)])
    labels = KMeans(6, n_init=4, random_state=0).fit_predict(both).reshape(2, *one.shape[1:])
    return np.asarray(labels[0] != labels[1])


PEERS: dict[str, Finder] = {
    "NDVI difference, Otsu": differencing,
    "change vector, Otsu": vector,
    "PCA and k-means (Celik 2009)": pca_kmeans,
    "k-means of both dates": post_classification,
}


def scores(found: Masks, truth: Masks) -> dict[str, float]:
    """Precision, recall and F1 of the pixels; those at the edge of a change do not count."""
    edge = ndimage.binary_dilation(truth) & ~ndimage.binary_erosion(truth)
    hit, marked, real = ((a & ~edge).sum() for a in (found & truth, found, truth))
    precision, recall = hit / max(marked, 1), hit / max(real, 1)
    return {
        "precision": precision, "recall": recall,
        "F1": 2 * precision * recall / max(precision + recall, 1e-9),
    }  # fmt: skip


def _pair_table(seeds: Sequence[int], progress: Report) -> Table:
    rows: list[dict[str, object]] = []
    for number, seed in enumerate(seeds):
        progress("pairs", number, len(seeds))
        scenes, truth = pair(seed, True)
        scenes = tuple(of_bands(scene, BANDS) for scene in scenes)
        what = truth.changes()[0]
        calm = tuple(of_bands(scene, BANDS) for scene in pair(seed, False)[0])
        for name in ("Warte", *PEERS):
            begin = time.process_time()
            kinds, found = _masks(name, scenes)
            seconds = time.process_time() - begin
            row: dict[str, object] = {"program": name} | scores(found, what > 0)
            for code, word in NAMES.items():
                row[f"{word} found"] = (
                    found[what == code].mean() if (what == code).any() else np.nan
                )
                right = np.isin(kinds, RIGHT[code]) & (what == code) & found
                row[f"{word} named"] = right.sum() / max((found & (what == code)).sum(), 1)
            row["false alarms, no change"] = _masks(name, calm)[1].mean()
            row["s"] = seconds
            rows.append(row)
    frame = pd.DataFrame(rows).groupby("program", sort=False).mean().reset_index()
    named = [column for column in frame if column.endswith("named")]
    frame.loc[frame["program"] != "Warte", named] = np.nan
    return Table(
        f"Change between two simulated summers: mean of {len(seeds)} grounds",
        _rounded(frame),
        "Sentinel-2, six bands, 10 m, the same season, other haze and noise; planted: "
        "deforestation, flood, burn, building. Pixels on the edge of a change do not count. 'false "
        "alarms': share marked of a pair in which nothing was planted.",
    )


def _masks(name: str, scenes: Sequence[Scene]) -> tuple[npt.NDArray[np.uint8], Masks]:
    if name == "Warte":
        kinds = run(scenes)[1]
        return kinds, (kinds > 0) & (kinds != NODATA)
    found = PEERS[name](scenes[0].read().values, scenes[1].read().values)
    return found.astype(np.uint8), found


def series(seed: int, changed: bool, masks: bool) -> tuple[tuple[Scene, ...], Truth]:
    """Three years, a scene each 16 days; one mask in ten misses rims of clouds, or none."""
    first = datetime.date(2021, 1, 6)
    days = [first + datetime.timedelta(days=16 * number) for number in range(66)]
    settings = SimulateSettings(
        ground=GroundSettings(width_m=1280.0, height_m=1280.0, forest=0.5, towns=0.2),
        sensors=(sentinel_2(),),
        dates=tuple(day.isoformat() for day in days),
        sky=SkySettings(cover=(0.0, 0.7)),
        events=(
            Event("deforestation", "2022-08-10", 0.3, 0.3, 300),
            Event("burn", "2023-03-20", 0.7, 0.7, 250),
        )
        if changed
        else (),
    )  # fmt: skip
    scenes, truth = simulate(settings, np.random.default_rng([seed, 72]))
    chance = np.random.default_rng([seed, 73]).random(len(scenes))
    masked = []
    for number, scene in enumerate(scenes):
        clear = truth.clouds(index=number) == CLEAR
        if chance[number] < 0.1:
            clear = ndimage.binary_dilation(clear, iterations=6)
        masked.append(of_bands(scene, BANDS, clear if masks else None))
    return tuple(masked), truth


def _series_table(seeds: Sequence[int], progress: Report) -> Table:
    rows = []
    for number, seed in enumerate(seeds):
        progress("series", number, len(seeds))
        rows += [_series_row(seed, masks) for masks in (True, False)]
    frame = pd.DataFrame(rows).groupby("clouds", sort=False).mean().reset_index()
    return Table(
        f"Change in simulated series of 66 dates: mean of {len(seeds)} grounds",
        _rounded(frame),
        "Sentinel-2, six bands, each 16 days for three years, 0 to 70 % cloud; one mask in ten "
        "misses the rims of its clouds, or there is no mask. Planted: deforestation in the second "
        "year, a burn in the third.",
    )


def _series_row(seed: int, masks: bool) -> dict[str, object]:
    scenes, truth = series(seed, True, masks)
    what, when = truth.changes()
    begin = time.process_time()
    _, kinds, dates = run(scenes)
    seconds = time.process_time() - begin
    found = (kinds > 0) & (kinds != NODATA)
    hit = found & (what > 0)
    late = np.where(when < dates[0], dates[0] - when, np.maximum(when - dates[1], 0))[hit]
    middle = np.abs((dates[0] + dates[1]) / 2 - when)[hit]
    calm = run(series(seed, False, masks)[0])[1]
    return (
        {"clouds": "masked" if masks else "not masked"} | scores(found, what > 0)
        | {
            "date within its interval": (late == 0).mean(),
            "median error of the date, days": np.median(middle),
            "median interval, days": np.median((dates[1] - dates[0])[hit]),
            "false alarms, no change": ((calm > 0) & (calm != NODATA)).mean(),
            "s": seconds,
        }
    )  # fmt: skip


def radar_pair(seed: int, changed: bool) -> tuple[tuple[Scene, ...], Truth]:
    """Sentinel-1 before and in a flood."""
    settings = SimulateSettings(
        ground=GroundSettings(width_m=SIDE_M, height_m=SIDE_M),
        sensors=(sentinel_1(),),
        dates=("2024-05-03", "2024-05-15"),
        events=(Event("flood", "2024-05-12", radius_m=250.0),) if changed else (),
    )
    return simulate(settings, np.random.default_rng([seed, 74]))


def _log_ratio(one: Float32Array, two: Float32Array) -> Masks:
    """Difference in dB of 5 x 5 means, with Otsu's threshold."""
    smooth = [ndimage.uniform_filter(10 ** (v[0] / 10), 5) for v in (one, two)]
    drop = 10 * np.log10(smooth[0] / smooth[1])
    return np.asarray(drop > otsu(drop))


def _radar_table(seeds: Sequence[int], progress: Report) -> Table:
    rows = []
    for number, seed in enumerate(seeds):
        progress("radar", number, len(seeds))
        scenes, truth = radar_pair(seed, True)
        flooded = truth.changes()[0] == 2
        calm = radar_pair(seed, False)[0]
        one, two = (scene.read().values for scene in scenes)
        same = [scene.read().values for scene in calm]
        rows.append(
            {"program": "Warte"} | scores(run(scenes)[1] == FLOOD, flooded)
            | {"false alarms, no change": np.isin(run(calm)[1], (FLOOD, EBB)).mean()}
        )  # fmt: skip
        rows.append(
            {"program": "log-ratio, Otsu"} | scores(_log_ratio(one, two), flooded)
            | {"false alarms, no change": _log_ratio(*same).mean()}
        )  # fmt: skip
    frame = pd.DataFrame(rows).groupby("program", sort=False).mean().reset_index()
    return Table(
        f"Flood between two simulated radar pictures: mean of {len(seeds)} grounds",
        _rounded(frame),
        "Sentinel-1, VV and VH, 4.4 looks, 10 m.",
    )


def _real_table(progress: Report) -> Table:
    rows: list[dict[str, object]] = []
    progress("real", 0, 3)
    try:
        years = [
            registry.get(f"earth/landsat_series/{year}.tif") for year in (1985, 1995, 2005, 2015)
        ]
        rows.append(_real("Landsat, Ucayali, 1985 to 2015", [read(path) for path in years]))
        progress("real", 1, 3)
        photos = [
            registry.get(f"earth/naip/m_4709963_se_14_1_{day}.tif") for day in (20140720, 20170827)
        ]
        rows.append(_real("NAIP, North Dakota, 2014 and 2017", [read(path) for path in photos]))
        progress("real", 2, 3)
        rows.append(_real("Sentinel-2 NDVI, Slovenia, 68 dates", patch()))
    except DataError as error:
        rows.append({"scenes": "not measured", "changed, ha": str(error)})
    progress("real", 3, 3)
    return Table(
        "Change in real pictures",
        pd.DataFrame(rows),
        "No truth is known. Nothing is known to have changed in the patch of Slovenia: what is "
        "marked there is a false alarm or a change of crops.",
    )


def _real(name: str, scenes: Sequence[Scene]) -> dict[str, object]:
    begin = time.process_time()
    found = run(scenes)[0]
    kinds = ", ".join(f"{kind} {area:.0f}" for kind, area in found.hectares.items())
    return {
        "scenes": name,
        "method": found.method,
        "marked, %": f"{100 * found.share:.2f}",
        "changed, ha": kinds,
        "s": f"{time.process_time() - begin:.1f}",
    }


def patch() -> list[Scene]:
    """The NDVI series of the EOPatch as scenes."""
    folder = "earth/eolearn_patch"
    ndvi = np.load(registry.get(f"{folder}/NDVI.npy"))[..., 0]
    clear = np.load(registry.get(f"{folder}/IS_VALID.npy"))[..., 0]
    times = json.loads(registry.get(f"{folder}/timestamps.json").read_text(encoding="utf-8"))
    grid = Grid(*ndvi.shape[1:], Affine(10, 0, 465_000, 0, -10, 5_080_000), None)
    return [
        Scene(when, grid, ("ndvi",), Array(values[None], seen), "reflectance",
              datetime.datetime.fromisoformat(when))
        for when, values, seen in zip(times, ndvi, clear, strict=True)
    ]  # fmt: skip


@dataclass(frozen=True)
class Array:
    """A reader of an array (bands, rows, columns) with a mask."""

    values: Float32Array
    mask: BoolArray

    def read(self, window: Window, bands: Sequence[int]) -> tuple[Float32Array, BoolArray]:
        """See `warte.earth.scene.Reader`."""
        values = self.values[(list(bands), *window.slices)]
        return values.astype(np.float32), self.mask[window.slices].copy()


def _rounded(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers as text of three digits; '-' where there is none."""
    return frame.map(
        lambda value: (
            value if isinstance(value, str) else ("-" if np.isnan(value) else f"{value:.3g}")
        )
    )
