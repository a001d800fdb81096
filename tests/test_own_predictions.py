"""Tables of predictions by other programs are compared with ours, and every guess about them is reported."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_comparison import table

from ribcage.evaluation import comparison, comparison_entries, own_predictions
from ribcage.runtime.typed_json import to_json


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    table(1, 1.0).save(tmp_path / "ours.parquet")
    return tmp_path / "ours.parquet"


def own(file: Path, columns: dict[str, str], folder: str = "img/") -> str:
    """Somebody's table: our column → theirs."""
    rows = table(2, 2.0).frame()
    shown = pd.DataFrame(
        {"filename": folder + rows["path"], **{theirs: rows[name] for name, theirs in columns.items()}}
    )
    shown.to_csv(file, index=False)
    return str(file)


@pytest.mark.parametrize(
    "columns",
    [
        {"Mass": "Mass", "Mass_label": "Mass_true"},
        {"Mass": "mass_prob", "Mass_label": "Mass"},
        {"Mass": "Mass"},
    ],
)
def test_a_table_of_ones_own_is_compared(ours: Path, tmp_path: Path, columns: dict[str, str]) -> None:
    theirs = own(tmp_path / "mine.csv", columns)
    result = comparison.compare(comparison_entries.entries([str(ours), theirs], thresholds=["Mass=0.4"]), resamples=20)
    alike = [
        comparison_entries.ComparisonEntry("a", table(1, 1.0)),
        comparison_entries.ComparisonEntry("b", table(2, 2.0)),
    ]
    found, same = to_json(result), to_json(comparison.compare(alike, resamples=20))
    assert (found["images"], found["patients"]) == (120, 60)
    for place in (0, 1):
        wanted = same["models"][place]["findings"][0]["auroc"]
        assert found["models"][place]["findings"][0]["auroc"] == pytest.approx(wanted, rel=1e-12)
        assert found["models"][place]["findings"][0]["threshold"] == 0.4
    assert any("'filename'" in text for text in comparison.comparison_notes(result))


@pytest.mark.parametrize("column", ["Nodule_or_Scar", "nodule or scar", "Nodule-or-scar score"])
def test_a_finding_outside_the_vocabulary_is_the_one_that_the_others_know(tmp_path: Path, column: str) -> None:
    replace(table(1, 1.0), findings=("nodule_or_scar", "Edema")).save(tmp_path / "ours.parquet")
    theirs = own(tmp_path / "mine.csv", {"Mass": column})
    found = comparison_entries.entries([theirs, str(tmp_path / "ours.parquet")])[0]
    assert found.table.findings == ("nodule_or_scar",)
    assert "nodule_or_scar,nodule_or_scar_label" in own_predictions.example(["nodule_or_scar"])


def test_one_column_of_scores_is_of_the_only_finding_there_is(tmp_path: Path) -> None:
    table(1, 1.0).select(np.arange(120), ["Mass"]).save(tmp_path / "ours.csv")
    theirs = own(tmp_path / "mine.csv", {"Mass": "score"}, folder="")
    found = comparison.compare(
        comparison_entries.entries([str(tmp_path / "ours.csv"), theirs], thresholds=["0.5"]), resamples=20
    )
    assert [(row.finding, row.threshold) for row in found.models[1].findings] == [("Mass", 0.5)]


def test_what_is_no_table_of_predictions_shows_an_example(ours: Path, tmp_path: Path) -> None:
    for text in ("file,age\na.png,3\n", "Mass,Mass_label\n0.5,1\n", "path,Mass,Mass_label\na.png,7,1\n"):
        (tmp_path / "mine.csv").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=own_predictions.example(["Mass"]).split(" ")[0]):
            comparison_entries.entries([str(ours), str(tmp_path / "mine.csv")])
    (tmp_path / "mine.csv").write_text("path,Mass\na.png,7\nb.png,83\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"Mass .* 7 to 83"):
        comparison_entries.entries([str(ours), str(tmp_path / "mine.csv")])
    with pytest.raises(ValueError, match=r"--thresholds .*'Mas=0.4'.*Mass, Edema"):
        own_predictions.thresholds(["Mas=0.4"], ["Mass", "Edema"])
    theirs = own(tmp_path / "mine.csv", {"Mass": "Mass"}, folder="other-")
    with pytest.raises(ValueError, match=r"mine\.csv .*other-"):
        comparison.compare(comparison_entries.entries([str(ours), theirs]), resamples=20)


def _hostile(table: pa.Table) -> dict[str, pa.Table]:
    """Tables of predictions that only somebody who means harm writes."""

    def other(name: str, cells: pa.Array) -> pa.Table:
        return table.set_column(table.column_names.index(name), name, cells)

    count, meta = table.num_rows, b'{"index_columns": ["nope"], "columns": [], "column_indexes": []}'
    return {
        "nested": other("path", pa.array([{"a": 1}] * count)),
        "bytes": other("path", pa.array([b"\xff"] * count)),
        "no rows": table.slice(0, 0),
        "twice": table.append_column("Mass", table["Mass"]),
        "a file's wish": table.replace_schema_metadata({"pandas": meta}),
        "endless": table.replace_schema_metadata({"pandas": "[" * 100_000}),
        "much text": pa.table(
            {name: table[name].take(pa.array(np.zeros(20_000, np.int64))) for name in table.column_names}
            | {"path": pa.DictionaryArray.from_arrays(np.zeros(20_000, np.int32), ["A" * 200_000])}
        ),
    }


def test_hostile_tables_of_predictions_are_a_line_or_a_table(tmp_path: Path) -> None:
    rows = {"set": ["d"] * 2, "path": ["1.png", "2.png"], "patient": ["1", "2"]}
    table = pa.table(rows | {"Mass": [0.5, 0.25], "Mass_label": [1.0, 0.0]})
    for name, strange in _hostile(table).items():
        pq.write_table(strange, tmp_path / "t.parquet")
        if name in ("a file's wish", "endless"):
            assert list(own_predictions.read_own_predictions(tmp_path / "t.parquet")[0].images["path"]) == rows["path"]
            continue
        with pytest.raises(ValueError, match=r"t\.parquet"):
            own_predictions.read_own_predictions(tmp_path / "t.parquet")
    pq.write_table(table.set_column(1, "path", table["path"].dictionary_encode()), tmp_path / "t.parquet")
    assert list(own_predictions.read_own_predictions(tmp_path / "t.parquet")[0].images["path"]) == rows["path"]
