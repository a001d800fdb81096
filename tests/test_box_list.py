"""Boxes from a table of one's own: read, checked, and used to train a detector."""

import re
from pathlib import Path

import numpy as np
import pytest
import trees
from refusals import has_facts

from ribcage import cli
from ribcage.data import dataset_folder, datasets
from ribcage.data.readers import box_list

NAMES = [f"病人 {number}/x{number}.png" for number in range(6)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six images of 32 × 32 in folders of patients."""
    trees.images(tmp_path / "boxes of mine", NAMES)
    return tmp_path / "boxes of mine"


HEADERS = {
    "corners": ("image_id,class_name,x_min,y_min,x_max,y_max", "x0.png,Nodule/Mass,4,6,14,26"),
    "sides": ("Image Index;Finding Label;x;y;w;h", r"D:\scans\x0.png;Nodule/Mass;4;6;10;20"),
    "corners beside the image's size": (
        "file,label,left,top,right,bottom,width,height",
        f"{NAMES[0]},Nodule/Mass,4,6,14,26,32,32",
    ),
    "numbered": ("File,Class,X1,Y1,X2,Y2", f"{NAMES[0]},Nodule/Mass,4.0,6.0,14.0,26.0"),
    "Chinese": ("图像\t征象\tleft\ttop\twidth\theight", f"{NAMES[0]}\tNodule/Mass\t4\t6\t10\t20"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_columns_and_files_are_found_as_people_name_them(kind: str, root: Path) -> None:
    header, line = HEADERS[kind]
    other = line.replace("x0", "x1").replace("病人 0", "病人 1").replace("Nodule/Mass", "Effusion")
    trees.text(root / "boxes.csv", header, line, other, encoding="utf-8")
    found = datasets.index("folder", root, boxes="boxes.csv")
    assert found.findings == ("Nodule_Mass", "Effusion") and found.box_frame is None
    assert found.boxes.drop(columns="finding").to_numpy().tolist() == [[0, 4, 6, 10, 20], [1, 4, 6, 10, 20]]
    assert found.boxes["finding"].tolist() == ["Nodule_Mass", "Effusion"]


def test_an_image_with_boxes_has_no_other_finding_and_others_are_unknown(root: Path) -> None:
    lines = ["x0.png,Mass,1,1,5,5", "x0.png,Mass,9,9,5,5", "x1.png,No finding,,,,", "x2.png,Effusion,0,0,8,8"]
    trees.text(root / "boxes.csv", "file,finding,x,y,width,height", *lines)
    found = datasets.index("folder", root, boxes="boxes.csv")
    np.testing.assert_equal(found.table["Mass"].to_numpy(), [1, 0, 0, np.nan, np.nan, np.nan])
    np.testing.assert_equal(found.table["Effusion"].to_numpy(), [0, 0, 1, np.nan, np.nan, np.nan])
    assert found.boxes["row"].tolist() == [0, 0, 2]


def test_labels_of_a_table_stay_and_contradicting_boxes_are_reported(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trees.text(root / "list.csv", "file,Mass", *(f"{name},{int(place == 3)}" for place, name in enumerate(NAMES)))
    trees.text(root / "boxes.csv", "file,finding,x,y,width,height", "x0.png,Mass,1,1,5,5", "gone.png,Mass,1,1,5,5")
    found = datasets.index("folder", root, boxes="boxes.csv")
    assert found.table["Mass"].tolist() == [0, 0, 0, 1, 0, 0] and len(found.boxes) == 1
    assert has_facts(caplog.text, "1", "images", "gone.png")
    assert "Mass" in caplog.text


@pytest.mark.parametrize(
    ("header", "line", "said"),
    [
        ("file,x,y,width,height", "x0.png,1,1,5,5", "finding.*: file, x, y"),
        ("a,b,x,y,width", "x0.png,Mass,1,1,5", "file.*finding.*x, y, width"),
        ("file,finding,x,y,width,height", "x0.png,Mass,1,1,five,5", "'five' in line 2 .*'width'"),
        ("file,finding,x,y,width,height", "x0.png,Mass,1,1,inf,5", "'inf' in line 2"),
        ("file,finding,x,y,width,height", "x0.png,Mass,1,1,,5", "coordinates in line 2"),
        ("file,finding,x,y,width,height", "x0.png,,1,1,5,5", "without a finding in line 2"),
        ("file,finding,xmin,ymin,xmax,ymax", "x0.png,Mass,0.1,0.1,0.5,1", "0 to 1 .*pixels"),
        ("file,finding,x,y,width,height", "x0.png,no mass,1,1,5,5", "'no mass' in line 2"),
        ("file,finding,x,y,width,height", ",Mass,1,1,5,5", "without an image in line 2"),
        ("file,finding,x,y,width,height", "x0.png,Mass,1,1,0,5", "width or height .*line 2"),
        ("file,finding,xmin,ymin,xmax,ymax", "x0.png,Mass,9,1,5,5", "width or height .*line 2"),
        ("file,finding,x,y,width,height", "other.png,Mass,1,1,5,5", "no image .*other.png"),
        ("file,finding,x,y,width,height", "x0.png,View,1,1,5,5", "findings?.*View"),
    ],
)
def test_what_is_wrong_is_one_line(header: str, line: str, said: str, root: Path) -> None:
    trees.text(root / "boxes.csv", header, line)
    with pytest.raises(ValueError, match=r"boxes\.csv|View") as error:
        datasets.index("folder", root, boxes="boxes.csv")
    assert re.search(said, str(error.value)) and "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"gone\.csv"):
        datasets.index("folder", root, boxes="gone.csv")


def test_boxes_of_no_finding_and_repeated_boxes_are_counted(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = ["x0.png,No finding,1,1,5,5", *["x1.png,Mass,1,1,5,5"] * 3, "x2.png,,,,,", "x2.png,,,,,"]
    trees.text(root / "boxes.csv", "file,finding,x,y,width,height", *lines)
    found = datasets.index("folder", root, boxes="boxes.csv")
    assert found.findings == ("Mass",) and found.table["Mass"].tolist()[:3] == [0, 1, 0] and len(found.boxes) == 1
    assert has_facts(caplog.text, "'No finding'", "boxes.csv", "1.") and has_facts(caplog.text, "boxes.csv", "3.")


def test_a_list_of_its_own_is_read_line_by_line(tmp_path: Path) -> None:
    file = trees.text(tmp_path / "b.csv", "file,label,x0,y0,x1,y1", "a.png,胸腔积液,1,2,4,8", "b.png,,,,,")
    found = box_list.read_boxes(file)
    assert found["finding"].tolist() == ["Effusion", ""]
    np.testing.assert_equal(found[["x", "y", "width", "height"]].to_numpy(), [[1, 2, 3, 6], [np.nan] * 4])


def test_boxes_follow_the_images_into_the_folder_and_a_detector_learns_from_them(tmp_path: Path) -> None:
    root = tmp_path / "drawn"
    images = [f"scans/p{number:02d}.png" for number in range(24)]
    trees.images(root, images)
    lines = [f"p{number:02d}.png,Mass,4,6,10,20" if number % 2 else f"p{number:02d}.png,,,,," for number in range(24)]
    trees.text(root / "boxes.csv", "file,finding,x,y,width,height", *lines)
    data, out = tmp_path / "data", tmp_path / "run"
    pattern = ["--patient-pattern", r"p(\d\d)\.png", "--size", "64"]
    assert cli.main(["import", "folder", str(root), "--boxes", "boxes.csv", *pattern, "--out", str(data)]) == 0
    kept = dataset_folder.open(data).index
    assert len(kept.boxes) == 12 and kept.boxes[["x", "y", "width", "height"]].iloc[0].tolist() == [8, 12, 20, 40]
    small = ["--model", "test_resnet", "--epochs", "1", "--batch", "4", "--size", "64", "--threads", "1"]
    assert cli.main(["localise", "--data", str(data), "--out", str(out), *small]) == 0
    assert cli.main(["evaluate", str(out), "--data", str(data), "--resamples", "20"]) == 0
