"""One's own images: tables of any form, class folders, patients in paths – read, or refused by name."""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import trees
from refusals import has_facts

from ribcage.data import datasets, splits
from ribcage.data.index import Index


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "病人 数据 set"


SCAN = os.scandir


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


def test_a_file_found_in_other_folders_than_those_in_a_table_or_list_is_named(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trees.images(folder, ["train/1.png", "train/2.png", "train/p 3/3.png"])
    trees.text(folder / "a.csv", "path,Mass", "test/1.png,0", "D:\\x\\train\\2.png,1", "3.png,0", "gone/4.png,0")
    trees.text(folder / "b.csv", "file,finding,x,y,width,height", "test/2.png,Mass,1,1,5,5", "p 3/3.png,Mass,1,1,5,5")
    index = datasets.index("folder", folder, csv="a.csv", boxes="b.csv")
    splits.lists([f"val={trees.text(folder / 'val.txt', 'val/3.png', '2.png')}"], index.table["path"].tolist())
    said = [line for line in caplog.messages if "other folders" in line]
    for line, name, path in zip(said, ("test/1.png", "test/2.png", "val/3.png"), index.table["path"], strict=False):
        assert has_facts(line, "1 file", path, name)
    assert len(said) == 3


def test_wrong_columns_are_named_with_the_nearest_ones(folder: Path) -> None:
    root = trees.own_csv(folder)
    with pytest.raises(
        ValueError,
        match=r"--patient-column 'patientid'.*'patient_id'.*--age-column 'years'",
    ):
        datasets.index("folder", root, patient_column="patientid", age_column="years")
    with pytest.raises(ValueError, match=r"no 'Pleural Efusion' Did you mean 'Pleural Effusion'\?|'Pleural Efusion'"):
        datasets.index("folder", root, label_columns=("Pleural Efusion",))
    with pytest.raises(ValueError, match=r"view has 'lateral' in line 2"):
        datasets.index("folder", root, label_columns=("Mass", "view"))
    assert (datasets.index("folder", root, patient_column="none").table["patient"] == "").all()


def test_a_csv_without_an_image_column_or_with_unclear_splits_is_refused(folder: Path) -> None:
    file = trees.text(folder / "a.csv", "who,Mass", "1,0")
    with pytest.raises(ValueError, match=r"--path-column. Columns: who, Mass"):
        datasets.index("folder", file)
    trees.text(file, "path,split,Mass", "1.png,fold3,0")
    with pytest.raises(ValueError, match="fold3"):
        datasets.index("folder", file)
    trees.text(file, "path,Mass", "1.png,0", "1.png,1")
    with pytest.raises(ValueError, match=r"\b1 image .*\(1 in label Mass\).*\b1\.png"):
        datasets.index("folder", file)
    trees.text(file, "path,Effusion,Pleural Effusion", "1.png,0,1")
    with pytest.raises(ValueError, match=r"Effusion.*--label-columns"):
        datasets.index("folder", file)


def test_a_repeated_column_name_does_not_stop_the_first(folder: Path) -> None:
    trees.text(folder / "a.csv", "path,note,note,Mass", "1.png,a,b,1")
    assert datasets.index("folder", folder).labels.tolist() == [[1]]


def test_several_tables_are_not_guessed_between(folder: Path) -> None:
    root = trees.own_csv(folder)
    trees.text(root / "other.csv", "a,b", "1,2")
    with pytest.raises(ValueError, match=r"list\.csv, other\.csv\..*--csv"):
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


def test_patients_that_only_the_files_know_are_waited_for(folder: Path) -> None:
    """A split assigned before all patients are known could put one patient on both sides."""
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
    with pytest.raises(ValueError, match=rf"{name} has '{odd}' in line 4"):
        datasets.index("folder", folder)


def test_a_column_of_another_name_is_a_list_only_where_all_its_words_are_findings(folder: Path) -> None:
    rows = ["1.png,Effusion|Mass", "2.png,", "3.png,Normal"]
    trees.text(folder / "a.csv", "path,seen", *rows)
    found = datasets.index("folder", folder, label_columns=("seen",))
    np.testing.assert_array_equal(found.labels, [[1, 1], [np.nan, np.nan], [0, 0]])
    trees.text(folder / "a.csv", "path,seen", *rows, "4.png,Efusion")
    with pytest.raises(ValueError, match=r"seen has 'Effusion\|Mass' in line 2"):
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


def test_new_findings_keep_their_commas_and_are_reported_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    trees.text(folder / "a.csv", "path;label", "1.png;Silicosis, stage 1", "2.png;Efusion|Mass", "3.png;Efusion")
    assert datasets.index("folder", folder).findings == ("Mass", "Efusion", "Silicosis_stage_1")
    (text,) = (text for text in caplog.messages if "vocabulary" in text)
    assert has_facts(text, "Efusion", "Effusion", "Silicosis_stage_1")


def test_a_table_without_patients_or_findings_is_reported(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Else one patient would come into training and test without a word."""
    trees.text(folder / "a.csv", "影像路径,卡号,所见", "1.png,7,渗出", "2.png,7,")
    assert datasets.index("folder", folder).findings == ()
    (patient,), (labels,) = (
        [text for text in caplog.messages if name in text] for name in ("--patient-column", "--label-columns")
    )
    assert "Columns: 影像路径, 卡号, 所见." in patient
    assert "Columns: 影像路径, 卡号, 所见." in labels
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


def test_dicom_in_class_folders_and_folders_in_them_are_reported_too(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trees.images(folder, ["normal/s/a.dcm", "tb/b.dcm"])
    assert datasets.index("folder", folder).findings == ()
    assert has_facts(caplog.text, "DICOM files", "subfolders")
    assert datasets.index("folder", folder, classes="yes").findings == ("Tuberculosis",)


def test_masks_are_left_out_and_images_are_no_class(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    trees.images(folder, ["images/1.png", "images/2.png", "masks/1.png"])
    found = datasets.index("folder", folder)
    assert found.findings == () and found.table["path"].tolist() == ["images/1.png", "images/2.png"]
    assert any(has_facts(text, "masks", 1) for text in caplog.messages)
    shutil.rmtree(folder)
    trees.images(folder, [f"{kind}/{what}/1.png" for kind in ("COVID", "Normal") for what in ("images", "masks")])
    assert datasets.index("folder", folder).labels.tolist() == [[1], [0]]


def test_images_that_cannot_be_read_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    trees.images(folder, ["a.png"])
    trees.text(folder / "b.webp", "x")
    assert len(datasets.index("folder", folder)) == 1
    assert has_facts(caplog.messages[0], "1 file .webp")


@pytest.mark.parametrize("name", ["view", "set", "Row", "split_a", "width"])
def test_a_finding_called_like_a_column_of_ours_is_refused(folder: Path, name: str) -> None:
    trees.images(folder, [f"{name}/a.png", "normal/b.png"])
    with pytest.raises(ValueError, match=f"finding.*{name}"):
        datasets.index("folder", folder)
    table = datasets.index("phantom", images=1).table
    with pytest.raises(ValueError, match=f"finding .*'{name}'"):
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
    with pytest.raises(ValueError, match="'path' is blank"):
        datasets.index("folder", folder)
    trees.text(folder / "a.csv", "path,Mass", ",0", "1.png,1")
    assert len(datasets.index("folder", folder)) == 1 and has_facts(caplog.text, "image", 1)


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
    with pytest.raises(ValueError, match="--bits 12000 must be"):
        datasets.index("folder", folder, bits=12000)


def test_a_header_in_the_wrong_letters_hints_at_the_encoding(folder: Path) -> None:
    trees.text(folder / "a.csv", "图像名称,肿块", "1.png,1")
    with pytest.raises(ValueError, match=r"Columns: .*--encoding"):
        datasets.index("folder", folder, encoding="latin-1")


def test_folders_with_the_names_of_views_are_views_and_no_classes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trees.images(tmp_path / "views", ["PA/1.png", "PA/2.png", "lateral/1.png"])
    found = datasets.index("folder", tmp_path / "views")
    assert found.table["view"].tolist() == ["PA", "PA", "LATERAL"] and not found.findings
    assert has_facts(caplog.text, "PA, lateral", "views")
    trees.images(tmp_path / "both", ["AP/normal/1.png", "frontal/Mass/2.png"])
    found = datasets.index("folder", tmp_path / "both")
    assert found.table["view"].tolist() == ["AP", ""] and found.table["Mass"].tolist() == [0, 1]
    trees.images(tmp_path / "some", ["PA/1.png", "Mass/2.png"])
    assert not datasets.index("folder", tmp_path / "some").findings and "--classes yes" in caplog.text
