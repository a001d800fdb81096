"""Every dataset becomes a valid Index, from the layout its makers ship, whatever the file system's order."""

import inspect
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import trees

from ribcage.data import datasets
from ribcage.data.findings import CHESTXRAY14, CHEXPERT14
from ribcage.data.index import Index

# Other layouts of the same sets, beside the one in TREES.
LAYOUTS = [
    *((name, name, build) for name in datasets.dataset_names() if (build := trees.builder(name))),
    ("chexpert in batches", "chexpert", trees.chexpert_batches),
    (
        "chexpert's first batch",
        "chexpert",
        lambda folder: trees.chexpert_batches(folder) / "CheXpert-v1.0 batch 1 (validate & csv)",
    ),
    ("chexpert itself", "chexpert", lambda folder: trees.chexpert(folder) / "CheXpert-v1.0-small"),
    ("rsna with LoVT", "rsna", lambda folder: trees.lovt(trees.rsna(folder))),
    ("chestmnist", "medmnist", lambda folder: trees.medmnist(folder, "chestmnist_64.npz", 64, 14)),
    ("class folders", "folder", trees.class_folders),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "病人 数据 set"


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout[0])
def layout(request: pytest.FixtureRequest, folder: Path) -> tuple[str, Path]:
    _, name, build = request.param
    return name, build(folder)


def index(layout: tuple[str, Path]) -> Index:
    return datasets.index("phantom", images=60) if layout[0] == "phantom" else datasets.index(*layout)


# ---- what every dataset promises


@pytest.mark.parametrize("name", datasets.dataset_names())
def test_every_dataset_has_a_tree_to_be_tested_on(name: str) -> None:
    if trees.builder(name) is None:
        pytest.skip(f"{name} has no synthetic tree: its file has no example(folder), nor is it in tests/trees.py")
    assert set(trees.TREES) <= set(datasets.dataset_names())


@pytest.mark.parametrize("name", datasets.dataset_names())
def test_a_data_set_says_what_it_is_where_it_comes_from_and_what_its_licence_is(name: str) -> None:
    module = datasets.load_dataset(name)
    assert datasets.description(name).endswith(".") and len(datasets.description(name)) <= 120
    assert module.SOURCE and module.LICENCE
    row = next(line for line in datasets.dataset_table().splitlines() if line.startswith(f"| `{name}`"))
    assert module.SOURCE in row and module.LICENCE in row


@pytest.mark.parametrize("name", datasets.dataset_names())
def test_options_are_keywords_with_types_defaults_and_help(name: str) -> None:
    function = datasets.load_dataset(name).index
    for option in list(inspect.signature(function).parameters.values())[1:]:
        assert option.kind is option.KEYWORD_ONLY and option.annotation is not option.empty
        assert option.default is not option.empty
        assert f"    {option.name}: " in inspect.getdoc(function).replace("\n", "\n    "), option.name


def test_an_index_is_valid_and_its_labels_are_the_four_that_exist(layout: tuple[str, Path]) -> None:
    found = index(layout)
    assert len(found) and found.findings
    assert set(np.unique(found.labels[~np.isnan(found.labels)])) <= {1, 0, -1}
    assert (found.labels == 1).any()
    assert found.table["path"].is_unique
    assert found.table["age"].dropna().between(0, 120).all()


def test_no_patient_is_in_two_parts_of_a_split(layout: tuple[str, Path]) -> None:
    table = index(layout).table
    known = table[(table["patient"] != "") & (table["split"] != "")]
    assert (known.groupby("patient")["split"].nunique() == 1).all()
    for name in [name for name in table if name.startswith("split_")]:
        assert (table[table[name] != ""].groupby("patient")[name].nunique() == 1).all()


def test_every_image_is_a_file_or_is_given_by_the_data_set(layout: tuple[str, Path]) -> None:
    found = index(layout)
    read = datasets.images(layout[0], found, size=32, depth=8, no_such_option=1)
    for row in range(len(found)):
        if read is None:
            assert found.file(row).is_file(), found.file(row)
        elif row % 10 == 0:
            pixels = getattr(read(row), "pixels", read(row))
            assert pixels.ndim == 2 and pixels.dtype == np.uint8


def test_boxes_lie_inside_the_frame_and_belong_to_known_findings(layout: tuple[str, Path]) -> None:
    found = index(layout)
    boxes = found.boxes
    if len(boxes):
        assert found.box_frame is not None
        assert (boxes[["x", "y"]] >= 0).all(axis=None) and (boxes[["width", "height"]] > 0).all(axis=None)
        assert (boxes["x"] + boxes["width"]).max() <= found.box_frame[0]
        assert (boxes["y"] + boxes["height"]).max() <= found.box_frame[1]
        assert set(boxes["finding"]) <= set(found.findings)
    assert len(boxes) or layout[0] not in ("nih", "rsna")


class Backwards:
    """os.scandir with its entries in the opposite order."""

    def __init__(self, path: str | Path) -> None:
        with SCAN(path) as entries:
            self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

    def __enter__(self) -> Iterator[os.DirEntry[str]]:
        return iter(self.entries)

    def __iter__(self) -> Iterator[os.DirEntry[str]]:
        return iter(self.entries)

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None: ...


SCAN = os.scandir


def test_the_order_of_rows_does_not_depend_on_the_file_system(
    layout: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = index(layout)
    monkeypatch.setattr(os, "scandir", Backwards)
    again = index(layout)
    pd.testing.assert_frame_equal(first.table, again.table)
    pd.testing.assert_frame_equal(first.boxes, again.boxes)


def test_an_index_survives_its_file(layout: tuple[str, Path], tmp_path: Path) -> None:
    found = index(layout)
    found.save(tmp_path / "index.parquet")
    again = Index.load(tmp_path / "index.parquet")
    assert again.findings == found.findings and again.root == found.root
    pd.testing.assert_frame_equal(again.table, found.table, check_dtype=False)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("nih", "Data_Entry_2017_v2020.csv"),
        ("chexpert", "train.csv, no valid.csv"),
        (
            "mimic",
            "mimic-cxr-2.0.0-metadata.csv.gz, no mimic-cxr-2.0.0-split.csv.gz, no mimic-cxr-2.0.0-chexpert.csv.gz",
        ),
        ("rsna", "stage_2_train_labels.csv"),
        ("medmnist", "pneumoniamnist*.npz"),
        ("folder", "no images"),
    ],
)
def test_all_missing_files_are_named_in_one_line_with_where_to_get_them(name: str, missing: str, folder: Path) -> None:
    folder.mkdir()
    with pytest.raises(FileNotFoundError) as error:
        datasets.index(name, folder)
    assert missing in str(error.value) and str(folder) in str(error.value) and "\n" not in str(error.value)
    assert name == "folder" or datasets.load_dataset(name).SOURCE in str(error.value)
    with pytest.raises(FileNotFoundError, match="no-such-folder"):
        datasets.index(name, folder / "no-such-folder")


def test_an_unknown_data_set_is_one_line_with_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"Unknown dataset 'chexprt'\. Did you mean 'chexpert'\? Datasets: chexpert, folder"
    ):
        datasets.load_dataset("chexprt")


def test_all_wrong_options_are_said_at_once(folder: Path) -> None:
    with pytest.raises(ValueError) as error:
        datasets.index("nih", trees.nih(folder), splitt="official", images="images", split="oficial")
    assert "no option 'splitt' (did you mean 'split'?)" in str(error.value)
    assert "no split 'oficial', only 'auto', 'official'" in str(error.value)


# ---- ChestX-ray14


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


def test_without_lists_patients_are_dealt_out_and_that_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
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


def test_a_image_under_its_own_name_wins_over_a_re_encoded_one(folder: Path) -> None:
    root = trees.nih(folder)
    name = trees.NIH_ROWS[0][0]
    trees.image(root / "a" / name.replace(".png", ".jpg"))
    trees.image(root / "a" / name)
    assert datasets.index("nih", root).table["path"].iloc[0] == f"images_001/images/{name}"
    assert datasets.index("nih", root, images="a").table["path"].iloc[0] == f"a/{name}"
    (root / "a" / name).unlink()
    assert datasets.index("nih", root, images="a").table["path"].iloc[0] == f"a/{name}".replace(".png", ".jpg")


def test_a_image_that_is_not_on_disk_keeps_its_row_and_name(folder: Path) -> None:
    root = trees.nih(folder)
    (root / "images_001" / "images" / trees.NIH_ROWS[0][0]).unlink()
    found = datasets.index("nih", root)
    assert len(found) == len(trees.NIH_ROWS) and found.table["path"].iloc[0] == trees.NIH_ROWS[0][0]


def test_an_unknown_label_in_the_table_is_named(folder: Path) -> None:
    trees.nih_table(folder / "Data_Entry_2017.csv", [("1.png", "Effusion|Efusion", 0, 1, "50", "M", "PA")])
    with pytest.raises(ValueError, match="Unknown finding 'Efusion'"):
        datasets.index("nih", folder)


# ---- CheXpert


def test_chexpert_keeps_uncertain_and_blank_and_tells_views_apart(folder: Path) -> None:
    found = datasets.index("chexpert", trees.chexpert(folder))
    first, second = found.table.iloc[0], found.table.iloc[1]
    assert found.findings == CHEXPERT14
    labels = [
        first[name] for name in ("Cardiomegaly", "Lung_Opacity", "Edema", "Consolidation", "Effusion", "Pneumonia")
    ]
    np.testing.assert_array_equal(labels, [1, np.nan, -1, 0, 1, np.nan])
    assert first["view"] == "AP" and second["view"] == "LATERAL" and first["sex"] == "F" and first["age"] == 68
    assert first["patient"] == "patient00001" and first["study"] == "patient00001/study1"
    assert (found.labels == -1).sum() == 11 and np.isnan(found.labels).any()
    assert found.table["split"].value_counts().to_dict() == {"train": 16, "val": 6}


def test_a_training_table_alone_gives_one_patient_in_eight_to_validation(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = trees.chexpert_lines("train", "CheXpert-v1.0", range(1, 201))
    trees.text(folder / "train.csv", trees.CHEXPERT_HEADER, *lines)
    table = datasets.index("chexpert", folder).table
    assert set(table["split"]) == {"train", "val"} and "no test split" in caplog.text


def test_valid_may_become_test_and_validation_then_comes_from_training(folder: Path) -> None:
    lines = trees.chexpert_lines("train", "CheXpert-v1.0", range(1, 401))
    trees.text(folder / "train.csv", trees.CHEXPERT_HEADER, *lines)
    trees.text(
        folder / "valid.csv", trees.CHEXPERT_HEADER, *trees.chexpert_lines("valid", "CheXpert-v1.0", range(900, 910))
    )
    counts = datasets.index("chexpert", folder, valid="test").table["split"].value_counts()
    assert counts["test"] == 20 and 60 <= counts["val"] <= 140


def test_chexperts_test_labels_come_per_study_or_per_image(folder: Path) -> None:
    root = trees.chexpert(folder) / "CheXpert-v1.0-small"
    trees.images(root, [f"test/patient64741/study1/{name}.jpg" for name in ("view1_frontal", "view2_lateral")])
    bits = "0,1,1,1,0,0,0,0,0,0,0,0,0,1"
    trees.text(
        root / "groundtruth.csv", "Study," + trees.CHEXPERT_LABELS, f"CheXpert-v1.0/test/patient64741/study1,{bits}"
    )
    by_study = datasets.index("chexpert", root).table
    by_study = by_study[by_study["split"] == "test"]
    assert by_study["path"].str[-17:].tolist() == ["view1_frontal.jpg", "view2_lateral.jpg"]
    assert by_study["view"].tolist() == ["", "LATERAL"] and by_study["Cardiomegaly"].tolist() == [1, 1]
    rows = [f"test/patient64741/study1/view1_frontal.jpg,{bits}"]
    trees.text(root / "test_labels.csv", "Path," + trees.CHEXPERT_LABELS, *rows)
    assert (datasets.index("chexpert", root).table["split"] == "test").sum() == 1


def test_chexlocalize_alone_needs_no_training_csv(folder: Path) -> None:
    row = "val/patient64541/study1/view1_frontal.jpg," + ",".join("0" * 14)
    trees.text(folder / "val_labels.csv", "Path," + trees.CHEXPERT_LABELS, row)
    trees.image(folder / "val/patient64541/study1/view1_frontal.jpg")
    found = datasets.index("chexpert", folder)
    assert found.table["split"].tolist() == ["val"] and found.file(0).is_file()


def test_a_batch_that_was_not_downloaded_leaves_its_rows_with_the_tables_path(folder: Path) -> None:
    root = trees.chexpert_batches(folder)
    shutil.rmtree(root / "CheXpert-v1.0 batch 3 (train 2)")
    found = datasets.index("chexpert", root)
    there = [found.file(row).is_file() for row in range(len(found))]
    assert len(found) == 16 and sum(there) == 12


def test_paths_that_no_chexpert_csv_has_are_refused(folder: Path) -> None:
    blank = "," * 13
    trees.text(
        folder / "train.csv",
        trees.CHEXPERT_HEADER,
        f"train/patient1/study1/a.jpg,,,,{blank}",
        f"../../etc/passwd,,,,{blank}",
    )
    trees.text(folder / "valid.csv", trees.CHEXPERT_HEADER, f"valid/patient1/study1/a.jpg,,,,{blank}")
    with pytest.raises(ValueError, match=r"train.csv: its paths must all look like CheXpert"):
        datasets.index("chexpert", folder)


def test_two_copies_of_chexpert_side_by_side_are_not_guessed_between(folder: Path) -> None:
    trees.chexpert(folder)
    trees.chexpert(folder, "CheXpert-v1.0")
    with pytest.raises(ValueError, match="several copies"):
        datasets.index("chexpert", folder)


# ---- MIMIC-CXR-JPG


def test_labels_of_a_study_go_to_all_its_images_and_a_study_without_has_none(folder: Path) -> None:
    table = datasets.index("mimic", trees.mimic(folder)).table
    assert table.groupby("study")["Edema"].nunique(dropna=False).eq(1).all()
    assert table["Edema"].iloc[:-3].eq(-1).all() and table["Edema"].iloc[-3:].isna().all()
    assert table["view"].iloc[:3].tolist() == ["PA", "LATERAL", ""] and table["view_position"].iloc[1] == "LL"
    assert table["split"].value_counts().to_dict() == {"train": 30, "val": 6, "test": 6}
    assert datasets.index("mimic", folder, labels="negbio").table["Edema"].iloc[0] == 1


def test_mimic_images_may_lie_in_a_resized_folder_and_patients_bring_sex_and_age(folder: Path) -> None:
    root = trees.mimic(folder, under="files_resized_320")
    trees.text(
        folder / "patients.csv",
        "subject_id,gender,anchor_age,anchor_year,dod",
        "10000001,F,52,2178,",
        "10000002,M,20,2180,",
    )
    found = datasets.index("mimic", root, images="files_resized_320", patients="patients.csv")
    assert all(found.file(row).is_file() for row in range(len(found)))
    assert found.table["sex"].iloc[0] == "F" and found.table["age"].iloc[0] == 54
    assert found.table["sex"].iloc[-1] == "" and np.isnan(found.table["age"].iloc[-1])


def test_blank_views_are_filled_by_what_their_code_means_and_ap_axial_is_ap(folder: Path) -> None:
    root = trees.mimic(folder)
    meta = root / "mimic-cxr-2.0.0-metadata.csv.gz"
    said = {0: ("", "postero-anterior"), 1: ("AP AXIAL", ""), 2: ("", "left lateral"), 3: ("LAO", "")}
    rows = [
        f"{pic},{patient},{study},CHEST,{said.get(place, ('', ''))[0]},1,1,21800506,1,,{said.get(place, ('', ''))[1]},"
        for place, (patient, study, pic, _) in enumerate(trees.MIMIC_ROWS)
    ]
    trees.text(meta, trees.MIMIC_METADATA, *rows)
    assert datasets.index("mimic", root).table["view"].tolist()[:5] == ["PA", "AP", "LATERAL", "", ""]


def test_a_radiologists_labels_of_the_test_set_go_before_the_labellers(folder: Path) -> None:
    root = trees.mimic(folder)
    study = trees.MIMIC_ROWS[0][1]
    trees.text(root / "mimic-cxr-2.1.0-test-set-labeled.csv", "study_id,Airspace Opacity,Edema", f"{study},1.0,0.0")
    table = datasets.index("mimic", root).table
    first, other = table[table["study"] == str(study)], table[table["study"] != str(study)]
    assert first["Edema"].eq(0).all() and first["Lung_Opacity"].eq(1).all() and first["Atelectasis"].isna().all()
    assert set(first["labelled_by"]) == {"radiologist"} and set(other["labelled_by"]) == {"chexpert", ""}
    assert datasets.index("mimic", root, test_labels="labeller").table["Edema"].iloc[0] == -1


# ---- RSNA


def test_rsnas_patients_are_images_unless_it_is_joined_to_chestxray14(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = trees.rsna(folder)
    datasets.index("rsna", root)
    assert "names an image, not a patient" in caplog.text
    caplog.clear()
    rows = [
        {"subset_img_id": name, "img_id": f"{place // 2:08d}_00{place % 2}.png"}
        for place, name in enumerate(trees.RSNA_IDS)
    ]
    trees.text(root / "pneumonia-challenge-dataset-mappings_2018.json", json.dumps(rows))
    table = datasets.index("rsna", root).table
    assert table["patient"].nunique() == 10 and not caplog.text.count("names an image")
    assert table.groupby("patient")["split"].nunique().eq(1).all()


def test_rsna_has_one_row_per_image_its_boxes_and_three_classes(folder: Path) -> None:
    found = datasets.index("rsna", trees.rsna(folder))
    assert len(found) == 20 and len(found.boxes) == 14 and found.findings == ("Lung_Opacity",)
    assert found.table["Lung_Opacity"].sum() == 7
    assert set(found.table["class"]) == {"Lung Opacity", "Normal", "No Lung Opacity / Not Normal"}
    assert "split_lovt" not in found.table


def test_the_lovt_split_is_taken_where_its_lists_are(folder: Path) -> None:
    found = datasets.index("rsna", trees.lovt(trees.rsna(folder)))
    assert found.table["split"].value_counts().to_dict() == {"train": 12, "val": 4, "test": 4}
    by_patient = datasets.index("rsna", folder, split="patient")
    assert not by_patient.table["split"].equals(found.table["split"])


def test_rsna_images_may_be_converted(folder: Path) -> None:
    root = trees.rsna(folder)
    trees.images(root / "png", [f"{name}.png" for name in trees.RSNA_IDS])
    assert datasets.index("rsna", root).table["path"].str.endswith(".dcm").all()
    assert datasets.index("rsna", root, images="png").table["path"].str.startswith("png/").all()


# ---- MedMNIST


def test_medmnist_names_no_patient_and_says_the_size(folder: Path) -> None:
    found = datasets.index("medmnist", trees.medmnist(folder) / "pneumoniamnist.npz")
    assert (found.table["patient"] == "").all() and set(found.table["width"]) == {28}
    read = datasets.images("medmnist", found, size=28, depth=8)
    with np.load(folder / "pneumoniamnist.npz") as file:
        np.testing.assert_array_equal(read(8), file["val_images"][1])
        np.testing.assert_array_equal(read(13), file["test_images"][3])
        np.testing.assert_array_equal(found.labels[7:10], file["val_labels"])


class Harmful:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return (exec, ("raise SystemExit('code ran')",))


def test_an_npz_with_python_objects_is_refused_and_never_unpickled(folder: Path) -> None:
    folder.mkdir()
    evil = np.array([Harmful()], dtype=object)
    with pytest.raises(SystemExit):
        pickle.loads(pickle.dumps(evil))
    np.savez(folder / "pneumoniamnist.npz", train_images=evil, train_labels=evil)
    with pytest.raises(ValueError, match="Python objects") as error:
        datasets.index("medmnist", folder)
    assert "\n" not in str(error.value)


def test_another_medmnist_set_a_broken_file_and_wrong_labels_are_one_line_each(folder: Path) -> None:
    root = trees.medmnist(folder, "breastmnist.npz")
    with pytest.raises(ValueError, match="neither pneumoniamnist"):
        datasets.index("medmnist", root / "breastmnist.npz")
    assert len(datasets.index("medmnist", root / "breastmnist.npz", flavour="pneumonia")) == 14
    with pytest.raises(ValueError, match=r"not whole numbers \(7, 14\)"):
        datasets.index("medmnist", root / "breastmnist.npz", flavour="chest")
    whole = (root / "breastmnist.npz").read_bytes()
    (root / "chestmnist.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"chestmnist.npz cannot be read"):
        datasets.index("medmnist", root / "chestmnist.npz")


# ---- your own images


def test_the_columns_of_a_hospitals_csv_are_found_by_their_names(folder: Path) -> None:
    found = datasets.index("folder", trees.own_csv(folder))
    assert found.findings == ("Effusion", "Atelectasis", "Mass")
    first = found.table.iloc[0]
    assert (first["patient"], first["view"], first["sex"], first["age"]) == ("P0", "LATERAL", "F", 30)
    assert first["Atelectasis"] == -1 and first["Effusion"] == 0 and np.isnan(first["Mass"])
    assert set(found.table["split"]) <= {"train", "val", "test"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_encodings_and_separators_are_worked_out(folder: Path, encoding: str, separator: str) -> None:
    rows = [["图像", "患者编号", "诊断"], ["图/一.png", "病人1", "胸腔积液|肿块"], ["图/二.png", "病人2", "正常"]]
    trees.text(folder / "表.csv", *(separator.join(row) for row in rows), encoding=encoding)
    trees.images(folder, ["图/一.png", "图/二.png"])
    found = datasets.index("folder", folder)
    assert found.findings == ("Effusion", "Mass") and found.labels.tolist() == [[1, 1], [0, 0]]
    assert found.table["patient"].tolist() == ["病人1", "病人2"] and found.file(1).is_file()


def test_latin_1_is_not_taken_for_chinese(folder: Path) -> None:
    trees.text(folder / "a.csv", "path,patient,Mass", "1.png,Zoé Müller,1", "2.png,Ångström é,0", encoding="latin-1")
    assert datasets.index("folder", folder).table["patient"].tolist() == ["Zoé Müller", "Ångström é"]


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        (["yes", "No", "YES", ""], [1, 0, 1, np.nan]),
        (["pos", "neg", "positive", "nan"], [1, 0, 1, np.nan]),
        (["1.0", "0", "-1", " "], [1, 0, -1, np.nan]),
        (["TRUE", "FALSE", "uncertain", "N/A"], [1, 0, -1, np.nan]),
        (["阳性", "阴性", "可疑", "未知"], [1, 0, -1, np.nan]),
    ],
)
def test_labels_are_read_in_the_words_people_use(folder: Path, cells: list[str], wanted: list[float]) -> None:
    trees.text(folder / "a.csv", "file,Mass", *(f"{place}.png,{cell}" for place, cell in enumerate(cells)))
    np.testing.assert_array_equal(datasets.index("folder", folder).labels[:, 0], wanted)


def test_paths_written_on_another_machine_are_found_below_the_root(folder: Path) -> None:
    rows = ["C:\\data\\x\\pics\\1.png,0", "/mnt/old/pics/2.png,1", "pics/3.png,1", "4,0", "twice.png,0"]
    trees.text(folder / "a.csv", "path,Mass", *rows)
    trees.images(folder, ["pics/1.png", "pics/2.png", "pics/3.png", "pics/4.png", "a/twice.png", "b/twice.png"])
    found = datasets.index("folder", folder).table["path"].tolist()
    assert found == ["pics/1.png", "pics/2.png", "pics/3.png", "pics/4.png", "twice.png"]


def test_wrong_columns_are_said_with_the_nearest_ones(folder: Path) -> None:
    root = trees.own_csv(folder)
    with pytest.raises(
        ValueError,
        match=r"--patient-column 'patientid': no such column. Did you mean 'patient_id'\?.*--age-column 'years'",
    ):
        datasets.index("folder", root, patient_column="patientid", age_column="years")
    with pytest.raises(ValueError, match=r"no 'Pleural Efusion' Did you mean 'Pleural Effusion'\?|'Pleural Efusion'"):
        datasets.index("folder", root, label_columns=("Pleural Efusion",))
    with pytest.raises(ValueError, match=r"view holds 'lateral' in line 2"):
        datasets.index("folder", root, label_columns=("Mass", "view"))
    assert (datasets.index("folder", root, patient_column="none").table["patient"] == "").all()


def test_a_csv_without_a_image_column_or_with_unclear_splits_is_refused(folder: Path) -> None:
    file = trees.text(folder / "a.csv", "who,Mass", "1,0")
    with pytest.raises(ValueError, match=r"--path-column. Columns: who, Mass"):
        datasets.index("folder", file)
    trees.text(file, "path,split,Mass", "1.png,fold3,0")
    with pytest.raises(ValueError, match="fold3"):
        datasets.index("folder", file)
    trees.text(file, "path,Mass", "1.png,0", "1.png,1")
    with pytest.raises(
        ValueError, match=r"1 images stand in several rows that differ \(1 in label Mass\), such as 1.png"
    ):
        datasets.index("folder", file)
    trees.text(file, "path,Effusion,Pleural Effusion", "1.png,0,1")
    with pytest.raises(ValueError, match="Two label columns mean Effusion"):
        datasets.index("folder", file)


def test_a_repeated_column_name_does_not_stop_the_first(folder: Path) -> None:
    trees.text(folder / "a.csv", "path,note,note,Mass", "1.png,a,b,1")
    assert datasets.index("folder", folder).labels.tolist() == [[1]]


def test_several_tables_are_not_guessed_between(folder: Path) -> None:
    root = trees.own_csv(folder)
    trees.text(root / "other.csv", "a,b", "1,2")
    with pytest.raises(ValueError, match=r"holds list.csv, other.csv\. Choose one with --csv"):
        datasets.index("folder", root)
    assert len(datasets.index("folder", root, csv="list.csv")) == 24
    assert datasets.index("folder", root, csv="none").findings == ()


def test_folders_become_classes_and_normal_is_the_row_without_findings(folder: Path) -> None:
    found = datasets.index("folder", trees.class_folders(folder))
    assert found.findings == ("Pneumonia",)
    normal = found.table["path"].str.contains("NORMAL")
    assert (found.table["Pneumonia"] == np.where(normal, 0, 1)).all()
    assert found.table["split"].value_counts().to_dict() == {"train": 6, "val": 6, "test": 6}


def test_class_folders_of_ones_own_findings_keep_their_names(folder: Path) -> None:
    trees.images(folder, ["Silicosis stage 1/a.png", "tb/b.png", "normal/c.png"])
    found = datasets.index("folder", folder)
    assert found.findings == ("Tuberculosis", "Silicosis_stage_1")
    assert found.labels.tolist() == [[0, 1], [0, 0], [1, 0]]


@pytest.mark.parametrize(
    "names", [["a.png", "b.png"], ["p1/a.png", "p2/b.png"], ["x/s1/a.png", "y/s2/b.png"], ["one/a.png"]]
)
def test_other_folders_are_images_without_labels(folder: Path, names: list[str]) -> None:
    trees.images(folder, names)
    found = datasets.index("folder", folder)
    assert found.findings == () and found.table["path"].tolist() == names
    assert (found.table["split"] == "").all()


def test_patients_can_be_read_from_the_paths(folder: Path) -> None:
    trees.images(
        folder, [f"{kind}/person{n}_{kind}_{m}.jpeg" for n in range(20) for m in range(2) for kind in ("normal", "tb")]
    )
    found = datasets.index("folder", folder, patient_pattern=r"(person\d+)_").table
    assert found["patient"].nunique() == 20 and (found.groupby("patient")["split"].nunique() == 1).all()
    for wrong in ("(", "person", "(a)(b)"):
        with pytest.raises(ValueError, match="--patient-pattern"):
            datasets.index("folder", folder, patient_pattern=wrong)


def test_dicom_files_need_no_ending_and_other_files_are_left_out(folder: Path) -> None:
    trees.dicom(folder / "病人1/1.2.840.113619/IM0001", np.zeros((8, 8), np.uint8))
    trees.dicom(folder / "p2/series/1.2.3.dcm", np.zeros((8, 8), np.uint8))
    trees.text(folder / "notes.txt", "hello")
    trees.text(folder / "DICOMDIR", "x")
    trees.text(folder / ".hidden.png", "x")
    assert datasets.index("folder", folder).table["path"].tolist() == [
        "p2/series/1.2.3.dcm",
        "病人1/1.2.840.113619/IM0001",
    ]


def test_a_folder_linked_into_itself_is_walked_once(folder: Path) -> None:
    trees.images(folder, ["a/1.png"])
    (folder / "a" / "again").symlink_to(folder, target_is_directory=True)
    assert datasets.index("folder", folder).table["path"].tolist() == ["a/1.png"]


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x01\x02", b'path,Mass\n"1.png,0\n', b"path,Mass\n1.png,0,3,4\n2.png\n", b"\xff\xfe\x00"]
)
def test_a_damaged_table_is_one_line(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "a.csv").write_bytes(content)
    with pytest.raises(ValueError) as error:
        datasets.index("folder", folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not gzip at all", b"\x1f\x8b\x08\x00\x00"])
def test_a_damaged_official_table_is_one_line(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "Data_Entry_2017.csv.gz").write_bytes(content)
    with pytest.raises((ValueError, OSError)) as error:
        datasets.index("nih", folder)
    assert "\n" not in str(error.value) and "Data_Entry_2017" in str(error.value)


def test_an_official_table_without_its_columns_names_them_all(folder: Path) -> None:
    trees.text(folder / "stage_2_train_labels.csv", "patientId,x,y", "a,1,2")
    with pytest.raises(ValueError, match="has no column width, no column height, no column Target"):
        datasets.index("rsna", folder)


# ---- what was once taken wrongly


def test_a_made_up_set_takes_no_root_and_depends_on_no_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"'phantom' .*'/nowhere'"):
        datasets.index("phantom", "/nowhere")
    first = datasets.index("phantom", images=3)
    folder.mkdir()
    monkeypatch.chdir(folder)
    again = datasets.index("phantom", images=3)
    assert first.root == again.root == Path() and first.table.equals(again.table)


def test_patients_that_only_the_files_know_are_waited_for(folder: Path) -> None:
    """A split dealt out before all patients are known could put one on both sides."""
    names = [f"{number}.dcm" for number in range(30)]
    trees.text(folder / "a.csv", "path,patient,Mass", *(f"{name},{'P1' * (name < '2')},0" for name in names))
    trees.images(folder, names)
    assert (datasets.index("folder", folder).table["split"] == "").all()
    trees.text(
        folder / "a.csv", "path,patient,split", *(f"{name},,{'train' if name < '5' else 'test'}" for name in names)
    )
    assert set(datasets.index("folder", folder).table["split"]) == {"train", "test"}
    trees.text(folder / "a.csv", "path,patient,Mass", *(f"{name},P{name},0" for name in names))
    assert set(datasets.index("folder", folder).table["split"]) == {"train", "val", "test"}
    trees.text(folder / "a.csv", "path,patient,Mass", *(f"{name}.png,{'P1' * (name < '2')},0" for name in names))
    assert set(datasets.index("folder", folder).table["split"]) == {"train", "val", "test"}


@pytest.mark.parametrize("name", ["Mass", "label", "结节"])
@pytest.mark.parametrize("odd", ["2", "maybe", "Effusion"])
def test_an_odd_cell_among_yes_and_no_is_named_and_makes_no_list(folder: Path, name: str, odd: str) -> None:
    trees.text(folder / "a.csv", f"path,{name}", "1.png,0", "2.png,1", f"3.png,{odd}")
    with pytest.raises(ValueError, match=rf"{name} holds '{odd}' in line 4"):
        datasets.index("folder", folder)


def test_a_column_of_another_name_is_a_list_only_where_all_its_words_are_findings(folder: Path) -> None:
    rows = ["1.png,Effusion|Mass", "2.png,", "3.png,Normal"]
    trees.text(folder / "a.csv", "path,seen", *rows)
    found = datasets.index("folder", folder, label_columns=("seen",))
    np.testing.assert_array_equal(found.labels, [[1, 1], [np.nan, np.nan], [0, 0]])
    trees.text(folder / "a.csv", "path,seen", *rows, "4.png,Efusion")
    with pytest.raises(ValueError, match=r"seen holds 'Effusion\|Mass' in line 2"):
        datasets.index("folder", folder, label_columns=("seen",))


def test_numbers_are_labels_however_they_are_written(folder: Path) -> None:
    cells = ["1", "1.00", "1 ", "+1", "0.000", "-1.", "01"]
    trees.text(folder / "a.csv", "path,Mass", *(f"{place}.png,{cell}" for place, cell in enumerate(cells)))
    assert datasets.index("folder", folder).labels[:, 0].tolist() == [1, 1, 1, 1, 0, -1, 1]


@pytest.mark.parametrize(
    "cell", ["Effusion, Mass", "Effusion/Mass", "胸腔积液，肿块", "Effusion；Mass", "Mass|Effusion,"]
)
def test_findings_are_told_apart_at_any_usual_sign(folder: Path, cell: str, caplog: pytest.LogCaptureFixture) -> None:
    trees.text(folder / "a.csv", "path;label", f'1.png;"{cell}"', "2.png;阴性")
    found = datasets.index("folder", folder)
    assert found.findings == ("Effusion", "Mass") and found.labels.tolist() == [[1, 1], [0, 0]]
    assert "vocabulary" not in caplog.text


def test_new_findings_keep_their_commas_and_are_said_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    trees.text(folder / "a.csv", "path;label", "1.png;Silicosis, stage 1", "2.png;Efusion|Mass", "3.png;Efusion")
    assert datasets.index("folder", folder).findings == ("Mass", "Efusion", "Silicosis_stage_1")
    assert [text for text in caplog.messages if "vocabulary" in text] == [
        "New findings outside the vocabulary: Efusion (did you mean Effusion?), Silicosis_stage_1."
    ]


def test_a_table_that_names_no_patient_or_no_finding_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Else one patient would come into training and test without a word."""
    trees.text(folder / "a.csv", "影像路径,卡号,所见", "1.png,7,渗出", "2.png,7,")
    assert datasets.index("folder", folder).findings == ()
    patient, labels = sorted((text for text in caplog.messages if "--" in text), reverse=True)
    assert "--patient-column" in patient and "Columns: 影像路径, 卡号, 所见." in patient
    assert "--label-columns" in labels and "Columns: 影像路径, 卡号, 所见." in labels
    caplog.clear()
    datasets.index("folder", folder, patient_column="卡号", label_columns=["所见"])
    assert not [text for text in caplog.messages if "--" in text]


def test_columns_and_words_of_a_chinese_hospital(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    header = "影像路径,病案号,投照体位,数据划分,性别,年龄,诊断结果"
    lines = ["1.png,7,左侧位,训练集,女性,8个月,渗出；胸水", "2.png,8,床旁,测试集,男性,56岁,未见明显异常"]
    trees.text(folder / "表.csv", header, *lines, encoding="gb18030")
    found = datasets.index("folder", folder)
    assert found.findings == ("Effusion", "Infiltration") and found.labels.tolist() == [[1, 1], [0, 0]]
    assert found.table["patient"].tolist() == ["7", "8"] and found.table["view"].tolist() == ["LATERAL", "AP"]
    assert found.table["split"].tolist() == ["train", "test"] and found.table["sex"].tolist() == ["F", "M"]
    assert found.table["age"].tolist() == pytest.approx([8 / 12, 56])
    assert not [text for text in caplog.messages if "--" in text]


def test_folders_that_may_be_patients_lose_no_labels_in_silence(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    trees.images(folder, ["0/a.png", "1/b.png"])
    assert datasets.index("folder", folder).findings == ()
    assert "0, 1" in caplog.text
    assert "--classes yes" in caplog.text
    assert datasets.index("folder", folder, classes="yes").labels.tolist() == [[0], [1]]


def test_dicom_in_class_folders_and_folders_in_them_are_said_too(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trees.images(folder, ["normal/s/a.dcm", "tb/b.dcm"])
    assert datasets.index("folder", folder).findings == ()
    assert "since they hold DICOM files and they hold further folders" in caplog.text
    assert datasets.index("folder", folder, classes="yes").findings == ("Tuberculosis",)


def test_masks_are_left_out_and_images_are_no_class(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    trees.images(folder, ["images/1.png", "images/2.png", "masks/1.png"])
    found = datasets.index("folder", folder)
    assert found.findings == () and found.table["path"].tolist() == ["images/1.png", "images/2.png"]
    assert "Left out: 1 images in folders called mask or the like." in caplog.messages
    shutil.rmtree(folder)
    trees.images(folder, [f"{kind}/{what}/1.png" for kind in ("COVID", "Normal") for what in ("images", "masks")])
    assert datasets.index("folder", folder).labels.tolist() == [[1], [0]]


def test_images_that_cannot_be_read_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    trees.images(folder, ["a.png"])
    trees.text(folder / "b.webp", "x")
    assert len(datasets.index("folder", folder)) == 1
    assert caplog.messages[0] == "Left out: 1 files .webp."


@pytest.mark.parametrize("name", ["view", "set", "Row", "split_a", "width"])
def test_a_finding_called_like_a_column_of_ours_is_refused(folder: Path, name: str) -> None:
    trees.images(folder, [f"{name}/a.png", "normal/b.png"])
    with pytest.raises(ValueError, match=f"No finding can be called {name}: Ribcage has a column of that name"):
        datasets.index("folder", folder)
    table = datasets.index("phantom", images=1).table
    with pytest.raises(ValueError, match=f"a finding cannot be called '{name}'"):
        Index("x", table.assign(**{name: 0.0}) if name not in table else table, (name,))


def test_a_csv_as_root_does_not_walk_the_folder_it_lies_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = trees.text(folder / "a.csv", "path,Mass", "p\\1.png,0", f"{folder}/2.png,1", "./p/3.png,1")
    trees.images(folder, ["p/1.png", "2.png", "p/3.png"])
    walked = []
    monkeypatch.setattr(os, "scandir", lambda path: walked.append(Path(path)) or SCAN(path))
    for root, options in ((file, {}), (folder, {}), (folder, {"csv": "a.csv"})):
        assert datasets.index("folder", root, **options).table["path"].tolist() == ["p/1.png", "2.png", "p/3.png"]
    assert set(walked) <= {folder}
    (folder / "p" / "1.png").unlink()
    assert datasets.index("folder", file).table["path"].tolist()[1:] == ["2.png", "p/3.png"]
    assert folder / "p" in [Path(str(path)) for path in walked]


def test_a_csv_whose_rows_name_no_image_is_refused_and_some_are_counted(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trees.text(folder / "a.csv", "path,Mass", ",0", " ,1")
    with pytest.raises(ValueError, match="The column 'path' is blank in every row"):
        datasets.index("folder", folder)
    trees.text(folder / "a.csv", "path,Mass", ",0", "1.png,1")
    assert len(datasets.index("folder", folder)) == 1 and "1 rows that name no image" in caplog.text


def test_columns_of_other_things_are_kept_as_they_are(folder: Path) -> None:
    trees.text(folder / "a.csv", "path,Mass,hospital,scanner,width,notes,split_b", "1.png,1,North,007,40,old,x")
    row = datasets.index("folder", folder).table.iloc[0]
    assert (row["hospital"], row["scanner"], row["csv_width"]) == ("North", "007", "40")
    assert row["csv_notes"] == "old" and row["csv_split_b"] == "x" and "width" not in row and "split_b" not in row


def test_two_folders_are_two_name_spaces(folder: Path) -> None:
    for name in ("north", "south/images"):
        trees.images(folder / name, ["a.png"])
    file = trees.text(folder / "west" / "a.csv", "path,Mass", "1.png,1")
    roots = (folder / "north", folder / "south" / "images", file, file.parent)
    assert [datasets.index("folder", root).name for root in roots] == ["north", "south", "west", "west"]


def test_bits_say_what_is_white_in_16_bit_images(folder: Path) -> None:
    folder.mkdir()
    for name, brightest in (("a", 2047), ("b", 4095)):
        cv2.imwrite(str(folder / f"{name}.png"), np.full((8, 8), brightest, np.uint16))
    found = datasets.index("folder", folder, bits=12)
    read = datasets.images("folder", found, size=8, depth=8, bits=12)
    assert read is not None and [int(read(row).pixels[0, 0]) for row in range(2)] == [127, 255]
    assert datasets.images("folder", found, size=8, depth=8, bits=0) is None
    with pytest.raises(ValueError, match="--bits is 8 to 16, not 12000"):
        datasets.index("folder", folder, bits=12000)


def test_a_header_in_the_wrong_letters_hints_at_the_encoding(folder: Path) -> None:
    trees.text(folder / "a.csv", "图像名称,肿块", "1.png,1")
    with pytest.raises(ValueError, match=r"Columns: .* If these names look wrong, give --encoding\.$"):
        datasets.index("folder", folder, encoding="latin-1")


# ---- the real tables


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


def test_the_real_tables_of_rsna_and_lovt_give_the_published_counts(real: Path) -> None:
    found = datasets.index("rsna", real / "rsna")
    assert len(found) == 26_684 and len(found.boxes) == 9_555
    assert found.table["split"].value_counts().to_dict() == {"train": 16_010, "val": 5_337, "test": 5_337}
    assert found.table.groupby("split")["Lung_Opacity"].sum().to_dict() == {"train": 3_584, "val": 1_210, "test": 1_218}
    boxes = found.boxes["row"].map(found.table["split"]).value_counts().to_dict()
    assert boxes == {"train": 5_707, "val": 1_901, "test": 1_947}


def test_the_real_pneumoniamnist_gives_its_counts(real: Path) -> None:
    found = datasets.index("medmnist", real / "pneumoniamnist.npz")
    assert found.table["split"].value_counts().to_dict() == {"train": 4_708, "val": 524, "test": 624}
    assert datasets.images("medmnist", found)(0).shape == (28, 28)
