"""ROC and precision-recall curves and histograms, against scikit-learn."""

import numpy as np
import pytest
from scores import INF, NAN, case
from sklearn import metrics as sklearn

from ribcage import metrics

# --- curves ---------------------------------------------------------------------------------------------------------


def test_curves_go_through_the_points_of_sklearn() -> None:
    scores, labels, _ = case(3, levels=40, unknown=0)
    for f, (roc, pr) in enumerate(
        zip(metrics.roc(scores, labels), metrics.precision_recall(scores, labels), strict=True)
    ):
        x, y, at = sklearn.roc_curve(labels[:, f], scores[:, f], drop_intermediate=False)
        kept = np.isin(at, roc.threshold)
        assert np.array_equal(np.stack([x, y])[:, kept], np.stack([roc.x, roc.y]))
        assert np.trapezoid(y, x) == pytest.approx(np.trapezoid(roc.y, roc.x), abs=1e-15)
        assert np.trapezoid(roc.y, roc.x) == pytest.approx(metrics.auroc(scores, labels)[f], abs=1e-12)
        precision, recall, at = sklearn.precision_recall_curve(labels[:, f], scores[:, f])
        places = np.searchsorted(at, pr.threshold[1:])
        assert pr.y[1:] == pytest.approx(precision[:-1][places]) and pr.x[1:] == pytest.approx(recall[:-1][places])
        assert np.diff(pr.x) @ pr.y[1:] == pytest.approx(metrics.average_precision(scores, labels)[f], abs=1e-12)


def test_curves_of_one_class_or_none_are_nan_and_raise_nothing() -> None:
    for labels in ([0.0, 0.0], [1.0, 1.0], [NAN, NAN]):
        (roc,), (pr,) = (
            metrics.roc(np.array([0.1, 0.2]), labels),
            metrics.precision_recall(np.array([0.1, 0.2]), labels),
        )
        assert np.isnan(roc.x + roc.y).all() and len(pr.x) == len(pr.y) == len(pr.threshold)


def test_histograms_hold_every_finite_score_once() -> None:
    scores, labels, _ = case(4)
    scores[0] = INF
    for f, found in enumerate(metrics.histogram(scores, labels, bins=7)):
        assert len(found.edges) == 8
        finite = np.isfinite(scores[:, f])
        assert found.positive.sum() == (finite & (labels[:, f] == 1)).sum()
        assert found.negative.sum() == (finite & (labels[:, f] == 0)).sum()


def test_a_histogram_counts_by_weight() -> None:
    scores, labels, weights = np.array([0.0, 1.0, 0.0, 1.0]), np.array([1.0, 1.0, 0.0, 0.0]), np.array([1, 2, 0.5, 4])
    (found,) = metrics.histogram(scores, labels, weights, bins=2)
    assert found.positive.tolist() == [1, 2] and found.negative.tolist() == [0.5, 4]
