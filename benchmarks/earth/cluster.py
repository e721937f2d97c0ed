"""Part cluster: the Sentinel-2 scene beside scikit-learn and heat; ranks, chunks, memory, features.

Each measured run is a process of its own: `python -m benchmarks.earth.cluster KIND ...` prints its
figures as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import types
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.clock import on_threads
from benchmarks.page import Table
from warte.cli.common import Report
from warte.core.data import registry

K = 10
SCENE = "earth/s2_outerbanks"
BANDS = tuple(f"S2B_L1C_20181013_B{number:02}.tiff" for number in range(1, 9))
PASSES = 20  # of the race from one start
SEEDS, QUICK_SEEDS = 5, 1
CHUNKS = (2**18, 2**16, 5000)
# The peak of a process counts what its parent held when it was started: so a small one starts it.
SMALL = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
wall, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
core, mb = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
print(json.dumps({"wall": wall, "core": core, "mb": mb}))
"""
WANTED_RATIO, WANTED_HEAT, WANTED_MB = 1.2, 10, 300


def cluster_tables(seed: int, quick: bool, progress: Report) -> list[Table]:
    """The race, the objective for ranks and chunks, the quality of starts, and the features."""
    if any(registry.locate(f"{SCENE}/{name}") is None for name in BANDS):
        return []
    return [
        _race(seed, quick, progress),
        _same(seed, quick, progress),
        _starts(seed, quick, progress),
        _features(seed, progress),
    ]


# processes --------------------------------------------------------------------------------------


def scene_folder() -> Path:
    """The folder of the scene's bands."""
    return registry.get(f"{SCENE}/{BANDS[0]}").parent


def _alone(*words: str) -> dict[str, float]:
    """The figures of a process of its own, on one thread."""
    return _figures([sys.executable, "-m", "benchmarks.earth.cluster", *words])


def _mpi(number: int, *words: str) -> dict[str, float]:
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.is_file() else shutil.which("mpiexec")
    if mpiexec is None:
        return {}
    start = [mpiexec, "-n", str(number), sys.executable]
    return _figures([*start, "-m", "benchmarks.earth.cluster", *words])


def _torchrun(number: int, *words: str) -> dict[str, float]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(number)]
    start += ["--master-addr", "127.0.0.1", "--master-port", port]
    return _figures([*start, "-m", "benchmarks.earth.cluster", *words])


def _figures(command: list[str]) -> dict[str, float]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=900, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    figures: dict[str, float] = json.loads(lines[-1])
    return figures


# what the processes do --------------------------------------------------------------------------


def main(words: list[str]) -> None:
    """One measured run; the first process prints its figures."""
    kinds = {"verb": _verb, "fit": _fit, "sklearn": _sklearn, "heat": _heat}
    figures = kinds[words[0]](*words[1:])
    if figures:
        print(json.dumps(figures), flush=True)


def _verb(kind: str, seed: str, chunk: str) -> dict[str, float]:
    """The whole verb, files and all; kind: alone, mpi or torch."""
    from warte.earth.cluster import ClusterSettings, cluster
    from warte.earth.cluster.ranks import Alone, mpi_ranks, torch_ranks
    from warte.earth.read import read

    settings = ClusterSettings(k=K, seed=int(seed), chunk=int(chunk))
    scene = read(scene_folder())
    with tempfile.TemporaryDirectory() as folder:
        began, used = time.perf_counter(), time.process_time()
        if kind == "alone":
            ranks = Alone()
            found = cluster([scene], settings, out=Path(folder))
        else:
            with mpi_ranks() if kind == "mpi" else torch_ranks() as ranks:
                found = cluster([scene], settings, out=Path(folder), group=ranks)
        figures = {
            "wall": time.perf_counter() - began,
            "core": time.process_time() - used,
            "objective": found.objective or 0.0,
            "passes": found.iterations or 0,
        }
    return figures if ranks.rank == 0 else {}


def _pixels() -> npt.NDArray[np.uint8]:
    """(pixels, bands) without fill."""
    import rasterio

    parts = []
    for name in BANDS:
        with rasterio.open(scene_folder() / name) as file:
            parts.append(file.read(1))
    bands = np.stack(parts)
    return np.ascontiguousarray(bands[:, ~(bands == 255).all(axis=0)].T)


def _first(pixels: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.float64]:
    """Centres (K, bands) near pixels; not on them, where many whole numbers would tie."""
    rng = np.random.default_rng(seed)
    chosen = pixels[rng.choice(len(pixels), K, replace=False)]
    return (chosen + rng.uniform(0, 0.5, chosen.shape)).astype(np.float32).astype(np.float64)


def _objective(pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer]) -> float:
    """In float64, to the means of the groups, which fit the labels best."""
    total = 0.0
    for group in range(K):
        mine = pixels[labels == group].astype(np.float64)
        total += float(((mine - mine.mean(axis=0)) ** 2).sum()) if len(mine) else 0.0
    return total


def _fit(seed: str) -> dict[str, float]:
    """Warte's passes over pixels in memory, the packing of distinct vectors included."""
    from warte.earth.cluster.kmeans import lloyd, objective_of
    from warte.earth.cluster.store import Store, frame_of, means_of, square_sums

    pixels = _pixels()
    first = _first(pixels, int(seed))
    given = pixels.astype(np.float32)
    with tempfile.TemporaryDirectory() as folder, on_threads(1):
        began, used = time.perf_counter(), time.process_time()
        with Store(Path(folder) / "pixels", 8) as store:
            for start in range(0, len(given), CHUNKS[0]):
                store.add(given[start : start + CHUNKS[0]].T)
            sample = given[:: len(given) // 32_768].T
            frame = frame_of(len(given), sample, np.zeros(8), np.full(8, 255.0), True)
            with (Path(folder) / "groups").open("w+b") as groups:
                found = lloyd(
                    frame, lambda: store.read(True), first - frame.middle, iterations=PASSES,
                    tolerance=0, spare=frame.centred(sample), groups=groups,
                )  # fmt: skip
            wall, core = time.perf_counter() - began, time.process_time() - used
            squares = square_sums(frame, store.read(True))
        return {
            "wall": wall,
            "core": core,
            # To the means of the last groups, as that of the others.
            "objective": objective_of(frame, means_of(frame, found.sums), found.sums, squares),
        }


def _sklearn(seed: str, kind: str) -> dict[str, float]:
    """scikit-learn's Lloyd in float32; kind: `same` start and passes, or its `own`."""
    from sklearn.cluster import KMeans

    pixels = _pixels()
    given = pixels.astype(np.float32)
    if kind == "same":
        first = _first(pixels, int(seed)).astype(np.float32)
        model = KMeans(K, init=first, n_init=1, max_iter=PASSES, tol=0)
    else:
        model = KMeans(K, n_init=1, random_state=int(seed))
    with on_threads(1):
        began, used = time.perf_counter(), time.process_time()
        model.fit(given)
        wall, core = time.perf_counter() - began, time.process_time() - used
    mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "wall": wall, "core": core, "mb": mb, "objective": _objective(pixels, model.labels_),
        "said": float(model.inertia_), "passes": model.n_iter_,
    }  # fmt: skip


def _heat(seed: str) -> dict[str, float]:
    """heat's KMeans on the ranks of MPI, from the same start."""
    _without_torchvision()
    import heat

    pixels = _pixels()
    first = heat.array(_first(pixels, int(seed)).astype(np.float32))
    given = heat.array(pixels.astype(np.float32), split=0)
    model = heat.cluster.KMeans(n_clusters=K, init=first, max_iter=PASSES, tol=-1)
    began, used = time.perf_counter(), time.process_time()
    model.fit(given)
    wall, core = time.perf_counter() - began, time.process_time() - used
    labels = heat.resplit(model.labels_, None).numpy().ravel()
    if given.comm.rank:
        return {}
    return {"wall": wall, "core": core, "objective": _objective(pixels, labels)}


class _Absent(types.ModuleType):
    """A module in which any name is found and does nothing."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {}) if name[0].isupper() else _Absent(f"{self.__name__}.{name}")


def _without_torchvision() -> None:
    """Let heat be imported beside a PyTorch for the CPU, which has no torchvision."""
    names = ("torchvision", "torchvision.transforms", "torchvision.datasets")
    whole, *parts = (_Absent(name) for name in names)
    for part in parts:
        setattr(whole, part.__name__.rpartition(".")[2], part)
    sys.modules.update(zip(names, (whole, *parts), strict=True))


def _command(seed: int) -> dict[str, float]:
    """What a user types, its page and all, as the system sees it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = ["earth", "cluster", str(scene_folder()), "--k", str(K), "--seed", str(seed)]
        command = [sys.executable, "-m", "warte", *words, "--out", str(out), "--quiet"]
        figures = _figures([sys.executable, "-S", "-c", SMALL, *command])
        found = json.loads((out / "run.json").read_text(encoding="utf-8"))["found"]
    return {**figures, "objective": found["objective"], "passes": found["iterations"]}


# tables -----------------------------------------------------------------------------------------


def _race(seed: int, quick: bool, progress: Report) -> Table:
    """Time from one start, and of the whole verb."""
    rows: list[dict[str, object]] = []
    verb = ("verb", "alone", str(seed), str(CHUNKS[0]))
    both = ("verb", "mpi", str(seed), str(CHUNKS[0]))
    runs = [
        ("scikit-learn, Lloyd, float32", lambda: _alone("sklearn", str(seed), "same")),
        ("Warte, the same passes", lambda: _alone("fit", str(seed))),
        ("scikit-learn, its own start", lambda: _alone("sklearn", str(seed), "own")),
        ("Warte, the whole verb, files read and written", lambda: _alone(*verb)),
        ("Warte, the command with its page", lambda: _command(seed)),
        ("Warte, the whole verb, 2 ranks (mpiexec)", lambda: _mpi(2, *both)),
    ]
    # heat cannot be imported without h5py.
    if find_spec("heat") and find_spec("h5py") and not quick:
        name = f"heat {version('heat')}, 2 ranks, the same passes"
        runs.append((name, lambda: _mpi(2, "heat", str(seed))))
    times: dict[str, float] = {}
    walls: dict[str, float] = {}
    for step, (name, run) in enumerate(runs):
        progress("cluster: race", step, len(runs))
        repeats = [run() for _ in range(1 if quick or name.startswith("heat") else 3)]
        if not repeats[0]:
            continue
        best = min(repeats, key=lambda one: one["core"])
        times[name] = best["core"]
        walls[name] = min(one["wall"] for one in repeats)
        wanted = {
            1: f"core: at most {WANTED_RATIO} times scikit-learn",
            4: f"{WANTED_MB} MB",
            5: f"{WANTED_HEAT} times faster than heat",
        }
        rows.append(
            {
                "program": name,
                "core s": f"{best['core']:.2f}",
                "wall s": f"{walls[name]:.2f}",
                "objective": f"{best['objective']:.6e}",
                "passes": f"{best.get('passes', PASSES):.0f}",
                "peak MB": f"{best['mb']:.0f}" if "mb" in best else "-",
                "wanted": wanted.get(step, "-"),
            }
        )
    ratio = times[runs[1][0]] / times[runs[0][0]]
    return Table(
        f"Clusters: Sentinel-2, 3,964,939 pixels, 8 bands, K = {K}",
        pd.DataFrame(rows),
        "One thread for each process, best of three runs; core time of the first process. The same "
        f"{PASSES} passes from one start: Warte takes {ratio:.2f} times scikit-learn's core "
        "time, packing of the distinct vectors included. scikit-learn and heat get the pixels in "
        "memory; the whole verb starts from the files. Objectives: in float64."
        + _beside_heat(walls, runs[5][0], runs[-1][0]),
    )


def _beside_heat(walls: dict[str, float], own: str, last: str) -> str:
    """How much longer heat takes on as many ranks, where it is here."""
    if not last.startswith("heat") or own not in walls:
        return ""
    ratio = walls[last] / walls[own]
    return f" heat's passes take {ratio:.0f} times as long as Warte's whole verb on two ranks."


def _same(seed: int, quick: bool, progress: Report) -> Table:
    """The objective for several numbers of ranks and chunks."""
    runs = [("1", "alone", chunk) for chunk in CHUNKS]
    runs += [("2", "mpi", CHUNKS[1]), ("4", "mpi", CHUNKS[1]), ("2", "torch", CHUNKS[1])]
    if not quick:
        runs.append(("4", "torch", CHUNKS[1]))
    rows: list[dict[str, object]] = []
    for step, (number, kind, chunk) in enumerate(runs):
        progress("cluster: ranks", step, len(runs))
        words = ("verb", kind, str(seed), str(chunk))
        if kind == "alone":
            found = _alone(*words)
        else:
            found = (_mpi if kind == "mpi" else _torchrun)(int(number), *words)
        if found:
            rows.append(
                {
                    "ranks": number,
                    "by": {"alone": "-", "mpi": "mpiexec", "torch": "torchrun"}[kind],
                    "chunk, pixels": chunk,
                    "objective": repr(found["objective"]),
                    "passes": int(found["passes"]),
                }
            )
    values = {str(row["objective"]) for row in rows}
    return Table(
        "Clusters: one answer whatever the ranks and chunks",
        pd.DataFrame(rows),
        f"{len(values)} different objective(s) to the last digit; wanted: equal to 1e-6.",
    )


def _starts(seed: int, quick: bool, progress: Report) -> Table:
    """How good the minimum is, beside starts of scikit-learn."""
    rows: list[dict[str, object]] = []
    seeds = QUICK_SEEDS if quick else SEEDS
    for step, one in enumerate(range(seed, seed + seeds)):
        progress("cluster: starts", step, seeds)
        own = _alone("verb", "alone", str(one), str(CHUNKS[0]))
        peer = _alone("sklearn", str(one), "own")
        rows.append(
            {
                "seed": one,
                "Warte": f"{own['objective']:.6e}",
                "scikit-learn, one start": f"{peer['objective']:.6e}",
                "inertia it gives": f"{peer['said']:.6e}",
                "off by, %": f"{100 * abs(peer['said'] / peer['objective'] - 1):.2f}",
            }
        )
    best = min(float(str(row["scikit-learn, one start"])) for row in rows)
    worst = max(float(str(row["Warte"])) for row in rows)
    return Table(
        "Clusters: how good the minimum is",
        pd.DataFrame(rows),
        f"Warte's worst is {worst / best:.5f} times the best of scikit-learn's {seeds} starts.",
    )


def _features(seed: int, progress: Report) -> Table:
    """Adjusted Rand index of clusters and land use, for each kind of features."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    from warte.earth.cluster import ClusterSettings, cluster
    from warte.earth.scene import scene_of_array

    names = [f"earth/eolearn_patch/{name}.npy" for name in ("REFERENCE_SCENES", "LULC")]
    rows: list[dict[str, object]] = []
    if all(registry.locate(name) for name in names):
        cubes, land = (np.load(registry.get(name)) for name in names)
        values = cubes[2].transpose(2, 0, 1)
        truth = land[..., 0]
        scene = scene_of_array(values, grid=_plain_grid(*truth.shape))
        for features in ("pixels", "texture", "learned"):
            for method in ("kmeans", "mixture"):
                progress(f"cluster: {features}", 0, None)
                settings = ClusterSettings(k=6, seed=seed, features=features, method=method)
                with tempfile.TemporaryDirectory() as folder:
                    cluster([scene], settings, out=Path(folder))
                    found = _read(Path(folder) / "clusters.tif")
                pair = truth[truth > 0], found[truth > 0]
                rows.append(
                    {
                        "features": features,
                        "method": method,
                        "adjusted Rand index": f"{adjusted_rand_score(*pair):.3f}",
                        "mutual information": f"{normalized_mutual_info_score(*pair):.3f}",
                    }
                )
    return Table(
        "Clusters: land use in Slovenia that nobody told them",
        pd.DataFrame(rows),
        f"eo-learn's patch, one date, 13 bands, 101 x 100 pixels, 6 clusters, seed {seed}; land "
        "use of five classes from a map. Clusters follow what is seen, not what it is used for.",
    )


def _plain_grid(rows: int, columns: int) -> object:
    from affine import Affine
    from rasterio.crs import CRS

    from warte.earth.scene import Grid

    return Grid(rows, columns, Affine(10, 0, 5e5, 0, -10, 5e6), CRS.from_epsg(32633))


def _read(path: Path) -> npt.NDArray[np.uint8]:
    import rasterio

    with rasterio.open(path) as file:
        found: npt.NDArray[np.uint8] = file.read(1)
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
