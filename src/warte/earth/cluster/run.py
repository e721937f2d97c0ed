"""The verb: scenes to clusters."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import rasterio
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from warte.earth.cluster.density import fit_density
from warte.earth.cluster.gather import Columns, Gathered, columns_of, common_bands, gather
from warte.earth.cluster.kmeans import Assign, Found, Nearest, best_starts, kmeans, tally
from warte.earth.cluster.mixture import fit_mixture
from warte.earth.cluster.ranks import Alone, Ranks, together
from warte.earth.cluster.settings import ClusterSettings
from warte.earth.cluster.store import Float64Array, Int64Array, Store, means_of
from warte.earth.cluster.write import (
    NOISE,
    Label,
    areas_ha,
    picture_names,
    write_centres,
    write_pictures,
)
from warte.earth.scene import Scene, check_crs
from warte.earth.whole import Report

CACHE = 32_000_000  # bytes of blocks of files that GDAL may keep in memory


@dataclass(frozen=True)
class Clustered:
    """What a clustering found; clusters in the order of their numbers, 1, 2...

    bands: names. centres: (clusters, bands) means in the units of the scenes. counts: pixels.
    noise: pixels of no cluster (hdbscan). objective: of kmeans, the sum of squared distances of
    all pixels to their centres, in the (scaled) features; objective_per_pixel: its mean.
    log_likelihood, bic: of a mixture, of all pixels. iterations, converged: of kmeans or the
    mixture. ranks: processes that worked together.
    """

    method: str
    features: tuple[str, ...]
    bands: tuple[str, ...]
    clusters: int
    pixels: int
    counts: tuple[int, ...]
    centres: tuple[tuple[float, ...], ...]
    noise: int
    objective: float | None
    objective_per_pixel: float | None
    log_likelihood: float | None
    bic: float | None
    iterations: int | None
    converged: bool | None
    ranks: int


@dataclass(frozen=True)
class _Fit:
    """Groups of vectors and what is said about them. noise: whether the last group is noise."""

    assign: Assign
    sums: Int64Array
    noise: bool = False
    objective: float | None = None
    log_likelihood: float | None = None
    bic: float | None = None
    iterations: int | None = None
    converged: bool | None = None


def cluster(
    scenes: Sequence[Scene],
    settings: ClusterSettings,
    *,
    out: Path,
    pool: Executor | None = None,
    group: Ranks | None = None,
    report: Report | None = None,
) -> Clustered:
    """Put the pixels of scenes into clusters that all scenes share.

    Writes clusters.tif (uint8: 0 no data, 1 to 254 clusters by falling size, 255 noise); of
    several scenes NAME_clusters.tif each; and centres.csv.

    Args:
        scenes: with the same bands; each on its own grid, all with a CRS or none.
        settings: how.
        out: an empty folder; that of the first process holds. It also takes the scratch files.
        pool: from `warte.core.execute.executor`, for writing the pictures; None works here, or in
            the other processes of MPI.
        group: the processes that work together, all of which call this, from
            `warte.earth.cluster.ranks`; by default one. Only the first one writes.
        report: called with (step, done, total); steps: learn, read, starts, passes, windows.

    Raises:
        InputError: no valid pixel, fewer distinct ones than clusters, a scene without a band or
            alone without a CRS, or a file that cannot be read; in all processes.
    """
    ranks = group or Alone()
    together(ranks, lambda: check_crs(scenes))
    bands = together(ranks, lambda: common_bands(scenes, settings.bands))
    names = together(ranks, lambda: picture_names(scenes))
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(GDAL_CACHEMAX=CACHE))
        # The products are small: more threads would only wait for each other.
        stack.enter_context(threadpool_limits(1))
        columns = columns_of(scenes, bands, settings, ranks, report)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(".scratch", dir=_home(out))))
        store = stack.enter_context(Store(scratch / "pixels", columns.number))
        gathered = gather(scenes, columns, settings, store, ranks, report)
        groups = stack.enter_context((scratch / "groups").open("w+b"))
        found = _fit(gathered, columns, settings, store, groups, ranks, report)
    values = _numbers(found, gathered, columns)
    means = _means(found, gathered, columns)
    label = Label(columns, gathered.frame, found.assign, values, "")

    def write(workers: Executor | None) -> None:
        write_pictures(scenes, label, names, out, workers, report)
        areas = areas_ha(scenes, names, out)
        write_centres(out / "centres.csv", bands, values, found.sums, means, areas)

    _on_first(ranks, pool, write)
    return _facts(found, settings, columns, values, means, gathered, ranks)


def _home(out: Path) -> Path | None:
    """Where scratch files go: below the results, or where the system has them on other machines."""
    return out if out.is_dir() else None


def _on_first(
    ranks: Ranks, pool: Executor | None, write: Callable[[Executor | None], None]
) -> None:
    """Let the first process write while the others help it, or wait."""

    def work() -> None:
        if pool is not None or ranks.size == 1:
            if ranks.rank == 0:
                write(pool)
            return
        with ranks.workers() as workers:
            if ranks.rank == 0:
                write(workers)

    together(ranks, work)


def _fit(
    gathered: Gathered,
    columns: Columns,
    settings: ClusterSettings,
    store: Store,
    groups: BinaryIO,
    ranks: Ranks,
    report: Report | None,
) -> _Fit:
    frame = gathered.frame
    if settings.method == "hdbscan":
        density = together(
            ranks,
            lambda: fit_density(frame, frame.centred(gathered.sample), settings.smallest),
        )
        density = ranks.gather(density)[0]
        own = tally(frame, store.read(frame.whole), density, density.noise + 1)
        return _Fit(density, ranks.sum(own), noise=True)

    def passed(done: int) -> None:
        if report is not None:
            report("passes", done, None)

    found = _kmeans(gathered, settings, store, groups, ranks, report)
    nearest = Nearest(found.centres, frame.weights)
    if settings.method == "kmeans":
        return _Fit(
            nearest, found.sums, objective=found.objective,
            iterations=found.iterations, converged=found.converged,
        )  # fmt: skip
    mixed = fit_mixture(
        frame, lambda: store.read(frame.whole), nearest, settings.k,
        columns.first_band or columns.number,
        iterations=settings.iterations, tolerance=settings.tolerance, ranks=ranks, report=passed,
    )  # fmt: skip
    mixture = ranks.gather(mixed.mixture)[0]
    sums = ranks.sum(tally(frame, store.read(frame.whole), mixture, settings.k))
    return _Fit(
        mixture, sums, log_likelihood=mixed.log_likelihood, bic=mixed.bic,
        iterations=mixed.iterations, converged=mixed.converged,
    )  # fmt: skip


def _kmeans(
    gathered: Gathered,
    settings: ClusterSettings,
    store: Store,
    groups: BinaryIO,
    ranks: Ranks,
    report: Report | None,
) -> Found:
    frame = gathered.frame
    # The first process starts for all: they would only do the same.
    centres: list[Float64Array] | None = None
    if ranks.rank == 0:
        centres = best_starts(
            frame, gathered.sample, settings.k, seed=settings.seed, starts=settings.starts,
            tolerance=settings.tolerance, report=report,
        )  # fmt: skip
    starts = ranks.gather(centres)[0]
    assert starts is not None  # that of the first process
    return kmeans(
        frame, lambda: store.read(frame.whole), starts,
        iterations=settings.iterations, tolerance=settings.tolerance,
        spare=frame.centred(gathered.sample), groups=groups, ranks=ranks,
        report=None if report is None else lambda done: report("passes", done, None),
    )  # fmt: skip


def _means(found: _Fit, gathered: Gathered, columns: Columns) -> Float64Array:
    """(groups, bands) means in the units of the scenes."""
    means = means_of(gathered.frame, found.sums) + gathered.frame.middle
    return means[:, columns.first_band :]


def _numbers(found: _Fit, gathered: Gathered, columns: Columns) -> npt.NDArray[np.uint8]:
    """(groups,) the value of each group in the picture: by falling size, then by the first band."""
    sizes, first = found.sums[:, 0].copy(), _means(found, gathered, columns)[:, 0]
    values = np.full(len(sizes), NOISE, np.uint8)
    real = len(sizes) - found.noise
    order = np.lexsort((first[:real], -sizes[:real]))
    values[order] = np.arange(1, real + 1)
    return values


def _facts(
    found: _Fit,
    settings: ClusterSettings,
    columns: Columns,
    values: npt.NDArray[np.uint8],
    means: Float64Array,
    gathered: Gathered,
    ranks: Ranks,
) -> Clustered:
    order = [int(group) for group in np.argsort(values, kind="stable") if values[group] != NOISE]
    pixels = gathered.frame.pixels
    counts = tuple(int(found.sums[group, 0]) for group in order)
    return Clustered(
        method=settings.method,
        features=columns.names,
        bands=columns.bands,
        clusters=len(order),
        pixels=pixels,
        counts=counts,
        centres=tuple(tuple(float(x) for x in means[group]) for group in order),
        noise=pixels - sum(counts),
        objective=found.objective,
        objective_per_pixel=None if found.objective is None else found.objective / pixels,
        log_likelihood=found.log_likelihood,
        bic=found.bic,
        iterations=found.iterations,
        converged=found.converged,
        ranks=ranks.size,
    )
