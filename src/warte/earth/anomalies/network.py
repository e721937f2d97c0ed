"""An autoencoder: what a network with a narrow waist cannot repeat is unusual.

Chang, Du and Zhang, IGARSS 2019, 2729. The loss grows with the logarithm of the error, so that the
network does not learn the anomalies that its sample holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch.nn import functional

from warte.earth.anomalies.background import FloatArray, Patch, View
from warte.earth.scene import Float32Array

HIDDEN = 16  # neurons of the wide layers
WAIST = 4  # neurons of the narrow layer at most
ROWS = 20_000  # pixels that it learns from at most
BATCH = 512  # pixels of a step
RATE = 3e-3  # of Adam
SCORED = 65_536  # pixels that are scored at once


@dataclass(frozen=True)
class Autoencoder:
    """Layers (weights (out, in) and offsets (out,)) and what divides the components."""

    layers: tuple[tuple[Float32Array, Float32Array], ...]
    scale: FloatArray

    def score(self, view: View) -> FloatArray:
        """Squared error of each pixel, (rows, columns); 0 where not valid."""
        layers = [(torch.from_numpy(weight), torch.from_numpy(b)) for weight, b in self.layers]
        rows = _inputs(view.components[:, view.valid].T, self.scale)
        score = np.zeros(view.valid.shape)
        with torch.inference_mode():
            parts = [_errors(layers, part).numpy() for part in rows.split(SCORED)]
        score[view.valid] = np.concatenate(parts)
        return score


Layers = list[tuple[torch.Tensor, torch.Tensor]]


def fit_autoencoder(
    patches: list[Patch], deviations: FloatArray, epochs: int, generator: np.random.Generator
) -> Autoencoder:
    """Train on a sample of pixels; deviations: (components,), two or more.

    Components are divided by the square root of their deviation: between as they are (only the
    first ones count) and all alike (noise counts as much).
    """
    pixels = np.concatenate([patch.of(patch.view.components) for patch in patches], axis=1).T
    chosen = generator.choice(len(pixels), min(ROWS, len(pixels)), replace=False)
    scale = np.sqrt(deviations * deviations.mean())
    rows = _inputs(pixels[chosen], scale)
    count = len(deviations)
    sizes = (count, HIDDEN, min(WAIST, count - 1), HIDDEN, count)
    layers = [
        (_drawn((wide, narrow), narrow, generator), _drawn((wide,), narrow, generator))
        for narrow, wide in pairwise(sizes)
    ]
    adam = torch.optim.Adam([tensor for layer in layers for tensor in layer], RATE)
    for _ in range(epochs):
        for step in torch.from_numpy(generator.permutation(len(rows))).split(BATCH):
            loss = torch.log1p(_errors(layers, rows[step])).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
    return Autoencoder(
        tuple((weight.detach().numpy(), offset.detach().numpy()) for weight, offset in layers),
        scale,
    )


def _drawn(shape: tuple[int, ...], inputs: int, generator: np.random.Generator) -> torch.Tensor:
    """First weights: uniform within the root of one over the inputs."""
    bound = inputs**-0.5
    values = generator.uniform(-bound, bound, shape).astype(np.float32)
    return torch.from_numpy(values).requires_grad_()


def _inputs(pixels: Float32Array, scale: FloatArray) -> torch.Tensor:
    return torch.from_numpy((pixels / scale).astype(np.float32))


def _errors(layers: Layers, rows: torch.Tensor) -> torch.Tensor:
    out = rows
    for number, (weight, offset) in enumerate(layers):
        out = functional.linear(out, weight, offset)
        if number + 1 < len(layers):
            out = functional.silu(out)
    return ((out - rows) ** 2).sum(dim=1)
