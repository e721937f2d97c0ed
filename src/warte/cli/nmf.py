"""`warte nmf`: matrices written as sums of nonnegative components."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from warte.cli.common import (
    Device,
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
from warte.core.errors import InputError, MissingExtraError, SettingsError, WarteError

if TYPE_CHECKING:
    import numpy as np

    from warte.core.data.runs import RunFolder
    from warte.nmf.distributed import Place
    from warte.nmf.read import Data, Matrix, Source
    from warte.nmf.report import Outcome

app = typer.Typer(help="Write a matrix as a sum of nonnegative components.")

Solver = Literal[
    "auto", "hals", "poisson", "mu", "autograd", "weighted", "shift", "nearly", "online"
]
Init = Literal["auto", "random", "nndsvd", "nndsvda", "nndsvdar"]
Missing = Literal["error", "nan"]

BETAS = {"frobenius": 2.0, "kl": 1.0, "is": 0.0}
BETA_MAX = 10.0
NEGATIVE_ALLOWED = ("shift", "nearly")  # solvers for noisy data around zero
SOLVER_BETAS = {
    "hals": 2.0, "poisson": 1.0, "weighted": 2.0, "shift": 2.0, "nearly": 2.0,
}  # fmt: skip
SPREAD = ("auto", "hals", "poisson", "mu", "weighted")  # solvers for --distributed

MatrixArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="MATRIX",
        help=".npy, .npz, .csv, .tsv or .parquet; or GeoTIFF pictures, whose pixels are the rows.",
    ),
]
KeyOption = Annotated[
    str | None, typer.Option("--key", metavar="NAME", help="Array of an .npz file with several.")
]
WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", help="Inverse variance of each entry; 0 hides it."),
]
IvarOption = Annotated[
    str | None,
    typer.Option("--ivar", metavar="NAME", help="Array of MATRIX.npz with inverse variances."),
]
MaskOption = Annotated[
    Path | None,
    typer.Option("--mask", metavar="FILE", help="1 (true) where an entry is hidden, else 0."),
]
MissingOption = Annotated[
    Missing,
    typer.Option("--missing", help="What empty cells and NaN are: errors, or hidden entries."),
]


RankOption = Annotated[int, typer.Option("--rank", "-k", min=1, help="Number of components.")]
LossOption = Annotated[
    str,
    typer.Option("--loss", metavar="LOSS", help="frobenius, kl, is, or a number: beta-divergence."),
]
SolverOption = Annotated[
    Solver,
    typer.Option("--solver", help="auto takes the fastest; nearly and shift bear negative data."),
]
InitOption = Annotated[Init, typer.Option("--init", help="Where the factors start.")]
RestartsOption = Annotated[
    int,
    typer.Option("--restarts", min=1, max=1000, help="Random starts, of which the best is kept."),
]
IterationsOption = Annotated[int, typer.Option("--max-iter", min=1, help="Iterations at most.")]
ToleranceOption = Annotated[
    float,
    typer.Option(
        "--tol", min=0, help="Stop when ten iterations gain less than this share of the first loss."
    ),
]
L1WOption = Annotated[
    float, typer.Option("--l1-w", min=0, help="Penalty on the sum of the activations.")
]
L2WOption = Annotated[
    float, typer.Option("--l2-w", min=0, help="Penalty on half the sum of their squares.")
]
L1HOption = Annotated[
    float, typer.Option("--l1-h", min=0, help="Penalty on the sum of the components.")
]
L2HOption = Annotated[
    float, typer.Option("--l2-h", min=0, help="Penalty on half the sum of their squares.")
]
OverlapOption = Annotated[
    float, typer.Option("--ortho-h", min=0, help="Penalty on the overlap of different components.")
]
StepsOption = Annotated[
    float, typer.Option("--smooth-h", min=0, help="Penalty on steps from column to column.")
]
DistributedOption = Annotated[
    bool,
    typer.Option("--distributed", help="Spread rows over the processes of torchrun or mpiexec."),
]
TimeoutOption = Annotated[
    float,
    typer.Option("--timeout", min=1, help="With --distributed: seconds to wait for the others."),
]


@dataclass(frozen=True)
class Settings:
    """What `fit` is told, as it stands in run.json."""

    rank: int
    loss: str
    solver: Solver
    init: Init
    restarts: int
    max_iter: int
    tol: float
    penalty: dict[str, float]
    seed: int

    @property
    def beta(self) -> float:
        """The divergence that the loss names."""
        return parse_loss(self.loss)


@app.command("fit")
def fit_matrix(
    matrix: MatrixArgument,
    out: OutOption,
    rank: RankOption,
    loss: LossOption = "frobenius",
    key: KeyOption = None,
    weights: WeightsOption = None,
    ivar: IvarOption = None,
    mask: MaskOption = None,
    missing: MissingOption = "error",
    solver: SolverOption = "auto",
    init: InitOption = "auto",
    restarts: RestartsOption = 1,
    max_iter: IterationsOption = 500,
    tol: ToleranceOption = 1e-4,
    l1_w: L1WOption = 0.0,
    l2_w: L2WOption = 0.0,
    l1_h: L1HOption = 0.0,
    l2_h: L2HOption = 0.0,
    ortho_h: OverlapOption = 0.0,
    smooth_h: StepsOption = 0.0,
    distributed: DistributedOption = False,
    timeout: TimeoutOption = 60.0,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    force: ForceOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Factorise a matrix: rows become mixtures of RANK components.

    Writes h.npy, components.csv, w.npy, activations (.csv; .parquet for Parquet, abundances.tif
    for GeoTIFF), report.html and run.json.
    Example: warte nmf fit spectra.npz --ivar ivar --rank 5 --out fitted
    """
    settings = Settings(
        rank=rank, loss=loss, solver=solver, init=init, restarts=restarts,
        max_iter=max_iter, tol=tol, seed=seed,
        penalty={
            "l1_w": l1_w, "l2_w": l2_w, "l1_h": l1_h, "l2_h": l2_h,
            "ortho_h": ortho_h, "smooth_h": smooth_h,
        },
    )  # fmt: skip
    _check_settings(settings, distributed)
    _need_extra()
    from warte.nmf.read import Source

    source = Source(matrix, key, weights, ivar, mask, missing)
    places = Places(out, device, force, quiet, timeout)
    facts = _fit_spread(settings, source, places) if distributed else _fit(settings, source, places)
    if facts is not None:
        _print_facts({**facts, "report": out / "report.html"}, as_json)


@app.command("transform")
def transform_matrix(
    matrix: MatrixArgument,
    model: Annotated[
        Path, typer.Option("--model", metavar="FOLDER", help="Folder of `warte nmf fit`.")
    ],
    out: OutOption,
    key: KeyOption = None,
    weights: WeightsOption = None,
    ivar: IvarOption = None,
    mask: MaskOption = None,
    missing: MissingOption = "error",
    device: DeviceOption = "auto",
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find how much of the components of an earlier fit is in the rows of another matrix.

    Writes w.npy, activations (.csv; .parquet for Parquet, abundances.tif for GeoTIFF), run.json.
    Example: warte nmf transform new.npz --model fitted --out mixed
    """
    _need_extra()
    from warte.core.data.runs import RunFolder
    from warte.nmf.read import Source, read_source
    from warte.nmf.write import read_components

    source = Source(matrix, key, weights, ivar, mask, missing)
    with RunFolder(out, force=force, command=command_line()) as run:
        h, names = read_components(model)
        settings = _earlier_settings(model)
        with run.step("read"):
            data = read_source(source)
        _note_inputs(run, source)
        run.add_input(model)
        _check_columns(data.matrix, matrix[0], names, h.shape[1], model)
        _check_values(data, settings, matrix[0], again=True)
        with run.step("transform"):
            w = _mixtures(data, settings, h, choose_device(device), matrix[0], model)
        loss, explained = _figures(data, settings.beta, w, h)
        _write_rows(run.path, w, data.matrix, matrix[0])
        facts: dict[str, object] = {
            "rows": len(w), "columns": h.shape[1], "rank": len(h),
            "hidden_share": data.hidden_share, "loss": loss, "explained_share": explained,
            "warnings": data.matrix.warnings,
        }  # fmt: skip
        run.note(**facts, model=model.name)
    _print_facts(facts, as_json)


@dataclass(frozen=True)
class Places:
    """Where a command computes and writes."""

    out: Path
    device: Device
    force: bool
    quiet: bool
    timeout_s: float


def parse_loss(text: str) -> float:
    """The beta of frobenius, kl, is, or of a number.

    Raises:
        SettingsError: the text is none of these.
    """
    if text.lower() in BETAS:
        return BETAS[text.lower()]
    try:
        beta = float(text)
    except ValueError:
        beta = math.nan
    if not -BETA_MAX <= beta <= BETA_MAX:
        raise SettingsError(
            f"--loss {text} is not a loss; give frobenius, kl, is, or a number from "
            f"{-BETA_MAX:g} to {BETA_MAX:g}"
        )
    return beta


# checks -----------------------------------------------------------------------------------------


def _need_extra() -> None:
    """Importing anything of warte.nmf needs scikit-learn."""
    try:
        import sklearn  # noqa: F401
    except ImportError as problem:
        raise MissingExtraError("sklearn", "nmf") from problem


def _check_settings(settings: Settings, distributed: bool) -> None:
    beta, solver = settings.beta, settings.solver
    for name in ("tol", *settings.penalty):
        value = settings.tol if name == "tol" else settings.penalty[name]
        if not math.isfinite(value):
            flag = "--" + name.replace("_", "-")
            raise SettingsError(f"{flag} {value:g} is not a number from 0; give one")
    if settings.restarts > 1 and settings.init not in ("auto", "random"):
        raise SettingsError(
            f"--restarts {settings.restarts} needs random starts, not --init {settings.init}; "
            "give --init random"
        )
    if beta != SOLVER_BETAS.get(solver, beta):
        raise SettingsError(
            f"--solver {solver} does not minimise --loss {settings.loss}; "
            "give --solver auto, mu or autograd"
        )
    if distributed and solver not in SPREAD:
        raise SettingsError(
            f"--solver {solver} does not go with --distributed; give one of {', '.join(SPREAD)}"
        )
    if distributed and settings.restarts > 1:
        raise SettingsError("--restarts does not go with --distributed; try several --seed instead")


def _check_values(data: "Data", settings: Settings, path: Path, *, again: bool = False) -> None:
    """Check the visible entries against the loss, in the words of the command line.

    again: the settings are those of an earlier fit.
    """
    import numpy as np
    from scipy import sparse

    values, weights = data.matrix.values, data.effective
    seen = values.data if sparse.issparse(values) else values
    if weights is not None:
        seen = seen[weights > 0]
    low = int((seen < 0).sum())
    if low and settings.solver not in NEGATIVE_ALLOWED:
        remedy = "hide them with --mask or clip them"
        if settings.beta == 2:
            model = "a model that was fitted with " if again else ""
            remedy = f"noisy data around zero need {model}--solver nearly"
        raise InputError(
            f"{path} has {low} negative entries, the lowest {float(np.min(seen)):.4g}; "
            f"entries from 0 are allowed here: {remedy}"
        )


def _check_rank(rank: int, rows: int, columns: int, path: Path) -> None:
    if rank > min(rows, columns):
        raise SettingsError(
            f"--rank {rank} is above the smaller side of {path}, which is {rows} x {columns}; "
            f"give at most {min(rows, columns)}"
        )


def _check_columns(
    matrix: "Matrix", path: Path, names: list[str] | None, count: int, model: Path
) -> None:
    columns = matrix.shape[1]
    if columns != count:
        raise InputError(
            f"{path} has {columns} columns and the components of {model} have {count}; "
            "give a matrix with the same columns"
        )
    if names is None or matrix.columns is None or matrix.columns == names:
        return
    pairs = zip(matrix.columns, names, strict=True)
    found, wanted = next((a, b) for a, b in pairs if a != b)
    raise InputError(
        f"{path} has the column {found} where {model} has {wanted}; "
        "bring the columns into the same order"
    )


def _earlier_settings(model: Path) -> Settings:
    import json

    file = model / "run.json"
    try:
        settings = Settings(**json.loads(file.read_text(encoding="utf-8"))["settings"])
        parse_loss(settings.loss)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SettingsError) as problem:
        raise InputError(
            f"{file} does not say how the model was fitted; give a folder of `warte nmf fit`"
        ) from problem
    return settings


# one process ------------------------------------------------------------------------------------


def _fit(settings: Settings, source: "Source", places: Places) -> dict[str, object]:
    """Read, factorise and write, in this process alone."""
    from warte.nmf.read import read_source

    first = source.paths[0]
    with _run_folder(settings, places) as run, progress(places.quiet) as report:
        with run.step("read"):
            data = read_source(source)
        _note_inputs(run, source)
        _check_rank(settings.rank, *data.matrix.shape, first)
        _check_values(data, settings, first)
        with run.step("fit"):
            w, h, outcome = _fitted(data, settings, choose_device(places.device), report, first)
        return _write_fit(run, data.matrix, data.hidden_share, settings, w, h, outcome, first)


def _run_folder(settings: Settings, places: Places) -> "RunFolder":
    from warte.core.data.runs import RunFolder

    return RunFolder(places.out, force=places.force, command=command_line(), seed=settings.seed)


def _note_inputs(run: "RunFolder", source: "Source") -> None:
    for path in (*source.paths, source.weights, source.mask):
        if path is not None:
            run.add_input(path)


def _model(settings: Settings, rank: int, device: str) -> Any:
    from warte.nmf import NMF

    penalties: dict[str, Any] = dict(settings.penalty)
    return NMF(
        n_components=rank,
        beta_loss=settings.beta,
        solver=settings.solver,
        init=None if settings.init == "auto" else settings.init,
        n_init=settings.restarts,
        tol=settings.tol,
        max_iter=settings.max_iter,
        random_state=settings.seed,
        device=device,
        **penalties,
    )


def _fitted(
    data: "Data", settings: Settings, device: str, report: Report, path: Path
) -> "tuple[np.ndarray, np.ndarray, Outcome]":
    """The factors w and h, and their figures."""
    from warte.nmf.report import Outcome

    model = _model(settings, settings.rank, device)
    with _about(path):
        w = model.fit_transform(
            data.matrix.values,
            weights=data.weights,
            mask=data.hidden,
            watch=lambda done, w, h: report("iterations", done, settings.max_iter),
        )
    h = model.components_
    loss, explained = _figures(data, settings.beta, w, h)
    outcome = Outcome(
        settings.loss, model.solver_, loss, model.losses_, model.n_iter_, model.converged_,
        explained,
    )  # fmt: skip
    return w, h, outcome


def _mixtures(
    data: "Data", settings: Settings, h: "np.ndarray", device: str, path: Path, folder: Path
) -> "np.ndarray":
    """The activations w (n, k) of rows for known components h (k, m)."""
    with _about(folder):
        model = _model(settings, len(h), device).use_components(h)
    with _about(path):
        w: np.ndarray = model.transform(data.matrix.values, weights=data.weights, mask=data.hidden)
    return w


def _figures(
    data: "Data", beta: float, w: "np.ndarray", h: "np.ndarray"
) -> tuple[float, float | None]:
    """The divergence without penalties, and the explained share."""
    import torch

    from warte.nmf.check import as_tensor
    from warte.nmf.evaluate import explained_share
    from warte.nmf.solve.multiplicative import factor_loss

    x = as_tensor(data.matrix.values)
    weights = None if data.effective is None else as_tensor(data.effective).to(x.dtype)
    first, second = (torch.from_numpy(factor).to(x.dtype) for factor in (w, h))
    loss = float(factor_loss(x, first, second, beta, weights))
    return loss, explained_share(x, beta, loss, weights)


@contextmanager
def _about(path: Path) -> Iterator[None]:
    """What the library refuses about a matrix becomes an error of the user's file."""
    try:
        yield
    except ValueError as problem:
        raise InputError(f"{path}: {problem}") from problem


# many processes ---------------------------------------------------------------------------------


def _fit_spread(settings: Settings, source: "Source", places: Places) -> dict[str, object] | None:
    """Read own rows, factorise together, and write in process 0; None in the others."""
    from warte.nmf import distributed

    cuda = choose_device(places.device) == "cuda"
    with (
        distributed.group(cuda=cuda, timeout_s=places.timeout_s) as place,
        ExitStack() as stack,
    ):
        report = stack.enter_context(progress(places.quiet or place.rank > 0))
        run, data, matrix = None, None, None
        with _together(place):
            if place.rank == 0:
                run = stack.enter_context(_run_folder(settings, places))
                _note_inputs(run, source)
            data, matrix = _own_part(source, settings, place)
        assert data is not None and matrix is not None
        with _together(place):
            w, h, outcome = _fitted_together(data, settings, place, report, source.paths[0])
        share = distributed.mean_of_rows(data.hidden_share, matrix.shape[0])
        if run is None:
            return None
        return _write_fit(run, matrix, share, settings, w, h, outcome, source.paths[0])


@contextmanager
def _together(place: "Place") -> Iterator[None]:
    """If one process fails here all end: process 0 with the first message, the others silently."""
    from warte.nmf import distributed

    problem: WarteError | None = None
    try:
        yield
    except distributed.LostError:
        raise
    except WarteError as found:
        problem = found
    messages = [said for said in distributed.everyones(str(problem or "")) if said]
    if messages and place.rank == 0:
        raise problem or WarteError(messages[0])
    if messages:
        raise typer.Exit(2)


def _own_part(source: "Source", settings: Settings, place: "Place") -> "tuple[Data, Matrix]":
    """The rows of this process, checked; and a matrix with what goes with all rows."""
    from warte.nmf.distributed import own_rows
    from warte.nmf.read import read_part

    def part(count: int) -> tuple[int, int]:
        if count < place.size:
            raise SettingsError(
                f"--distributed: {source.paths[0]} has {count} rows for {place.size} processes; "
                f"start at most {count}"
            )
        return own_rows(count, place)

    data, matrix, rows = read_part(source, part)
    _check_rank(settings.rank, rows, matrix.shape[1], source.paths[0])
    _check_values(data, settings, source.paths[0])
    return data, matrix


def _fitted_together(
    data: "Data", settings: Settings, place: "Place", report: Report, path: Path
) -> "tuple[np.ndarray, np.ndarray, Outcome]":
    """All rows of w, h, and their figures, the same in every process."""
    from warte.nmf import distributed
    from warte.nmf.report import Outcome

    with _about(path):
        found = distributed.fit(
            data.matrix.values,
            settings.rank,
            beta=settings.beta,
            weights=data.effective,
            solver=settings.solver,
            init=None if settings.init == "auto" else settings.init,
            penalty=settings.penalty,
            tol=settings.tol,
            max_iter=settings.max_iter,
            seed=settings.seed,
            device=place.device,
            watch=lambda done, w, h: report("iterations", done, settings.max_iter),
        )
    outcome = Outcome(
        settings.loss, found.solver, found.loss, found.solution.losses, found.solution.n_iter,
        found.solution.converged, found.explained,
    )  # fmt: skip
    w = distributed.all_rows(found.solution.w).cpu().numpy()
    return w, found.solution.h.cpu().numpy(), outcome


# results ----------------------------------------------------------------------------------------


def _write_rows(folder: Path, w: "np.ndarray", matrix: "Matrix", path: Path) -> None:
    from warte.nmf.write import write_activations

    table: Literal["csv", "parquet"] = "parquet" if path.suffix.lower() == ".parquet" else "csv"
    write_activations(folder, w, rows=matrix.rows, grid=matrix.grid, table=table)


def _write_fit(
    run: "RunFolder",
    matrix: "Matrix",
    hidden_share: float,
    settings: Settings,
    w: "np.ndarray",
    h: "np.ndarray",
    outcome: "Outcome",
    path: Path,
) -> dict[str, object]:
    """Write all results of a fit; the facts that are printed."""
    from warte.nmf.report import write_report
    from warte.nmf.write import write_components

    warnings = list(matrix.warnings)
    if not outcome.converged:
        warnings.append(
            f"the loss still fell after {outcome.n_iter} iterations; a larger --max-iter goes on"
        )
    with run.step("write"):
        write_components(run.path, h, matrix.columns)
        _write_rows(run.path, w, matrix, path)
        shown = {**asdict(settings), **settings.penalty}
        del shown["penalty"]
        write_report(
            run.path, path.name, w, h, outcome, columns=matrix.columns, grid=matrix.grid,
            hidden=hidden_share, settings=shown, warnings=warnings,
        )  # fmt: skip
    facts: dict[str, object] = {
        "rows": len(w), "columns": h.shape[1], "rank": len(h), "hidden_share": hidden_share,
        "solver": outcome.solver, "loss": outcome.loss, "explained_share": outcome.explained,
        "iterations": outcome.n_iter, "converged": outcome.converged, "warnings": warnings,
    }  # fmt: skip
    run.note(**facts, losses=list(outcome.losses), settings=settings)
    return facts


def _print_facts(facts: dict[str, object], as_json: bool) -> None:
    if as_json:
        print_result(facts, True)
        return
    warnings = facts.pop("warnings")
    assert isinstance(warnings, list)
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    print_result(facts, False)
