"""Scores of a window: each method alone, and together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from warte.core.data.tiles import Window
from warte.core.errors import InputError
from warte.earth.anomalies.background import (
    Background,
    FloatArray,
    Patch,
    Report,
    View,
    measure,
    sample,
)
from warte.earth.anomalies.contrast import Contrast, Structures, fit_contrast
from warte.earth.anomalies.forest import Forest, fit_forest
from warte.earth.anomalies.local import local_rx
from warte.earth.anomalies.network import Autoencoder, fit_autoencoder
from warte.earth.anomalies.settings import AnomalySettings, Member
from warte.earth.anomalies.tail import Tail, fit_tail
from warte.earth.scene import Float32Array, Pixels, Scene

# What the ensemble is made of, and how much each counts.
ENSEMBLE: Mapping[Member, float] = {"contrast": 4.0, "local-rx": 1.0, "forest": 1.0}
# The forest takes half of the time and changes the least: larger pictures go without.
FOREST_PX = 4_000_000  # valid pixels


@dataclass(frozen=True)
class Methods:
    """The fitted methods; None for one that is not asked for. They can be pickled."""

    settings: AnomalySettings
    names: tuple[Member, ...]
    variances: FloatArray
    contrast: Contrast | None = None
    forest: Forest | None = None
    autoencoder: Autoencoder | None = None

    def scores(self, view: View, structures: Structures | None = None) -> dict[Member, FloatArray]:
        """Each method's score, (rows, columns), in its own unit; more is more unusual."""
        if structures is None and self.contrast is not None:
            structures = self.contrast.structures(view)
        return {name: self._score(name, view, structures) for name in self.names}

    def _score(self, name: Member, view: View, structures: Structures | None) -> FloatArray:
        if name == "rx":
            return view.distance
        if name == "local-rx":
            settings = self.settings
            return local_rx(view, self.variances, settings.inner_px, settings.outer_px)
        if name == "autoencoder":
            assert self.autoencoder is not None
            return self.autoencoder.score(view)
        assert structures is not None
        if name == "contrast":
            return structures.strength.astype(np.float64)
        assert self.forest is not None
        return self.forest.score(view, structures)


@dataclass(frozen=True)
class Scorer:
    """From pixels to the anomaly score; what `warte.earth.whole.map_scenes` applies.

    tails: of each method's score. weights: of each method. joined: of their weighted mean.
    sample: where the pieces lie that it was fitted to.
    """

    background: Background
    methods: Methods
    tails: dict[Member, Tail]
    weights: dict[Member, float]
    joined: Tail
    sample: tuple[Window, ...]

    def __call__(self, pixels: Sequence[Pixels]) -> dict[str, Float32Array]:
        """The picture of one window."""
        (part,) = pixels
        view = self.background.project(part.values, part.valid, len(self.methods.variances))
        mean = weighted(self.methods.scores(view), self.tails, self.weights)
        return {"anomaly.tif": self.joined.rarity(mean)[None].astype(np.float32)}


def weighted(
    scores: Mapping[Member, FloatArray],
    tails: Mapping[Member, Tail],
    weights: Mapping[Member, float],
) -> FloatArray:
    """Mean of how rare each method finds a pixel."""
    total = sum(weights.values())
    parts = [tails[name].rarity(score) * (weights[name] / total) for name, score in scores.items()]
    return np.sum(parts, axis=0)


def fit(
    scene: Scene,
    settings: AnomalySettings,
    pool: Executor | None = None,
    report: Report | None = None,
) -> Scorer:
    """Learn a scene's background: two readings of it at most, whatever the method.

    Raises:
        InputError: no pixel is valid, all are the same, or the method needs more bands.
    """
    generator = np.random.default_rng(settings.seed)
    background, places = measure(scene, pool, report)
    variances = background.variances[: settings.components]
    weights = _weights(settings, background.pixels)
    if "autoencoder" in weights and len(variances) < 2:
        raise InputError(
            f"{scene.name} varies in one band only; --method autoencoder needs two or more, "
            "the other methods do not"
        )
    patches = sample(scene, background, places, len(variances), margin(settings), generator)
    methods, structures = _methods(settings, tuple(weights), variances, patches, generator)
    return _calibrated(background, methods, weights, patches, structures, report)


def _weights(settings: AnomalySettings, pixels: int) -> dict[Member, float]:
    if settings.method != "ensemble":
        return {settings.method: 1.0}
    weights = dict(ENSEMBLE)
    if pixels > FOREST_PX:
        del weights["forest"]
    return weights


def margin(settings: AnomalySettings) -> int:
    """Pixels around a window that its scores depend on, for any method."""
    return max(settings.largest_px + 1, settings.outer_px // 2)


def _methods(
    settings: AnomalySettings,
    names: tuple[Member, ...],
    variances: FloatArray,
    patches: list[Patch],
    generator: np.random.Generator,
) -> tuple[Methods, list[Structures | None]]:
    """The fitted methods, and the small structures of each patch where one looks at them."""
    deviations = np.sqrt(variances)
    contrast, forest, autoencoder = None, None, None
    structures: list[Structures | None] = [None] * len(patches)
    if "contrast" in names or "forest" in names:
        contrast = fit_contrast(patches, settings.largest_px, deviations)
        found = [contrast.structures(patch.view) for patch in patches]
        structures = list(found)
        if "forest" in names:
            forest = fit_forest(patches, found, deviations, settings.trees, generator)
    if "autoencoder" in names:
        autoencoder = fit_autoencoder(patches, deviations, settings.epochs, generator)
    return Methods(settings, names, variances, contrast, forest, autoencoder), structures


def _calibrated(
    background: Background,
    methods: Methods,
    weights: dict[Member, float],
    patches: list[Patch],
    structures: list[Structures | None],
    report: Report | None,
) -> Scorer:
    """Scores of the sample make the tails; the joined one is calibrated, too."""
    found: dict[Member, list[FloatArray]] = {name: [] for name in methods.names}
    for done, (patch, seen) in enumerate(zip(patches, structures, strict=True), 1):
        for name, score in methods.scores(patch.view, seen).items():
            found[name].append(patch.of(score).astype(np.float64))
        if report is not None:
            report("sample", done, len(patches))
    scores = {name: np.concatenate(parts) for name, parts in found.items()}
    tails = {name: fit_tail(score) for name, score in scores.items()}
    joined = fit_tail(weighted(scores, tails, weights))
    return Scorer(background, methods, tails, weights, joined, tuple(p.place for p in patches))
