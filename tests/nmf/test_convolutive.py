"""NMFD against planted patterns, against torchnmf, and against its own forward pass."""

import warnings
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from torch import Tensor

from warte.nmf.autograd import gradient_parts
from warte.nmf.convolution import Spectral, Stacked, fastest, reconstruct, sums_for_h, sums_for_w
from warte.nmf.convolutive import NMFD, solve
from warte.nmf.solve import Penalty
from warte.nmf.solve import multiplicative as plain

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torchnmf is built on a deprecated part of torch
    import torchnmf.nmf

BETAS = [2.0, 1.5, 1.0, 0.5, 0.0, 3.0]
# (s, n, m), (a, b), p: along time, with pitches, pictures, several recordings.
SHAPES = [
    ((1, 7, 20), (7, 3), 1),
    ((2, 7, 12), (7, 3), 4),
    ((1, 9, 11), (4, 5), 9),
    ((3, 6, 8), (3, 2), 6),
]


def _random(
    shape: tuple[int, int, int], window: tuple[int, int], shifts: int, k: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    """Data (s, n, m) above zero, templates and activations."""
    rng = np.random.default_rng(5)
    x = torch.from_numpy(rng.gamma(1.0, 1.0, shape) + 0.05)
    w = torch.from_numpy(rng.uniform(0.1, 1.0, (k, *window)))
    h = torch.from_numpy(rng.uniform(0.1, 1.0, (shape[0], k, shifts, shape[2])))
    return x, w, h


def _planted(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three patterns of 8 frames, each starting 12 times: X (40, 300), templates, activations."""
    rng = np.random.default_rng(seed)
    k, n, m, b = 3, 40, 300, 8
    w, h = rng.gamma(0.2, 1.0, (k, n, b)), np.zeros((k, m))
    for z in range(k):
        h[z, rng.choice(m - b, 12, replace=False)] = rng.uniform(0.5, 2.0, 12)
    x = np.zeros((n, m))
    for t in range(b):  # the definition, lag by lag
        x[:, t:] += w[:, :, t].T @ h[:, : m - t]
    return x, w, h


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The highest cosine between two templates (n, window) over all shifts in time."""
    best, length = 0.0, a.shape[1]
    for shift in range(-length + 1, length):
        moved = np.zeros_like(a)
        if shift >= 0:
            moved[:, shift:] = a[:, : length - shift]
        else:
            moved[:, :shift] = a[:, -shift:]
        best = max(best, float((moved * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)))
    return best


@pytest.mark.parametrize("shape, window, shifts", SHAPES)
@pytest.mark.parametrize("way", [Stacked, Spectral])
def test_adjoints_are_those_of_the_plain_convolution(
    shape: tuple[int, int, int], window: tuple[int, int], shifts: int, way: Any
) -> None:
    d, w, h = _random(shape, window, shifts)
    w.requires_grad_(True)
    h.requires_grad_(True)
    y = reconstruct(w, h, shape[1])
    by_w, by_h = torch.autograd.grad((y * d).sum(), (w, h), retain_graph=True)
    sum_by_w, sum_by_h = torch.autograd.grad(y.sum(), (w, h))
    w, h = w.detach(), h.detach()
    fast = way(shape, window, shifts)
    torch.testing.assert_close(fast.model(w, h), fast.lay(y.detach()))
    torch.testing.assert_close(fast.w_adjoint(fast.lay(d), h), by_w)
    torch.testing.assert_close(fast.h_adjoint(fast.lay(d), w), by_h)
    torch.testing.assert_close(sums_for_w(h, shape, window), sum_by_w)
    torch.testing.assert_close(sums_for_h(w, shape, shifts).expand_as(h), sum_by_h)


def test_the_fast_way_suits_the_shape() -> None:
    assert isinstance(fastest((1, 1025, 800), (1025, 40), 1), Stacked)
    assert isinstance(fastest((1, 200, 200), (12, 12), 200), Spectral)


@pytest.mark.parametrize("shape, window, shifts", SHAPES)
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("weighted", [False, True])
def test_every_way_takes_the_same_steps(
    shape: tuple[int, int, int], window: tuple[int, int], shifts: int, beta: float, weighted: bool
) -> None:
    x, w, h = _random(shape, window, shifts)
    weights = None
    if weighted:
        weights = torch.from_numpy(np.random.default_rng(2).choice([0.0, 1.0, 2.5], shape))
    # Itakura-Saito strays the furthest with the smallest rounding; its steps stay comparable.
    steps = 12 if beta > 0 else 8
    penalty = Penalty(l1_w=0.1, l2_h=0.2, smooth_h=0.1)
    found = {
        way: solve(
            x, w, h, beta=beta, weights=weights, penalty=penalty, tol=0, max_iter=steps, way=way
        )
        for way in ("stacked", "spectral", "autograd")
    }
    for way in ("stacked", "spectral"):
        torch.testing.assert_close(found[way].w, found["autograd"].w, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(found[way].h, found["autograd"].h, rtol=1e-6, atol=1e-9)
        assert found[way].losses == pytest.approx(found["autograd"].losses, rel=1e-9)


def test_a_window_of_one_is_ordinary_factorisation() -> None:
    x, w, h = _random((1, 9, 30), (9, 1), 1, 3)
    ours = solve(x, w, h, beta=1.0, tol=0, max_iter=30)
    theirs = plain.solve(x[0], w[:, :, 0].T.contiguous(), h[0, :, 0], beta=1.0, tol=0, max_iter=30)
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-9)
    torch.testing.assert_close(ours.w[:, :, 0].T, theirs.w)


@pytest.mark.parametrize("beta", [2.0, 1.0, 0.5])
def test_torchnmf_takes_the_same_steps_along_time(beta: float) -> None:
    (n, m), k, b = (9, 30), 3, 4
    x, w, h = _random((1, n, m), (n, b), 1, k)
    h[..., m - b + 1 :] = 0.0  # torchnmf lets no template reach over the end
    peer = torchnmf.nmf.NMFD(W=w.transpose(0, 1), H=h[:, :, 0, : m - b + 1]).double()
    peer.W.data.copy_(w.transpose(0, 1))  # it keeps a start in single precision
    peer.H.data.copy_(h[:, :, 0, : m - b + 1])
    peer.fit(x, beta=beta, tol=-np.inf, max_iter=20)
    ours = solve(x, w, h, beta=beta, tol=0, max_iter=20)
    torch.testing.assert_close(ours.w, peer.W.data.transpose(0, 1), rtol=1e-5, atol=1e-7)
    model = peer().detach()
    torch.testing.assert_close(reconstruct(ours.w, ours.h, n), model, rtol=1e-5, atol=1e-7)


def test_torchnmf_takes_the_same_steps_in_a_picture() -> None:
    (n, m), k, (a, b) = (12, 14), 2, (3, 4)
    x, w, h = _random((1, n, m), (a, b), n, k)
    h[:, :, n - a + 1 :] = 0.0
    h[..., m - b + 1 :] = 0.0
    inside = h[:, :, : n - a + 1, : m - b + 1]
    peer = torchnmf.nmf.NMF2D(W=w[None], H=inside).double()
    peer.W.data.copy_(w[None])
    peer.H.data.copy_(inside)
    peer.fit(x[None], beta=1.0, tol=-np.inf, max_iter=20)
    ours = solve(x, w, h, beta=1.0, tol=0, max_iter=20)
    torch.testing.assert_close(ours.w, peer.W.data[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_patterns_are_found(seed: int) -> None:
    x, w, _ = _planted(seed)
    model = NMFD(3, 10, random_state=0, n_init=10, max_iter=200, tol=0).fit(x)
    w = np.pad(w, ((0, 0), (0, 0), (0, 2)))
    cosines = np.array([[_cosine(a, b) for b in model.components_] for a in w])
    best = max(min(cosines[range(3), order]) for order in permutations(range(3)))
    assert best > 0.99


def test_known_patterns_are_placed_where_they_start() -> None:
    x, w, h = _planted()
    model = NMFD(3, 8, init="custom", max_iter=1).fit(x, components=w, activations=np.ones_like(h))
    model.components_, model.max_iter, model.tol = w, 800, 0.0
    found = model.transform(x)
    assert found.shape == h.shape
    np.testing.assert_allclose(found, h, atol=0.02)
    np.testing.assert_allclose(model.inverse_transform(found), x, atol=0.02)
    half = model.transform(x[:, :150])
    assert half.shape == (3, 150)
    np.testing.assert_allclose(half[:, :140], h[:, :140], atol=0.05)


def test_one_template_sounds_in_several_pitches() -> None:
    rng = np.random.default_rng(3)
    w = rng.gamma(0.5, 1.0, (1, 20, 3))
    h = np.zeros((1, 1, 5, 60))
    h[0, 0, rng.integers(0, 5, 12), rng.choice(57, 12, replace=False)] = 1.0
    x = np.zeros((20, 60))
    for p, t in np.argwhere(h[0, 0] > 0):
        x[p:, t : t + 3] += w[0, : 20 - p]
    found = NMFD(1, 3, shifts=5, random_state=0, n_init=5, tol=0, max_iter=300).fit(x)
    single = NMFD(1, 3, random_state=0, n_init=5, tol=0, max_iter=300).fit(x)
    assert found.activations_.shape == (1, 5, 60)
    assert found.reconstruction_err_ < 0.2 * single.reconstruction_err_


def test_stamps_in_a_picture_are_found() -> None:
    rng = np.random.default_rng(1)
    stamps = np.zeros((2, 4, 4))
    stamps[0, 1:3], stamps[1, :, 0], stamps[1, 3] = 1.0, 1.0, 2.0
    x = np.zeros((30, 30))
    for stamp in stamps:
        for i, j in rng.integers(0, 26, (8, 2)):
            x[i : i + 4, j : j + 4] += stamp
    model = NMFD(2, (5, 5), random_state=1, n_init=10, tol=0, max_iter=200, l1_h=0.01).fit(x)
    assert model.components_.shape == (2, 5, 5)
    assert model.activations_.shape == (2, 30, 30)
    activations = model.activations_
    np.testing.assert_allclose(model.inverse_transform(activations), x, atol=0.5)
    assert model.reconstruction_err_ < 0.1 * np.sqrt(2 * x.sum())


def test_recordings_share_their_templates() -> None:
    x, _, _ = _planted()
    x = x[:, :80]
    start = np.random.default_rng(0)
    w, h = start.random((3, 40, 8)), start.random((3, 80))
    settings_ = {"init": "custom", "max_iter": 30, "tol": 0}
    one = NMFD(3, 8, **settings_).fit(x, components=w, activations=h)
    two = NMFD(3, 8, **settings_).fit(np.stack([x, x]), components=w, activations=np.stack([h, h]))
    np.testing.assert_allclose(two.components_, one.components_, rtol=1e-6)
    assert two.activations_.shape == (2, 3, 80)
    np.testing.assert_allclose(two.activations_[1], one.activations_, rtol=1e-6)
    assert two.inverse_transform(two.activations_).shape == (2, 40, 80)


def test_the_error_is_that_of_scikit_learn() -> None:
    x, _, _ = _planted()
    model = NMFD(2, 4, beta_loss="frobenius", random_state=0, max_iter=20)
    activations = model.fit_transform(x)
    difference = np.linalg.norm(x - model.inverse_transform(activations))
    assert model.reconstruction_err_ == pytest.approx(difference)
    assert model.losses_[-1] == pytest.approx(difference**2 / 2)


def test_more_starts_are_no_worse() -> None:
    x, _, _ = _planted(1)
    one = NMFD(3, 8, random_state=0, max_iter=100, tol=0).fit(x)
    ten = NMFD(3, 8, random_state=0, max_iter=100, tol=0, n_init=10).fit(x)
    assert ten.losses_[-1] < one.losses_[-1]


def test_hidden_entries_do_not_matter() -> None:
    x, _, _ = _planted()
    x = x[:, :60] + 0.01
    mask = np.random.default_rng(0).random(x.shape) < 0.2
    spoilt = np.where(mask, np.nan, x)
    wrong = np.where(mask, 77.0, x)
    model = NMFD(2, 4, random_state=0, max_iter=15)
    first = model.fit(spoilt, mask=mask).components_
    np.testing.assert_array_equal(first, model.fit(np.ma.masked_array(wrong, mask)).components_)
    np.testing.assert_array_equal(first, model.fit(wrong, weights=1.0 - mask).components_)
    assert not np.allclose(first, model.fit(wrong).components_)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_parts_sum_to_the_whole(power: float) -> None:
    x, w, h = _planted()
    x[:, :3] = 0.0
    model = NMFD(3, 8, init="custom", tol=0, max_iter=100).fit(x, components=w, activations=h)
    parts = model.separate(x, power=power)
    assert parts.shape == (3, *x.shape)
    assert (parts >= 0).all()
    np.testing.assert_allclose(parts.sum(0), x, atol=1e-9)
    activations = model.transform(x)
    alone = [activations * (np.arange(3) == z)[:, None] for z in range(3)]
    models = np.stack([model.inverse_transform(part) for part in alone]) ** power
    expected = x * models / np.maximum(models.sum(0), 1e-300)
    np.testing.assert_allclose(parts, expected, atol=1e-9)


def test_separation_keeps_phases_and_fills_gaps() -> None:
    x, w, h = _planted()
    model = NMFD(3, 8, init="custom", tol=0, max_iter=50).fit(x, components=w, activations=h)
    phase = np.exp(1j * np.arange(x.size).reshape(x.shape))
    parts = model.separate(x * phase)
    np.testing.assert_allclose(parts.sum(0), x * phase, atol=1e-9)
    np.testing.assert_allclose(parts, model.separate(x) * phase, atol=1e-9)
    mask = np.zeros(x.shape, dtype=bool)
    mask[::5, ::3] = True
    filled = model.separate(np.where(mask, np.nan, x), mask=mask).sum(0)
    assert np.isfinite(filled).all()
    assert np.abs(filled - x)[mask].mean() < 0.1 * x[mask].mean()


def test_tensors_give_tensors_and_keep_their_precision() -> None:
    x = torch.from_numpy(_planted()[0]).float()
    model = NMFD(2, 4, random_state=0, max_iter=5)
    activations = model.fit_transform(x)
    assert isinstance(model.transform(x), Tensor)
    for result in (activations, model.components_, model.separate(x)):
        assert isinstance(result, Tensor) and result.dtype == torch.float32
    assert NMFD(2, 4, max_iter=2).fit(x.numpy()).components_.dtype == np.float32
    arrays = NMFD(2, 4, random_state=0, max_iter=5).fit(x.numpy())
    np.testing.assert_allclose(arrays.components_, model.components_.numpy(), rtol=1e-4)


def test_the_same_seed_gives_the_same_result() -> None:
    x = _planted()[0]
    model = NMFD(2, 4, random_state=3, max_iter=5)
    first = model.fit(x).components_
    np.testing.assert_array_equal(clone(model).fit(x).components_, first)
    assert not np.allclose(model.set_params(random_state=4).fit(x).components_, first)


@settings(max_examples=25)
@given(data=st.data())
def test_no_data_make_nan_or_raise_the_loss(data: st.DataObject) -> None:
    n, m = data.draw(st.integers(1, 6)), data.draw(st.integers(2, 9))
    k, beta = data.draw(st.integers(1, 3)), data.draw(st.sampled_from([3.0, 2.0, 1.3, 1.0, 0.4]))
    picture = data.draw(st.booleans())
    window: Any = (min(2, n), 2) if picture else data.draw(st.integers(1, m))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = rng.gamma(0.3, 1.0, (n, m)) * 10.0 ** data.draw(st.integers(-6, 6))
    x[data.draw(st.integers(0, n - 1))] = 0.0
    x[:, data.draw(st.integers(0, m - 1))] = 0.0
    mask = rng.random((n, m)) < data.draw(st.sampled_from([0.0, 0.3]))
    if mask.all():
        mask[0, 0] = False
    model = NMFD(k, window, beta_loss=beta, random_state=0, max_iter=30, tol=0)
    if not x[~mask].any():
        with pytest.raises(ValueError, match="X holds only zeros; there is nothing to factorise"):
            model.fit(x, mask=mask)
        return
    model.fit(x, mask=mask)
    for result in (model.components_, model.activations_, model.separate(x, mask=mask)):
        assert np.isfinite(result).all() and (result >= 0).all()
    falls = np.diff(model.losses_)
    assert (falls <= 1e-9 * abs(model.losses_[0]) + 1e-300).all()


@pytest.mark.parametrize(
    "settings_, words",
    [
        ({"n_components": 0}, "n_components is 0"),
        ({"window": 99}, "window is 99"),
        ({"window": (9, 2)}, r"window is \(9, 2\)"),
        ({"shifts": 7}, "shifts is 7"),
        ({"init": "nndsvd"}, "init is 'nndsvd'"),
        ({"init": "custom"}, "components and activations"),
        ({"n_init": 0}, "n_init is 0"),
        ({"way": "magic"}, "way is 'magic'"),
        ({"beta_loss": "magic"}, "beta_loss is 'magic'"),
        ({"beta_loss": 0}, "zeros"),
    ],
)
def test_settings_out_of_range_are_named(settings_: dict[str, Any], words: str) -> None:
    x = np.ones((6, 12))
    x[0, 0] = 0.0
    with pytest.raises(ValueError, match=words):
        NMFD(**{"n_components": 2, "window": 3, **settings_}).fit(x)


def test_data_out_of_range_are_named() -> None:
    x = np.ones((6, 12))
    model = NMFD(2, 3, max_iter=2).fit(x)
    with pytest.raises(ValueError, match="X has 5 rows; 6 are needed"):
        model.transform(x[:5])
    with pytest.raises(ValueError, match="power is 0"):
        model.separate(x, power=0.0)
    with pytest.raises(ValueError, match="2 components are needed"):
        model.inverse_transform(np.ones((3, 12)))
    with pytest.raises(ValueError, match="Negative values"):
        model.fit(-x)
    with pytest.raises(ValueError, match="weights has shape"):
        model.fit(np.stack([x, x]), weights=x)
    with pytest.raises(ValueError, match="belong to init='custom'"):
        model.fit(x, components=np.ones((2, 6, 3)), activations=np.ones((2, 12)))
    x, w, h = (
        torch.from_numpy(part) for part in (x[None], np.ones((1, 6, 2)), np.ones((1, 1, 12)))
    )
    with pytest.raises(ValueError, match="ortho_h is 1"):
        solve(x, w, h[:, :, None], penalty=Penalty(ortho_h=1.0))


def test_gradients_of_the_model_come_from_its_forward_pass_alone() -> None:
    x, w, h = _random((1, 5, 9), (5, 3), 1)
    negative, positive = gradient_parts(lambda: reconstruct(w, h, 5), w, x, 2.0)
    moved = w.clone().requires_grad_(True)
    ((reconstruct(moved, h, 5) - x).square().sum() / 2).backward()
    torch.testing.assert_close(positive - negative, moved.grad)
