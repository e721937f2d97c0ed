"""k-means beside scikit-learn and closed forms, and sums that do not depend on their order."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from warte.earth.cluster.kmeans import Nearest, best_starts, kmeans, lloyd, start
from warte.earth.cluster.store import (
    Float32Array,
    Frame,
    Store,
    Vectors,
    frame_of,
    group_sums,
    means_of,
    square_sums,
)


def _blobs(seed: int = 0, n: int = 3000, columns: int = 4, whole: bool = True) -> Float32Array:
    """(columns, n) of five round groups."""
    rng = np.random.default_rng(seed)
    middles = rng.uniform(20, 230, (5, columns))
    values = middles[rng.integers(5, size=n)] + rng.normal(0, 6, (n, columns))
    values = np.clip(np.rint(values), 0, 255) if whole else values / 1000
    return np.ascontiguousarray(values.T.astype(np.float32))


def _frame(values: Float32Array, whole: bool) -> Frame:
    low, high = values.min(axis=1).astype(float), values.max(axis=1).astype(float)
    return frame_of(values.shape[1], values[:, ::7], low, high, whole)


def _stored(path: Path, values: Float32Array, chunk: int) -> Store:
    store = Store(path, len(values))
    for first in range(0, values.shape[1], chunk):
        store.add(values[:, first : first + chunk])
    return store


@pytest.mark.parametrize("whole", [True, False])
def test_lloyd_is_that_of_scikit_learn(whole: bool, tmp_path: Path) -> None:
    values = _blobs(whole=whole)
    frame = _frame(values, whole)
    first = values[:, [1, 50, 200, 400, 800, 1600]].T.astype(np.float64)
    peer = KMeans(6, init=first, n_init=1, max_iter=8, tol=0, algorithm="lloyd")
    peer.fit(values.T.astype(np.float64))
    with _stored(tmp_path / "s", values, 700) as store:
        found = lloyd(
            frame, lambda: store.read(whole), first - frame.middle, iterations=8, tolerance=0,
            spare=frame.centred(values[:, :50]), groups=BytesIO(),
        )  # fmt: skip
    assert np.allclose(found.centres + frame.middle, peer.cluster_centers_, rtol=1e-6)
    assert found.objective == pytest.approx(peer.inertia_, rel=1e-6 if not whole else 1e-12)
    labels = Nearest(found.centres, frame.weights)(frame.centred(values))
    assert np.mean(labels == peer.labels_) == 1


@pytest.mark.parametrize("whole", [True, False])
def test_answer_is_the_same_bit_by_bit_in_any_chunks(whole: bool, tmp_path: Path) -> None:
    values = _blobs(1, whole=whole)
    frame = _frame(values, whole)
    starts = best_starts(frame, values[:, ::5], 5, seed=0, starts=3, tolerance=1e-4)
    rng = np.random.default_rng(0)
    found = []
    for number, chunk in enumerate((64, 999, 3000)):
        shuffled = values[:, rng.permutation(values.shape[1])]
        with _stored(tmp_path / str(number), shuffled, chunk) as store:
            found.append(
                kmeans(
                    frame, lambda store=store: store.read(whole), starts, iterations=50,
                    tolerance=0, spare=frame.centred(values[:, :50]), groups=BytesIO(),
                )
            )  # fmt: skip
    for one in found[1:]:
        assert np.array_equal(one.centres, found[0].centres)
        assert np.array_equal(one.sums, found[0].sums)
        assert one.objective == found[0].objective and one.converged


def test_parts_of_whole_numbers_among_others_change_nothing(tmp_path: Path) -> None:
    values = _blobs(2, n=400) * np.float32(1)
    values[:, 200:] += np.float32(0.25)
    frame = _frame(values, False)
    with _stored(tmp_path / "a", values, 100) as one, _stored(tmp_path / "b", values, 400) as two:
        assert not one.whole and {block.kind for block in one.blocks} == {"u1", "f4"}
        assert {block.kind for block in two.blocks} == {"f4"}
        found = [
            sum(
                group_sums(
                    frame, x := frame.centred(some.values), some.counts,
                    (x[0] > 0).astype(np.intp), 2,
                )
                for some in store.read(False)
            )
            for store in (one, two)
        ]  # fmt: skip
    assert np.array_equal(found[0], found[1])


@given(
    st.lists(
        st.tuples(*[st.floats(-1e6, 1e6, width=32)] * 2, st.integers(0, 2)),
        min_size=1, max_size=60,
    )
)  # fmt: skip
def test_sums_are_exact(rows: list[tuple[float, float, int]]) -> None:
    values = np.array([row[:2] for row in rows], np.float32).T
    labels = np.array([row[2] for row in rows])
    frame = _frame(values, False)
    centred = frame.centred(values)
    sums = group_sums(frame, centred, None, labels, 3)
    assert np.array_equal(sums[:, 0], np.bincount(labels, minlength=3))
    for group in set(labels.tolist()):
        mine = centred[:, labels == group]
        for column in range(2):
            truth = sum((Fraction(float(x)) for x in mine[column]), Fraction(0))
            step = Fraction(2) ** -int(frame.bits[column])
            error = abs(int(sums[group, 1 + column]) * step - truth)
            assert error <= mine.shape[1] * step / 2
    order = np.random.default_rng(0).permutation(len(rows))
    again = group_sums(frame, centred[:, order], None, labels[order], 3)
    assert np.array_equal(sums, again)


def test_squares_and_means_in_closed_form() -> None:
    values = np.array([[0, 2, 4, 10], [1, 1, 1, 1]], np.float32)
    frame = frame_of(4, values, np.array([0.0, 1]), np.array([10.0, 1]), True)
    assert frame.middle.tolist() == [4, 1]
    assert square_sums(frame, [Vectors(values, None)]).tolist() == [16 + 4 + 36, 0]
    counts = np.array([1, 1, 1, 2], np.uint32)
    sums = group_sums(frame, frame.centred(values), counts, np.array([0, 0, 1, 1]), 2)
    assert (means_of(frame, sums) + frame.middle).tolist() == [[1, 1], [8, 1]]


@given(st.integers(0, 2**32), st.integers(2, 12), st.integers(1, 9))
def test_nearest_is_that_of_exact_arithmetic(seed: int, k: int, columns: int) -> None:
    """Also for ties, of which whole numbers have many: the first centre has them."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-4, 5, (columns, 50)).astype(np.float32) * np.float32(4096)
    centres = rng.integers(-8, 9, (k, columns)) * 2048.0
    far = ((x.T[:, None].astype(object) - centres.astype(object)) ** 2).sum(axis=2)
    truth = [min(range(k), key=lambda one: row[one]) for row in far]
    assert Nearest(centres, np.ones(columns))(x).tolist() == truth


def test_nearest_is_the_same_alone_and_among_others() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(8, 5000)).astype(np.float32)
    centres = np.repeat(rng.normal(size=(6, 8)), 2, axis=0) + rng.normal(0, 1e-7, (12, 8))
    nearest = Nearest(centres, rng.uniform(0.5, 2, 8))
    together = nearest(x)
    assert np.array_equal(together, nearest.distances(x).argmin(axis=0))
    alone = [int(nearest(x[:, place : place + 1])[0]) for place in range(300)]
    assert alone == together[:300].tolist()


def test_columns_without_weight_are_averaged_and_no_more() -> None:
    values = _blobs(4)
    frame = _frame(values, True)
    weights = np.array([1.0, 1, 0, 0])
    only = Frame(frame.pixels, frame.middle, weights, frame.bits, frame.squares, True)
    found = lloyd(
        only, lambda: [Vectors(values, None)], frame.centred(values)[:, :4].T.astype(float),
        iterations=30, tolerance=0, spare=frame.centred(values), groups=BytesIO(),
    )  # fmt: skip
    peer = KMeans(4, init=values[:2, :4].T.astype(float), n_init=1, max_iter=30, tol=0)
    peer.fit(values[:2].T.astype(float))
    assert found.objective == pytest.approx(peer.inertia_, rel=1e-9)
    for group in range(4):
        mean = values[2:, peer.labels_ == group].astype(float).mean(axis=1)
        assert np.allclose(found.centres[group, 2:] + frame.middle[2:], mean)


def test_a_centre_without_pixels_is_put_where_the_error_is_largest() -> None:
    values = _blobs(5)
    frame = _frame(values, True)
    first = np.concatenate([frame.centred(values)[:, :4].T.astype(float), np.full((1, 4), 1e4)])
    found = lloyd(
        frame, lambda: [Vectors(values, None)], first, iterations=100, tolerance=0,
        spare=frame.centred(values), groups=BytesIO(),
    )  # fmt: skip
    assert (found.sums[:, 0] > 0).all()


def test_as_good_as_the_best_of_ten_starts_of_scikit_learn() -> None:
    values = _blobs(6, n=4000)
    frame = _frame(values, True)
    starts = best_starts(frame, values[:, ::4], 12, seed=0, starts=10, tolerance=1e-4)
    found = kmeans(
        frame, lambda: [Vectors(values, None)], starts, iterations=300, tolerance=1e-6,
        spare=frame.centred(values), groups=BytesIO(),
    )  # fmt: skip
    peer = KMeans(12, n_init=10, random_state=0).fit(values.T.astype(float))
    assert found.objective <= 1.01 * peer.inertia_


def test_start_wants_distinct_vectors() -> None:
    values = np.repeat(np.array([[1.0, 2.0]], np.float32), 5, axis=1)
    frame = frame_of(10, values, np.array([1.0]), np.array([2.0]), True)
    with pytest.raises(ValueError, match="only 2 distinct vectors for 3 centres"):
        start(frame, frame.centred(values), 3, np.random.default_rng(0))
    assert len(set(start(frame, values, 2, np.random.default_rng(0))[:, 0])) == 2


@pytest.mark.parametrize(
    ("columns", "top", "kind"), [(8, 255, "u1"), (3, 255, "u1"), (4, 65535, "u2"), (5, 65535, "f4")]
)
def test_store_gives_back_what_it_got(columns: int, top: int, kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    values = rng.integers(0, 5, (columns, 20_000)).astype(np.float32)
    values[0, :2] = top
    with _stored(tmp_path / "s", values, 20_000) as store:
        assert {block.kind for block in store.blocks} == {kind}
        parts = [
            np.repeat(some.values, 1 if some.counts is None else some.counts, axis=1)
            for some in store.read(store.whole)
        ]
        one_by_one = [some.values for some in store.read(False)]
    for found in (np.concatenate(parts, axis=1), np.concatenate(one_by_one, axis=1)):
        order = [np.lexsort(each) for each in (found, values)]
        assert np.array_equal(found[:, order[0]], values[:, order[1]])
