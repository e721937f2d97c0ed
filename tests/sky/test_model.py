"""The U-Net: shapes, folding, and what it costs."""

import numpy as np
import pytest
import torch

from warte.core.errors import SettingsError
from warte.sky.model import LIMIT, UNetSettings, build, compress, fold


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (16, 24), (33, 18)])
def test_answers_every_cell_of_any_picture(size: tuple[int, int]) -> None:
    model = build(UNetSettings(frames=3, base=2)).eval()
    logits = model(torch.randn(2, 4, *size))
    assert logits.shape == (2, 3, *size)
    assert torch.isfinite(logits).all()


def test_a_fresh_network_says_nothing_is_there() -> None:
    torch.manual_seed(0)
    chance = torch.sigmoid(build(UNetSettings(base=4)).eval()(torch.zeros(1, 9, 16, 16)))
    assert chance.max() < 0.05


def test_compress_is_odd_and_clipped() -> None:
    light = torch.tensor([-1e6, -3.0, 0.0, 3.0, 1e6])
    expected = [-LIMIT, -np.arcsinh(1.5), 0.0, np.arcsinh(1.5), LIMIT]
    np.testing.assert_allclose(compress(light).numpy(), expected, rtol=1e-6)


def test_fold_keeps_the_function() -> None:
    torch.manual_seed(1)
    model = build(UNetSettings(frames=4, base=4), norm=True).train()
    for _ in range(3):  # so that means and variances are not those of a fresh network
        model(3 * torch.randn(2, 5, 16, 16) + 1)
    light = torch.randn(2, 5, 19, 16)
    expected = model.eval()(light)
    plain = fold(model)
    assert not any("running" in key for key in plain.state_dict())
    torch.testing.assert_close(plain(light), expected, rtol=1e-4, atol=1e-4)


def test_a_change_far_away_changes_nothing() -> None:
    torch.manual_seed(2)
    model = build(UNetSettings(frames=2, base=4)).eval()
    light = torch.randn(1, 3, 64, 64)
    other = light.clone()
    other[..., :8, :8] += 5
    changed = (model(light) != model(other)).any(dim=1)[0]
    assert changed[:8, :8].any()
    assert not changed[48:, 48:].any()


def test_settings_out_of_range() -> None:
    with pytest.raises(SettingsError, match="base is 0"):
        UNetSettings(base=0)
