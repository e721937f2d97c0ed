"""Train the classifier on simulated spectra."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from warte import __version__
from warte.core.errors import SettingsError
from warte.core.score import confusion_matrix, macro_f1
from warte.spectra import presets
from warte.spectra.classify import CARD, probabilities, save
from warte.spectra.evaluate import auc
from warte.spectra.grid import Float32Array, IntArray, cell_of, look, rest_frame
from warte.spectra.lines import CLASSES
from warte.spectra.model import Classifier, ModelSettings, build
from warte.spectra.simulate import SimulateSettings, simulate_batch
from warte.spectra.spectrum import FloatArray

BoolArray = npt.NDArray[np.bool_]

TRAINING, HELD_OUT, DOUBLES, SURVEY, HIDING = range(5)  # streams of random numbers of one seed
OIII_WINDOW = (4940.0, 5030.0)  # rest Angstrom, both lines of the doublet
KEPT = 0.995  # of the clear doubles pass the threshold of candidates
# A clear double has at least these; candidates are judged by them.
CLEAR = {"separation_km_s": 200.0, "peak_snr_oiii": 10.0, "flux_ratio": 0.3}
BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0 + 1e-9)  # of a probability, for the reliability


@dataclass(frozen=True)
class TrainSettings:
    """How the classifier is trained."""

    spectra: int = 300_000  # simulated to learn from (spectra)
    chunk: int = 20_000  # simulated and held in memory at once (spectra)
    passes: int = 4  # looks at each spectrum, each time with other pixels missing (times)
    batch: int = 256  # spectra of a step (spectra)
    learning_rate: float = 3e-3  # of AdamW at its highest (dimensionless)
    weight_decay: float = 1e-2  # of AdamW (dimensionless)
    held_out: int = 40_000  # simulated for calibration and figures, half of the objects each
    seed: int = 1  # of spectra and weights
    model: ModelSettings = field(default_factory=ModelSettings)  # shape of the network
    data: SimulateSettings = field(default_factory=presets.training)  # what it learns from

    def __post_init__(self) -> None:
        for name in ("spectra", "chunk", "passes", "batch"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}; allowed is 1 or more")
        if self.held_out < 100:
            raise SettingsError(f"held_out is {self.held_out}; allowed is 100 or more")
        if self.learning_rate <= 0:
            raise SettingsError(f"learning_rate is {self.learning_rate}; it must be over 0")
        if not 0 <= self.seed < 2**31:
            raise SettingsError(f"seed is {self.seed}; allowed is 0 to {2**31 - 1}")


def quick(seed: int = 1) -> TrainSettings:
    """A training of a minute or two, to try things out."""
    return TrainSettings(spectra=20_000, chunk=10_000, held_out=4_000, seed=seed)


@dataclass(frozen=True)
class Labelled:
    """Spectra in the frame of their galaxies and what they are.

    flux, ivar: (N, CELLS), see `grid.rest_frame`. kind: (N,) index into CLASSES. double: (N,)
    whether the lines have two components. told: (N,) whether that can be seen: not where there are
    two that look like one. truth: N rows of the simulation.
    """

    flux: Float32Array
    ivar: Float32Array
    kind: IntArray
    double: BoolArray
    told: BoolArray
    truth: pd.DataFrame

    def __len__(self) -> int:
        return len(self.flux)

    def part(self, rows: IntArray | BoolArray) -> Labelled:
        """Some of the spectra."""
        return Labelled(
            self.flux[rows],
            self.ivar[rows],
            self.kind[rows],
            self.double[rows],
            self.told[rows],
            self.truth.iloc[np.arange(len(self))[rows]].reset_index(drop=True),
        )


def labelled(settings: SimulateSettings, count: int, rng: np.random.Generator) -> Labelled:
    """Simulated spectra, ready to learn from."""
    batch, truth = simulate_batch(settings, count, rng)
    flux, ivar = rest_frame(batch.loglam, batch.flux, batch.ivar, batch.z)
    table = truth.spectra
    kind = pd.Categorical(table["class"], categories=list(CLASSES)).codes.astype(np.int64)
    double = table["components"].to_numpy() == 2
    told = ~double | looks_double(table)
    return Labelled(flux, ivar, kind, double, told, table)


def looks_double(truth: pd.DataFrame) -> BoolArray:
    """(N,) which pairs leave a trace in the data; the others teach nothing about pairs.

    What distinguishes two unequal Gaussians close to each other from one is their skewness, which
    grows with the third power of their distance: at a peak S/N of 7 it has to be 200 km/s.
    """
    peak_snr = truth[["peak_snr_oiii", "peak_snr_ha"]].max(axis=1).to_numpy()
    trace = peak_snr * (truth["separation_km_s"].to_numpy() / 200.0) ** 3
    return (trace >= 7) & (peak_snr >= 5) & (truth["flux_ratio"].to_numpy() >= 0.15)


def split_by_object(
    object_ids: Sequence[str], fractions: Sequence[float], rng: np.random.Generator
) -> list[IntArray]:
    """Rows of each part, so that all spectra of one object are in one part.

    object_ids: N texts; "" stands for an object of its own. fractions: share of the objects in each
    part, their sum 1. Raises ValueError for other fractions.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions are {tuple(fractions)}; they must be 0 or more with sum 1")
    names = [name or f"\0{row}" for row, name in enumerate(object_ids)]
    objects, of_row = np.unique(names, return_inverse=True)
    ends = np.rint(np.cumsum(fractions) * objects.size)
    part_of = np.searchsorted(ends, rng.permutation(objects.size), side="right")
    return [np.flatnonzero(part_of[of_row] == part) for part in range(len(fractions))]


def hide_some(ivar: Float32Array, rng: np.random.Generator) -> Float32Array:
    """The same (N, CELLS) with more pixels missing, as training sees it.

    In two of three spectra up to half of the pixels are lost one by one; in some, runs, up to half
    of the [O III] window, or all on one side of a wavelength, as at higher redshifts.
    """
    count, cells = ivar.shape
    share = np.where(rng.random(count) < 0.67, rng.uniform(0, 0.5, count), 0.0)
    out = ivar * (rng.random(ivar.shape, dtype=np.float32) >= share[:, None])
    for row in np.flatnonzero(rng.random(count) < 0.4):
        for _ in range(rng.integers(1, 5)):
            start, length = rng.integers(cells), int(np.exp(rng.uniform(np.log(3), np.log(300))))
            out[row, start : start + length] = 0
    for row in np.flatnonzero(rng.random(count) < 0.25):
        _hide_oiii(out[row], rng)
    for row in np.flatnonzero(rng.random(count) < 0.12):
        if rng.random() < 0.6:
            out[row, rng.integers(cell_of(5050.0), cells) :] = 0
        else:
            out[row, : rng.integers(0, cell_of(6450.0))] = 0
    return out


def _hide_oiii(ivar: Float32Array, rng: np.random.Generator) -> None:
    """Lose half of the pixels of the [O III] window in place: scattered, or in one run."""
    low, high = (cell_of(end) for end in OIII_WINDOW)
    half = (high - low) // 2
    if rng.random() < 0.5:
        ivar[rng.choice(np.arange(low, high), half, replace=False)] = 0
    else:
        start = low + rng.integers(0, high - low - half + 1)
        ivar[start : start + half] = 0


def hide_third(ivar: Float32Array, rng: np.random.Generator) -> BoolArray:
    """Which pixels the figures of missing data leave out, (N, CELLS) bool: 30 % of all.

    Half of the pixels of the [O III] window are among them; the others lie anywhere.
    """
    cells = ivar.shape[1]
    low, high = (cell_of(end) for end in OIII_WINDOW)
    inside = (high - low) // 2
    order = rng.random(ivar.shape, dtype=np.float32)
    rank = order[:, low:high].argsort(1).argsort(1)
    order[:, low:high] = 2.0
    outside = round(0.3 * cells) - inside
    gone = order < np.partition(order, outside, axis=1)[:, outside, None]
    gone[:, low:high] = rank < inside
    return gone


def train(
    settings: TrainSettings | None = None,
    *,
    out: Path,
    device: str = "cpu",
    report: Callable[[int, int, float], None] | None = None,
) -> dict[str, object]:
    """Train the classifier; writes its weights and their card into the folder `out`.

    The same settings give the same weights on the same machine. `report(step, steps, loss)` is
    called after each step. Returns the card: settings, figures on held-out objects, losses.
    """
    settings = settings or TrainSettings()
    begin = time.perf_counter()
    model, losses = learn(settings, device=device, report=report)
    model = model.cpu().eval()
    rng = np.random.default_rng([settings.seed, HELD_OUT])
    held = labelled(settings.data, settings.held_out, rng)
    first, second = split_by_object(list(held.truth["object_id"]), (0.5, 0.5), rng)
    calibration = calibrate(model, held.part(first), rng)
    threshold, figures = figures_of(model, held.part(second), settings)
    save(model, out)
    card = make_card(settings, losses, time.perf_counter() - begin)
    card |= {"threshold": threshold, "calibration": calibration, "figures": figures}
    (out / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


def learn(
    settings: TrainSettings,
    *,
    device: str = "cpu",
    report: Callable[[int, int, float], None] | None = None,
) -> tuple[Classifier, list[float]]:
    """A network trained on spectra that are simulated meanwhile, and the loss of each step."""
    torch.manual_seed(settings.seed)
    model = build(settings.model).to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    steps = sum(-(-size // settings.batch) for size in _chunks(settings)) * settings.passes
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=steps, pct_start=0.1
    )
    losses: list[float] = []
    for ivar, data in batches(settings):
        inputs = look(data.flux, ivar).to(device)
        loss = loss_of(model(inputs), data, device)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        losses.append(float(loss.detach()))
        if report is not None:
            report(len(losses), steps, losses[-1])
    return model, losses


def _chunks(settings: TrainSettings) -> list[int]:
    """Number of spectra in each chunk."""
    whole, rest = divmod(settings.spectra, settings.chunk)
    return [settings.chunk] * whole + [rest] * (rest > 0)


def batches(settings: TrainSettings) -> Iterator[tuple[Float32Array, Labelled]]:
    """The training spectra in batches, each with the inverse variance that the network may see."""
    rng = np.random.default_rng([settings.seed, TRAINING])
    for size in _chunks(settings):
        data = labelled(settings.data, size, rng)
        for _ in range(settings.passes):
            order = rng.permutation(size)
            for start in range(0, size, settings.batch):
                part = data.part(order[start : start + settings.batch])
                yield hide_some(part.ivar, rng), part


def loss_of(
    logits: tuple[Tensor, Tensor], data: Labelled, device: str | torch.device = "cpu"
) -> Tensor:
    """Cross entropy of the classes plus that of the second component where it can be told."""
    classes, second = logits
    kind = torch.from_numpy(data.kind).to(device)
    double = torch.from_numpy(data.double).to(device, torch.float32)
    told = torch.from_numpy(data.told).to(device, torch.float32)
    entropy = nn.functional.cross_entropy(classes, kind)
    pairs = nn.functional.binary_cross_entropy_with_logits(second, double, reduction="none")
    return entropy + (pairs * told).sum() / told.sum().clamp(min=1.0)


def calibrate(model: Classifier, data: Labelled, rng: np.random.Generator) -> dict[str, float]:
    """Scale the logits of both heads so that probabilities are right on held-out objects.

    Temperature for the classes (Guo et al. 2017, arXiv 1706.04599), slope and offset for the second
    component (Platt 1999), fitted to spectra as training saw them and put into the weights of the
    last layers. Returns what was fitted.
    """
    classes, second = logits_of(model, data.flux, hide_some(data.ivar, rng))
    kind = torch.from_numpy(data.kind)
    told = torch.from_numpy(data.told)
    double = torch.from_numpy(data.double).double()[told]

    def of_classes(x: FloatArray) -> float:
        return float(nn.functional.cross_entropy(classes * np.exp(x[0]), kind))

    def of_second(x: FloatArray) -> float:
        logit = second[told] * np.exp(x[0]) + x[1]
        return float(nn.functional.binary_cross_entropy_with_logits(logit, double))

    sharp = float(np.exp(minimize(of_classes, [0.0], method="Nelder-Mead").x[0]))
    log_slope, offset = minimize(of_second, [0.0, 0.0], method="Nelder-Mead").x
    slope = float(np.exp(log_slope))
    with torch.no_grad():
        for value in model.classes.parameters():
            value.mul_(sharp)
        for value in model.second.parameters():
            value.mul_(slope)
        model.second.bias.add_(float(offset))
    return {
        "temperature": round(1 / sharp, 4),
        "slope": round(slope, 4),
        "offset": round(float(offset), 4),
    }


@torch.inference_mode()
def logits_of(model: Classifier, flux: Float32Array, ivar: Float32Array) -> tuple[Tensor, Tensor]:
    """Logits of the classes (N, 6) and of a second component (N,), float64."""
    parts = [
        model(look(flux[start : start + 256], ivar[start : start + 256]))
        for start in range(0, len(flux), 256)
    ]
    classes, second = (torch.cat([part[head] for part in parts]).double() for head in (0, 1))
    return classes, second


def figures_of(
    model: Classifier, test: Labelled, settings: TrainSettings
) -> tuple[float, dict[str, object]]:
    """The threshold of candidates, and figures of the trained network on held-out objects.

    The network sees all pixels, then 30 % less, then 30 % of the pixels as zeros that count.
    """
    rng = np.random.default_rng([settings.seed, HIDING])
    gone = hide_third(test.ivar, rng)
    views = {
        "all_pixels": (test.flux, test.ivar),
        "30_percent_missing": (test.flux, np.where(gone, np.float32(0), test.ivar)),
        "30_percent_zeros": (np.where(gone, np.float32(0), test.flux), test.ivar),
    }
    figures: dict[str, object] = {}
    for name, (flux, ivar) in views.items():
        chances = probabilities(model, flux, ivar)
        figures[name] = areas(*chances, test)
        if name == "all_pixels":
            table = pd.DataFrame(confusion_of(chances[0], test), CLASSES, CLASSES)
            figures["confusion"] = table.to_dict("index")
            figures["reliability_two"] = reliability_of(
                chances[1][test.told], test.double[test.told]
            )
            figures["reliability_class"] = reliability_of(
                chances[0].max(1), chances[0].argmax(1) == test.kind
            )
    threshold, candidates = candidates_of(model, settings)
    return threshold, figures | {"candidates": candidates}


def areas(classes: FloatArray, second: FloatArray, data: Labelled) -> dict[str, float]:
    """Macro-F1, and areas under the curves: mean of each class against the others, and of pairs.

    auc_two is without pairs that look like one, auc_two_all with them; auc_two_clear has of all
    pairs only the CLEAR ones.
    """
    singles, clear = ~data.double, clear_doubles(data.truth)
    each = [auc(classes[:, number], data.kind == number) for number in range(len(CLASSES))]
    figures = {
        "macro_f1": macro_f1(confusion_of(classes, data)),
        "auc_class": float(np.nanmean(each)),
        "auc_two": auc(second[data.told], data.double[data.told]),
        "auc_two_all": auc(second, data.double),
        "auc_two_clear": auc(second[singles | clear], clear[singles | clear]),
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


def clear_doubles(truth: pd.DataFrame) -> BoolArray:
    """(N,) which simulated spectra have two components that a fit should tell apart: CLEAR."""
    enough = (truth[list(CLEAR)] >= pd.Series(CLEAR)).all(axis=1).to_numpy()
    return np.asarray(enough & (truth["components"].to_numpy() == 2))


def candidates_of(
    model: Classifier, settings: TrainSettings, count: int | None = None
) -> tuple[float, dict[str, float]]:
    """The p_two_components that keeps KEPT of clear doubles, and what it passes of a survey.

    It is chosen on one half of simulated doubles and judged on the other.
    """
    count = count or settings.held_out
    survey = presets.survey()
    rng = np.random.default_rng([settings.seed, DOUBLES])
    pairs = labelled(replace(survey, two_fraction=1.0), count, rng)
    pairs = pairs.part(clear_doubles(pairs.truth))
    first, second = split_by_object(list(pairs.truth["object_id"]), (0.5, 0.5), rng)
    chance = np.nan_to_num(probabilities(model, pairs.flux, pairs.ivar)[1])
    threshold = float(np.floor(1e4 * np.quantile(chance[first], 1 - KEPT)) / 1e4)
    mix = labelled(survey, count, np.random.default_rng([settings.seed, SURVEY]))
    passed = np.nan_to_num(probabilities(model, mix.flux, mix.ivar)[1]) >= threshold
    single = mix.truth["components"].to_numpy() < 2
    figures = {
        "clear_doubles": float(len(second)),
        "kept": float((chance[second] >= threshold).mean()),
        "survey": float(len(mix)),
        "survey_doubles": float(mix.double.mean()),
        "passed": float(passed.mean()),
        "passed_of_single": float(passed[single].mean()),
    }
    return threshold, {name: round(value, 4) for name, value in figures.items()}


def confusion_of(classes: FloatArray, data: Labelled) -> IntArray:
    """(6, 6) counts: row the true class, column the likeliest one."""
    known = np.isfinite(classes).all(1)
    names = np.array(CLASSES)
    found = names[classes[known].argmax(1)]
    return confusion_matrix(list(names[data.kind[known]]), list(found), CLASSES)


def reliability_of(chance: FloatArray, true: BoolArray) -> list[dict[str, float]]:
    """Number of spectra, mean of the probability and share that is true, in BINS of the former."""
    table = pd.DataFrame({"chance": chance, "true": true})
    rows = []
    for _, part in table.groupby(pd.cut(table["chance"], BINS, right=False), observed=True):
        row = {
            "spectra": len(part),
            "probability": part["chance"].mean(),
            "true": part["true"].mean(),
        }
        rows.append({name: round(float(value), 3) for name, value in row.items()})
    return rows


def make_card(settings: TrainSettings, losses: list[float], seconds: float) -> dict[str, object]:
    """What a reader of the weights wants to know, ready for JSON."""
    tail = losses[-max(1, len(losses) // 20) :]
    command = f"warte spectra train --out DIR --seed {settings.seed}"
    if settings == quick(settings.seed):
        command += " --quick"
    return {
        "model": "1-D CNN on lines aligned in velocity and on the whole spectrum in coarse bins; "
        "partial convolutions (Liu et al. 2018, arXiv 1804.07723) at missing pixels",
        "command": command,
        "data": "simulated spectra alone: warte.spectra.simulate; no real spectrum",
        "note": "Classes are equally common in training and half of the galaxies with lines have "
        "two components: probabilities are for such a mix.",
        "loss_first": round(losses[0], 4),
        "loss_last": round(float(np.mean(tail)), 4),
        "seconds": round(seconds),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "warte": __version__,
        "settings": asdict(settings),
    }
