"""Metrics of mutually exclusive classes."""

import numpy as np
import pytest
from scores import NAN
from sklearn import metrics as sklearn

from ribcage import metrics
from ribcage.metrics import (
    multiclass,
)

# --- classes --------------------------------------------------------------------------------------------------------


def test_classes_agree_with_sklearn() -> None:
    chance = np.random.default_rng(17)
    classes = chance.integers(0, 4, 300).astype(float)
    probabilities = multiclass.softmax(chance.normal(size=(300, 4)) + 1.5 * np.eye(4)[classes.astype(int)])
    classes[::10] = NAN
    known = ~np.isnan(classes)
    assert multiclass.accuracy(probabilities, classes) == pytest.approx(
        sklearn.accuracy_score(classes[known], probabilities[known].argmax(axis=1))
    )
    one = metrics.macro_mean(metrics.auroc(probabilities, multiclass.one_versus_rest(classes, 4))).mean
    peer = sklearn.roc_auc_score(classes[known], probabilities[known], multi_class="ovr")
    assert one == pytest.approx(peer, abs=1e-12)


def test_the_temperature_of_classes_is_found_or_one() -> None:
    chance = np.random.default_rng(18)
    logits = chance.normal(0, 2, (5000, 3))
    classes = np.array([chance.choice(3, p=row) for row in multiclass.softmax(logits)], float)
    assert multiclass.temperature(logits * 3, classes) == (pytest.approx(3, rel=0.05), "")
    separated, why = multiclass.temperature(np.eye(3) * 5, np.arange(3.0))
    assert separated == 1.0 and "highest" in why
    assert multiclass.temperature(-np.eye(3), np.arange(3.0))[0] == 1
    assert multiclass.temperature(np.ones((2, 3)), np.array([NAN, NAN]))[0] == 1
    assert np.isnan(multiclass.accuracy(np.ones((2, 3)), np.array([NAN, NAN])))
    with pytest.raises(ValueError, match=r"(?i)classes .* 3"):
        multiclass.accuracy(np.ones((1, 3)), np.array([3]))


def test_a_temperature_that_a_confident_mistake_decides_is_exact() -> None:
    """250 images with a margin of .01 are right, one with .5 is wrong: 2.5 (1 - p) = .5, so that T = .01 / ln 4."""
    logits = np.array([[0.01, 0.0]] * 250 + [[-0.5, -1.0]])
    assert multiclass.temperature(logits, np.repeat([0.0, 1.0], [250, 1]))[0] == pytest.approx(
        0.01 / np.log(4), rel=1e-9
    )
