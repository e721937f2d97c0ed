"""Trees from arrays say what scikit-learn says, to the last bit."""

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from warte.earth.classify.trees import Trees, export


def fitted(classes: int, seed: int, **more: object) -> tuple[HistGradientBoostingClassifier, ...]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1500, 7)).astype(np.float32)
    x[:, 3] = np.round(x[:, 3])  # ties with thresholds
    x[rng.random(x.shape) < 0.1] = np.nan
    y = (np.nan_to_num(x[:, 0]) + np.nan_to_num(x[:, 3]) ** 2 > rng.random(1500)).astype(int)
    y += rng.integers(0, 2, 1500) * (classes - 2)
    settings = {"max_iter": 20, "max_leaf_nodes": 16, "early_stopping": False, **more}
    return HistGradientBoostingClassifier(**settings).fit(x, y), x


@pytest.mark.parametrize("classes", [2, 3])
def test_trees_give_the_scores_of_scikit_learn(classes: int) -> None:
    model, x = fitted(classes, classes)
    trees = export(model)
    scores = trees.scores(x)
    assert scores.shape == (len(x), classes)
    raw = model.decision_function(x)
    if classes == 2:
        raw = np.stack([np.zeros(len(x)), raw], axis=1)
    np.testing.assert_array_equal(scores, raw)


def test_trees_see_values_on_a_threshold_and_beyond_all() -> None:
    model, x = fitted(3, 5)
    trees = export(model)
    edges = np.repeat(np.nanmedian(x, axis=0)[None], 400, axis=0).astype(np.float64)
    for row in range(len(edges)):
        edges[row, trees.feature[row % len(trees.feature)]] = trees.threshold[
            row % len(trees.threshold)
        ]
    edges[0], edges[1], edges[2] = np.inf, -np.inf, np.nan
    np.testing.assert_array_equal(trees.scores(edges), model.decision_function(edges))


def test_trees_without_a_split_give_the_start() -> None:
    x = np.zeros((50, 2))
    y = np.array([0, 1] * 25)
    model = HistGradientBoostingClassifier(max_iter=3, early_stopping=False).fit(x, y)
    np.testing.assert_array_equal(export(model).scores(x)[:, 1], model.decision_function(x))


def test_trees_of_too_many_leaves_are_refused() -> None:
    model, _ = fitted(2, 1, max_leaf_nodes=31)
    with pytest.raises(ValueError, match="16 leaves"):
        export(model)


def test_trees_are_the_same_from_their_arrays() -> None:
    model, x = fitted(3, 9)
    trees = export(model)
    again = Trees(**trees.arrays())
    np.testing.assert_array_equal(again.scores(x), trees.scores(x))
