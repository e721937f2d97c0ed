"""The verb: from scenes of several dates to pictures, polygons and areas of change."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import chi2

from warte.core.errors import InputError, SettingsError
from warte.earth.change import kinds as kinds_of
from warte.earth.change.align import STILL, edges, moved, on_one_grid, shift_between
from warte.earth.change.calibrate import Null, unchanged_law
from warte.earth.change.dates import days_since_1970, in_order
from warte.earth.change.kinds import ByBands, ByClusters, ByRadar, Kinds, has_plants, water_level
from warte.earth.change.radar import water_borders
from warte.earth.change.radiometry import Radiometry, radiometry, untouched
from warte.earth.change.results import areas, outputs, regions
from warte.earth.change.screen import covered, screen_of, screened, without_clouds
from warte.earth.change.season import YEAR, Model, SeasonWork, noise_of, sample_gains
from warte.earth.change.settings import Changed, ChangeSettings, Method
from warte.earth.change.smooth import smoothed
from warte.earth.change.stack import Sample, stack, take_sample
from warte.earth.change.steps import StepWork, find_steps, whitened
from warte.earth.scene import Scene
from warte.earth.whole import TILE, Work, map_scenes
from warte.earth.write import write_regions

Report = Callable[[str, int, int | None], None]
FloatArray = npt.NDArray[np.float64]
WINDOW = 30_000_000  # numbers that one window of all dates may hold
SPECKLE = 3  # pixels around each that are looked at against speckle
SHARED = 0.02  # share of the pixels that two dates must both see to tell a shift
RADAR = ("vv", "vh", "hh", "hv")
# Bands that tell a change of a dense series from each other; the rest repeats them.
SEASON_BANDS = ("green", "red", "nir", "swir16", "swir22")
SEASON_DATES = 12  # a season can be told from so many dates,
SEASON_YEARS = 1.4  # over so many years,
SEASON_GAP = 90.0  # with so many days between them at most (median)


@dataclass(frozen=True)
class Series:
    """Scenes on one grid, by time. days: since 1970. bands: that all have."""

    scenes: tuple[Scene, ...]
    days: tuple[float, ...]
    dates: tuple[str, ...]
    bands: tuple[str, ...]
    shifts: tuple[tuple[float, float], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What is done to every window of `whole`, a stack of these bands.

    margin: pixels around a window that are needed.
    """

    whole: Scene
    bands: tuple[str, ...]
    work: Work
    kinds: dict[int, str]
    threshold: float
    margin: int
    correlations: tuple[tuple[float, ...], ...] = ()
    notes: tuple[str, ...] = ()


def change(
    scenes: Sequence[Scene],
    settings: ChangeSettings = ChangeSettings(),  # noqa: B008
    *,
    out: Path,
    dates: Sequence[datetime.datetime] | None = None,
    tile: int = TILE,
    pool: Executor | None = None,
    report: Report | None = None,
) -> Changed:
    """Find what changed between scenes of one place, and write it into a folder.

    change.tif: uint8, the kind of each pixel's greatest change; 0 no change, 255 no data; names and
    colours are in the file. change_score.tif: float32, difference in units of the usual difference
    of unchanged ground. change_date.tif: int32, two bands: days since 1970-01-01 of the last
    observation before the change and of the first after it. change.csv: pixels and hectares of each
    kind and interval. regions.gpkg and regions.parquet: the patches.

    Args:
        scenes: two or more of one place, in any order; see `align.on_one_grid`.
        settings: how to look.
        out: an empty folder.
        dates: of the scenes, in their order; None takes them from the files or their names.
        tile: side of the windows (pixels); the results do not depend on it.
        pool: from `warte.core.execute.executor`; None works here.
        report: called with (step, done, total).

    Raises:
        InputError: fewer than two dates, no date, one date twice, no common ground or bands,
            nothing seen at both dates, or scenes that lie too far beside each other.
        SettingsError: the method does not suit the scenes.
    """
    ordered, when = in_order(scenes, dates)
    days = tuple(days_since_1970(when))
    named, notes = _with_bands(ordered, settings.bands)
    bands = _shared_bands(named)
    series = Series(
        tuple(on_one_grid(named)), days, tuple(day.date().isoformat() for day in when), bands,
        ((0.0, 0.0),) * len(named), tuple(notes),
    )  # fmt: skip
    method = settings.method or _method(bands, days)
    if report:
        report("sample", 0, None)
    series, sample = _mended(series, settings, method)
    plan = _PLANS[method](series, sample, settings)
    grid = series.scenes[0].grid
    side = max(64, min(tile, int((WINDOW / len(plan.whole.bands)) ** 0.5)))
    map_scenes(
        [plan.whole], plan.work, outputs(plan.kinds), out, margin=plan.margin, tile=side, pool=pool,
        report=report,
    )  # fmt: skip
    if report:
        report("regions", 0, None)
    table, valid = areas(out, grid, plan.kinds)
    write_regions(out, regions(out, grid, plan.kinds))
    sums = table.groupby("kind", sort=False)[["pixels", "area_ha"]].sum(min_count=1)
    return Changed(
        method, series.dates, plan.bands,
        {str(kind): int(count) for kind, count in sums["pixels"].items()},
        {str(kind): float(area) for kind, area in sums["area_ha"].items()},
        float(table["pixels"].sum()) / max(valid, 1), plan.threshold, series.shifts,
        plan.correlations, series.notes + plan.notes,
    )  # fmt: skip


def _with_bands(scenes: Sequence[Scene], names: Sequence[str]) -> tuple[list[Scene], list[str]]:
    """The scenes with the names that the user gives to their bands."""
    if not names:
        return list(scenes), []
    for scene in scenes:
        if len(scene.bands) != len(names):
            raise SettingsError(
                f"--bands names {len(names)} bands, {scene.name} has {len(scene.bands)}: "
                f"{', '.join(scene.bands)}; name all of them in their order"
            )
    return [replace(scene, bands=tuple(names)) for scene in scenes], []


def _shared_bands(scenes: Sequence[Scene]) -> tuple[str, ...]:
    """The bands that all scenes have, in the first one's order."""
    shared = tuple(
        band for band in scenes[0].bands if all(band in scene.bands for scene in scenes[1:])
    )
    if not shared:
        odd = next(s for s in scenes[1:] if not set(s.bands) & set(scenes[0].bands))
        raise InputError(
            f"{scenes[0].name} ({', '.join(scenes[0].bands)}) and {odd.name} "
            f"({', '.join(odd.bands)}) have no band in common; give scenes of the same bands, or "
            "name them with --bands"
        )
    return shared


def _method(bands: Sequence[str], days: Sequence[float]) -> Method:
    if set(bands) & set(RADAR):
        return "radar"
    years = (days[-1] - days[0]) / YEAR
    dense = len(days) >= SEASON_DATES and years >= SEASON_YEARS
    return "season" if dense and np.median(np.diff(days)) <= SEASON_GAP else "steps"


def _mended(series: Series, settings: ChangeSettings, method: Method) -> tuple[Series, Sample]:
    """The series with its scenes moved onto each other, and a sample of it."""
    grid = series.scenes[0].grid
    needed = 2
    sample = take_sample(stack(series.scenes, series.bands, grid, needed), len(series.days))
    if method == "radar" or settings.max_shift == 0:
        return series, sample  # speckle has no edges; sensors place it by their orbit
    at, shifts = _shifts(without_clouds(sample, series.bands) if method == "season" else sample)
    notes = list(series.notes)
    for scene, shift in zip(series.scenes, shifts, strict=True):
        far = float(np.hypot(*shift))
        if far > settings.max_shift:
            raise InputError(
                f"{scene.name} lies {far:.1f} pixels beside {series.scenes[at].name} "
                f"({shift[0]:+.1f} rows, {shift[1]:+.1f} columns); at most "
                f"{settings.max_shift:g} are mended (--max-shift): register them first"
            )
    if all(np.hypot(*shift) < STILL for shift in shifts):
        return replace(series, shifts=shifts), sample
    scenes = tuple(
        moved(scene, grid, *shift) if np.hypot(*shift) >= STILL else scene
        for scene, shift in zip(series.scenes, shifts, strict=True)
    )
    mended = replace(series, scenes=scenes, shifts=shifts, notes=tuple(notes))
    return mended, take_sample(stack(scenes, series.bands, grid, needed), len(series.days))


def _shifts(sample: Sample) -> tuple[int, tuple[tuple[float, float], ...]]:
    """Which date the others are compared with, and rows and columns by which each lies beside it.

    It is the first that is half as clear as the clearest; the shift is 0 where it cannot be told.
    """
    values = sample.values.astype(np.float64)
    clear = sample.seen.sum(axis=(0, 2, 3))
    at = int(np.flatnonzero(2 * clear >= clear.max())[0])
    found = []
    for date in range(values.shape[1]):
        both = sample.seen[:, at] & sample.seen[:, date]
        shift = None
        if date != at and both.mean() >= SHARED:
            shift = shift_between(edges(values[:, at], both), edges(values[:, date], both))
        found.append(shift or (0.0, 0.0))
    return at, tuple(found)


def _plan_steps(series: Series, sample: Sample, settings: ChangeSettings) -> Plan:
    values, seen = _flat(sample)
    names = [scene.name for scene in series.scenes]
    found = radiometry(values, seen, names, settings.normalise)
    looked = _look(sample, found, 1)
    law = unchanged_law(looked.gains, len(series.bands))
    threshold = law.threshold(settings.false_alarm)
    kinds, notes = _kinds(series, values, seen, found, looked.steps[looked.gains > threshold])
    wet = _water_levels(series, kinds, values, seen)
    return _steps(series, settings, found, law, kinds, wet, 1, notes)


def _plan_radar(series: Series, sample: Sample, settings: ChangeSettings) -> Plan:
    bands = series.bands
    odd = [band for band in bands if band not in RADAR]
    if odd:
        raise SettingsError(
            f"--method radar takes the bands {', '.join(RADAR)}; the scenes have {odd[0]}, too: "
            "leave it out, or name the bands with --bands"
        )
    if any(scene.quantity not in ("sigma0_db", "number") for scene in series.scenes):
        raise InputError("radar scenes must be in dB; read them as sigma nought in dB")
    values, seen = _flat(sample)
    found = untouched(values, seen)
    looked = _look(sample, found, SPECKLE)
    law = unchanged_law(looked.gains, len(bands))
    shape = looked.raw.shape[-2:]
    best = next((n for n, band in enumerate(bands) if band in ("vv", "hh")), 0)
    borders = water_borders(
        looked.raw.reshape(-1, len(bands), *shape), sample.seen.reshape(-1, *shape), best
    )
    if borders is None:
        raise InputError(
            "no block of the radar scenes holds both land and open water, so where water begins "
            "cannot be told; give scenes that show a shore"
        )
    kinds = ByRadar(bands, borders)
    notes = (
        "water is below " + ", ".join(
            f"{border:.1f} dB ({band})" for band, border in zip(bands, borders, strict=True)
        ),
    )  # fmt: skip
    return _steps(series, settings, found, law, kinds, (0.0,) * len(series.days), SPECKLE, notes)


def _steps(
    series: Series, settings: ChangeSettings, found: Radiometry, law: Null, kinds: Kinds,
    wet: tuple[float, ...], radius: int, notes: tuple[str, ...],
) -> Plan:  # fmt: skip
    threshold = law.threshold(settings.false_alarm)
    work = StepWork(
        found, series.days, threshold, law.median, kinds, wet, settings.min_pixels,
        settings.breaks, radius,
    )  # fmt: skip
    whole = stack(series.scenes, series.bands, series.scenes[0].grid, 2)
    return Plan(
        whole, series.bands, work, dict(kinds.names), float(np.sqrt(threshold / law.median)),
        settings.min_pixels + radius + 1, found.correlations, notes,
    )  # fmt: skip


def _flat(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """(dates, bands, N) values and (dates, N) seen of all blocks."""
    dates, bands = sample.values.shape[1:3]
    values = np.moveaxis(sample.values, 0, 2).reshape(dates, bands, -1)
    return values, np.moveaxis(sample.seen, 0, 1).reshape(dates, -1)


@dataclass(frozen=True)
class Looked:
    """A sample as the windows will be seen.

    gains: (N,) what one step explains. steps: (N, bands) whitened, last date less first. raw:
    (blocks, dates, bands, rows, columns) smoothed.
    """

    gains: FloatArray
    steps: FloatArray
    raw: FloatArray


def _look(sample: Sample, found: Radiometry, radius: int) -> Looked:
    gains, steps, smooth = [], [], []
    for values, seen in zip(sample.values, sample.seen, strict=True):
        raw, there = torch.from_numpy(values), torch.from_numpy(seen)
        block = smoothed(whitened(raw, there, found), raw, there, radius)
        smooth.append(block.raw.numpy().astype(np.float32))
        white, seen_flat = (block.white / block.doubt).flatten(2), there.flatten(1)
        enough = seen_flat.sum(0) >= 2
        white, seen_flat = white[..., enough], seen_flat[:, enough]
        gains.append(find_steps(white, seen_flat, np.inf, 1).gain.numpy())
        steps.append((white[-1] - white[0]).T.numpy())
    return Looked(np.concatenate(gains), np.concatenate(steps), np.stack(smooth))


def _kinds(
    series: Series, values: np.ndarray, seen: np.ndarray, found: Radiometry, steps: np.ndarray
) -> tuple[Kinds, tuple[str, ...]]:
    """How changes are named: by the bands' names, by a guess at them, or by their direction."""
    bands = series.bands
    if has_plants(bands) or {"green", "nir"} <= set(bands):
        return ByBands(bands), ()
    reference = int(seen.sum(axis=1).argmax())
    if not set(bands) & set(kinds_of.KNOWN):
        guess = kinds_of.guessed_bands(values[reference][:, seen[reference]].astype(np.float64))
        if guess:
            return ByBands(guess), (
                f"the files do not name their bands; taken as {', '.join(guess)} by how they go "
                "together: name them with --bands if that is wrong",
            )
    return ByClusters(found.whiten, kinds_of.directions(steps)), (
        "kinds of change have numbers only: the bands have no names that tell plants and water; "
        "name them with --bands",
    )


def _water_levels(
    series: Series, kinds: Kinds, values: np.ndarray, seen: np.ndarray
) -> tuple[float, ...]:
    """The index of water from which a pixel is one, for each date."""
    return tuple(
        water_level(kinds.wetness(values[date][:, seen[date]].astype(np.float64)))
        if scene.quantity == "number"
        else 0.0
        for date, scene in enumerate(series.scenes)
    )


def _plan_season(series: Series, sample: Sample, settings: ChangeSettings) -> Plan:
    years = (series.days[-1] - series.days[0]) / YEAR
    model = Model(series.days, settings.harmonics, settings.breaks, settings.confirm, ())
    if len(series.days) < model.needed or years < 1:
        raise SettingsError(
            f"--method season needs {model.needed} dates over a year or more, there are "
            f"{len(series.days)} over {years:.1f} years; use --method steps or fewer --harmonics"
        )
    series, whole, sample, cloudy = _clear(series, sample, model.needed)
    model = replace(model, noise=noise_of(sample))
    gains = sample_gains(sample, model)
    if not len(gains):
        raise InputError(
            f"no pixel is seen clear at {model.needed} dates, which a season needs; give more "
            "dates or use --method steps"
        )
    law = unchanged_law(gains, len(series.bands))
    threshold = law.threshold(settings.false_alarm)
    values, seen = _flat(sample)
    white = np.diag(1 / np.array(model.noise))
    found = Radiometry(np.ones((1, 1)), np.zeros((1, 1)), white, ())
    kinds, notes = _kinds(series, values, seen, found, np.vstack([white, -white]))
    ideal = float(chi2.isf(settings.false_alarm / len(series.days), len(series.bands)))
    work = SeasonWork(
        model, threshold, law.median, max(1.0, threshold / ideal), kinds,
        float(np.median(_water_levels(series, kinds, values, seen))), settings.min_pixels,
    )  # fmt: skip
    return Plan(
        whole, series.bands, work, dict(kinds.names), float(np.sqrt(threshold / law.median)),
        settings.min_pixels + 2, (), cloudy + notes,
    )  # fmt: skip


def _clear(
    series: Series, sample: Sample, needed: int
) -> tuple[Series, Scene, Sample, tuple[str, ...]]:
    """The bands that a season needs, without clouds: series, stack, sample, and notes."""
    grid = series.scenes[0].grid
    screen = screen_of(sample, series.bands)
    keep = tuple(band for band in series.bands if band in SEASON_BANDS)
    if len(keep) < 2 or not set(keep) > {"nir"}:
        keep = series.bands
    if screen is None:
        return series, stack(series.scenes, keep, grid, needed), sample, ()
    read = tuple(band for band in series.bands if band in keep or band in screen.names)
    whole = screened(stack(series.scenes, read, grid, needed), screen, keep)
    clear = take_sample(whole, len(series.days))
    notes = covered(series.dates, sample, clear)
    return replace(series, bands=keep), whole, clear, notes


_PLANS: dict[Method, Callable[[Series, Sample, ChangeSettings], Plan]] = {
    "steps": _plan_steps,
    "season": _plan_season,
    "radar": _plan_radar,
}
