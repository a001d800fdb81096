"""VinDr-PCXR: diseases are labels, findings are boxes, and its tables are not taken for those of VinDr-CXR."""

from pathlib import Path

import pytest
import trees

from ribcage.data import datasets
from ribcage.data.datasets import vindr_pcxr


def test_diseases_and_findings_of_each_image(tmp_path: Path) -> None:
    found = datasets.index("vindr_pcxr", trees.vindr_pcxr(tmp_path / "片 p"))
    assert len(found) == 30 and len(found.findings) == 15 + len(vindr_pcxr.LOCAL) == 51
    table = found.table
    assert table[["No_Finding", "Bronchopneumonia", "Bronchitis"]].iloc[:3].to_numpy().tolist() == [
        [1, 0, 0], [0, 1, 0], [0, 0, 1]
    ]  # fmt: skip
    assert table[["Diffuse_Alveolar_Opacity", "Fracture", "Effusion"]].iloc[:3].to_numpy().tolist() == [
        [0, 0, 0], [1, 0, 0], [0, 1, 0]
    ]  # fmt: skip
    assert len(found.boxes) == 30 and set(found.boxes["reader"]) == {"R2", "R3"}
    assert set(table["view"]) == {""} and set(table["split"]) == {"train", "val", "test"}


def test_the_importer_of_adults_refuses_the_tables_of_children(tmp_path: Path) -> None:
    root = trees.vindr_pcxr(tmp_path)
    with pytest.raises(ValueError, match="vindr_pcxr"):
        datasets.index("vindr", root)
    (root / "annotations_test.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"annotations_test\.csv"):
        datasets.index("vindr_pcxr", root)
