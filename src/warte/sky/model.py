"""The network that sees bright movers: a small U-Net over a few registered frames.

After Ronneberger et al. 2015, arXiv 1505.04597, with 'same' padding, three levels and frames as
channels: 8 frames and the stars' template go in, one map of moving light per frame comes out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from warte.core.errors import SettingsError

LIMIT = 5.0  # compressed light is clipped here: about 150 sigma
LEVELS = 3  # resolutions: 1, 1/2, 1/4
STEP = 2 ** (LEVELS - 1)  # sides of a picture are padded to multiples of this


@dataclass(frozen=True)
class UNetSettings:
    """The shape of the network."""

    frames: int = 8  # frames seen and answered at once (frames)
    base: int = 16  # channels at full resolution; doubled at each coarser level

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= 64:
            raise SettingsError(f"frames is {self.frames}; allowed is 1 to 64: change frames")
        if not 1 <= self.base <= 256:
            raise SettingsError(f"base is {self.base}; allowed is 1 to 256: change base")


def compress(sigma: Tensor) -> Tensor:
    """Light in sigma, any shape, as the network takes it: asinh(x / 2), clipped at +-LIMIT."""
    size = sigma.abs().mul_(0.5)
    # a quarter of the time of torch.asinh
    size = torch.log(size + torch.sqrt(size * size + 1)).clamp_max_(LIMIT)
    return torch.copysign(size, sigma)


class ConvPair(nn.Sequential):
    """Two 3 x 3 convolutions, each with a ReLU; batch normalisation between while training."""

    def __init__(self, inputs: int, outputs: int, *, norm: bool) -> None:
        layers: list[nn.Module] = []
        for n in (inputs, outputs):
            layers.append(nn.Conv2d(n, outputs, 3, padding=1, bias=not norm))
            if norm:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class UNet(nn.Module):
    """Compressed light (B, frames + 1, h, w), the template last, to logits (B, frames, h, w).

    A logit says how likely the light of a mover is in that cell and frame. Any h and w.
    """

    def __init__(self, settings: UNetSettings, *, norm: bool) -> None:
        super().__init__()
        self.settings = settings
        self.norm = norm
        c = settings.base
        self.down1 = ConvPair(settings.frames + 1, c, norm=norm)
        self.down2 = ConvPair(c, 2 * c, norm=norm)
        self.bottom = ConvPair(2 * c, 4 * c, norm=norm)
        self.up2 = nn.ConvTranspose2d(4 * c, 2 * c, 2, stride=2)
        self.join2 = ConvPair(4 * c, 2 * c, norm=norm)
        self.up1 = nn.ConvTranspose2d(2 * c, c, 2, stride=2)
        self.join1 = ConvPair(2 * c, c, norm=norm)
        self.head = nn.Conv2d(c, settings.frames, 1)
        nn.init.constant_(
            self.head.get_parameter("bias"), -5.0
        )  # movers are rare: start from 'nothing there'
        self.pool = nn.MaxPool2d(2)

    def forward(self, light: Tensor) -> Tensor:
        height, width = light.shape[-2:]
        padded = nn.functional.pad(light, (0, -width % STEP, 0, -height % STEP))
        fine = self.down1(padded)
        half = self.down2(self.pool(fine))
        deep = self.bottom(self.pool(half))
        half = self.join2(torch.cat([self.up2(deep), half], dim=1))
        fine = self.join1(torch.cat([self.up1(half), fine], dim=1))
        return self.head(fine)[..., :height, :width]


def build(settings: UNetSettings | None = None, *, norm: bool = False) -> UNet:
    """A fresh network. ``norm``: with batch normalisation, for training; ``fold`` removes it."""
    model = UNet(settings or UNetSettings(), norm=norm)
    for value in model.parameters():
        if value.ndim == 4:  # twice as fast on a CPU
            value.data = value.data.contiguous(memory_format=torch.channels_last)
    return model


def fold(model: UNet) -> UNet:
    """The same function without batch normalisation: each is folded into its convolution."""
    if not model.norm:
        return model
    model = model.eval()
    plain = build(model.settings)
    weights: dict[str, Tensor] = {}
    for name, part in model.named_children():
        if isinstance(part, ConvPair):
            for at in (0, 3):
                conv, batch = part[at], part[at + 1]
                assert isinstance(conv, nn.Conv2d) and isinstance(batch, nn.BatchNorm2d)
                fused = fuse_conv_bn_eval(conv, batch)
                assert fused.bias is not None
                weights[f"{name}.{at * 2 // 3}.weight"] = fused.weight.detach()
                weights[f"{name}.{at * 2 // 3}.bias"] = fused.bias.detach()
        else:
            weights |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
    plain.load_state_dict(weights)
    return plain.eval()
