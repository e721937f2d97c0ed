"""The network that classifies galaxies and tells whether their lines have a second component.

A plain 1-D CNN of two branches: the emission lines, aligned in velocity and one above another, and
the whole spectrum in coarse bins. The first layers are partial convolutions (Liu et al. 2018, ECCV,
arXiv 1804.07723): missing pixels carry no information.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from warte.core.errors import SettingsError
from warte.spectra.grid import BIN_CHANNELS, BINS, LINE_CHANNELS, LINES, REACH, Inputs
from warte.spectra.lines import CLASSES


@dataclass(frozen=True)
class ModelSettings:
    """The shape of the network."""

    line_features: int = 8  # channels of the first look at each line
    line_width: int = 48  # channels of the lines taken together; more in the second layer
    bin_width: int = 16  # channels of the coarse branch at first; doubled later
    hidden: int = 96  # units of the layer that joins both branches

    def __post_init__(self) -> None:
        for name in ("line_features", "line_width", "bin_width", "hidden"):
            if not 1 <= getattr(self, name) <= 1024:
                raise SettingsError(
                    f"{name} is {getattr(self, name)}; allowed is 1 to 1024: change {name}"
                )


class PartialConv(nn.Module):
    """A convolution along the last axis of (N, C, lines, V) that leaves missing pixels out.

    Its sum over the pixels measured is scaled up as if all had been: W (x seen) k / sum(seen) + b;
    the result is missing (0) where none was. Beyond the edges all is missing.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, (1, kernel), padding=(0, self.reach), bias=False)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, C, lines, V), 0 where seen (N, 1, lines, V) is; the same of the output."""
        padded = nn.functional.pad(seen, (self.reach, self.reach))
        kernel, size = 2 * self.reach + 1, seen.shape[-1]
        number = torch.zeros_like(seen)
        for at in range(kernel):  # faster than pooling
            number += padded[..., at : at + size]
        after = (number > 0).to(x.dtype)
        scale = after * kernel / number.clamp(min=1)
        return self.conv(x) * scale + self.bias[:, None, None] * after, after


class Classifier(nn.Module):
    """`Inputs` of N spectra to logits of the classes (N, 6) and of a second component (N,)."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        a, b, c = settings.line_features, settings.line_width, settings.bin_width
        self.line_first = PartialConv(LINE_CHANNELS, a, 5)
        self.line_rest = nn.Sequential(
            nn.Conv1d((a + 1) * len(LINES), b, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv1d(b, b + b // 2, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv1d(b + b // 2, b + b // 2, 4, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Flatten(),
        )
        self.bin_first = PartialConv(BIN_CHANNELS, c, 5)
        self.bin_rest = nn.Sequential(
            nn.MaxPool1d(2, ceil_mode=True),
            nn.Conv1d(c + 1, 2 * c, 5, stride=2, padding=2),
            nn.ReLU(inplace=True),
            nn.Conv1d(2 * c, 2 * c, 5, stride=2, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool1d(2, ceil_mode=True),
            nn.Flatten(),
        )
        joined = (b + b // 2) * (2 * REACH // 4) + 2 * c * (-(-BINS // 16))
        self.join = nn.Sequential(nn.Linear(joined, settings.hidden), nn.ReLU(inplace=True))
        self.classes = nn.Linear(settings.hidden, len(CLASSES))
        self.second = nn.Linear(settings.hidden, 1)

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        lines, seen = self.line_first(inputs.lines, inputs.lines_seen)
        lines = torch.cat([lines.relu_(), seen], 1).flatten(1, 2)
        bins, bins_seen = self.bin_first(inputs.bins[:, :, None], inputs.bins_seen[:, :, None])
        bins = torch.cat([bins.relu_(), bins_seen], 1)[:, :, 0]
        joined = self.join(torch.cat([self.line_rest(lines), self.bin_rest(bins)], 1))
        return self.classes(joined), self.second(joined)[:, 0]


def build(settings: ModelSettings | None = None) -> Classifier:
    """A fresh network for one device."""
    return Classifier(settings or ModelSettings())
