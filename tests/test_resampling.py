"""The bootstrap over patients: the same resamples on any threads, against a plain loop."""

import inspect
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from scores import NAN, case

from ribcage import metrics
from ribcage.metrics import (
    detection,
    pointing,
    resampling,
)
from ribcage.metrics.definitions import metrics_of
from ribcage.metrics.patients import patient_numbers
from ribcage.runtime.threads import available_cores

# --- bootstrap ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("people", [1, 2, 3, 4, 5, 130, 2797])
def test_the_kernel_draws_the_patients_of_the_definition(people: int) -> None:
    seed = 7 << 40 | 5
    times = resampling.times_drawn(seed, range(60, 67), people)
    for column, number in enumerate(range(60, 67)):
        assert np.array_equal(
            times[:, column], np.bincount(resampling.resample(seed, number, people), minlength=people)
        )


@pytest.mark.slow
def test_more_patients_than_one_address_holds_are_drawn_alike() -> None:
    people = (4 << 16) + 5
    assert np.array_equal(
        resampling.times_drawn(3, range(2, 3), people)[:, 0],
        np.bincount(resampling.resample(3, 2, people), minlength=people),
    )


def plain_bootstrap(scores, labels, patients, weights, resamples: int, seed: int) -> dict[str, np.ndarray]:
    """The loop everybody writes: gather the rows of the drawn patients and call the metric again."""
    codes = patient_numbers(patients, len(scores))
    rows_of = [np.flatnonzero(codes == patient) for patient in range(codes.max() + 1)]
    found: dict[str, list] = {"auroc": [], "ap": [], "brier": [], **{name: [] for name in metrics_of("threshold")}}
    for number in range(resamples):
        rows = np.concatenate([rows_of[patient] for patient in resampling.resample(seed, number, len(rows_of))])
        s, y, w = scores[rows], labels[rows], weights[rows]
        found["auroc"].append(metrics.auroc(s, y, w))
        found["ap"].append(metrics.average_precision(s, y, w))
        found["brier"].append(metrics.brier(metrics.sigmoid(s), y, w))
        for name, values in metrics.rates(metrics.confusion_counts(s, y, 0.5, w)).items():
            found[name].append(values)
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize("seed", range(6))
def test_the_bootstrap_equals_a_plain_loop_on_the_same_resamples(seed: int) -> None:
    scores, labels, patients = case(seed, rows=[40, 200][seed % 2], levels=[0, 8, 3][seed % 3])
    labels[5:, 2] = np.where(labels[5:, 2] == 1, 0, labels[5:, 2])  # few positives: some resamples have none
    weights = np.ones(len(scores)) if seed % 2 else np.random.default_rng(seed).choice([0, 0.3, 1, 2], len(scores))
    probabilities = metrics.sigmoid(scores)
    options = {"weights": weights, "thresholds": 0.5, "probabilities": probabilities, "seed": seed, "resamples": 70}
    fast = metrics.bootstrap(scores, labels, patients, **options)
    slow = plain_bootstrap(scores, labels, patients, weights, 70, seed)
    assert fast.keys() == slow.keys()
    for name, values in slow.items():
        np.testing.assert_allclose(fast[name].resampled, values, rtol=0, atol=1e-12, err_msg=name)
    assert fast["auroc"].value == pytest.approx(metrics.auroc(scores, labels, weights), abs=1e-12, nan_ok=True)
    assert fast["ap"].value == pytest.approx(metrics.average_precision(scores, labels, weights), abs=1e-12, nan_ok=True)


def test_the_resamples_depend_on_the_seed_and_not_on_threads_or_their_number() -> None:
    scores, labels, patients = case(9)
    one, two = (metrics.bootstrap(scores, labels, patients, resamples=200, threads=n)["ap"].resampled for n in (1, 2))
    assert np.array_equal(one, two)
    assert np.array_equal(one[:70], metrics.bootstrap(scores, labels, patients, resamples=70)["ap"].resampled)
    assert not np.isin(one, metrics.bootstrap(scores, labels, patients, resamples=200, seed=1)["ap"].resampled).any()


def test_a_resample_without_a_class_is_left_out_and_counted() -> None:
    scores = np.arange(10.0)
    labels = np.stack([np.arange(10) == 9, np.arange(10) % 2, np.zeros(10)], axis=1).astype(float)
    found = metrics.bootstrap(scores[:, None] * np.ones(3), labels, resamples=1000)["auroc"]
    lost = np.isnan(found.resampled[:, 0]).sum()
    assert lost == pytest.approx(1000 * 0.9**10, abs=60)  # nobody drew the only positive
    assert np.isnan(found.interval().low).tolist() == [True, False, True]
    assert found.macro().value[0] == found.value[:2].mean()


def test_an_unknown_patient_is_one_of_its_own() -> None:
    assert patient_numbers(np.array([7, -1, 3, -1, 7]), 5).tolist() == [1, 2, 0, 3, 1]
    assert patient_numbers(np.array([7, NAN, 3, NAN, 7]), 5).tolist() == [1, 2, 0, 3, 1]
    assert patient_numbers(np.array(["b", "", "a", "", "b"]), 5).tolist() == [1, 2, 0, 3, 1]
    assert patient_numbers(np.array(["b", None, "a", NAN, "b"], object), 5).tolist() == [1, 2, 0, 3, 1]
    assert patient_numbers(pd.Series(["b", None, "a", "", "b"]).to_numpy(), 5).tolist() == [1, 2, 0, 3, 1]
    assert patient_numbers(None, 3).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="2 rows"):
        patient_numbers(np.arange(3), 2)


def test_patients_with_many_like_images_widen_the_interval() -> None:
    scores, labels, _ = case(10, rows=100, findings=1, unknown=0)
    scores, labels, owners = (np.repeat(values, 6, axis=0) for values in (scores, labels, np.arange(100)))
    naive, honest = (metrics.bootstrap(scores, labels, p)["auroc"].interval().error[0] for p in (None, owners))
    assert honest / naive == pytest.approx(np.sqrt(6), rel=0.1)


def test_a_difference_needs_the_same_resamples() -> None:
    scores, labels, patients = case(12)
    a, b = (metrics.bootstrap(scores, labels, patients, resamples=9, seed=seed)["auroc"] for seed in (0, 1))
    with pytest.raises(ValueError, match="seed"):
        metrics.paired_difference(a, b)
    assert np.array_equal(metrics.paired_difference(a, a).p_value(), np.ones(3))


def test_a_thousand_resamples_are_drawn_wherever_nothing_else_is_asked_for() -> None:
    for drawn in (resampling.bootstrap, detection.bootstrap_detection, pointing.bootstrap_shares):
        assert inspect.signature(drawn).parameters["resamples"].default == 1000


def test_as_many_threads_work_as_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int | None] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, threads: int | None = None) -> None:
            asked.append(threads)
            super().__init__(threads)

    monkeypatch.setattr(resampling, "ThreadPoolExecutor", Pool)
    for threads in (3, None):
        metrics.bootstrap(np.array([0.1, 0.9]), np.array([0.0, 1.0]), resamples=2, threads=threads)
    assert asked == [3, available_cores()]


@pytest.mark.parametrize("clustered", [False, True])
def test_intervals_hold_the_truth_as_often_as_they_promise(clustered: bool) -> None:
    """Where percentiles of the same resamples do not. `benchmarks/coverage.py` asks about everything."""
    from scipy.stats import norm

    chance, images, often = np.random.default_rng(8), 100, 150
    truths = {"auroc": (0.75, 0.9, 0.955), "ap": (0.446, 0.736, 0.871), "sensitivity": (0.8, 0.9, 0.95)}
    patients = np.repeat(np.arange(50), 2) if clustered else np.arange(images)
    apart = np.repeat(np.sqrt(2) * norm.ppf(truths["auroc"]), often)
    labels = np.repeat([1.0, 0.0], [20, 80])[:, None] * np.ones(len(apart))
    own, each = (chance.normal(size=labels.shape) for _ in range(2))
    thresholds = apart - np.repeat(norm.ppf(truths["sensitivity"]), often)
    scores = np.sqrt(0.5) * (own[patients] + each) + apart * labels
    found = metrics.bootstrap(scores, labels, patients, thresholds=thresholds, resamples=150)
    for name, truth in truths.items():
        true, limits = np.repeat(truth, often), found[name].interval()
        low, high = np.nanquantile(found[name].resampled, [0.025, 0.975], axis=0)
        held, usual = (np.mean((a <= true) & (true <= b)) for a, b in ((limits.low, limits.high), (low, high)))
        assert 0.93 < held < 0.985, name
        assert name == "ap" or usual < 0.92, name


def test_probabilities_of_one_finding_may_have_one_dimension() -> None:
    scores, labels, patients = case(21, findings=1, unknown=0)
    p = metrics.sigmoid(scores)
    flat = metrics.bootstrap(scores[:, 0], labels[:, 0], patients, probabilities=p[:, 0], resamples=9)["brier"]
    assert np.array_equal(
        flat.resampled, metrics.bootstrap(scores, labels, patients, probabilities=p, resamples=9)["brier"].resampled
    )
    with pytest.raises(ValueError, match=r"\(5, 1\).*\(200, 1\)"):
        metrics.bootstrap(scores[:, 0], labels[:, 0], probabilities=p[:5, 0])
