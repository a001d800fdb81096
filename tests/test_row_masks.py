"""Masks and points of a batch: they stay on the structures in every view, and what was not annotated is not empty."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from dataset_folders import make_store
from test_setup import options

from ribcage.data.batch import Batch
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.loader import Loader
from ribcage.data.masks import DrawnMask, mask_frame, placed_masks
from ribcage.data.points import point_frame
from ribcage.data.row_masks import NOT_ANNOTATED
from ribcage.imaging.augment import View, plain_view
from ribcage.imaging.mask import Mask
from ribcage.methods import Method, Step
from ribcage.models.backbone import Backbone
from ribcage.training import setup
from ribcage.training.micro_batches import micro_batches

SIDE = 64
RANDOM = View(
    (56, 72), crop=(0.3, 1.0), ratio=(0.7, 1.3), flip=0.5, rotation=25.0, shift=0.1, zoom=(0.8, 1.2), brightness=0.0
)


def ellipse(row: int, centre: int, side: int = SIDE) -> np.ndarray:
    """A tilted ellipse, drawn with this resolution."""
    y, x = (np.mgrid[:side, :side] + 0.5) * SIDE / side
    x, y, turn = x - centre, y - 28 - row % 7, np.radians(5 * row)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return ((along / 9) ** 2 + (across / 15) ** 2 <= 1).astype(np.uint8)


def with_masks(folder: DatasetFolder, drawn: Sequence[DrawnMask], points: pd.DataFrame | None = None) -> DatasetFolder:
    """The dataset folder with masks that cover its whole images, at any resolution."""
    frame = mask_frame(drawn)
    scale = SIDE / frame["source_width"].to_numpy()
    matrices = scale[:, None, None] * np.eye(2, 3)
    found = replace(folder)
    sizes = frame[["source_width", "source_height"]].to_numpy(np.float64)
    found.__dict__["masks"] = placed_masks(frame, matrices, sizes)
    found.__dict__["points"] = point_frame(points) if points is not None else folder.points
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    return make_store(tmp_path_factory.mktemp("masks"), count=24, size=SIDE)


@pytest.fixture(scope="module")
def painted(store: DatasetFolder, tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    """White lungs on black images, and their masks."""
    made = make_store(tmp_path_factory.mktemp("painted"), count=24, size=SIDE)
    images = np.stack([255 * (ellipse(row, 44) | ellipse(row, 20)) for row in range(24)])
    drawn = [
        DrawnMask(row, name, Mask.of_pixels(ellipse(row, centre)))
        for row in range(24)
        for name, centre in (("Left_Lung", 44), ("Right_Lung", 20))
    ]
    np.save(made.folder / "images.npy", images)
    return with_masks(replace(made, images=type(made.images)(images)), drawn)


def batch_of(data: DatasetFolder, structures: Sequence[str], view: View = plain_view(SIDE), **options: object) -> Batch:  # noqa: B008
    views = [view]
    return next(Loader([data], views, batch=len(data), shuffle=False, structures=structures, **options).epoch(3))  # type: ignore[arg-type]


def levels(batch: Batch) -> np.ndarray:
    """(N, H, W) gray levels of the stored images, 0 … 255."""
    return (batch.views[0][:, 0] * 255).numpy()


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def test_masks_stay_on_the_image_through_random_views(painted: DatasetFolder) -> None:
    batch = batch_of(painted, ["Left_Lung", "Right_Lung"], RANDOM, normalise=(0.0, 1.0))
    masks, shown = batch.masks[0].numpy(), levels(batch)
    assert masks.shape == (24, 2, 56, 72) and masks.dtype == np.uint8 and (masks <= 1).all()
    assert iou((masks == 1).any(axis=1), shown >= 127.5) > 0.995


def test_in_a_mirrored_view_left_and_right_are_exchanged(painted: DatasetFolder) -> None:
    names = ["Left_Lung", "Right_Lung"]
    plain, mirrored = (batch_of(painted, names, View(SIDE, flip=flip)).masks[0] for flip in (0.0, 1.0))
    assert torch.equal(mirrored, plain.flip(3).flip(1)) and not torch.equal(plain[:, 0], plain[:, 1])
    assert torch.equal(batch_of(painted, names[:1], View(SIDE, flip=1.0)).masks[0], mirrored[:, :1])


def test_a_whole_shift_moves_every_pixel_of_the_mask(painted: DatasetFolder) -> None:
    window = View(32, crop=(0.25, 0.25), place=(0.25, 0.5))  # 32 of 64 pixels, from (8, 16)
    masks = batch_of(painted, ["Left_Lung"], window).masks[0].numpy()
    assert np.array_equal(masks[:, 0], np.stack([ellipse(row, 44)[16:48, 8:40] for row in range(24)]))


@pytest.mark.parametrize("side", [32, 64, 200, 512])
def test_masks_of_any_resolution_cover_the_same_place(store: DatasetFolder, side: int) -> None:
    data = with_masks(store, [DrawnMask(row, "Heart", Mask.of_pixels(ellipse(row, 30, side))) for row in range(24)])
    masks = batch_of(data, ["Heart"], plain_view(64)).masks[0].numpy()
    expected = np.stack([ellipse(row, 30) for row in range(24)])
    assert iou(masks[:, 0] == 1, expected == 1) > {32: 0.9, 64: 0.9999}.get(side, 0.97)


def test_what_was_not_annotated_is_not_empty(store: DatasetFolder) -> None:
    drawn = [DrawnMask(0, "Pneumothorax", Mask(100, 100)), DrawnMask(1, "Pneumothorax", Mask.of_pixels(ellipse(1, 30)))]
    drawn.append(DrawnMask(5, "Heart", Mask(100, 100)))
    masks = batch_of(with_masks(store, drawn), ["Pneumothorax", "Heart"]).masks[0].numpy()
    assert (masks[0, 0] == 0).all() and set(np.unique(masks[1, 0])) == {0, 1}
    assert (masks[2:, 0] == NOT_ANNOTATED).all() and (np.delete(masks[:, 1], 5, axis=0) == NOT_ANNOTATED).all()
    hidden = batch_of(with_masks(store, drawn), ["Pneumothorax"], labelled=np.arange(1, 24)).masks[0].numpy()
    assert (hidden[0] == NOT_ANNOTATED).all() and np.array_equal(hidden[1], masks[1, :1])


def test_a_structure_that_no_image_has_is_refused(painted: DatasetFolder) -> None:
    with pytest.raises(ValueError, match=r"Left_Lnug.*'Left_Lung'.*Left_Lung, Right_Lung"):
        batch_of(painted, ["Lungs", "Left_Lnug"])


def test_both_lungs_are_known_where_each_is(painted: DatasetFolder, store: DatasetFolder) -> None:
    both, parts = batch_of(painted, ["Lungs"]).masks[0], batch_of(painted, ["Left_Lung", "Right_Lung"]).masks[0]
    assert torch.equal(both[:, 0], parts[:, 0] | parts[:, 1])
    alone = with_masks(store, [DrawnMask(0, "Left_Lung", Mask(64, 64)), DrawnMask(1, "Lungs", Mask(64, 64))])
    masks = batch_of(alone, ["Lungs"]).masks[0][:, 0, 0, 0].tolist()
    assert masks[:2] == [NOT_ANNOTATED, 0]


def test_masks_of_several_readers_follow_the_label_policy(store: DatasetFolder) -> None:
    shapes = {"a": [ellipse(0, 20), ellipse(0, 44)], "b": [ellipse(0, 20)], "c": [ellipse(0, 32)]}
    drawn = [DrawnMask(0, "Mass", Mask.of_pixels(one), reader) for reader, each in shapes.items() for one in each]
    data = with_masks(store, drawn)
    votes = np.sum([np.maximum.reduce(each) for each in shapes.values()], axis=0)
    readers = {policy: batch_of(data, ["Mass"], policy=f"ignore,readers={policy}").masks[0][0, 0].numpy()
               for policy in ("majority", "any", "each")}  # fmt: skip
    assert np.array_equal(readers["majority"], votes >= 2) and np.array_equal(readers["any"], votes >= 1)
    assert any(np.array_equal(readers["each"], np.maximum.reduce(each)) for each in shapes.values())
    loader = Loader(
        [data], [plain_view(SIDE)], rows=np.zeros(1, int), structures=["Mass"], policy="ignore,readers=each"
    )
    assert len({next(loader.epoch(epoch)).masks[0].numpy().tobytes() for epoch in range(12)}) == 3


def test_points_stay_on_the_image_and_leave_the_batch_with_it(store: DatasetFolder) -> None:
    points = pd.DataFrame({"row": [0, 0, 5], "structure": ["Left_Lung", "Right_Lung", "Nodule"],
                           "x": [40.0, 8.0, 20.5], "y": [30.0, 31.0, 1.0]})  # fmt: skip
    data = with_masks(store, [], points)
    names = ["Left_Lung", "Nodule", "Right_Lung"]
    assert batch_of(data, names).points[0].tolist() == [[0, 0, 0, 40, 30], [0, 2, 0, 8, 31], [5, 1, 0, 20.5, 1]]
    mirrored = batch_of(data, names, View(SIDE, flip=1.0)).points[0].tolist()
    assert mirrored == [[0, 2, 0, 24, 30], [0, 0, 0, 56, 31], [5, 1, 0, 43.5, 1]]
    window = batch_of(data, ["Left_Lung"], View(32, crop=(0.25, 0.25), place=(0.25, 0.5)))
    assert window.points[0].tolist() == [[0, 0, 0, 32, 14]]


def test_a_batch_has_no_masks_unless_structures_are_requested(painted: DatasetFolder) -> None:
    batch = batch_of(painted, [])
    assert batch.masks == [] and batch.points == []


def test_masks_do_not_depend_on_threads_and_follow_their_images_into_micro_batches(painted: DatasetFolder) -> None:
    names = ["Left_Lung", "Right_Lung"]
    one, several = (batch_of(painted, names, RANDOM, threads=threads) for threads in (1, 3))
    assert torch.equal(one.masks[0], several.masks[0]) and torch.equal(one.views[0], several.views[0])
    parts = list(micro_batches(one, 3))
    assert torch.equal(torch.cat([part.masks[0] for part in parts]), one.masks[0])


def test_masks_are_equal_where_the_images_are_not_made_on_the_cpu(painted: DatasetFolder) -> None:
    class Maps:
        def take(self, rows: np.ndarray, flipped: np.ndarray) -> list[torch.Tensor]:
            return []

    batches = []
    for cached in (None, Maps()):
        loader = Loader([painted], [RANDOM, plain_view(32)], batch=24, structures=["Left_Lung"])
        loader.cached = cached
        batches.append(next(loader.epoch(1)))
    assert all(torch.equal(*pair) for pair in zip(*(batch.masks for batch in batches), strict=True))


def test_a_method_requests_the_masks_that_it_needs(painted: DatasetFolder) -> None:
    class Outlines(Method):
        structures = ("Right_Lung", "Lungs")

        def forward(self, batch: Batch) -> Step:
            shapes.append((*batch.masks[0].shape[1:], int((batch.masks[0] == NOT_ANNOTATED).any())))
            return Step(self.backbone(batch.views[0]).mean())

    shapes: list[tuple[int, ...]] = []
    asked = options(size=(32,), batch=8, epochs=1, optimizer="sgd", lr=0.1, min_lr=0.0, weight_decay=0.0, warmup=0.0)
    loader = Loader([painted], [plain_view(32)], batch=8)
    trainer = setup.build_trainer(asked, Outlines(Backbone("test_resnet", size=(32, 32))), loader, torch.device("cpu"))
    next(iter(trainer.fit()))
    assert shapes[0] == (2, 32, 32, 0)
