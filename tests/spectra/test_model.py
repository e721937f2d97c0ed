"""The network: partial convolutions against their definition, and missing pixels say nothing."""

import numpy as np
import pytest
import torch

from warte.core.errors import SettingsError
from warte.spectra.grid import CELLS, look
from warte.spectra.model import ModelSettings, PartialConv, build


def drawn(count: int, missing: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    flux = rng.normal(10, 1, (count, CELLS)).astype(np.float32)
    ivar = (rng.random(flux.shape) >= missing).astype(np.float32)
    return flux, ivar


def test_partial_convolution_is_as_defined() -> None:
    torch.manual_seed(0)
    layer = PartialConv(2, 4, 5)
    torch.nn.init.normal_(layer.bias)
    seen = (torch.rand(1, 1, 3, 12) > 0.4).float()
    seen[..., 0, 2:9] = 0
    x = torch.randn(1, 2, 3, 12) * seen
    with torch.no_grad():
        out, after = layer(x, seen)
    weight = layer.conv.weight.detach()[:, :, 0]
    for line in range(3):
        for at in range(12):
            low, high = max(0, at - 2), min(12, at + 3)
            kernel = weight[:, :, low - at + 2 : high - at + 2]
            number = float(seen[0, 0, line, low:high].sum())
            assert float(after[0, 0, line, at]) == (number > 0)
            total = (kernel * x[0, :, line, low:high]).sum((1, 2)) * 5 / max(number, 1)
            expected = total + layer.bias.detach() if number else torch.zeros(4)
            torch.testing.assert_close(out[0, :, line, at], expected, rtol=1e-4, atol=1e-5)


def test_a_constant_stays_constant_whatever_is_missing() -> None:
    layer = PartialConv(1, 1, 5)
    torch.nn.init.constant_(layer.conv.weight, 0.2)
    seen = (torch.rand(1, 1, 2, 40) > 0.5).float()
    with torch.no_grad():
        out, after = layer(3.0 * seen, seen)
    torch.testing.assert_close(out[after > 0], torch.full((int(after.sum()),), 3.0))


def test_missing_pixels_change_nothing_at_all() -> None:
    torch.manual_seed(1)
    model = build().eval()
    flux, ivar = drawn(4)
    with torch.inference_mode():
        clean = model(look(flux, ivar))
        for value in (np.nan, 0.0, 1e20):
            other = model(look(np.where(ivar > 0, flux, np.float32(value)), ivar))
            assert all(torch.equal(a, b) for a, b in zip(clean, other, strict=True))
        moved = model(look(np.where(ivar > 0, flux + 1, flux), ivar))
    assert not torch.equal(clean[0], moved[0])


def test_shapes_and_empty_spectra() -> None:
    model = build(ModelSettings(4, 8, 4, 16)).eval()
    flux, ivar = drawn(3)
    ivar[1] = 0
    with torch.inference_mode():
        classes, second = model(look(flux, ivar))
    assert classes.shape == (3, 6) and second.shape == (3,)
    assert torch.isfinite(classes).all() and torch.isfinite(second).all()


def test_every_weight_learns() -> None:
    model = build(ModelSettings(4, 8, 4, 16))
    flux, ivar = drawn(16)
    classes, second = model(look(flux, ivar))
    (classes.square().sum() + second.square().sum()).backward()
    for name, value in model.named_parameters():
        assert value.grad is not None and float(value.grad.abs().max()) > 0, name


def test_settings_out_of_range() -> None:
    with pytest.raises(SettingsError, match="hidden is 0"):
        ModelSettings(hidden=0)
