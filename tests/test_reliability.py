"""Reliability on validation data: AUROC with its interval, and the prevalence at similar scores."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from models import trained

import ribcage
from ribcage import metrics
from ribcage.bundle import card
from ribcage.bundle.io import load_classifier
from ribcage.bundle.spec import ModelSpec
from ribcage.metrics import reliability
from ribcage.metrics.reliability import FindingReliability


def drawn(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are true: of images given 30 %, 30 of 100 have it."""
    draw = np.random.default_rng(seed)
    said = draw.beta(0.5, 3, (count, 1))
    return said, (draw.random((count, 1)) < said).astype(float)


def test_every_known_image_is_in_one_band_and_the_top_is_narrow() -> None:
    said, labels = drawn(1000)
    labels[::10] = np.nan
    (found,) = reliability.finding_reliability(said, labels)
    bands = found.bins
    assert (found.images, found.positives) == (900, int(np.nansum(labels)))
    assert (sum(one.images for one in bands), sum(one.positives for one in bands)) == (900, found.positives)
    assert [one.images for one in bands] == [450, 225, 112, 56, 57]
    assert [one.low for one in bands] == sorted(one.low for one in bands)


def test_the_limits_cover_the_truth_as_often_as_they_promise() -> None:
    held = []
    for seed in range(300):
        said, labels = drawn(400, seed)
        (found,) = reliability.finding_reliability(said, labels)
        order, start = np.sort(said[:, 0]), 0
        for band in found.bins:
            held.append(band.least <= order[start : start + band.images].mean() <= band.most)
            start += band.images
    assert 0.93 < np.mean(held) < 0.985


def test_images_of_one_patient_are_worth_less_than_those_of_many() -> None:
    labels = np.repeat([1.0, 0.0, 0.0, 1.0, 0.0], 20)
    alone, shared = (
        reliability.positive_share_limits(labels, np.arange(100)),
        reliability.positive_share_limits(labels, np.arange(100) // 20),
    )
    assert alone == pytest.approx((0.3094, 0.4980), abs=1e-4)  # Wilson's for 40 of 100
    assert shared[1] - shared[0] > 3 * (alone[1] - alone[0])
    assert reliability.positive_share_limits(np.zeros(100), np.arange(100) // 20)[1] == pytest.approx(
        0.4345, abs=1e-4
    )  # 0 of 5
    assert reliability.positive_share_limits(labels, np.zeros(100, int)) == (0.0, 1.0)  # nothing is known of others


def test_equal_answers_are_never_parted_and_a_few_make_one_band() -> None:
    labels = np.tile([0.0, 1.0], 50)
    assert [band.images for band in reliability.reliability_bins(np.full(100, 0.5), labels, np.arange(100))] == [100]
    assert [
        band.images for band in reliability.reliability_bins(np.linspace(0, 1, 40), labels[:40], np.arange(40))
    ] == [40]
    assert reliability.reliability_bins(np.empty(0), np.empty(0), np.empty(0, int)) == ()


def test_a_probability_finds_the_images_answered_alike() -> None:
    said, labels = drawn(400)
    (found,) = reliability.finding_reliability(said, labels)
    bands = found.bins
    assert found.bin_of(0.0) == bands[0] and found.bin_of(1.0) == bands[-1]
    assert found.bin_of(bands[1].low) == bands[1]
    assert replace(found, bins=()).bin_of(0.3) is None


def test_a_model_keeps_it_and_a_damaged_one_is_a_line(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ribcage.import_("phantom", out=data, images=160, size=48)
    run = trained(tmp_path / "plain", ribcage.open(data))
    out = tmp_path / "calibrated"
    ribcage.convert(run, data=[str(data)], val="train", out=out)
    model = load_classifier(out).spec
    assert len(model.reliability) == len(model.findings)
    place = model.findings.index("Effusion")
    assert model.reliability[place].auroc[0] == pytest.approx(model.metrics["validation"]["auroc_Effusion"])
    text = json.loads((out / "model.json").read_text(encoding="utf-8"))
    for strange in (
        [{}],
        [{**text["reliability"][0], "bins": [[0, 1]]}] * len(model.findings),
        text["reliability"][:2],
    ):
        (out / "model.json").write_text(json.dumps({**text, "reliability": strange}), encoding="utf-8")
        with pytest.raises(ValueError, match="damaged: reliability"):
            load_classifier(out)
    text.pop("reliability")
    text["format"] = 1
    (out / "model.json").write_text(json.dumps(text), encoding="utf-8")
    (out / "SHA256SUMS").unlink()
    assert load_classifier(out).spec.reliability == ()


def test_the_auroc_is_the_one_of_the_metrics() -> None:
    said, labels = drawn(200)
    (found,) = reliability.finding_reliability(said, labels)
    assert found.auroc[0] == pytest.approx(metrics.auroc(said, labels)[0])
    (blind,) = reliability.finding_reliability(said, np.zeros((200, 1)))
    assert blind.auroc == (None, None, None)


def test_the_card_has_validation_results_with_intervals() -> None:
    fared = FindingReliability(200, 31, (0.8123, 0.7, 0.9), ())
    blind = FindingReliability(9, 0, (None, None, None), ())
    model = ModelSpec("resnet18", ("Mass", "Edema"), (64, 64), 64, "pad", 0.5, 0.25, reliability=(fared, blind))
    rows = card.auroc_rows(model, {"auroc": 0.81, "auroc_Mass": 0.8123, "loss": 0.4})
    assert rows == [("mean", "–", "0.810"), ("Mass", "31 of 200", "0.812 (0.700–0.900)")]
