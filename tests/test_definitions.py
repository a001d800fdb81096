"""The contract of a metric: what each file of ribcage/metrics/definitions keeps, whatever it computes."""

import warnings

import numpy as np
import pytest
from scores import NAN, case

from ribcage import metrics
from ribcage.metrics import definitions
from ribcage.metrics.definitions.base import Metric, Ranked, variances
from ribcage.metrics.resampling import Resampled, resample

OPTIONS = {"resamples": 60, "seed": 3, "threads": 1}


def found(name: str, scores: np.ndarray, labels: np.ndarray, patients: np.ndarray | None = None, **own) -> Resampled:
    """One metric, with all that any of them may need; scores are logits."""
    chances = metrics.sigmoid(scores)
    options = {"thresholds": 0.5, "probabilities": chances, **OPTIONS, **own}
    return metrics.bootstrap(chances, labels, patients, **options)[name]


def assert_keeps_the_contract(name: str) -> None:
    """All that a metric promises; docs/extending.md's example keeps it, too."""
    metric = definitions.load_metric(name)
    assert metric.label and metric.lowest < metric.highest
    scores, labels, patients = case(5, rows=240)
    one = found(name, scores, labels, patients)
    assert_values_and_limits_lie_between_the_ends(metric, one)
    assert_a_resample_is_the_metric_of_its_rows(name, one, scores, labels, patients)
    assert_unknown_labels_do_not_count(name, scores, labels)
    assert_a_better_model_is_rated_better(metric, name)
    assert_nothing_is_undefined_in_silence(name)
    assert_models_are_compared(name, metric, scores, labels, patients)


def assert_values_and_limits_lie_between_the_ends(metric: Metric, one: Resampled) -> None:
    assert not np.isnan(one.value).any()
    assert (one.value >= metric.lowest).all() and (one.value <= metric.highest).all()
    for each in (one.interval(), one.macro().interval()):
        assert np.isnan(each.low).all() == (not metric.interval)
        if metric.interval:
            assert (metric.lowest <= each.low).all() and (each.high <= metric.highest).all()
            assert (each.low < each.value).all() and (each.value < each.high).all()


def assert_a_resample_is_the_metric_of_its_rows(name: str, one: Resampled, scores, labels, patients) -> None:
    rows_of = [np.flatnonzero(patients == patient) for patient in np.unique(patients)]
    for number in (0, 7):
        rows = np.concatenate([rows_of[patient] for patient in resample(OPTIONS["seed"], number, len(rows_of))])
        again = found(name, scores[rows], labels[rows], resamples=1)
        assert one.resampled[number] == pytest.approx(again.value, abs=1e-12)


def assert_unknown_labels_do_not_count(name: str, scores, labels) -> None:
    known = ~np.isnan(labels[:, 0])
    kept = found(name, scores[known, :1], labels[known, :1])
    assert found(name, scores[:, :1], labels[:, :1]).value == pytest.approx(kept.value, abs=1e-12)


def assert_a_better_model_is_rated_better(metric: Metric, name: str) -> None:
    labels = np.array([1.0, 0, 0, 1, 0, 0, 0, 1])[:, None]
    good, bad = (found(name, sign * (labels - 0.5) * 6 + np.linspace(-1, 1, 8)[:, None], labels) for sign in (1, -1))
    assert good.value > bad.value if metric.higher_is_better else good.value < bad.value


def assert_nothing_is_undefined_in_silence(name: str) -> None:
    """No image, no positive, no negative, one patient: no warning, and no interval without a second patient."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for labels in (np.empty((0, 2)), np.ones((6, 2)), np.zeros((6, 2)), np.full((6, 2), NAN)):
            found(name, np.zeros(labels.shape), labels).interval()
        labels = np.array([[1.0], [0], [1], [0]])
        assert np.isnan(found(name, labels, labels, np.zeros(4)).interval().low).all()


def assert_models_are_compared(name: str, metric: Metric, scores, labels, patients) -> None:
    other = found(name, scores * 0.5 + 0.3, labels, patients)
    pair = metrics.paired_difference(found(name, scores, labels, patients), other)
    for each in (pair.interval(), pair.macro().interval()):
        assert np.isnan(each.low).all() or (abs(each.low) <= metric.width).all()


@pytest.mark.parametrize("name", definitions.metric_names())
def test_a_metric_keeps_the_contract(name: str) -> None:
    assert_keeps_the_contract(name)


def test_metrics_have_names_and_places_of_their_own() -> None:
    every = [definitions.load_metric(name) for name in definitions.metric_names()]
    assert len({one.label for one in every}) == len({one.order for one in every}) == len(every)


@pytest.mark.parametrize("name", ["auroc", "ap"])
def test_the_compiled_walk_computes_what_the_file_defines(name: str) -> None:
    scores, labels, _ = case(9, rows=120, levels=5)
    metric = definitions.load_metric(name)
    assert isinstance(metric, Ranked)
    steps = [ranking.steps() for ranking in metrics.ranking.rank_scores(scores, labels)]
    values = [metric.steps(true[:, None], false[:, None])[0] for true, false in steps]
    assert metrics.bootstrap(scores, labels, resamples=1)[name].value == pytest.approx(values, abs=1e-12)


def test_mcc_is_undefined_without_a_class_and_0_where_all_images_are_called_alike() -> None:
    labels = np.array([[1.0, 1, 1], [0, 1, 0]])
    value = metrics.bootstrap(np.array([[1.0, 1, 0], [0, 0, 0]]), labels, thresholds=0.5, resamples=1)["mcc"].value
    assert value == pytest.approx([1, NAN, 0], nan_ok=True)


@pytest.mark.slow
def test_the_interval_of_mcc_holds_the_truth_as_often_as_it_promises() -> None:
    """Sensitivity .8, specificity .9, a fifth positive; benchmarks/coverage.py has more."""
    chance, times = np.random.default_rng(0), 400
    labels = (chance.random((100, times)) < 0.2).astype(float)
    called = np.where(chance.random(labels.shape) < np.where(labels == 1, 0.2, 0.1), 1 - labels, labels)
    limits = metrics.bootstrap(called, labels, thresholds=0.5, resamples=1)["mcc"].interval()
    positive, truth = 0.2 * 0.8 + 0.8 * 0.1, (0.16 - 0.24 * 0.2) / np.sqrt(0.24 * 0.76 * 0.16)
    assert positive == pytest.approx(0.24)
    assert 0.92 < ((limits.low <= truth) & (truth <= limits.high)).mean() < 0.99


def test_the_interval_of_mcc_also_holds_the_truth_where_few_images_are_called_positive() -> None:
    """Of a weak classifier with a high threshold: where it calls few images by chance, their variance is too small."""
    random, prevalence, sensitivity, alarms = np.random.default_rng(0), 0.2, 0.099, 0.05
    labels = (random.random((75, 1000)) < prevalence).astype(float)
    called = (random.random(labels.shape) < np.where(labels == 1, sensitivity, alarms)).astype(float)
    share = prevalence * sensitivity + (1 - prevalence) * alarms
    spread = np.sqrt(share * (1 - share) * prevalence * (1 - prevalence))
    truth = prevalence * (sensitivity - share) / spread
    limits = metrics.bootstrap(called, labels, thresholds=0.5, resamples=1)["mcc"].interval()
    assert ((limits.low <= truth) & (truth <= limits.high)).mean() > 0.93
    alike = metrics.bootstrap(np.zeros((75, 1)), labels[:, :1], thresholds=0.5, resamples=1)["mcc"].interval()
    assert alike.value[0] == 0 and alike.high[0] - alike.low[0] > 1.2  # no image is called positive: little is known


def test_the_limits_of_mcc_end_where_its_values_do() -> None:
    labels = np.tile([[0.0, 0.0], [1.0, 1.0]], (30, 1))
    found = metrics.bootstrap(np.stack([labels[:, 0], 1 - labels[:, 0]], 1), labels, thresholds=0.5, resamples=1)["mcc"]
    limits = found.interval()
    assert limits.value.tolist() == [1, -1] and limits.high[0] == 1 and limits.low[1] == -1
    assert 0.7 < limits.low[0] < 0.9 and limits.high[1] == pytest.approx(-limits.low[0])


def test_steps_of_auroc_count_half_of_the_ties_at_the_highest_score() -> None:
    true, false = np.array([[2.0], [3.0]]), np.array([[1.0], [4.0]])  # two positives and a negative tie above the rest
    wrong = 2 * 0.5 + 1 * (1 + 1.5)
    metric = definitions.load_metric("auroc")
    assert isinstance(metric, Ranked)
    assert metric.steps(true, false) == pytest.approx(1 - wrong / 12)


def test_the_brier_score_may_vary_less_than_counts_and_is_the_only_metric_that_should_be_low() -> None:
    labels, random = np.tile([[0.0], [1.0]], (50, 1)), np.random.default_rng(0)
    unsure = 0.5 + 0.01 * random.random((100, 1))
    found = metrics.bootstrap(unsure, labels, probabilities=unsure, resamples=1)["brier"]
    assert found.value[0] == pytest.approx(0.25, abs=0.01) and found.effective_n[0] > 1000  # not 100, as of hits
    assert [name for name in definitions.metric_names() if not definitions.load_metric(name).higher_is_better] == [
        "brier"
    ]


def test_two_resamples_have_a_variance_and_one_has_none() -> None:
    found = variances(np.array([[1.0, 1.0], [3.0, NAN]]))
    assert found == pytest.approx([2.0, NAN], nan_ok=True)
