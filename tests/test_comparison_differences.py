"""Differences between models: paired on the images and findings that all have, with intervals and p values."""

import json
from dataclasses import replace

import numpy as np
import pytest
from test_evaluation import made

from ribcage import metrics
from ribcage.evaluation import comparison, comparison_entries
from ribcage.evaluation.labelled import LabelledPredictions
from ribcage.runtime.typed_json import to_json


@pytest.fixture(scope="module")
def data() -> LabelledPredictions:
    return made()


def entry(data: LabelledPredictions, name: str) -> comparison_entries.ComparisonEntry:
    return comparison_entries.ComparisonEntry(name, data.table())


def better(data: LabelledPredictions) -> LabelledPredictions:
    logits = data.predictions.logits + 2 * np.nan_to_num(data.labels).astype(np.float32)
    return replace(data, predictions=replace(data.predictions, logits=logits))


def test_a_better_model_differs_and_the_same_one_does_not(data: LabelledPredictions) -> None:
    entries = [entry(data, "a"), entry(better(data), "b"), entry(data, "c")]
    found = to_json(comparison.compare(entries, resamples=200))
    b, c = found["differences"]
    apart = metrics.auroc(better(data).probabilities, data.labels) - metrics.auroc(data.probabilities, data.labels)
    assert b["findings"][0]["auroc"]["value"] == pytest.approx(apart[0])
    assert b["findings"][0]["auroc"]["low"] > 0 and b["findings"][0]["auroc_delong"]["p"] < 0.001
    assert b["findings"][0]["auroc_delong"]["adjusted"] >= b["findings"][0]["auroc_delong"]["p"]
    assert c["macro"]["auroc"]["value"] == 0 and c["macro"]["auroc"]["p"] == 1
    assert b["findings"][2]["auroc"]["p"] is None
    json.dumps(found, allow_nan=False)


def beyond_rates(result: comparison.ComparisonResult) -> list[str]:
    """The notes; not that bare tables have no thresholds, nor which findings are in no mean."""
    return [text for text in comparison.comparison_notes(result) if "--thresholds" not in text and "means" not in text]


def test_p_is_below_five_percent_where_the_interval_leaves_out_zero(data: LabelledPredictions) -> None:
    found = to_json(comparison.compare([entry(data, "a"), entry(better(data), "b"), entry(data, "c")], resamples=100))
    for pair in found["differences"]:
        for row in (*pair["findings"], pair["macro"]):
            for name in ("auroc", "ap", "auroc_delong"):
                if row[name]["low"] is not None:  # the mean AP of few positives has a p-value alone
                    assert (row[name]["p"] < 0.05) == (row[name]["low"] > 0 or row[name]["high"] < 0)


def test_images_and_findings_that_not_all_have_are_counted(data: LabelledPredictions) -> None:
    table = data.table()
    fewer = table.select(np.arange(len(table))[::-1][:300], [name for name in table.findings if name != "Edema"])
    found = comparison.compare([entry(data, "a"), comparison_entries.ComparisonEntry("b", fewer)], resamples=400)
    assert found.images == 300 and found.left_out == {"a": 100, "b": 0}
    assert found.findings_left_out["a"] == ("Edema",)
    assert found.differences[0].macro["auroc"].value == 0  # the order of rows does not matter
    assert len(beyond_rates(found)) == 3 and found.without_patient == 30


def test_other_labels_are_not_compared(data: LabelledPredictions) -> None:
    other = replace(data.table(), labels=np.where(np.array(data.findings) == "Mass", 0.0, data.labels))
    with pytest.raises(ValueError, match="109 images"):
        comparison.compare([entry(data, "a"), comparison_entries.ComparisonEntry("b", other)])
