"""`warte spectra`: the commands of the domain of galaxy spectra."""

from collections.abc import Sequence
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
from warte.core.errors import InputError, OutputError, SettingsError

if TYPE_CHECKING:
    import pandas as pd

    from warte.core.data.runs import RunFolder
    from warte.spectra.fit import FitResult
    from warte.spectra.read import Failure
    from warte.spectra.spectrum import Spectrum

app = typer.Typer(help="Find Seyfert galaxies and double lines in spectra, and fit lines.")

Preset = Literal["survey", "doubles", "training", "passive", "demo"]
Part = Literal["network", "evidence"]

AT_ONCE = 1024  # spectra simulated and held in memory
SHOWN_ROWS = 20  # a longer table is cut on the screen, never in the files
FITTED_FILES = ("fits.csv", "lines.csv", "lines.fits")
SHOWN_LINE = ("[O III] 5007", "H-alpha")  # whose velocities stand on the screen

SpectraArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="SPECTRA",
        help="Files, or folders of them: SDSS spec and spSpec, DESI coadds, text.",
    ),
]
RedshiftOption = Annotated[
    float | None, typer.Option("--redshift", help="Redshift of all spectra, over the files' own.")
]
AirOption = Annotated[
    bool, typer.Option("--air", help="Wavelengths of text files are those of air.")
]
WorkersOption = Annotated[int, typer.Option("--workers", min=1, help="Processes that read files.")]
WeightsOption = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder of `warte spectra train`; else the package's."),
]


# lists and downloads ----------------------------------------------------------------------------


@app.command("list")
def list_from_skyserver(
    sql: Annotated[
        str, typer.Argument(metavar="SQL", help="SELECT of at least plate, mjd, fiberid.")
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="CSV file to write the list into.")
    ],
    release: Annotated[int, typer.Option(help="Data release of SDSS.")] = 17,
    skyserver: Annotated[
        str, typer.Option(metavar="URL", help="Address of SkyServer; SDSS's own if left out.")
    ] = "",
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for an answer.")] = 120,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask SkyServer for a list of spectra.

    Writes a CSV file of plate, mjd, fiberid and whatever else the query selects.
    Example: warte spectra list "SELECT TOP 50 plate, mjd, fiberid, z FROM SpecObj" --out list.csv
    """
    if out.exists() and not force:
        raise OutputError(f"--out {out} exists; name another file or give --force")

    from warte.spectra.archive import list_spectra

    table = list_spectra(sql, release=release, base_url=skyserver, timeout_s=timeout)
    _write_csv(table, out)
    print_result({"spectra": len(table), "columns": ", ".join(table.columns), "list": out}, as_json)


@app.command("download")
def download_spectra(
    listed: Annotated[
        Path, typer.Argument(metavar="LIST", help="CSV file with plate, mjd, fiberid.")
    ],
    out: OutOption,
    release: Annotated[int, typer.Option(help="Data release of SDSS.")] = 17,
    sas: Annotated[
        str, typer.Option(metavar="URL", help="Address of the archive; SDSS's own if left out.")
    ] = "",
    full: Annotated[
        bool, typer.Option("--full", help="Files with all exposures, some ten times as large.")
    ] = False,
    run2d: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Reduction to look in; else the list's or all known."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=32, help="Files fetched at once.")] = 4,
    rate: Annotated[float, typer.Option(help="Requests per second at most.")] = 5.0,
    retries: Annotated[int, typer.Option(min=0, help="Further attempts at a file.")] = 4,
    timeout: Annotated[float, typer.Option(help="Seconds without an answer.")] = 30.0,
    cache: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Files fetched earlier; else the user's.")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Use and fill no cache.")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch the spectra of a list; what is there already stays, so it can be broken off.

    Writes spec-*.fits and download.csv, which says of each file whether it was fetched.
    Example: warte spectra download galaxies.csv --out spectra
    """
    from warte.spectra.archive import DownloadSettings, download, read_list

    settings = DownloadSettings(
        release=release, base_url=sas, lite=not full, run2d=tuple(run2d or ()), workers=workers,
        rate_per_s=rate, retries=retries, timeout_s=timeout,
    )  # fmt: skip
    rows = read_list(listed)
    with progress(quiet) as report:
        table = download(rows, out, settings, cache=cache, no_cache=no_cache, report=report)
    failed = table[table["status"] == "failed"]
    _warn([f"{row.file}: {row.reason}" for row in failed.head(SHOWN_ROWS).itertuples()])
    counts = {str(name): int(count) for name, count in table["status"].value_counts().items()}
    facts: dict[str, object] = {**counts, "folder": out, "table": out / "download.csv"}
    if as_json:
        facts["failures"] = failed[["file", "reason"]].to_dict("records")
    print_result(facts, as_json)


# simulation and truth ---------------------------------------------------------------------------


@app.command("simulate")
def simulate_spectra(
    out: OutOption,
    preset: Annotated[Preset, typer.Option(help="Which galaxies.")] = "survey",
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="Number of spectra.")] = 100,
    snr: Annotated[
        float | None, typer.Option(help="Median S/N of the continuum in all spectra.")
    ] = None,
    missing: Annotated[
        float | None, typer.Option(help="Share of missing pixels in all spectra, 0 to 0.9.")
    ] = None,
    seed: SeedOption = 0,
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make spectra of galaxies whose class, lines and components are known.

    Writes sim-*.fits in the form of SDSS, truth.csv (a row per spectrum), truth_lines.csv.
    Example: warte spectra simulate --count 200 --out fake
    """
    from dataclasses import replace

    import numpy as np

    from warte.core.data.runs import RunFolder
    from warte.spectra import presets
    from warte.spectra.simulate import joined, simulate, write_truth
    from warte.spectra.write import write_sdss

    chosen = {
        "survey": presets.survey, "doubles": presets.doubles, "training": presets.training,
        "passive": presets.passive, "demo": presets.demo,
    }[preset]()  # fmt: skip
    settings = replace(chosen, count=count)
    if snr is not None:
        settings = replace(settings, snr=(snr, snr))
    if missing is not None:
        settings = replace(settings, missing=(missing, missing))
    rng = np.random.default_rng(seed)
    command = command_line()
    with RunFolder(out, force=force, command=command, seed=seed) as run, progress(quiet) as report:
        truths = []
        for first in range(0, count, AT_ONCE):
            part = replace(settings, count=min(AT_ONCE, count - first))
            with run.step("simulate"):
                spectra, known = simulate(part, rng, first=first)
            truths.append(known)
            with run.step("write"):
                for done, spectrum in enumerate(spectra, start=first + 1):
                    write_sdss(run.path / spectrum.name, spectrum)
                    report("writing", done, count)
        truth = joined(truths)
        write_truth(run.path, truth)
        run.note(preset=preset, settings=settings, spectra=count)
    kinds = truth.spectra["class"].value_counts()
    facts = {str(name): int(number) for name, number in kinds.items()}
    doubles = int((truth.spectra["components"] == 2).sum())
    print_result({**facts, "with two components": doubles, "folder": out}, as_json)


@app.command("evaluate")
def evaluate_run(
    found: Annotated[Path, typer.Argument(metavar="FOUND", help="Folder of `classify` or `fit`.")],
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="Folder of `simulate`.")],
    as_json: JsonOption = False,
) -> None:
    """Compare classes, components and lines with the truth.

    Example: warte spectra evaluate run fake
    """
    from warte.spectra.evaluate import evaluate, read_found, tables
    from warte.spectra.simulate import read_truth

    scores = evaluate(*read_found(found), read_truth(truth))
    if as_json:
        print_result(scores, True)
        return
    for title, table in tables(scores).items():
        if len(table):
            print(f"\n{title}")
            print_result(table, False)


# the findings -----------------------------------------------------------------------------------


@app.command("classify")
def classify_spectra(
    spectra: SpectraArgument,
    out: OutOption,
    weights: WeightsOption = None,
    redshift: RedshiftOption = None,
    air: AirOption = False,
    workers: WorkersOption = 1,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Tell star-forming, composite, Seyfert, LINER, broad-line and passive galaxies apart.

    Writes classes.csv with a probability for each class and for a second velocity component,
    report.html, run.json.
    Example: warte spectra classify spectra --out run
    """
    from warte.core.data.runs import RunFolder
    from warte.spectra.classify import candidate_threshold, classify

    threshold = candidate_threshold(weights)
    command = command_line()
    with RunFolder(out, force=force, command=command) as run, progress(quiet) as report:
        good, failures = _read(run, spectra, redshift, air, workers, report)
        with run.step("classify"):
            classes = classify(
                good, weights=weights, device=choose_device(device),
                report=lambda done, total: report("classifying", done, total),
            )  # fmt: skip
        table = _with_failures(classes, failures)
        _check_some(table, "classified")
        with run.step("write"):
            _write_csv(table, run.path / "classes.csv")
            _write_report(run, None, table, [], failures, {"weights": weights or "the package's"})
        run.note(spectra=len(table), failed=int((table["reason"] != "").sum()), threshold=threshold)
    _print_classes(table, threshold, out, as_json)


@app.command("fit")
def fit_spectra(
    spectra: SpectraArgument,
    out: OutOption,
    candidates: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="classes.csv: fit its Seyferts and likely doubles, not all."
        ),
    ] = None,
    least_p: Annotated[
        float | None,
        typer.Option(
            "--least-p",
            min=0,
            max=1,
            help="p_two_components from which a row is a candidate; else the network's own.",
        ),
    ] = None,
    engine: Annotated[
        Literal["batched", "lmfit"], typer.Option(help="All at once, or one by one with lmfit.")
    ] = "batched",
    components: Annotated[
        Literal["1", "2"], typer.Option(help="2 tries one and two and decides; 1 tries one.")
    ] = "2",
    broad: Annotated[
        Literal["auto", "yes", "no"], typer.Option(help="A broad component of the Balmer lines.")
    ] = "auto",
    order: Annotated[
        int, typer.Option(min=0, max=5, help="Degree of the continuum around the lines.")
    ] = 2,
    absorption: Annotated[
        bool, typer.Option("--absorption/--no-absorption", help="Fit stellar Balmer absorption.")
    ] = True,
    errors: Annotated[
        Literal["stated", "scatter", "full"],
        typer.Option(
            help="As the files state; grown by chi-square; also by what neighbours share."
        ),
    ] = "full",
    false_positives: Annotated[
        float, typer.Option(help="Share of single lines that may be called double, 0.001 to 0.1.")
    ] = 0.01,
    redshift: RedshiftOption = None,
    air: AirOption = False,
    workers: WorkersOption = 1,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fit emission lines with one and with two components, and say which is warranted.

    Writes lines.csv, lines.fits, fits.csv, report.html, run.json; beside FILE, where --out is the
    folder of FILE.
    Example: warte spectra fit spectra --candidates run/classes.csv --out run
    """
    from warte.core.data.runs import RunFolder
    from warte.spectra.fit import FitSettings, fit

    settings = FitSettings(
        engine=engine, components=2 if components == "2" else 1, order=order,
        broad={"auto": "auto", "yes": True, "no": False}[broad],  # type: ignore[arg-type]
        absorption=absorption, errors=errors, false_positives=false_positives,
        device=choose_device(device),
    )  # fmt: skip
    if least_p is not None and candidates is None:
        raise SettingsError("--least-p goes with --candidates; give both")
    classes = None if candidates is None else _read_classes(candidates)
    beside = candidates is not None and candidates.resolve().parent == out.resolve()
    adds = FITTED_FILES if beside else ()
    command = command_line()
    with RunFolder(out, force=force, adds=adds, command=command) as run, progress(quiet) as report:
        good, failures = _read(run, spectra, redshift, air, workers, report)
        if classes is not None and candidates is not None:
            run.add_input(candidates)
            good, failures = _only_candidates(good, failures, classes, candidates, least_p)
        with run.step("fit"):
            result = fit(good, settings, report=lambda done, total: report("fitting", done, total))
        fits = _with_failures(result.fits, failures)
        _check_some(fits, "fitted")
        with run.step("write"):
            _write_fits(run, good, result, fits, classes, failures, settings)
        doubles = int((fits["components"] == 2).sum())
        run.note(
            settings=settings, spectra=len(fits), failed=int((fits["reason"] != "").sum()),
            doubles=doubles,
        )  # fmt: skip
    _print_fits(fits, result.lines, out, as_json)


@app.command("explore")
def explore_spectra(
    spectra: SpectraArgument,
    out: OutOption,
    method: Annotated[
        Literal["pca", "nmf"], typer.Option(help="Principal components, or nonnegative parts.")
    ] = "pca",
    embed: Annotated[
        Literal["tsne", "pca"], typer.Option(help="Axes of the map: t-SNE, or the first two.")
    ] = "tsne",
    components: Annotated[int, typer.Option(min=1, help="Components that draw a spectrum.")] = 10,
    oddest: Annotated[int, typer.Option(min=0, help="Number of odd spectra to show.")] = 20,
    classified: Annotated[
        Path | None,
        typer.Option("--classes", metavar="FILE", help="classes.csv, to colour the map by class."),
    ] = None,
    redshift: RedshiftOption = None,
    air: AirOption = False,
    workers: WorkersOption = 1,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Lay spectra out on a map, like beside like, and list the oddest.

    Writes map.csv, report.html, run.json.
    Example: warte spectra explore spectra --out map
    """
    from warte.core.data.runs import RunFolder
    from warte.spectra.explore import ExploreSettings, explore
    from warte.spectra.report import write_explore_report

    settings = ExploreSettings(
        method=method, embed=embed, components=components, oddest=oddest, seed=seed
    )
    classes = None if classified is None else _read_classes(classified)
    command = command_line()
    with RunFolder(out, force=force, command=command, seed=seed) as run, progress(quiet) as report:
        good, failures = _read(run, spectra, redshift, air, workers, report)
        with run.step("explore"):
            chart = explore(good, settings, device=choose_device(device), report=report)
        table = _with_failures(chart.table, failures)
        with run.step("write"):
            _write_csv(table, run.path / "map.csv")
            write_explore_report(
                run.path, chart, classes=classes, settings=_shown(settings), failures=failures
            )
        run.note(settings=settings, spectra=len(table), flags=list(chart.flags))
    if as_json:
        print_result(table, True)
        return
    _warn([f"{one.name}: {one.reason}" for one in failures])
    print_result(chart.table.iloc[chart.oddest[:SHOWN_ROWS]].drop(columns="reason"), False)
    print(f"spectra: {len(table)}\nreport: {out / 'report.html'}")


@app.command("train")
def train_networks(
    out: OutOption,
    only: Annotated[
        Part | None, typer.Option(help="The network alone, or the evidence's calibration alone.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A minute or two, to try it out; worse weights.")
    ] = False,
    spectra: Annotated[
        int | None, typer.Option(min=1, help="Simulated spectra that the network learns from.")
    ] = None,
    seed: SeedOption = 1,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the network on simulated spectra and calibrate the evidence, which takes an hour.

    Without flags it does what made the package's weights. Writes classifier.safetensors and
    .json, evidence.json, run.json.
    Example: warte spectra train --quick --out weights
    """
    from dataclasses import replace

    from warte.core.data.runs import RunFolder
    from warte.spectra.fit.calibrate import CalibrateSettings, write_calibration
    from warte.spectra.train import TrainSettings, train
    from warte.spectra.train import quick as short

    settings = short(seed) if quick else TrainSettings(seed=seed)
    if spectra is not None:
        settings = replace(settings, spectra=spectra)
    calibration = CalibrateSettings(seed=seed)
    if quick:
        calibration = replace(calibration, count=calibration.count // 10)
    cards: dict[str, object] = {}
    command = command_line()
    with RunFolder(out, force=force, command=command, seed=seed) as run, progress(quiet) as report:
        if only != "evidence":
            with run.step("network"):
                cards["network"] = train(
                    settings, out=run.path, device=choose_device(device),
                    report=lambda step, steps, loss: report("training", step, steps),
                )  # fmt: skip
            run.note(settings=settings)
        if only != "network":
            with run.step("evidence"):
                cards["evidence"] = write_calibration(
                    calibration, run.path,
                    report=lambda done, total: report("calibrating", done, total),
                )  # fmt: skip
            run.note(calibration=calibration)
    if as_json:
        print_result({"weights": out, "cards": cards}, True)
        return
    for card in cards.values():
        figures = card["figures"] if isinstance(card, dict) else {}
        print_result({k: v for k, v in figures.items() if isinstance(v, int | float)}, False)
    print(f"weights: {out}")


# reading ----------------------------------------------------------------------------------------


def _read(
    run: "RunFolder",
    paths: Sequence[Path],
    redshift: float | None,
    air: bool,
    workers: int,
    report: Report,
) -> "tuple[list[Spectrum], list[Failure]]":
    """All spectra of the files and folders; at least one can be read."""
    from warte.spectra.read import read_all, spectrum_files

    files = [file for path in paths for file in spectrum_files(path)]
    for path in paths:
        run.add_input(path)
    with run.step("read"):
        spectra, failures = read_all(
            files, z=redshift, air=air, workers=workers,
            report=lambda done, total: report("reading", done, total),
        )  # fmt: skip
    if not spectra:
        first = failures[0]
        raise InputError(
            f"none of {len(failures)} files could be read; the first is {first.name}: "
            f"{first.reason}"
        )
    return spectra, failures


def _with_failures(table: "pd.DataFrame", failures: "Sequence[Failure]") -> "pd.DataFrame":
    """The table with a row for each file that could not be read: its name and the reason."""
    import pandas as pd

    if not failures:
        return table
    lost = pd.DataFrame(
        {"file": [one.name for one in failures], "reason": [one.reason for one in failures]}
    )
    for name in ("class", "flags", "object_id"):
        if name in table:
            lost[name] = ""
    if "components" in table:
        lost["components"] = 0
    return pd.concat([table, lost], ignore_index=True)[list(table.columns)]


def _check_some(table: "pd.DataFrame", done: str) -> None:
    """Raise InputError where all spectra of a table failed."""
    failed = table["reason"] != ""
    if failed.all():
        first = table.iloc[0]
        raise InputError(
            f"none of {len(table)} spectra could be {done}; the first is {first['file']}: "
            f"{first['reason']}"
        )


def _read_classes(path: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype={"file": str, "class": str, "reason": str})
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise InputError(
            f"cannot read {path}: {reason}; give the classes.csv of `warte spectra classify`"
        ) from problem
    missing = [name for name in ("file", "class", "p_two_components") if name not in table]
    if missing:
        raise InputError(
            f"{path} has no column {missing[0]}; give the classes.csv of `warte spectra classify`"
        )
    return table.fillna({"class": "", "reason": ""})


def _only_candidates(
    spectra: "list[Spectrum]",
    failures: "list[Failure]",
    classes: "pd.DataFrame",
    path: Path,
    least_p: float | None,
) -> "tuple[list[Spectrum], list[Failure]]":
    """Spectra that `classes` calls Seyferts or likely doubles, and failures it does not name."""
    from warte.spectra.classify import candidate_threshold

    least = candidate_threshold() if least_p is None else least_p
    likely = (classes["p_two_components"] >= least) | (classes["class"] == "Seyfert")
    wanted, named = set(classes.loc[likely, "file"]), set(classes["file"])
    chosen = [spectrum for spectrum in spectra if spectrum.name in wanted]
    if not chosen:
        raise InputError(
            f"none of {len(spectra)} spectra is a candidate in {path}: no Seyfert, and no "
            f"p_two_components from {least:.3g}; leave --candidates out to fit all"
        )
    return chosen, [one for one in failures if one.name not in named]


# results ----------------------------------------------------------------------------------------


def _write_csv(table: "pd.DataFrame", path: Path) -> None:
    """Write a table whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        table.to_csv(partial, index=False)
        partial.replace(path)
    except OSError as problem:
        partial.unlink(missing_ok=True)
        reason = (problem.strerror or str(problem)).lower()
        raise OutputError(f"cannot write {path}: {reason}; name another place") from problem


def _write_fits(
    run: "RunFolder",
    spectra: "Sequence[Spectrum]",
    result: "FitResult",
    fits: "pd.DataFrame",
    classes: "pd.DataFrame | None",
    failures: "Sequence[Failure]",
    settings: object,
) -> None:
    from warte.spectra.fit import curves, write_lines_fits
    from warte.spectra.report import candidates

    _write_csv(fits, run.path / "fits.csv")
    _write_csv(result.lines, run.path / "lines.csv")
    units = {spectrum.unit for spectrum in spectra}
    write_lines_fits(run.path / "lines.fits", result.lines, units.pop() if len(units) == 1 else "")
    shown = candidates(result.fits, result.lines, classes)
    pictures = curves(spectra, result, shown)
    _write_report(run, result, classes, pictures, failures, _shown(settings))


def _write_report(
    run: "RunFolder",
    result: "FitResult | None",
    classes: "pd.DataFrame | None",
    pictures: Sequence[Any],
    failures: "Sequence[Failure]",
    settings: dict[str, object],
) -> None:
    import pandas as pd

    from warte.spectra.fit import FIT_COLUMNS, LINE_COLUMNS
    from warte.spectra.report import write_report

    fits, lines = (
        (pd.DataFrame(columns=list(FIT_COLUMNS)), pd.DataFrame(columns=list(LINE_COLUMNS)))
        if result is None
        else (result.fits, result.lines)
    )
    write_report(
        run.path,
        fits=fits,
        lines=lines,
        classes=classes,
        curves=pictures,
        settings=settings,
        failures=failures,
        seconds=run.seconds,
    )


def _shown(settings: Any) -> dict[str, object]:
    from dataclasses import asdict

    return {name: str(value) for name, value in asdict(settings).items()}


def _print_classes(table: "pd.DataFrame", threshold: float, out: Path, as_json: bool) -> None:
    if as_json:
        print_result(table, True)
        return
    good = table[table["reason"] == ""]
    _warn([f"{row.file}: {row.reason}" for row in table[table["reason"] != ""].itertuples()])
    shown = good.sort_values("p_two_components", ascending=False).head(SHOWN_ROWS)
    likely = [f"p_{name}" for name in shown["class"]]
    columns = {
        "file": shown["file"], "class": shown["class"],
        "probability": [row[name] for (_, row), name in zip(shown.iterrows(), likely, strict=True)],
        "p_two_components": shown["p_two_components"],
    }  # fmt: skip
    print_result(type(table)(columns), False)
    counts = ", ".join(f"{n} {name}" for name, n in good["class"].value_counts().items())
    print(f"spectra: {len(good)} ({counts})")
    print(f"likely doubles: {int((good['p_two_components'] >= threshold).sum())}")
    print(f"report: {out / 'report.html'}")


def _print_fits(fits: "pd.DataFrame", lines: "pd.DataFrame", out: Path, as_json: bool) -> None:
    if as_json:
        print_result(fits, True)
        return
    good = fits[fits["reason"] == ""]
    _warn([f"{row.file}: {row.reason}" for row in fits[fits["reason"] != ""].itertuples()])
    shown = good.sort_values("log_evidence_ratio", ascending=False).head(SHOWN_ROWS)
    velocities = {name: _velocities(lines, name) for name in shown["file"]}
    columns = {
        "file": shown["file"], "components": shown["components"],
        "velocity_km_s": [velocities[name] for name in shown["file"]],
        "p_two": shown["p_two"], "log_evidence_ratio": shown["log_evidence_ratio"],
        "chi2_reduced": shown["chi2_reduced"], "flags": shown["flags"],
    }  # fmt: skip
    print_result(type(fits)(columns), False)
    doubles = int((good["components"] == 2).sum())
    print(
        f"spectra: {len(good)} fitted, {doubles} with two components, {len(fits) - len(good)} not"
    )
    print(f"report: {out / 'report.html'}")


def _velocities(lines: "pd.DataFrame", name: str) -> str:
    """Velocities of the narrow components of a file, as text."""
    own = lines[lines["file"] == name]
    for line in SHOWN_LINE:
        rows = own[(own["line"] == line) & own["component"].astype(str).isin(["1", "2"])]
        if len(rows):
            return ", ".join(f"{value:.0f}" for value in rows["velocity_km_s"])
    return ""


def _warn(messages: Sequence[str]) -> None:
    for message in messages[:SHOWN_ROWS]:
        typer.echo(f"warning: {message}", err=True)
    if len(messages) > SHOWN_ROWS:
        typer.echo(f"warning: and {len(messages) - SHOWN_ROWS} more", err=True)
