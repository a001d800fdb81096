"""AUROC, average precision and their mean over findings, against all pairs and scikit-learn."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scores import INF, NAN, case, hard_case
from sklearn import metrics as sklearn

from ribcage import metrics
from ribcage.metrics.ranking import rank_scores

REAL = os.environ.get("RIBCAGE_REAL_DATA")


def pairwise_auroc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """The definition: the weighted share of pairs that stand in the right order, ties at half."""
    above, below = labels == 1, labels == 0
    ahead = (scores[above][:, None] > scores[below]) + 0.5 * (scores[above][:, None] == scores[below])
    pairs = np.outer(weights[above], weights[below])
    return (ahead * pairs).sum() / pairs.sum() if pairs.sum() else NAN


@pytest.mark.parametrize("seed", range(150))
def test_auroc_and_ap_agree_with_the_pairs_and_with_sklearn(seed: int) -> None:
    scores, labels, weights = hard_case(seed)
    found = metrics.auroc(scores, labels, weights)[0], metrics.average_precision(scores, labels, weights)[0]
    used = ~np.isnan(labels) & (weights > 0)
    if len(np.unique(labels[used])) < 2:
        assert np.isnan(found).all()
        return
    assert found[0] == pytest.approx(pairwise_auroc(scores[used], labels[used], weights[used]), abs=1e-12)
    ranks = np.unique(scores[used], return_inverse=True)[1]  # sklearn refuses infinite scores; the order is the same
    assert found[0] == pytest.approx(sklearn.roc_auc_score(labels[used], ranks, sample_weight=weights[used]), abs=1e-12)
    peer = sklearn.average_precision_score(labels[used], ranks, sample_weight=weights[used])
    assert found[1] == pytest.approx(peer, abs=1e-12)


def test_auroc_depends_on_the_order_only() -> None:
    scores, labels, _ = case(0, levels=9)
    assert np.array_equal(metrics.auroc(scores, labels), metrics.auroc(np.exp(scores) * 1e-200, labels))
    assert metrics.auroc(-scores, labels) == pytest.approx(1 - metrics.auroc(scores, labels), abs=1e-15)


def test_the_order_of_the_rows_does_not_matter() -> None:
    scores, labels, patients = case(1, levels=9)
    shuffled = np.random.default_rng(0).permutation(len(scores))
    once = metrics.bootstrap(scores, labels, patients, resamples=20)["auroc"]
    again = metrics.bootstrap(scores[shuffled], labels[shuffled], patients[shuffled], resamples=20)["auroc"]
    assert np.array_equal(once.resampled, again.resampled)


def test_a_missing_class_is_undefined_and_left_out_of_the_mean() -> None:
    scores, labels, _ = case(2)
    labels[:, 1] = np.where(np.isnan(labels[:, 1]), NAN, 0)
    values = metrics.auroc(scores, labels)
    assert np.isnan(values).tolist() == [False, True, False]
    assert metrics.macro_mean(values) == (pytest.approx((values[0] + values[2]) / 2), 2)
    mean, used = metrics.macro_mean(np.array([NAN]))
    assert np.isnan(mean) and used == 0


@pytest.mark.parametrize(
    ("scores", "labels", "weights", "line"),
    [
        ([0.1, 0.2], [1, -1], None, "-1"),
        ([0.1, 0.2], [1, 0.5], None, r"\b0\.5\b"),
        ([0.1, 0.2], [1, 0, 1], None, r"\(2,\).*\(3,\)"),
        ([0.1, NAN], [1, 0], None, "finding 0 in row 1.*NaN"),
        ([0.1, 0.2], [1, 0], [1, -1], r"weights .*\(2,\)"),
        ([0.1, 0.2], [1, 0], [1, INF], "finite"),
    ],
)
def test_what_is_no_score_label_or_weight_is_refused_in_one_line(scores, labels, weights, line) -> None:
    with pytest.raises(ValueError, match=line) as refused:
        metrics.auroc(np.array(scores), np.array(labels), weights)
    assert "\n" not in str(refused.value)


def test_a_score_may_be_nan_where_the_label_is_unknown() -> None:
    assert metrics.auroc(np.array([0.9, NAN, 0.1]), np.array([1, NAN, 0])) == 1


@pytest.mark.skipif(not REAL, reason="RIBCAGE_REAL_DATA names no folder of real data")
def test_published_aurocs_of_real_predictions_are_met_to_the_last_digit() -> None:
    from ribcage.data import datasets
    from ribcage.data.findings import canonical

    root = Path(str(REAL)) / "nih"
    predictions = pd.read_csv(root / "jrzech_densenet121_predictions.csv.gz", dtype=str)
    published = pd.read_csv(root / "jrzech_densenet121_aurocs.csv", dtype=str)
    index = datasets.index("nih", root)
    stems = index.table["path"].map(lambda path: Path(path).stem)  # some lie here as JPEG
    wanted = predictions["Image Index"].str.removesuffix(".png")
    rows = pd.Series(np.arange(len(stems)), index=stems)[wanted].to_numpy()
    findings = [canonical(name, "nih") for name in published["label"]]
    labels = index.table.iloc[rows][findings].to_numpy(float)
    scores = predictions[[f"prob_{name}" for name in published["label"]]].to_numpy().astype(float)
    values = metrics.auroc(scores, labels)
    assert values == pytest.approx(published["auc"].to_numpy().astype(float), abs=1e-12, rel=0)
    assert metrics.macro_mean(values) == (pytest.approx(0.838267, abs=5e-7), 14)
    assert rank_scores(scores, labels)[0].ends[-1] == 22_433
