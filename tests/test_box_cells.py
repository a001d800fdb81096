"""Boxes of published tables: complete, in the right order and inside the image, or an error that names the line."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trees
from image_folders import facts, imported
from refusals import has_facts

from ribcage.data import datasets
from ribcage.data.importer import writer
from ribcage.data.readers import box_cells

NAN = float("nan")
CORNERS = ("x_min", "y_min", "x_max", "y_max")


def sides(boxes: list[list[float]], file: Path, **options: object) -> np.ndarray:
    trees.text(file, ",".join(CORNERS), *(",".join(map(str, box)) for box in boxes))
    rows = pd.DataFrame(boxes, columns=CORNERS, dtype="float32")
    return box_cells.box_sides(rows, CORNERS, file, **options).to_numpy()


@pytest.mark.parametrize(
    ("box", "options"),
    [
        ([1, 2, NAN, 4], {}),
        ([7, 2, 3, 4], {"corners": True}),
        ([1, 2, -3, 4], {}),
        ([20, 2, 3, 4], {"frame": (20, 30)}),
        ([-9, 2, 3, 4], {"frame": (20, 30)}),
    ],
)
def test_an_impossible_box_is_an_error_with_its_line_and_coordinates(
    tmp_path: Path, box: list[float], options: dict[str, object]
) -> None:
    with pytest.raises(ValueError) as error:
        sides([[1, 2, 5, 9], box], tmp_path / "a b.csv", **options)
    assert has_facts(str(error.value), "a b.csv", "line 3", f"x_min {box[0]:g}", f"y_max {box[3]:g}")


def test_flat_boxes_are_left_out_and_boxes_that_exceed_the_image_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    boxes = [[1, 2, 0, 4], [NAN] * 4, [10, 10, 13, 23], [10, 10, 14, 2]]
    found = sides(boxes, tmp_path / "a.csv", frame=(20, 30))
    np.testing.assert_equal(found, [[NAN] * 4, [NAN] * 4, [10, 10, 13, 23], [10, 10, 14, 2]])
    ignored, exceeding = caplog.messages
    assert has_facts(ignored, "area", "a.csv", "1")
    assert has_facts(exceeding, "a.csv", "1 box exceeds", "20 x 30", "3 pixels")


def test_a_reversed_box_of_vindr_names_its_file_and_line(tmp_path: Path) -> None:
    file = trees.vindr(tmp_path) / "annotations/annotations_train.csv"
    text = file.read_text(encoding="utf-8").replace("Cardiomegaly,2,3,20,30", "Cardiomegaly,20,3,2,30", 1)
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"annotations_train\.csv, line 2.*x_min 20.*x_max 2\b"):
        datasets.index("vindr", tmp_path)


def test_an_image_with_a_box_outside_it_is_rejected_and_one_that_exceeds_it_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trees.images(tmp_path, ["0.png", "1.png", "2.png"])
    trees.text(tmp_path / "boxes.csv", "file,finding,x,y,width,height", "0.png,Mass,1,1,90,9", "1.png,Mass,32,1,9,9",
               "2.png,Mass,1,1,34,9")  # fmt: skip
    found = datasets.index("folder", tmp_path, boxes="boxes.csv")
    opened = imported(found, tmp_path / "out", dataset="folder", findings=found.findings)
    assert opened.index.table["path"].tolist() == ["0.png", "2.png"] and len(opened.index.boxes) == 2
    rejected = (tmp_path / "out/rejected.csv").read_text(encoding="utf-8")
    assert has_facts(rejected.splitlines()[1], "1.png", "Mass", "x 32", "32 x 32")
    assert "1 box exceeds its image by more than 3 pixels" in caplog.text
    with pytest.raises(ValueError) as error:  # a linked folder has no list of rejected images
        writer.link(found, facts(tmp_path), tmp_path / "linked")
    assert has_facts(str(error.value), "1.png", "Mass", "x 32", "32 x 32")
