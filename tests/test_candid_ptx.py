"""CANDID-PTX: masks from three tables; what is not listed is unknown, what has -1 is absent."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import trees

from ribcage.data import datasets
from ribcage.data.masks import mask_of


def test_listed_findings_are_present_and_others_unknown_except_pneumothorax(tmp_path: Path) -> None:
    found = datasets.index("candid_ptx", trees.candid_ptx(tmp_path / "片 子"))
    labels = found.table[["Pneumothorax", "Fracture", "Support_Devices"]].to_numpy()
    assert labels[:4, 0].tolist() == [0, 1, 0, 1] and labels[[0, 6, 12, 18], 1].tolist() == [1] * 4
    assert np.isnan(labels[1:6, 1]).all() and labels[::5, 2].tolist() == [1] * 5 and np.isnan(labels[1, 2])
    assert found.table["patient"][:3].tolist() == ["P0000", "P0000", "P0001"] and found.table["study"].nunique() == 12
    assert found.masks.groupby("structure").size().to_dict() == {"Chest_Tube": 5, "Fracture": 4, "Pneumothorax": 30}
    drawn = mask_of(found.masks, int(np.flatnonzero((found.masks["row"] == 1).to_numpy())[0])).full()
    rows, columns = np.nonzero(drawn)
    pixels = [(318, 544), (319, 544), *((316 + n, 545) for n in range(8))]  # 557374 = 544 * 1024 + 318
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == sorted(pixels)


def test_a_mask_beside_a_row_without_one_is_unknown_in_every_table(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = trees.candid_ptx(tmp_path)
    for table in ("Pneumothorax_reports.csv", "chest_tube.csv"):
        rows = list(csv.reader(io.StringIO((root / table).read_text(encoding="utf-8"))))
        cell = rows[0].index("EncodedPixels" if "Pneu" in table else "mask_rle")
        row = next(row for row in rows[1:] if row[cell] != "-1")
        with (root / table).open("a", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerow([*row[:cell], "-1", *row[cell + 1 :]])
    found = datasets.index("candid_ptx", root)
    labels = found.table[["Pneumothorax", "Support_Devices"]].to_numpy()
    assert np.isnan(labels[1, 0]) and np.isnan(labels[0, 1]) and labels[[3, 5], [0, 1]].tolist() == [1, 1]
    assert found.masks.groupby("structure").size().to_dict() == {"Chest_Tube": 4, "Fracture": 4, "Pneumothorax": 29}
    for table in ("Pneumothorax_reports.csv", "chest_tube.csv"):
        assert any(line.startswith("1 image has") and table in line for line in caplog.messages)


def test_images_without_an_ending_are_read_from_the_folder_that_is_given(tmp_path: Path) -> None:
    trees.text(tmp_path / "Pneumothorax_reports.csv", "SOPInstanceUID,EncodedPixels", "1.2.3,-1", "1.2.4,-1")
    for name in ("data/1.2.3", "data_small/1.2.3"):
        trees.text(tmp_path / name)
    found = datasets.index("candid_ptx", tmp_path, images="data")
    assert found.table["path"].tolist() == ["data/1.2.3", "dataset/1.2.4"]


def test_a_missing_table_and_an_invalid_mask_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Pneumothorax_reports\.csv"):
        datasets.index("candid_ptx", tmp_path)
    trees.text(tmp_path / "Pneumothorax_reports.csv", "SOPInstanceUID,EncodedPixels", "1.2.3,1048570 9")
    with pytest.raises(ValueError, match=r"Pneumothorax_reports\.csv.*1\.2\.3.*1,048,579") as error:
        datasets.index("candid_ptx", tmp_path)
    assert "\n" not in str(error.value)
