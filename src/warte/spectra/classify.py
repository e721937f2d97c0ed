"""What a galaxy is, and the chance that its lines have a second component.

The network learned from simulated spectra alone (`train`); its probabilities are for classes as
common as there, see the card beside the weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from warte.core.errors import InputError
from warte.spectra.grid import Inputs, look, rest_frame_of
from warte.spectra.lines import CLASSES
from warte.spectra.model import Classifier, ModelSettings, build
from warte.spectra.spectrum import FloatArray, Spectrum

WEIGHTS = "classifier.safetensors"
CARD = "classifier.json"
SHAPE = "model"  # entry of the file's header that holds the settings of the network
BATCH = 128  # spectra at once: they fit into a core's cache
PROBABILITIES = tuple(f"p_{name}" for name in CLASSES)
COLUMNS = ("file", "class", *PROBABILITIES, "p_two_components", "reason")


def load(weights: Path | None = None, device: str | torch.device = "cpu") -> Classifier:
    """The trained network of the folder `weights`, or of the package, ready to use.

    Raises InputError where the file is missing or not one that `train` wrote.
    """
    path = _folder(weights) / WEIGHTS
    try:
        with safe_open(path, framework="pt", device="cpu") as stored:
            notes = stored.metadata() or {}
            state = {key: stored.get_tensor(key).float() for key in stored.keys()}  # noqa: SIM118
        model = build(ModelSettings(**json.loads(notes[SHAPE])))
        model.load_state_dict(state)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} does not hold weights of the classifier ({reason}): give a folder made by "
            "'warte spectra train', or none for those of the package"
        ) from error
    return model.to(device).eval()


def save(model: Classifier, folder: Path) -> None:
    """Write the network into `folder`, as `load` reads it."""
    shape = {SHAPE: json.dumps(asdict(model.settings))}
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / WEIGHTS, metadata=shape)


def candidate_threshold(weights: Path | None = None) -> float:
    """The p_two_components from which a spectrum is worth a fit with two components.

    It keeps 99.5 % of the clear doubles of the simulation; from the card beside the weights.
    Raises InputError where there is no such card.
    """
    path = _folder(weights) / CARD
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["threshold"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is not the card of a classifier: give a folder made by 'warte spectra train', "
            "or none for that of the package"
        ) from error


def _folder(weights: Path | None) -> Path:
    return Path(str(files("warte.spectra") / "weights")) if weights is None else weights


@torch.inference_mode()
def probabilities(
    model: Classifier, flux: npt.ArrayLike, ivar: npt.ArrayLike, device: str | torch.device = "cpu"
) -> tuple[FloatArray, FloatArray]:
    """Probabilities of the classes (N, 6) and of two components (N,).

    flux, ivar: (N, CELLS) on the rest grid, see `grid.rest_frame`. Where no line is measured, all
    are NaN.
    """
    light, weight = np.asarray(flux), np.asarray(ivar)
    classes = np.full((len(light), len(CLASSES)), np.nan)
    second = np.full(len(light), np.nan)
    for start in range(0, len(light), BATCH):
        part = slice(start, start + BATCH)
        inputs = look(light[part], weight[part])
        logits, double = model(inputs.to(device))
        seen = has_lines(inputs)
        classes[part][seen] = torch.softmax(logits.double(), 1).cpu().numpy()[seen]
        second[part][seen] = torch.sigmoid(double.double()).cpu().numpy()[seen]
    return classes, second


def has_lines(inputs: Inputs) -> npt.NDArray[np.bool_]:
    """(N,) whether any pixel around H-beta or a line redward of it was measured."""
    return np.asarray(inputs.lines_seen[:, 0, 1:].sum((1, 2)).numpy() > 0)


def classify(
    spectra: Sequence[Spectrum],
    *,
    weights: Path | None = None,
    device: str = "cpu",
    report: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """The class of each spectrum, a probability for each class and one for two components.

    weights: folder of `train`, None for the network of the package. `report(done, spectra)` is
    called now and then. Returns one row per spectrum with COLUMNS; where a spectrum cannot be
    classified, its class is "", its probabilities are NaN and `reason` says why.
    """
    model = load(weights, device)
    tables = []
    for start in range(0, len(spectra), BATCH):
        part = spectra[start : start + BATCH]
        tables.append(_table(part, *probabilities(model, *rest_frame_of(part), device)))
        if report is not None:
            report(start + len(part), len(spectra))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))


def _table(spectra: Sequence[Spectrum], classes: FloatArray, second: FloatArray) -> pd.DataFrame:
    known = np.isfinite(second)
    best = np.where(known, np.nan_to_num(classes).argmax(1), 0)
    table = pd.DataFrame(classes, columns=list(PROBABILITIES))
    table.insert(0, "file", [spectrum.name for spectrum in spectra])
    table.insert(1, "class", np.where(known, np.array(CLASSES)[best], ""))
    table["p_two_components"] = second
    table["reason"] = [
        "" if fine else _reason(spectrum) for fine, spectrum in zip(known, spectra, strict=True)
    ]
    return table


def _reason(spectrum: Spectrum) -> str:
    if not spectrum.z > -1:
        return "no redshift"
    return f"no pixel measured around H-beta, [O III], H-alpha or [S II] at z = {spectrum.z:.4f}"
