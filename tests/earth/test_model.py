"""The networks: what they see, that tiles join without seams, and that they can be cut."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from warte.core.errors import SettingsError
from warte.earth.model import (
    Chain,
    ModelSettings,
    alignment,
    build,
    build_patch,
    receptive_field,
)
from warte.earth.parallel import cut

SHAPES = [
    ModelSettings(2, 2, width=4, depth=0, kernel=3),
    ModelSettings(2, 2, width=4, depth=1, kernel=5),
    ModelSettings(1, 3, width=4, depth=2, blocks=2, kernel=3),
    ModelSettings(1, 2, width=2, depth=3, kernel=1),
]


def _unet(settings: ModelSettings) -> nn.Module:
    torch.manual_seed(3)
    return build(settings).double().eval()


@pytest.mark.parametrize("settings", SHAPES)
def test_receptive_field_is_that_of_the_gradient(settings: ModelSettings) -> None:
    model, radius, step = _unet(settings), receptive_field(settings), alignment(settings)
    middle = -(-(radius + 1) // step) * step
    found = 0
    for offset in range(step):
        x = torch.randn(1, settings.bands, 2 * middle + step, 2 * middle + step).double()
        x.requires_grad_()
        model(x)[0, :, middle + offset, middle + offset].sum().backward()
        assert x.grad is not None
        rows, columns = (x.grad.abs().sum(dim=1)[0] > 0).nonzero(as_tuple=True)
        away = torch.cat([rows, columns]) - middle - offset
        found = max(found, int(away.abs().max()))
    assert found == radius


@pytest.mark.parametrize("settings", SHAPES[1:3])
def test_aligned_tiles_give_the_answer_of_the_whole(settings: ModelSettings) -> None:
    model, step = _unet(settings), alignment(settings)
    margin = -(-receptive_field(settings) // step) * step
    x = torch.randn(1, settings.bands, 4 * margin + 3, 3 * margin + 5).double()
    with torch.no_grad():
        whole = model(x)
        top, left = margin + step, margin
        tile = x[:, :, top - margin : top + 2 * margin, left - margin : left + 2 * margin]
        part = model(tile)[:, :, margin : 2 * margin, margin : 2 * margin]
    assert whole.shape == (1, settings.classes, *x.shape[2:])
    there = whole[:, :, top : top + margin, left : left + margin]
    assert (part - there).abs().max() < 1e-12


@pytest.mark.parametrize("stages", [2, 4, 7])
def test_a_chain_that_is_cut_is_the_same_network(stages: int) -> None:
    settings = ModelSettings(3, 2, width=4, depth=2, kernel=3)
    model = _unet(settings)
    parts = cut(model, stages)
    names = [name for part in parts for name in part.state_dict()]
    assert names == list(model.state_dict())
    x = torch.randn(2, 3, 8, 12).double()
    state: tuple[torch.Tensor, ...] = (x,)
    for part in parts:
        found = part(*state)
        state = found if isinstance(found, tuple) else (found,)
    assert torch.equal(state[0], model(x))


def test_a_pipeline_refuses_what_it_cannot_cut() -> None:
    settings = ModelSettings(3, 2, width=4, depth=2, kernel=3)
    with pytest.raises(SettingsError, match=r"of 8 stages needs as many pieces, .* has 7"):
        cut(_unet(settings), 8)
    (first, *_) = cut(_unet(settings), 2)
    assert isinstance(first, Chain)
    with pytest.raises(SettingsError, match=r"--crop: pictures of 9 x 8 .* multiples of 4"):
        first(torch.zeros(1, 3, 9, 8).double())


def test_patches_of_any_size() -> None:
    settings = ModelSettings(4, 5, width=4, depth=3, kernel=3)
    torch.manual_seed(0)
    model = build_patch(settings)
    for size in ((1, 1), (9, 5), (16, 16)):
        assert model(torch.randn(2, 4, *size)).shape == (2, 5)
    for stages in (2, 3):
        x = torch.randn(2, 4, 16, 16)
        first, *rest = cut(model, stages)
        found = first(x)
        for part in rest:
            assert isinstance(found, torch.Tensor)  # a patch needs no skip connections
            found = part(found)
        assert torch.equal(found, model(x))


def test_a_network_for_a_laptop() -> None:
    count = sum(values.numel() for values in build(ModelSettings(10, 8)).parameters())
    assert 3e5 < count < 1e6


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"bands": 0}, "--bands is 0; allowed is 1 to 4096"),
        ({"kernel": 4}, "--kernel is 4; it must be odd, as 5"),
        ({"depth": 9}, "--depth is 9; allowed is 0 to 8"),
    ],
)
def test_settings_out_of_range(wrong: dict[str, int], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        ModelSettings(**{"bands": 3, "classes": 2, **wrong})
