"""Masks and points of an index: stored with the images, at the places where they were drawn, by any kind of import."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_folders import facts, images, imported
from test_parts import in_parts, merged
from test_writer import digest

from ribcage.data import dataset_folder
from ribcage.data.importer import writer
from ribcage.data.index import Index
from ribcage.data.masks import MASKS_FILE, DrawnMask, MaskFile, load_masks, mask_frame, mask_of, save_masks
from ribcage.data.points import POINTS_FILE, load_points, point_frame, save_points
from ribcage.imaging import image_file
from ribcage.imaging.augment import warp_mask
from ribcage.imaging.mask import Mask

COUNT = 70


def drawing(row: int, width: int = 48, height: int = 48) -> np.ndarray:
    return cv2.ellipse(np.zeros((height, width), np.uint8), (20 + row % 5, 22), (11, 17), row, 0, 360, 1, -1)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Images with a heart in a file, a left lung drawn at twice their size by two readers, and points."""
    made = images(tmp_path / "in 片", COUNT)
    drawn = []
    for row in range(0, COUNT, 3):
        high = 48 + row % 5
        cv2.imencode(".png", drawing(row, 48, high) * 255)[1].tofile(made.root / f"heart {row}.png")
        drawn.append(DrawnMask(row, "Heart", MaskFile(f"heart {row}.png")))
        lung = Mask.of_pixels(drawing(row, 96, 2 * high))
        drawn += [DrawnMask(row, "Left_Lung", lung, "a"), DrawnMask(row, "Left_Lung", Mask(96, 2 * high), "乙")]
    points = pd.DataFrame({"row": [0, 0, 2], "structure": "Nodule", "x": [10.0, 30.5, -4.0], "y": [20.0, 1.25, 9.0]})
    return replace(made, masks=mask_frame(reversed(drawn)), points=point_frame(points))


def test_masks_are_stored_as_drawn_and_placed_in_the_stored_image(index: Index, tmp_path: Path) -> None:
    for fit in ("pad", "crop", "squash"):
        found = imported(index, tmp_path / fit, fit=fit)
        masks = found.masks
        assert not len(found.index.masks) and len(masks) == COUNT + 2 and "file" not in masks
        for place, (row, structure, reader) in enumerate(
            zip(masks["row"], masks["structure"], masks["reader"], strict=True)
        ):
            high = 48 + row % 5
            scale = 1 if structure == "Heart" else 2
            expected = drawing(row, 48 * scale, high * scale) * (reader != "乙")
            assert np.array_equal(mask_of(masks, place).full(), expected)
            if expected.any():
                stored = image_file.fit(drawing(row, 48 * scale, high * scale) * np.uint8(255), 32, fit)[0] >= 128
                box = masks.loc[place, ["x", "y", "width", "height"]].to_numpy(np.float64)
                moved = warp_mask(mask_of(masks, place).pixels(), box, np.eye(2, 3), (32, 32)).astype(bool)
                assert (moved & stored).sum() / (moved | stored).sum() > 0.93


def test_points_move_as_boxes_do_and_those_outside_are_counted(index: Index, tmp_path: Path) -> None:
    found = imported(index, tmp_path / "out")
    assert found.points[["row", "number"]].to_numpy().tolist() == [[0, 0], [0, 1]]
    assert np.allclose(found.points[["x", "y"]], np.array([[10, 20], [30.5, 1.25]]) * 32 / 48)
    assert found.facts.notes["point outside the square image, dropped"] == 1


def test_parts_linked_folders_and_an_interrupted_import_have_the_same_masks(index: Index, tmp_path: Path) -> None:
    single = imported(index, tmp_path / "single")
    assert merged(in_parts(index, tmp_path / "parts", 3)) == digest(tmp_path / "single")
    with writer.Writer(index, facts(index.root), tmp_path / "twice") as work:
        next(work.run())
    assert imported(index, tmp_path / "twice").facts == single.facts
    assert digest(tmp_path / "twice") == digest(tmp_path / "single")
    writer.link(index, facts(index.root), tmp_path / "linked")
    linked = dataset_folder.open(tmp_path / "linked")
    pd.testing.assert_frame_equal(linked.masks, single.masks)
    pd.testing.assert_frame_equal(linked.points, single.points)


def test_an_import_resumes_before_an_image_whose_mask_has_changed(index: Index, tmp_path: Path) -> None:
    with writer.Writer(index, facts(index.root), tmp_path / "out") as work:
        next(work.run())
    (index.root / "heart 3.png").unlink()
    with writer.Writer(index, facts(index.root), tmp_path / "out") as work:
        assert work.done == 0


@pytest.mark.parametrize("kind", ["missing", "no image", "other shape", "run lengths of another shape"])
def test_an_image_whose_mask_does_not_fit_is_rejected_with_the_reason(index: Index, tmp_path: Path, kind: str) -> None:
    heart = index.root / "heart 3.png"
    if kind == "missing":
        heart.unlink()
    elif kind == "no image":
        heart.write_bytes(b"no image")
    elif kind == "other shape":
        cv2.imencode(".png", np.eye(48, 30, dtype=np.uint8))[1].tofile(heart)
    else:
        index = replace(index, masks=mask_frame([DrawnMask(3, "Heart", Mask(51, 48))]))
    found = imported(index, tmp_path / "out")
    lines = (tmp_path / "out" / "rejected.csv").read_text(encoding="utf-8").splitlines()
    assert found.facts.rejected == 1 and len(lines) == 2 and lines[1].startswith("0003.png")
    assert len(found.masks) == (0 if kind.startswith("run") else COUNT - 1)
    assert kind not in ("other shape",) or ("30 x 48" in lines[1] and "heart 3.png" in lines[1])


def test_take_keeps_masks_and_points_with_their_images(index: Index) -> None:
    taken = index.take([3, 0])
    assert taken.masks["row"].tolist() == [0, 0, 0, 1, 1, 1] and taken.points["row"].tolist() == [1, 1]
    assert taken.masks["file"].tolist().count("heart 3.png") == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda masks: masks.assign(row=masks["row"] + COUNT),
        lambda masks: masks.iloc[::-1].reset_index(drop=True),
        lambda masks: masks.assign(structure=""),
        lambda masks: masks.assign(structure="a\nb"),
        lambda masks: masks.assign(reader="x" * 201),
        lambda masks: masks.assign(x=np.nan),
        lambda masks: masks.assign(width=-1.0),
        lambda masks: masks.drop(columns="lines"),
    ],
)
def test_impossible_masks_are_refused(index: Index, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    with pytest.raises(ValueError, match=r"'made'"):
        replace(index, masks=change(index.masks))


@pytest.mark.parametrize(
    "change", [{"row": [0, 99, 2]}, {"x": [np.inf, 0, 0]}, {"structure": ["", "a", "b"]}, {"row": [2, 0, 0]}]
)
def test_impossible_points_are_refused(index: Index, change: dict[str, list]) -> None:
    with pytest.raises(ValueError, match=r"'made'"):
        replace(index, points=index.points.assign(**change))


def rewritten(file: Path, name: str, values: list | None) -> None:
    """Replace a column, or drop it."""
    table = pq.read_table(file)
    place = table.column_names.index(name)
    pq.write_table(
        table.remove_column(place) if values is None else table.set_column(place, name, pa.array(values)), file
    )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("runs", None),
        ("runs", ["x"]),
        ("runs", [None]),
        ("runs", [b"\xff\xff" * 9]),
        ("row", [5]),
        ("columns", [2**31 - 1]),
        ("x", ["a"]),
        ("structure", [None]),
    ],
)
def test_damaged_tables_are_one_line(tmp_path: Path, name: str, values: list | None) -> None:
    masks, points = tmp_path / MASKS_FILE, tmp_path / POINTS_FILE
    save_masks(mask_frame([DrawnMask(0, "Heart", Mask.of_pixels(drawing(0)))]), masks)
    save_points(point_frame(pd.DataFrame({"row": [0], "structure": "Nodule", "x": [1.0], "y": [2.0]})), points)
    assert len(load_masks(masks, 1)) == len(load_points(points, 1)) == 1
    rewritten(masks, name, values)
    readers = [(load_masks, masks)]
    if name in ("row", "x", "structure"):
        rewritten(points, name, values)
        readers.append((load_points, points))
    for load, file in readers:
        with pytest.raises(ValueError) as error:
            load(file, 1)
        assert "\n" not in str(error.value) and str(file) in str(error.value)


def test_a_folder_notices_another_table_of_masks(index: Index, tmp_path: Path) -> None:
    imported(index, tmp_path / "out")
    save_masks(mask_frame([DrawnMask(0, "Heart", Mask(48, 48))]), tmp_path / "out" / MASKS_FILE)
    opened = dataset_folder.open(tmp_path / "out")
    with pytest.raises(ValueError, match=r"masks\.parquet"):
        _ = opened.masks
