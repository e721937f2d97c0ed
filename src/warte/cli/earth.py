"""`warte earth`: the commands of the domain of satellite pictures."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from warte.cli.common import (
    DeviceOption,
    ForceOption,
    JsonOption,
    OutOption,
    QuietOption,
    Report,
    SeedOption,
    choose_device,
    command_line,
    print_result,
    progress,
)
from warte.core.errors import SettingsError

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from datetime import datetime

    from warte.core.data.runs import RunFolder
    from warte.core.train.layout import Layout
    from warte.earth.scene import Scene
    from warte.earth.train import TrainSettings

app = typer.Typer(help="Clusters, classes, anomalies and change in large satellite pictures.")

Engine = Literal["processes", "mpi", "dask"]
ClusterEngine = Literal["processes", "mpi", "dask", "torch"]
Strategy = Literal["single", "ddp", "fsdp", "tensor", "pipeline"]
Schedule = Literal["gpipe", "1f1b", "interleaved"]
Learner = Literal["unet", "patch", "boosting"]
Preset = Literal[
    "fields", "coast", "city", "clouds", "radar", "series", "flood", "hyperspectral", "large"
]

SHOWN_ROWS = 20  # a longer table is cut on the screen, never in the files
SHOWN_NOTES = 5  # on the screen; the files have all

SceneArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="SCENE",
        help="One scene: a picture, a product's folder, an address, or a file for each band.",
    ),
]
ScenesArgument = Annotated[
    list[str],
    typer.Argument(metavar="SCENES", help="Pictures, products, folders of them, or patterns."),
]
BandsOption = Annotated[
    str, typer.Option("--bands", metavar="A,B", help="Bands to use, by name; else all.")
]
FillOption = Annotated[
    str,
    typer.Option(
        "--fill", metavar="VALUE", help="auto finds fill that no tag names; none; or its value."
    ),
]
QualityOption = Annotated[
    bool,
    typer.Option(
        "--quality/--no-quality", help="Leave out what a product's quality band calls cloud."
    ),
]
EngineOption = Annotated[
    Engine, typer.Option("--engine", help="What works on windows; mpi is started by mpiexec.")
]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=1, help="Processes that work on windows.")
]
SchedulerOption = Annotated[
    str, typer.Option("--scheduler", metavar="ADDRESS", help="Of dask, for --engine dask.")
]
LabelsOption = Annotated[
    Path, typer.Option("--labels", metavar="FILE", help="Polygons, or a raster of classes.")
]
FieldOption = Annotated[
    str | None, typer.Option("--field", metavar="NAME", help="Column that names the class.")
]
MethodOption = Annotated[
    Learner, typer.Option("--method", help="A class for each pixel (unet, boosting) or patch.")
]


# looking and making -----------------------------------------------------------------------------


@app.command("info")
def info_of_scenes(
    scenes: ScenesArgument,
    fill: FillOption = "auto",
    quality: QualityOption = True,
    as_json: JsonOption = False,
) -> None:
    """Show what scenes are: size, place, bands, what the numbers mean, how much is valid.

    Example: warte earth info scene.tif
    """
    from warte.earth.read import read_many

    rows = [_facts_of(scene) for scene in read_many(scenes, fill=_fill(fill), quality=quality)]
    print_result(rows[0] if len(rows) == 1 else rows, as_json)


@app.command("simulate")
def simulate_scenes(
    out: OutOption,
    preset: Annotated[Preset, typer.Option(help="Which ground, sensors and dates.")] = "fields",
    side_m: Annotated[
        float | None, typer.Option(min=500, max=1e6, help="Side of the ground (metres).")
    ] = None,
    seed: SeedOption = 0,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make scenes whose classes, clouds, anomalies and changes are known.

    Writes scenes/*.tif, truth/fields.gpkg and truth/NAME/*.tif, truth/truth.json.
    Example: warte earth simulate --preset clouds --out fake
    """
    from dataclasses import replace

    from warte.core.data.runs import RunFolder
    from warte.earth import presets
    from warte.earth.simulate.files import simulate_to

    settings = getattr(presets, preset)()
    if side_m is not None:
        ground = replace(settings.ground, width_m=side_m, height_m=side_m)
        settings = replace(settings, ground=ground)
    command = command_line()
    with RunFolder(out, force=force, command=command, seed=seed) as run, progress(quiet) as report:
        with run.step("simulate"):
            made = simulate_to(run.path, settings, seed, report=report)
        run.note(preset=preset, settings=settings)
    facts = {
        "scenes": _few(made.scenes), "pixels": made.pixels, "labelled polygons": made.polygons,
        "anomalies": made.anomalies, "folder": out,
    }  # fmt: skip
    print_result(facts, as_json)


@app.command("evaluate")
def evaluate_run(
    found: Annotated[Path, typer.Argument(metavar="FOUND", help="Folder of a run.")],
    truth: Annotated[
        Path,
        typer.Argument(
            metavar="TRUTH", help="Folder of `simulate`, a raster, or polygons of classes."
        ),
    ],
    field: FieldOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare classes, clusters, anomalies or changes with the truth.

    Example: warte earth evaluate run fake
    """
    from warte.earth.evaluate import evaluate

    scores = evaluate(found, truth, field=field)
    if as_json:
        print_result(scores.to_dict(), True)
        return
    print_result(dict(scores.numbers), False)
    if len(scores.table):
        print_result(scores.table, False)


# the findings -----------------------------------------------------------------------------------


@app.command("cluster")
def cluster_scenes(
    scenes: ScenesArgument,
    out: OutOption,
    k: Annotated[int, typer.Option("--k", help="Clusters, 2 to 254.")] = 8,
    method: Annotated[
        Literal["kmeans", "mixture", "hdbscan"], typer.Option(help="How; hdbscan finds k itself.")
    ] = "kmeans",
    features: Annotated[
        Literal["pixels", "texture", "learned"], typer.Option(help="What is compared.")
    ] = "pixels",
    bands: BandsOption = "",
    standardise: Annotated[
        bool, typer.Option("--standardise", help="Let each band count by its own spread.")
    ] = False,
    starts: Annotated[int, typer.Option(help="Starts, of which the best goes on.")] = 10,
    iterations: Annotated[int, typer.Option(help="Passes over all pixels, at most.")] = 300,
    radius: Annotated[int, typer.Option(help="Of the windows of texture (pixels).")] = 2,
    chunk: Annotated[int, typer.Option(help="Pixels in memory at once.")] = 2**18,
    fill: FillOption = "auto",
    quality: QualityOption = True,
    engine: Annotated[
        ClusterEngine, typer.Option(help="mpi is started by mpiexec, torch by torchrun.")
    ] = "processes",
    workers: WorkersOption = 1,
    scheduler: SchedulerOption = "",
    seed: SeedOption = 0,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put the pixels of scenes into clusters; the same ones whatever the number of processes.

    Writes clusters.tif (NAME_clusters.tif of several scenes), centres.csv, report.html,
    preview.png, run.json.
    Example: warte earth cluster scene.tif --k 10 --out run
    """
    from warte.earth.cluster import ClusterSettings, cluster
    from warte.earth.read import read_many

    settings = ClusterSettings(
        k=k, method=method, features=features, bands=_names(bands), standardise=standardise,
        starts=starts, iterations=iterations, radius=radius, chunk=chunk, seed=seed,
    )  # fmt: skip
    if engine in ("mpi", "torch"):
        _check_scheduler(engine, scheduler)
        found = _cluster_together(engine, scenes, settings, fill, quality, out, force, quiet)
        if found is None:
            return
    else:
        with _working(out, force, seed, engine, workers, scheduler, quiet) as (pool, run, report):
            opened = _opened(run, read_many(scenes, fill=_fill(fill), quality=quality))
            with run.step("cluster"):
                found = cluster(opened, settings, out=run.path, pool=pool, report=report)
            _finish(run, opened, found, settings, quiet)
    facts = {
        "clusters": found.clusters, "pixels": found.pixels, "objective": found.objective,
        "objective per pixel": found.objective_per_pixel, "BIC": found.bic,
        "passes": found.iterations, "processes": found.ranks,
    }  # fmt: skip
    _print_table(out, "centres.csv", facts, as_json)


@app.command("anomalies")
def find_anomalies(
    scene: SceneArgument,
    out: OutOption,
    method: Annotated[
        Literal["ensemble", "contrast", "local-rx", "rx", "forest", "autoencoder"],
        typer.Option(help="One method, or several of them together."),
    ] = "ensemble",
    false_alarms: Annotated[
        float, typer.Option(help="Share of background pixels that regions may grow from.")
    ] = 1e-2,
    false_regions: Annotated[
        float,
        typer.Option(help="Regions by chance if there are no anomalies; else their share."),
    ] = 1e-2,
    smallest_px: Annotated[int, typer.Option(help="Pixels of the smallest region.")] = 1,
    largest_px: Annotated[int, typer.Option(help="Pixels of the largest small object.")] = 60,
    bands: BandsOption = "",
    fill: FillOption = "auto",
    quality: QualityOption = True,
    engine: EngineOption = "processes",
    workers: WorkersOption = 1,
    scheduler: SchedulerOption = "",
    seed: SeedOption = 0,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find what does not belong in a scene.

    Writes anomaly.tif (4: one in ten thousand background pixels scores as high), regions.gpkg,
    regions.parquet, report.html, preview.png, run.json.
    Example: warte earth anomalies scene.tif --out run
    """
    if _serves(engine):
        return

    from warte.earth.anomalies import AnomalySettings, anomalies
    from warte.earth.read import read

    settings = AnomalySettings(
        method=method, false_alarms=false_alarms, false_regions=false_regions,
        smallest_px=smallest_px, largest_px=largest_px, seed=seed,
    )  # fmt: skip
    with _working(out, force, seed, engine, workers, scheduler, quiet) as (pool, run, report):
        chosen = read(_place(scene), bands=_names(bands) or None, fill=_fill(fill), quality=quality)
        _opened(run, [chosen])
        with run.step("anomalies"):
            found = anomalies(chosen, settings, out=run.path, pool=pool, report=report)
        _finish(run, [chosen], found, settings, quiet)
    facts = {
        "regions": found.regions, "pixels in regions": found.region_px,
        "valid pixels": found.valid_px, "score from which a pixel counts": found.threshold,
    }  # fmt: skip
    _print_regions(out, facts, as_json)


@app.command("change")
def find_changes(
    scenes: ScenesArgument,
    out: OutOption,
    dates: Annotated[
        str, typer.Option(metavar="D1,D2", help="Of the scenes, as 2019-05-31; else their own.")
    ] = "",
    method: Annotated[
        Literal["steps", "season", "radar"] | None,
        typer.Option(help="Few dates, a dense series, or radar; else what the scenes suggest."),
    ] = None,
    bands: Annotated[
        str, typer.Option(metavar="A,B", help="Names of the bands in the files' order.")
    ] = "",
    false_alarm: Annotated[
        float, typer.Option(help="Share of unchanged pixels that may be marked.")
    ] = 0.001,
    min_pixels: Annotated[int, typer.Option(help="Smaller patches are not kept.")] = 9,
    max_shift: Annotated[float, typer.Option(help="Pixels that dates may lie apart.")] = 3.0,
    normalise: Annotated[
        bool, typer.Option("--normalise/--no-normalise", help="Bring dates to one radiometry.")
    ] = True,
    fill: FillOption = "auto",
    quality: QualityOption = True,
    engine: EngineOption = "processes",
    workers: WorkersOption = 1,
    scheduler: SchedulerOption = "",
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find what changed between dates, where and when: clearing, flood, burn, building.

    Writes change.tif, change_score.tif, change_date.tif, change.csv, regions.gpkg,
    regions.parquet, report.html, preview.png, run.json.
    Example: warte earth change 1985.tif 1995.tif 2005.tif --out run
    """
    if _serves(engine):
        return

    from warte.earth.change import ChangeSettings, change
    from warte.earth.read import read_many

    taken = _dates(dates)
    settings = ChangeSettings(
        method=method, bands=_names(bands), false_alarm=false_alarm, min_pixels=min_pixels,
        max_shift=max_shift, normalise=normalise,
    )  # fmt: skip
    with _working(out, force, None, engine, workers, scheduler, quiet) as (pool, run, report):
        opened = _opened(run, read_many(scenes, fill=_fill(fill), quality=quality))
        with run.step("change"):
            found = change(
                opened, settings, dates=taken, out=run.path, pool=pool,
                report=report,
            )  # fmt: skip
        _finish(run, opened, found, settings, quiet, found.notes)
    facts = {
        "method": found.method, "dates": _few(found.dates),
        "share of pixels": found.share,
    }  # fmt: skip
    _print_table(out, "change.csv", facts, as_json)


@app.command("classify")
def classify_scene(
    scene: SceneArgument,
    model: Annotated[Path, typer.Option(metavar="FOLDER", help="What `train` wrote.")],
    out: OutOption,
    tile: Annotated[int, typer.Option(help="Side of the windows (pixels).")] = 512,
    blend: Annotated[int, typer.Option(help="Over which windows are blended (pixels).")] = 16,
    fill: FillOption = "auto",
    quality: QualityOption = True,
    engine: EngineOption = "processes",
    workers: WorkersOption = 1,
    scheduler: SchedulerOption = "",
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Give each pixel of a scene its class with a trained model.

    Writes classes.tif, probabilities.tif, areas.csv, report.html, preview.png, run.json.
    Example: warte earth classify scene.tif --model model --workers 2 --out run
    """
    if _serves(engine):
        return

    from warte.earth.classify import ClassifySettings, classify
    from warte.earth.read import read

    settings = ClassifySettings(tile=tile, blend=blend)
    with _working(out, force, None, engine, workers, scheduler, quiet) as (pool, run, report):
        chosen = read(_place(scene), fill=_fill(fill), quality=quality)
        _opened(run, [chosen])
        run.add_input(model)
        with run.step("classify"):
            found = classify(chosen, model, settings, out=run.path, pool=pool, report=report)
        _finish(run, [chosen], found, settings, quiet, found.notes)
    facts = {"classified pixels": found.valid, "areas": found.interval}
    _print_table(out, "areas.csv", facts, as_json)


# learning ---------------------------------------------------------------------------------------


@app.command("train")
def train_model(
    scenes: ScenesArgument,
    labels: LabelsOption,
    out: OutOption,
    field: FieldOption = None,
    method: MethodOption = "unet",
    clouds: Annotated[
        bool, typer.Option("--clouds", help="Settings for clouds and shadows of any sensor.")
    ] = False,
    bands: BandsOption = "",
    steps: Annotated[int | None, typer.Option(min=1, help="Updates of a network.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Crops of a step.")] = None,
    strategy: Annotated[
        Strategy, typer.Option(help="How a network lies over processes.")
    ] = "single",
    devices: Annotated[int, typer.Option(min=1, help="Processes, one on each device.")] = 1,
    tensor: Annotated[int, typer.Option(min=0, help="Processes that share each layer.")] = 0,
    stages: Annotated[int, typer.Option(min=0, help="Processes of a pipeline.")] = 0,
    schedule: Annotated[Schedule, typer.Option(help="Order of a pipeline's passes.")] = "1f1b",
    microbatches: Annotated[int, typer.Option(min=1, help="Pieces of a pipeline's batch.")] = 4,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="STEPS", help="After which a network can go on; else a tenth of all."
        ),
    ] = None,
    device: DeviceOption = "auto",
    fill: FillOption = "auto",
    quality: QualityOption = True,
    seed: SeedOption = 0,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Learn classes from scenes and labels; groups of labels are held out to judge the model.

    Starts its processes itself, or joins those of torchrun, mpiexec or srun. A network whose
    training was stopped goes on with the same command. Writes model.safetensors, model.json with
    the figures, report.html, run.json.
    Example: warte earth train scenes --labels fields.gpkg --strategy ddp --devices 2 --out model
    """
    from warte.core.train.layout import Layout

    layout = Layout(strategy, devices, tensor, stages, schedule, microbatches)
    settings = _train_settings(method, clouds, _names(bands), steps, batch, seed)
    found = _train(
        scenes, labels, field, settings, layout, choose_device(device), checkpoint_every or 0, fill,
        quality, out, force, quiet,
    )  # fmt: skip
    if found is None:
        return
    held = found.held_out
    facts = {
        "classes": ", ".join(found.classes), "labelled pixels": sum(found.pixels),
        "groups held out": held.get("groups"), "accuracy": held.get("accuracy"),
        "mean IoU": held.get("mean_iou"), "calibration error": held.get("calibration_error"),
        "model": out, "report": out / "report.html",
    }  # fmt: skip
    print_result(facts, as_json)


@app.command("search")
def search_settings(
    scenes: ScenesArgument,
    labels: LabelsOption,
    out: OutOption,
    trials: Annotated[int, typer.Option(min=1, help="In all, earlier ones included.")] = 50,
    field: FieldOption = None,
    method: MethodOption = "boosting",
    bands: BandsOption = "",
    pruner: Annotated[
        Literal["none", "median", "halving", "hyperband", "racing"],
        typer.Option(help="Which trials are given up early."),
    ] = "racing",
    storage: Annotated[
        str,
        typer.Option(metavar="PLACE", help="File or database that several searches share."),
    ] = "",
    study: Annotated[str, typer.Option(metavar="NAME", help="Of the study in it.")] = "search",
    fill: FillOption = "auto",
    quality: QualityOption = True,
    engine: EngineOption = "processes",
    workers: WorkersOption = 1,
    scheduler: SchedulerOption = "",
    seed: SeedOption = 0,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Search for the settings of a model that do best on held-out groups, and train it with them.

    A search that was stopped goes on with the same command. Writes trials.csv, importances.csv,
    best.json, the model, report.html, run.json.
    Example: warte earth search scenes --labels fields.gpkg --trials 50 --out study
    """
    if _serves(engine):
        return

    from warte.core.search import SearchSettings
    from warte.earth.labels import read_labels
    from warte.earth.read import read_many
    from warte.earth.report.models import write_search_report
    from warte.earth.search import search_model

    options = SearchSettings(
        trials=trials, seed=seed, direction="maximize", storage=storage, study=study, pruner=pruner
    )
    settings = _train_settings(method, False, _names(bands), None, None, seed)
    with _working(out, force, seed, engine, workers, scheduler, quiet) as (pool, run, report):
        opened = _opened(run, read_many(scenes, fill=_fill(fill), quality=quality))
        known = read_labels(labels, field=field)
        run.add_input(labels)
        with run.step("search"):
            found = search_model(
                opened, known, settings, options, out=run.path, pool=pool, report=report
            )
        notes = _notes_of(opened, known.notes)
        run.note(settings=options, best=found.parameters, note=found.note, notes=notes)
        _tell_notes(notes, quiet)
        write_search_report(run.path, found, seconds=run.seconds)
    facts = {
        "trials": len(found.trials), "complete": int((found.trials["state"] == "complete").sum()),
        "mean IoU": found.value, **found.parameters, "model": out, "report": out / "report.html",
    }  # fmt: skip
    print_result(facts, as_json)


# what they share --------------------------------------------------------------------------------


def _serves(engine: Engine | Literal["torch"]) -> bool:
    """Whether this is a rank of MPI that works for rank 0; then it has done so."""
    if engine != "mpi":
        return False
    from warte.core.execute import serve

    return serve(engine)


def _check_scheduler(engine: Engine | Literal["torch"], scheduler: str) -> None:
    """Refuse the address of a scheduler that would not be used."""
    if scheduler and engine != "dask":
        raise SettingsError(f"--scheduler is for --engine dask, not for {engine}; leave it out")


@contextmanager
def _working(
    out: Path,
    force: bool,
    seed: int | None,
    engine: Engine | Literal["torch"],
    workers: int,
    scheduler: str,
    quiet: bool,
) -> "Iterator[tuple[Executor | None, RunFolder, Report]]":
    """Workers, the folder of the run, and progress; with MPI only rank 0 gets there."""
    from warte.core.data.runs import RunFolder, kept_beside
    from warte.core.execute import executor

    if engine == "torch":
        raise SettingsError("--engine torch: only `cluster` works so; use processes, mpi or dask")
    _check_scheduler(engine, scheduler)
    command = command_line()
    with (
        executor(engine, workers, scheduler=scheduler) as pool,
        RunFolder(out, force=force, command=command, seed=seed) as run,
        progress(quiet) as report,
    ):
        try:
            yield pool, run, report
        except KeyboardInterrupt:
            if kept_beside(run.path).exists():
                print("finished windows are kept: the same command goes on", file=sys.stderr)
            raise


def _cluster_together(
    engine: Literal["mpi", "torch"],
    places: Sequence[str],
    settings: Any,
    fill: str,
    quality: bool,
    out: Path,
    force: bool,
    quiet: bool,
) -> Any:
    """Cluster with the other processes of this run; None in all but the first."""
    from warte.core.data.runs import RunFolder
    from warte.earth.cluster import cluster
    from warte.earth.cluster.ranks import mpi_ranks, together, torch_ranks
    from warte.earth.read import read_many

    with mpi_ranks() if engine == "mpi" else torch_ranks() as ranks, ExitStack() as stack:
        if engine == "mpi" and ranks.size == 1:
            raise SettingsError(
                "--engine mpi: this is a single process; type: mpiexec -n 4 warte ... --engine mpi"
            )
        scenes = together(ranks, lambda: read_many(places, fill=_fill(fill), quality=quality))
        if ranks.rank != 0:
            together(ranks, lambda: None)
            cluster(scenes, settings, out=out.with_name(f".{out.name}.none"), group=ranks)
            return None
        run = RunFolder(out, force=force, command=command_line(), seed=settings.seed)

        def begin() -> None:
            stack.enter_context(run)
            _opened(run, scenes)

        # Whatever may fail here alone is said to the others, which would wait for ever.
        together(ranks, begin)
        report = stack.enter_context(progress(quiet))
        with run.step("cluster"):
            found = cluster(scenes, settings, out=run.path, group=ranks, report=report)
        _finish(run, scenes, found, settings, quiet)
        return found


def _train(
    scenes: Sequence[str],
    labels: Path,
    field: str | None,
    settings: "TrainSettings",
    layout: "Layout",
    device: str,
    every: int,
    fill: str,
    quality: bool,
    out: Path,
    force: bool,
    quiet: bool,
) -> Any:
    """Train and write the folder; None in the processes of a launcher other than 0."""
    from warte.core.data.runs import RunFolder
    from warte.core.train.launch import launched
    from warte.earth.labels import read_labels
    from warte.earth.read import read_many
    from warte.earth.report.models import write_model_report
    from warte.earth.train import train

    opened = read_many(scenes, fill=_fill(fill), quality=quality)
    known = read_labels(labels, field=field)
    started = launched()
    if started is not None and started[1] != layout.devices:
        raise SettingsError(
            f"--devices is {layout.devices}, and the launcher started {started[1]} processes; "
            f"give --strategy ddp --devices {started[1]}, or another layout of as many"
        )
    if started is not None and started[0] != 0:
        return train(
            opened, known, settings, out=out.expanduser().resolve(), layout=layout, device=device,
            checkpoint_every=every,
        )  # fmt: skip
    command = command_line()
    with (
        RunFolder(out, force=force, command=command, seed=settings.seed) as run,
        progress(quiet) as report,
    ):
        _opened(run, opened)
        run.add_input(labels)
        with run.step("train"):
            found = train(
                opened, known, settings, out=run.path, layout=layout, device=device,
                checkpoint_every=every, report=report, tell=None if quiet else _tell,
            )  # fmt: skip
        assert found is not None  # this is process 0
        notes = _notes_of(opened, found.notes)
        run.note(settings=settings, layout=layout, notes=notes)
        _tell_notes(notes, quiet)
        write_model_report(
            run.path, losses=found.losses, notes=notes, settings=settings, seconds=run.seconds
        )
    return found


def _notes_of(scenes: "Sequence[Scene]", notes: Sequence[str]) -> list[str]:
    """What was found while opening scenes, and while working; each line once."""
    return list(dict.fromkeys([*(note for one in scenes for note in one.notes), *notes]))


def _tell_notes(notes: Sequence[str], quiet: bool) -> None:
    """Notes on stderr, few of them and none where ``quiet``; the page and run.json have all."""
    if quiet:
        return
    for note in notes[:SHOWN_NOTES]:
        _tell(f"note: {note}")
    if len(notes) > SHOWN_NOTES:
        _tell(f"note: {len(notes) - SHOWN_NOTES} more are in run.json")


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _train_settings(
    method: Learner,
    clouds: bool,
    bands: tuple[str, ...],
    steps: int | None,
    batch: int | None,
    seed: int,
) -> "TrainSettings":
    from dataclasses import replace

    from warte.earth import train

    if clouds:
        return train.clouds(seed)
    network = train.NetworkSettings()
    network = replace(network, steps=steps or network.steps, batch=batch or network.batch)
    return train.TrainSettings(method=method, bands=bands, seed=seed, network=network)


def _opened(run: "RunFolder", scenes: "list[Scene]") -> "list[Scene]":
    """The same scenes, recorded as inputs of the run."""
    from warte.earth.read.files import REMOTE

    for scene in scenes:
        for path in scene.paths:
            if not path.startswith(REMOTE):
                run.add_input(path)
    return scenes


def _finish(
    run: "RunFolder",
    scenes: "Sequence[Scene]",
    found: Any,
    settings: Any,
    quiet: bool,
    notes: Sequence[str] = (),
) -> None:
    """The page of a run, what run.json says of it, and what a user must not miss."""
    from warte.earth.report import write_report

    warnings = _notes_of(scenes, notes)
    run.note(settings=settings, found=found, notes=warnings)
    _tell_notes(warnings, quiet)
    with run.step("report"):
        write_report(
            run.path, scenes, found=found, settings=settings, warnings=warnings,
            seconds=run.seconds,
        )  # fmt: skip


def _place(scene: Sequence[str]) -> "str | Sequence[str]":
    """One file or folder, or several files that are bands of one scene."""
    return scene[0] if len(scene) == 1 else scene


def _names(text: str) -> tuple[str, ...]:
    """The words between commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _dates(text: str) -> "list[datetime] | None":
    """The dates between commas, in UTC; None without any."""
    from datetime import UTC, datetime

    found = []
    for word in _names(text):
        try:
            found.append(datetime.fromisoformat(word).replace(tzinfo=UTC))
        except ValueError:
            raise SettingsError(
                f"--dates: {word} is no date; write it as 2019-05-31, with commas between"
            ) from None
    return found or None


def _fill(text: str) -> Any:
    """What --fill means to the readers."""
    if text in ("auto", "none"):
        return text
    try:
        return float(text)
    except ValueError:
        raise SettingsError(f"--fill is {text}; allowed are auto, none, or a number") from None


def _facts_of(scene: "Scene") -> dict[str, object]:
    import numpy as np

    from warte.core.data.tiles import windows

    grid = scene.grid
    valid = 0
    for window in windows(grid.rows, grid.columns, 1024):
        valid += int(np.count_nonzero(scene.read(window).valid))
    return {
        "name": scene.name, "columns": grid.columns, "rows": grid.rows,
        "CRS": "" if grid.crs is None else grid.crs.to_string(),
        "pixel": f"{abs(grid.transform.a):g} x {abs(grid.transform.e):g}",
        "bands": ", ".join(scene.bands), "numbers": scene.quantity, "sensor": scene.sensor,
        "time": "" if scene.time is None else scene.time.isoformat(),
        "valid pixels": valid, "valid share": round(valid / (grid.rows * grid.columns), 4),
        "notes": "; ".join(scene.notes),
    }  # fmt: skip


def _few(words: Sequence[str]) -> str:
    """The words, or how many there are between the first and the last."""
    if len(words) <= 4:
        return ", ".join(words)
    return f"{words[0]} to {words[-1]} ({len(words)})"


def _print_table(out: Path, name: str, facts: Mapping[str, object], as_json: bool) -> None:
    """A table of the run and facts below it."""
    import pandas as pd

    table = pd.read_csv(out / name)
    known = {key: value for key, value in facts.items() if value is not None}
    if as_json:
        print_result({**known, "table": table.to_dict("records"), "folder": str(out)}, True)
        return
    print_result(table.head(SHOWN_ROWS), False)
    print_result({**known, "report": out / "report.html"}, False)


def _print_regions(out: Path, facts: Mapping[str, object], as_json: bool) -> None:
    """The strongest regions and facts below them."""
    import geopandas
    import pandas as pd

    frame = geopandas.read_parquet(out / "regions.parquet")
    table = pd.DataFrame(frame.drop(columns="geometry"))
    if as_json:
        print_result({**facts, "regions": table.to_dict("records"), "folder": str(out)}, True)
        return
    if len(table):
        print_result(table.head(SHOWN_ROWS), False)
    print_result({**facts, "report": out / "report.html"}, False)
