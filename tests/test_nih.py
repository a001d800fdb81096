"""ChestX-ray14: two families of splits, its tables of either year, and the published counts."""

import os
from pathlib import Path

import numpy as np
import pytest
import trees

from ribcage.data import datasets
from ribcage.data.findings import CHESTXRAY14


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "病人 数据 set"


def test_both_families_of_splits_stay_and_one_is_chosen(folder: Path) -> None:
    root = trees.nih(folder)
    official, arnoweng = (datasets.index("nih", root, split=split).table for split in ("official", "arnoweng"))
    assert (official["split"] == official["split_official"]).all()
    assert (arnoweng["split"] == arnoweng["split_arnoweng"]).all()
    assert (official["split_official"] == "test").sum() == 9 and (official["split_arnoweng"] == "test").sum() == 6
    assert datasets.index("nih", root).table["split"].equals(official["split"])


def test_validation_is_carved_out_of_the_official_training_list_by_patient(folder: Path) -> None:
    table = datasets.index("nih", trees.nih(folder)).table
    listed = table[table["split_official"] != "test"]
    assert set(listed["split_official"]) <= {"train", "val"} and len(listed) == 21
    names = [f"{patient:08d}_000.png" for patient in range(1, 2001)]
    big = folder / "big"
    trees.nih_table(
        big / "Data_Entry_2017.csv", [(name, "Mass", 0, place, "050Y", "F", "PA") for place, name in enumerate(names)]
    )
    trees.text(big / "train_val_list.txt", *names[:1600])
    trees.text(big / "test_list.txt", *names[1600:])
    carved = datasets.index("nih", big).table["split"].value_counts()
    assert carved["test"] == 400 and 160 <= carved["val"] <= 240


def test_lists_with_validation_already_carved_out_are_kept(folder: Path) -> None:
    root = trees.nih(folder)
    names = [row[0] for row in trees.NIH_ROWS]
    for part, chosen in {"train": names[:15], "val": names[15:21], "test": names[21:]}.items():
        trees.text(root / "lists" / f"{part}_official.txt.gz", *(f"{name} {'0 ' * 14}".strip() for name in chosen))
    table = datasets.index("nih", root).table
    assert table.loc[table["split_official"] == "val", "path"].str[-16:].tolist() == names[15:21]


def test_without_lists_patients_are_assigned_and_that_is_reported(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trees.nih_table(folder / "Data_Entry_2017.csv.gz")
    assert set(datasets.index("nih", folder).table["split"]) <= {"train", "val", "test"}
    assert "70/10/20" in caplog.text
    with pytest.raises(FileNotFoundError, match="arnoweng"):
        datasets.index("nih", folder, split="arnoweng")


def test_the_2017_table_has_a_last_comma_ages_with_units_and_impossible_ages(folder: Path) -> None:
    rows = [
        (f"{place:08d}_000.png", "No Finding", 0, place, age, "M", "PA")
        for place, age in enumerate(["058Y", "006M", "411Y", "013D", "60", ""])
    ]
    trees.nih_table(folder / "Data_Entry_2017.csv", rows, comma=",")
    ages = datasets.index("nih", folder).table["age"].to_numpy()
    np.testing.assert_allclose(ages, [58, 0.5, np.nan, 13 / 365.25, 60, np.nan], rtol=1e-4)


def test_labels_of_chestxray14_and_their_boxes(folder: Path) -> None:
    found = datasets.index("nih", trees.nih(folder))
    assert found.findings == CHESTXRAY14 and found.box_frame == (1024, 1024)
    assert found.labels[0].sum() == 0
    assert [name for name in CHESTXRAY14 if found.table[name].iloc[1] == 1] == ["Effusion", "Mass"]
    assert found.table["Pleural_Thickening"].iloc[2] == 1
    assert found.boxes["finding"].tolist() == ["Infiltration", "Effusion"] and found.boxes["row"].tolist() == [1, 1]
    assert found.boxes.iloc[0, 2:].tolist() == [100.5, 200.25, 300, 400.5]
    assert found.table["study"].iloc[1] == "1-1"


def test_an_image_under_its_own_name_wins_over_a_re_encoded_one(folder: Path) -> None:
    root = trees.nih(folder)
    name = trees.NIH_ROWS[0][0]
    trees.image(root / "a" / name.replace(".png", ".jpg"))
    trees.image(root / "a" / name)
    assert datasets.index("nih", root).table["path"].iloc[0] == f"images_001/images/{name}"
    assert datasets.index("nih", root, images="a").table["path"].iloc[0] == f"a/{name}"
    (root / "a" / name).unlink()
    assert datasets.index("nih", root, images="a").table["path"].iloc[0] == f"a/{name}".replace(".png", ".jpg")


def test_an_image_that_is_not_on_disk_keeps_its_row_and_name(folder: Path) -> None:
    root = trees.nih(folder)
    (root / "images_001" / "images" / trees.NIH_ROWS[0][0]).unlink()
    found = datasets.index("nih", root)
    assert len(found) == len(trees.NIH_ROWS) and found.table["path"].iloc[0] == trees.NIH_ROWS[0][0]


def test_an_unknown_label_in_the_table_is_named(folder: Path) -> None:
    trees.nih_table(folder / "Data_Entry_2017.csv", [("1.png", "Effusion|Efusion", 0, 1, "50", "M", "PA")])
    with pytest.raises(
        ValueError, match=r"Data_Entry_2017\.csv, line 2, column 'Finding Labels': 'Efusion'.*'Effusion'"
    ):
        datasets.index("nih", folder)


def test_a_table_with_contradicting_rows_or_an_incomplete_last_row_is_refused(folder: Path) -> None:
    trees.nih_table(folder / "Data_Entry_2017.csv", trees.NIH_ROWS)
    table = folder / "Data_Entry_2017.csv"
    lines = table.read_text().strip().split("\n")
    first = lines[1].split(",")
    wrong = {
        "Image Index": [*lines, ",".join([first[0], "Mass|Hernia|Nodule", *first[2:]])],
        "line 31": [*lines[:-1], ",".join(lines[-1].split(",")[:2])],
    }
    for said, rows in wrong.items():
        table.write_text("\n".join(rows))
        with pytest.raises(ValueError, match=f"{table.name}.*{said}"):
            datasets.index("nih", folder)
    table.write_text("\n".join([*lines, lines[1]]))
    assert len(datasets.index("nih", folder)) == len(lines) - 1


@pytest.fixture
def real() -> Path:
    folder = os.environ.get("RIBCAGE_REAL_DATA")
    if not folder:
        pytest.skip("RIBCAGE_REAL_DATA does not name a folder of real data")
    return Path(folder)


OFFICIAL = {  # positives in train, val, test
    "Atelectasis": (7205, 1075, 3279),
    "Cardiomegaly": (1501, 206, 1069),
    "Effusion": (7649, 1010, 4658),
    "Infiltration": (12036, 1746, 6112),
    "Mass": (3574, 460, 1748),
    "Nodule": (4060, 648, 1623),
    "Pneumonia": (770, 106, 555),
    "Pneumothorax": (2244, 393, 2665),
    "Consolidation": (2480, 372, 1815),
    "Edema": (1210, 168, 925),
    "Emphysema": (1250, 173, 1093),
    "Fibrosis": (1083, 168, 435),
    "Pleural_Thickening": (1927, 315, 1143),
    "Hernia": (126, 15, 86),
}


def test_the_real_tables_of_chestxray14_give_the_published_counts(real: Path) -> None:
    found = datasets.index("nih", real / "nih")
    table = found.table
    assert len(table) == 112_120 and table["patient"].nunique() == 30_805 and len(found.boxes) == 984
    groups = table.groupby("split_official")
    assert groups.size().to_dict() == {"train": 75_312, "val": 11_212, "test": 25_596}
    assert groups["patient"].nunique().to_dict() == {"train": 24_342, "val": 3_666, "test": 2_797}
    assert table.groupby("split_arnoweng").size().to_dict() == {"train": 78_468, "val": 11_219, "test": 22_433}
    positives = groups[list(found.findings)].sum().loc[["train", "val", "test"]]
    assert {name: tuple(positives[name].astype(int)) for name in found.findings} == OFFICIAL
    blank = found.labels.sum(1) == 0
    assert [int((blank & (table["split_official"] == part)).sum()) for part in ("train", "val", "test")] == [
        43_886,
        6_614,
        9_861,
    ]


def test_17920_official_test_images_are_in_the_other_familys_training_list(real: Path) -> None:
    table = datasets.index("nih", real / "nih").table
    both = table[table["split_official"] == "test"]["split_arnoweng"].value_counts()
    assert both.to_dict() == {"train": 17_920, "val": 2_463, "test": 5_213}
