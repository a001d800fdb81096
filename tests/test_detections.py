"""Detections keep their coordinates in tables, views, stored images and files of any shape."""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from ribcage import cli
from ribcage.bundle.spec import DETECTION_RULE, ModelSpec
from ribcage.data import dataset_folder
from ribcage.data.collection import Datasets
from ribcage.data.dataset_facts import Fit
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.label_policy import Policy
from ribcage.data.loader import Loader
from ribcage.evaluation.detector_validation import DetectorValidation, best_f1_threshold
from ribcage.imaging import augment, image_file
from ribcage.inference import detections
from ribcage.methods.detect import Found
from ribcage.metrics.boxes import BoxTable

FITS: tuple[Fit, ...] = ("pad", "crop", "squash")
FILES = [(301, 517), (640, 411), (256, 256), (97, 90)]
"""(width, height)"""
VIEWS = [(64, 64), (96, 64), (61, 83), (300, 300)]


def shares(boxes: np.ndarray) -> np.ndarray:
    """x, y, width, height of corners."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


# ---- from one image to another


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("view", VIEWS)
def test_a_box_seen_in_a_view_is_where_it_is_in_the_file(
    fit: Fit, file: tuple[int, int], view: tuple[int, int]
) -> None:
    """A white block is drawn into the file, found again by its pixels in the view, and laid back."""
    (width, height), side = file, 128
    true = np.array([[0.41 * width, 0.37 * height, 0.63 * width, 0.66 * height]]).round()
    pixels = np.full((height, width), 20, np.uint8)
    x0, y0, x1, y1 = true[0].astype(int)
    pixels[y0:y1, x0:x1] = 220
    square, _ = image_file.fit(pixels, side, fit)
    numbers = augment.draw_numbers(augment.plain_view(view), 0, 0, np.zeros(1, np.int64), 0, side)
    seen = augment.apply([square], numbers, 0.0, 1.0)[0, 0].numpy() > 120 / 255
    down, across = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    found = np.array([[across[0], down[0], across[-1] + 1, down[-1] + 1]], np.float64)
    back = detections.original(detections.to_stored_pixels(found, view, side), file, side, fit)
    affine = image_file.fit_matrix(width, height, side, fit)
    pixel = numbers.affine[0].diagonal() / affine.diagonal()  # of the view, measured in the file
    assert (np.abs(back - true) <= np.tile(1.01 * np.maximum(pixel, 1 / affine.diagonal()), 2)).all()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("file", FILES)
def test_a_stored_box_goes_back_exactly(fit: Fit, file: tuple[int, int]) -> None:
    true = np.array([[0.4, 0.4, 0.55, 0.6], [0.3, 0.45, 0.6, 0.5]]) * [*file, *file]
    put = detections.transformed_boxes(true, image_file.fit_matrix(*file, 100, fit))
    np.testing.assert_allclose(detections.original(put, file, 100, fit), true, rtol=1e-12)


@pytest.mark.parametrize("view", VIEWS)
def test_a_plain_view_is_undone_as_boxes_are_moved_into_it(view: tuple[int, int]) -> None:
    true = np.array([[0, 0, 40.0, 50.0, 70.0, 66.0], [0, 1, 60.0, 44.0, 61.0, 80.0]])
    numbers = augment.draw_numbers(augment.plain_view(view), 0, 0, np.zeros(1, np.int64), 0, 120)
    seen = augment.move_boxes(true, numbers)
    np.testing.assert_allclose(detections.to_stored_pixels(seen[:, 2:], view, 120), true[:, 2:], rtol=1e-5)


def test_what_lies_in_the_black_border_becomes_empty() -> None:
    """An image twice as high as wide, stored in 100 pixels: 25 of them are black on either side."""
    boxes = np.array([[0.0, 10, 20, 30], [10, 10, 50, 30], [60, -5, 90, 101]])
    back = detections.original(boxes, (200, 400), 100, "pad")
    np.testing.assert_allclose(back, [[0, 40, 0, 120], [0, 40, 100, 120], [140, 0, 200, 400]])


# ---- the table


ABOUT = pd.DataFrame({"set": "x", "row": [0, 1, 2], "path": ["ä.png", "b.png", "c.png"], "patient": ["p", "q", ""]})
FOUND = np.array(
    [[2, 1, 0.2, 1, 2, 3, 5], [0, 0, 0.5, 0, 0, 4, 4], [2, 0, 0.9, 5, 5, 7, 6], [2, 1, 0.4, 1, 1, 2, 2]], np.float64
)


def test_the_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = detections.detections_from(("Mass", "肺不张"), ABOUT, FOUND)
    assert made.boxes["image"].tolist() == [0, 2, 2, 2] and made.boxes["score"].is_monotonic_decreasing is False
    assert made.boxes["finding"].tolist() == ["Mass", "Mass", "肺不张", "肺不张"]
    made.save(tmp_path / "boxes.parquet")
    again = detections.read_detections(tmp_path / "boxes.parquet")
    assert again.findings == made.findings
    pd.testing.assert_frame_equal(again.boxes, made.boxes)
    pd.testing.assert_frame_equal(again.images, made.images)
    marks = again.box_table("肺不张")
    assert marks.images.tolist() == [2, 2] and marks.boxes.tolist() == [[1, 1, 2, 2], [1, 2, 3, 5]]
    np.testing.assert_allclose(marks.scores, [0.4, 0.2], rtol=1e-6)
    assert len(again.above({"Mass": 0.6, "肺不张": 0.3}).boxes) == 2


def test_a_table_without_any_box_is_one_too(tmp_path: Path) -> None:
    made = detections.detections_from(("Mass",), ABOUT, np.empty((0, 7)))
    made.save(tmp_path / "boxes.parquet")
    again = detections.read_detections(tmp_path / "boxes.parquet")
    assert len(again.images) == 3 and not len(again.boxes) and not len(again.box_table("Mass"))
    pd.testing.assert_frame_equal(again.boxes, made.boxes)


def test_another_file_is_no_table_of_detections(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no")
    ABOUT.to_parquet(tmp_path / "other")
    for name in ("text", "other"):
        with pytest.raises(ValueError, match=name):
            detections.read_detections(tmp_path / name)


# ---- a finder and what was drawn


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Datasets:
    """Two folders of one hospital's files: a white block in every third image, drawn; some labelled only."""
    folder = tmp_path_factory.mktemp("boxes")
    rows = []
    for number in range(9):
        pixels = np.full((60, 90 + 10 * (number % 2)), 10, np.uint8)
        if number % 3 == 0:
            pixels[20:40, 30 + number : 60 + number] = 250
        cv2.imwrite(str(folder / f"{number}.png"), pixels)
        rows.append(f"{number}.png,P{number},{('', '1', '0', '-1')[number % 4]},{'train' if number < 6 else 'val'}")
    (folder / "list.csv").write_text("\n".join(["path,patient,Mass,split", *rows]))
    made = []
    for name, side in (("one", 45), ("two", 90)):
        words = ["import", "folder", str(folder), "--out", str(folder / name), "--size", str(side), "--name", name]
        assert cli.main(words) == 0
        made.append(boxed(dataset_folder.open(folder / name)))
    return Datasets.of(made)


def boxed(opened: DatasetFolder) -> DatasetFolder:
    """With the boxes that no CSV of this kind brings."""
    from dataclasses import replace

    from ribcage.data.index import box_frame

    places = np.flatnonzero(opened.index.table["path"].str[0].astype(int) % 3 == 0)
    rows = []
    for place in places.tolist():
        number, size = (opened.index.table[name].iloc[place] for name in ("path", "width"))
        first = 30 + int(number[0])
        corners = np.array([[first, 20, first + 30, 40]], np.float64)
        [[x0, y0, x1, y1]] = detections.transformed_boxes(corners, image_file.fit_matrix(size, 60, opened.size, "pad"))
        rows.append((place, "Mass", x0, y0, x1 - x0, y1 - y0))
    drawn = box_frame(pd.DataFrame(rows, columns=["row", "finding", "x", "y", "width", "height"]))
    return replace(opened, index=replace(opened.index, boxes=drawn))


@dataclass
class Bright:
    """Finds what is bright, and a corner that is not."""

    training: bool = True
    asked: list[int] = field(default_factory=list)

    def train(self, mode: bool = True) -> "Bright":
        self.training = mode
        return self

    def found(self, images: Tensor) -> list[Found]:
        assert not self.training
        self.asked.append(len(images))
        return [self._of(image[0] > 0.5) for image in images]

    def _of(self, white: Tensor) -> Found:
        boxes, scores = [[0.0, 0.0, 3.0, 3.0]], [0.1]
        if white.any():
            y, x = (white.any(1 - axis).nonzero() for axis in (0, 1))
            boxes.insert(0, [float(x[0]), float(y[0]), float(x[-1]) + 1, float(y[-1]) + 1])
            scores.insert(0, 0.8)
        return Found(torch.tensor(boxes), torch.zeros(len(boxes), dtype=torch.int64), torch.tensor(scores))


MODEL = ModelSpec("test_resnet", ("Mass",), (45, 45), 45, "pad", 0.0, 1.0)


def test_a_finder_is_asked_about_every_row_and_its_boxes_lie_where_things_are(datasets: Datasets) -> None:
    rows = np.array([14, 0, 3, 4, 9, 17])
    finder = Bright()
    said = detections.detect(finder, datasets, rows, model=MODEL, batch=4, threads=1)
    assert finder.training and finder.asked == [4, 2]
    assert said.images["row"].tolist() == [0, 3, 4, 0, 5, 8]
    assert said.images["set"].tolist() == ["one"] * 3 + ["two"] * 3
    assert {"file_width", "file_height"} <= set(said.images)
    best = said.above({"Mass": 0.5}).box_table("Mass")
    true = detections.truth(datasets, np.unique(rows), "Mass")
    assert best.images.tolist() == true.images.tolist() and len(true) >= 3
    np.testing.assert_allclose(best.boxes, true.boxes, atol=2.1)  # a pixel of the view is two of the second set's
    assert len(said.boxes) == len(rows) + len(true)


def test_where_a_finding_is_known_to_be_and_where_not(datasets: Datasets) -> None:
    """Labels of the nine are: blank, 1, 0, -1, blank …; 0, 3 and 6 are drawn."""
    rows = np.arange(9)
    order = [int(path[0]) for path in datasets[0].index.table["path"]]
    known = dict(zip(order, detections.drawn(datasets, rows, ("Mass",))[:, 0].tolist(), strict=True))
    assert {number for number, is_so in known.items() if is_so} == {0, 3, 6, 2}
    policy = Policy.parse("zeros,blank=zeros", ["Mass"])
    known = dict(zip(order, detections.drawn(datasets, rows, ("Mass",), policy)[:, 0].tolist(), strict=True))
    assert {number for number, is_so in known.items() if not is_so} == {1, 5}


def test_true_boxes_are_those_the_loader_gives(datasets: Datasets) -> None:
    rows = np.arange(sum(map(len, datasets)))
    loader = Loader(
        datasets, [augment.plain_view(45)], batch=5, rows=rows, findings=("Mass",), shuffle=False, threads=1
    )
    given = [(batch.rows[each[:, 0].long()], each[:, 2:]) for batch in loader.epoch(0) for each in batch.boxes]
    true = detections.truth(datasets, rows, "Mass")
    np.testing.assert_array_equal(np.concatenate([place for place, _ in given]), true.images)
    sides = np.array([45 / datasets[int(place >= 9)].size for place in true.images])
    np.testing.assert_allclose(np.concatenate([boxes for _, boxes in given]), true.boxes * sides[:, None], rtol=1e-5)


# ---- what chooses


def judge(datasets: Datasets, finder: Bright, rows: np.ndarray) -> DetectorValidation:
    return DetectorValidation(lambda: finder, datasets, rows, MODEL, device=torch.device("cpu"), batch=4, threads=1)


def test_validation_minds_only_images_whose_boxes_are_known(datasets: Datasets) -> None:
    """The corner is found in every image: among the four that are known to be with or without a box it is wrong."""
    chooses = judge(datasets, Bright(), np.arange(9))
    found = chooses()
    assert found["ap50"] == 1.0 and found["map"] == found["map_Mass"] > 0.9  # half a pixel is lost at the edges
    assert len(chooses.box_table("Mass")) == 4 + 3
    model = chooses.chosen_spec()
    assert model.thresholds[DETECTION_RULE] == (pytest.approx(0.8),) and model.metrics["validation"] == found


def test_a_finding_that_is_drawn_nowhere_is_not_judged(datasets: Datasets) -> None:
    rows = np.flatnonzero(datasets[0].index.table["path"].isin(["1.png", "2.png"]))
    assert judge(datasets, Bright(), rows).judged == ()


def test_the_shown_score_is_the_one_of_the_best_f1() -> None:
    """Down the scores: right, wrong, right – F1 2/3, 1/2, 4/5 of two true boxes."""
    true = BoxTable.ground_truth(np.array([0, 1]), np.array([[0, 0, 10, 10], [0, 0, 10, 10.0]]))
    places, box, far = np.array([0, 0, 1]), [0, 0, 10, 10.0], [50, 50, 60, 60.0]
    found = BoxTable(places, np.array([box, far, box]), np.array([0.9, 0.5, 0.3]))
    assert best_f1_threshold(found, true, 2) == 0.3
    assert best_f1_threshold(found.select(np.array([0, 1])), true, 2) == 0.9
    tied = BoxTable(places, np.array([box, far, far]), np.array([0.5, 0.5, 0.5]))
    assert best_f1_threshold(tied, true, 2) == 0.5
    assert best_f1_threshold(found.select(np.array([1])), true, 2) is None
    assert best_f1_threshold(BoxTable.none(), true, 2) is None
