"""The networks of land cover: a U-Net that answers for each pixel, and one that answers per patch.

The blocks are those of ConvNeXt (Liu et al. 2022, arXiv 2201.03545) in the shape of a U-Net
(Ronneberger et al. 2015, arXiv 1505.04597): a depthwise convolution, a normalisation, and two
pointwise layers, with the input added at the end.

The normalisation is over the channels of each pixel alone. One over space (group or instance norm)
would make the answer for a pixel depend on the whole tile it was cut out with, so that tiles could
not be joined without seams, and one over the batch would tie processes together.

A network is a chain of named pieces. Between them goes a tuple: the picture, then the skip
connections that wait for their decoder. So a chain can be cut anywhere, and its parts can live in
different processes; the parts keep the names that the tensors have in the whole network.

Pictures are (N, H, W, channels) inside, (N, channels, H, W) outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from warte.core.errors import SettingsError

WIDENING = 4  # channels between the two pointwise layers of a block, in units of its width


@dataclass(frozen=True)
class ModelSettings:
    """The shape of a network."""

    bands: int  # channels of the input: bands, and what goes with them (channels)
    classes: int  # classes of the answer (classes)
    width: int = 24  # channels at full resolution; doubled at each coarser level (channels)
    depth: int = 3  # times that the resolution is halved (levels)
    blocks: int = 1  # blocks of each level, on the way down and on the way up (blocks)
    kernel: int = 7  # side of the depthwise convolutions, odd (pixels of the level)

    def __post_init__(self) -> None:
        for flag, value, low, high in (
            ("--bands", self.bands, 1, 4096),
            ("--classes", self.classes, 1, 4096),
            ("--width", self.width, 1, 4096),
            ("--depth", self.depth, 0, 8),
            ("--blocks", self.blocks, 1, 64),
            ("--kernel", self.kernel, 1, 63),
        ):
            if not low <= value <= high:
                raise SettingsError(f"{flag} is {value}; allowed is {low} to {high}")
        if self.kernel % 2 == 0:
            raise SettingsError(f"--kernel is {self.kernel}; it must be odd, as {self.kernel + 1}")


def alignment(settings: ModelSettings) -> int:
    """Pixels to whose multiples the first row and column of a tile must lie.

    Only then are the pixels of a tile joined to coarser ones as those of the whole picture are.
    """
    return int(2**settings.depth)


def receptive_field(settings: ModelSettings) -> int:
    """How far away a pixel can lie and still change the answer of the U-Net, in pixels; exact."""
    return max(_reach(settings, start) for start in range(alignment(settings)))


def _reach(settings: ModelSettings, start: int) -> int:
    """How far the answer for the pixel `start` of a group of aligned ones reaches."""
    level = settings.blocks * (settings.kernel // 2)
    first = last = start
    for _ in range(settings.depth):
        first, last = (first - level) // 2, (last + level) // 2
    first, last = first - level, last + level
    for _ in range(settings.depth):
        first, last = 2 * first - level, 2 * last + 1 + level
    stem = settings.kernel // 2
    return max(start - (first - stem), last + stem - start)


# layers -----------------------------------------------------------------------------------------


def _convolved(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of (N, H, W, channels)."""
    return convolution(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Block(nn.Module):
    """(N, H, W, width) to the same: what lies around, then what the channels say together."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, WIDENING * width)
        self.act = nn.GELU()
        self.narrow = nn.Linear(WIDENING * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(_convolved(self.around, x))
        return x + self.narrow(self.act(self.widen(y)))


def _blocks(width: int, settings: ModelSettings) -> nn.Sequential:
    return nn.Sequential(*(Block(width, settings.kernel) for _ in range(settings.blocks)))


class Stem(nn.Module):
    """The picture (N, bands, H, W) to (N, H, W, width)."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        kernel = settings.kernel
        self.multiple = alignment(settings)
        self.mix = nn.Conv2d(settings.bands, settings.width, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if x.shape[2] % self.multiple or x.shape[3] % self.multiple:  # in a pipeline
            raise SettingsError(
                f"--crop: pictures of {x.shape[2]} x {x.shape[3]} pixels cannot go through a "
                f"pipeline; their sides must be multiples of {self.multiple}"
            )
        return (self.mix(x).permute(0, 2, 3, 1).contiguous(),)


class Down(nn.Module):
    """Blocks, then half the resolution and twice the channels.

    keep: hand on what the blocks answered, too, as a skip connection.
    """

    def __init__(self, width: int, settings: ModelSettings, *, keep: bool) -> None:
        super().__init__()
        self.keep = keep
        self.blocks = _blocks(width, settings)
        self.norm = nn.LayerNorm(width)
        self.join = nn.Linear(4 * width, 2 * width)

    def forward(self, x: Tensor, *skips: Tensor) -> tuple[Tensor, ...]:
        x = self.blocks(x)
        n, h, w, c = x.shape
        fours = self.norm(x).view(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5)
        coarse = self.join(fours.reshape(n, h // 2, w // 2, 4 * c))
        return (coarse, *skips, x) if self.keep else (coarse, *skips)


class Bottom(nn.Module):
    """Blocks at the coarsest level."""

    def __init__(self, width: int, settings: ModelSettings) -> None:
        super().__init__()
        self.blocks = _blocks(width, settings)

    def forward(self, x: Tensor, *skips: Tensor) -> tuple[Tensor, ...]:
        return (self.blocks(x), *skips)


class Up(nn.Module):
    """Twice the resolution and half the channels, joined with the last skip; then blocks."""

    def __init__(self, width: int, settings: ModelSettings) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2 * width)
        self.split = nn.Linear(2 * width, 4 * width)
        self.merge = nn.Linear(2 * width, width)
        self.blocks = _blocks(width, settings)

    def forward(self, x: Tensor, *skips: Tensor) -> tuple[Tensor, ...]:
        n, h, w, c = x.shape
        fours = self.split(self.norm(x)).view(n, h, w, 2, 2, c // 2).permute(0, 1, 3, 2, 4, 5)
        fine = fours.reshape(n, 2 * h, 2 * w, c // 2)
        return (self.blocks(self.merge(torch.cat([fine, skips[-1]], dim=3))), *skips[:-1])


class Head(nn.Module):
    """(N, H, W, width) to logits (N, classes, H, W)."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(settings.width)
        self.answer = nn.Linear(settings.width, settings.classes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.answer(self.norm(x)).permute(0, 3, 1, 2).contiguous(),)


class Mean(nn.Module):
    """The mean over all pixels, (N, H, W, width), and from it logits (N, classes)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.answer = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.answer(self.norm(x.mean(dim=(1, 2)))),)


# networks ---------------------------------------------------------------------------------------


class Chain(nn.Module):
    """Pieces, or some of them, one after the other: a tuple of tensors goes in and comes out."""

    def __init__(self, pieces: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.pieces = nn.ModuleDict(pieces)

    def forward(self, *state: Tensor) -> Tensor | tuple[Tensor, ...]:
        for piece in self.pieces.values():
            state = piece(*state)
        return state[0] if len(state) == 1 else state


class UNet(Chain):
    """(N, bands, H, W) float to logits (N, classes, H, W), for any H and W."""

    def __init__(self, settings: ModelSettings) -> None:
        widths = [settings.width << level for level in range(settings.depth + 1)]
        super().__init__(
            {
                "stem": Stem(settings),
                **{f"down{n}": Down(w, settings, keep=True) for n, w in enumerate(widths[:-1])},
                "bottom": Bottom(widths[-1], settings),
                **{f"up{n}": Up(widths[n], settings) for n in reversed(range(settings.depth))},
                "head": Head(settings),
            }
        )
        self.multiple = alignment(settings)

    def forward(self, *state: Tensor) -> Tensor:
        (x,) = state
        height, width = x.shape[2:]
        logits = super().forward(_padded(x, self.multiple))
        assert isinstance(logits, Tensor)  # no skip connection is left
        return logits[:, :, :height, :width]


class PatchNet(Chain):
    """(N, bands, H, W) float to logits (N, classes), one answer for each patch."""

    def __init__(self, settings: ModelSettings) -> None:
        widths = [settings.width << level for level in range(settings.depth + 1)]
        super().__init__(
            {
                "stem": Stem(settings),
                **{f"down{n}": Down(w, settings, keep=False) for n, w in enumerate(widths[:-1])},
                "bottom": Bottom(widths[-1], settings),
                "mean": Mean(widths[-1], settings.classes),
            }
        )
        self.multiple = alignment(settings)

    def forward(self, *state: Tensor) -> Tensor:
        (x,) = state
        logits = super().forward(_padded(x, self.multiple))
        assert isinstance(logits, Tensor)  # there are no skip connections
        return logits


def _padded(x: Tensor, multiple: int) -> Tensor:
    """The picture made longer at its right and lower edge, where its last pixels are repeated."""
    below, right = -x.shape[2] % multiple, -x.shape[3] % multiple
    if not below and not right:
        return x
    return nn.functional.pad(x, (0, right, 0, below), mode="replicate")


def build(settings: ModelSettings) -> UNet:
    """A U-Net with fresh weights: one answer for each pixel."""
    return UNet(settings)


def build_patch(settings: ModelSettings) -> PatchNet:
    """A network with fresh weights that gives one answer for each patch."""
    return PatchNet(settings)
