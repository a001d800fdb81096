import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from ribcage.imaging import augment
from ribcage.imaging.augment import (
    View,
    apply,
    apply_torch,
    draw_numbers,
    gentle_view,
    move_boxes,
    plain_view,
    strong_view,
    ten_crops,
)
from ribcage.imaging.augment.numbers import noise_bank

MEAN, STD = 0.401, 0.25  # no gray level of 255 is exactly the mean
EVERYTHING = View(
    40, crop=(0.3, 1.0), ratio=(0.7, 1.4), flip=0.5, rotation=25, shift=0.1, zoom=(0.8, 1.2), brightness=0.2, contrast=0.3,
    gamma=0.5, blur_probability=0.7, noise=0.05, erase_probability=0.5,
)  # fmt: skip
GEOMETRY = replace(EVERYTHING, brightness=0, contrast=0, gamma=0, blur_probability=0, noise=0, erase_probability=0)


def smooth(count: int, side: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    """Images as smooth as radiographs are."""
    coarse = np.random.default_rng(seed).uniform(0, np.iinfo(dtype).max, (count, 8, 8)).astype(np.float32)
    return np.stack([cv2.resize(each, (side, side)) for each in coarse]).astype(dtype)


def rows(count: int) -> np.ndarray:
    return np.arange(count) * 1000 + 7


def gray(batch: torch.Tensor) -> np.ndarray:
    """Normalised → 0 … 255."""
    return (batch[:, 0].numpy() * STD + MEAN) * 255


def sampled(image: np.ndarray, affine: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What the convention says, pixel by pixel: centres at a half, bilinear, black outside."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    px, py = (affine[k, 0] * x + affine[k, 1] * y + affine[k, 2] - 0.5 for k in (0, 1))
    left, top = np.floor(px).astype(int), np.floor(py).astype(int)
    total = np.zeros(size)
    for down, across in np.ndindex(2, 2):
        r, c = top + down, left + across
        inside = (r >= 0) & (r < len(image)) & (c >= 0) & (c < len(image))
        weight = (1 - np.abs(py - r)) * (1 - np.abs(px - c))
        total += np.where(inside, weight * image[r.clip(0, len(image) - 1), c.clip(0, len(image) - 1)], 0)
    return total


def test_a_plain_view_of_the_same_size_changes_nothing() -> None:
    images = smooth(3, 32)
    batch = apply(images, draw_numbers(plain_view(32), 0, 0, rows(3), 0, 32), MEAN, STD)
    assert batch.shape == (3, 1, 32, 32) and batch.dtype == torch.float32
    np.testing.assert_allclose(gray(batch), images, atol=1e-4)


def test_pixels_lie_where_the_affine_matrix_puts_them() -> None:
    images = smooth(16, 48)
    numbers = draw_numbers(GEOMETRY, 1, 2, rows(16), 0, 48)
    expected = np.stack(
        [sampled(image, affine, (40, 40)) for image, affine in zip(images, numbers.affine, strict=True)]
    )
    exact = tuple(map(int, cv2.__version__.split(".")[:1])) >= (5,)
    np.testing.assert_allclose(gray(apply(images, numbers, MEAN, STD)), expected, atol=0.01 if exact else 1.0)


@pytest.mark.parametrize("side", [40, 48, 131, 256])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_opencv_and_torch_agree_within_a_gray_level(side: int, dtype: type) -> None:
    images = smooth(12, side, dtype)
    for view in (
        plain_view((40, 32)),
        GEOMETRY,
        replace(GEOMETRY, blur_probability=1.0, noise=0.05, erase_probability=0.7),
    ):
        numbers = draw_numbers(view, 3, 1, rows(12), 0, side)
        left = gray(apply(images, numbers, MEAN, STD))
        right = gray(apply_torch(torch.from_numpy(images), numbers, MEAN, STD))
        assert np.abs(left - right).max() < 1.01
        assert np.abs(left - right).mean() < 0.25  # where OpenCV shrinks, it rounds to whole levels


@pytest.mark.parametrize("view", [gentle_view(40), strong_view(40), EVERYTHING])
def test_opencv_and_torch_agree_on_average_after_every_change(view: View) -> None:
    images = smooth(24, 64)
    numbers = draw_numbers(view, 0, 0, rows(24), 0, 64)
    difference = apply(images, numbers, MEAN, STD) - apply_torch(torch.from_numpy(images), numbers, MEAN, STD)
    assert difference.isfinite().all()
    assert difference.abs().mean() * STD * 255 < 0.1


@pytest.mark.parametrize("side", [100, 256, 301])
def test_fine_stripes_become_gray_and_not_coarse_stripes(side: int) -> None:
    image = np.zeros((1, side, side), np.uint8)
    image[:, :, ::2] = 255
    numbers = draw_numbers(plain_view(32), 0, 0, rows(1), 0, side)
    for batch in (
        apply(image, numbers, MEAN, STD),
        apply_torch(torch.from_numpy(image), numbers, MEAN, STD),
    ):
        assert np.ptp(gray(batch)[0, 1:-1, 1:-1]) < 90  # it was 255; point sampling leaves all of it
        assert abs(gray(batch).mean() - 127.5) < 8


def test_shrinking_by_a_whole_factor_is_the_mean_of_blocks() -> None:
    image = smooth(1, 96)
    batch = apply(image, draw_numbers(plain_view(32), 0, 0, rows(1), 0, 96), MEAN, STD)
    np.testing.assert_allclose(gray(batch)[0], image[0].reshape(32, 3, 32, 3).mean((1, 3)), atol=0.51)


def test_ten_crops_are_the_corners_the_centre_and_their_mirrors() -> None:
    image = smooth(1, 64)
    crops = [gray(apply(image, draw_numbers(view, 0, 0, rows(1), 0, 64), MEAN, STD))[0] for view in ten_crops(56)]
    corners = [(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)]
    for crop, mirror, (y, x) in zip(crops[:5], crops[5:], corners, strict=True):
        np.testing.assert_allclose(crop, image[0, y : y + 56, x : x + 56], atol=1e-4)
        np.testing.assert_allclose(mirror, crop[:, ::-1], atol=1e-3)


def test_a_plain_view_of_another_shape_keeps_proportions() -> None:
    numbers = draw_numbers(plain_view((20, 40)), 0, 0, rows(1), 0, 80)
    np.testing.assert_allclose(numbers.affine[0], [[2, 0, 0], [0, 2, 20]])


def test_a_row_draws_the_same_alone_and_in_company() -> None:
    together = draw_numbers(EVERYTHING, 5, 6, rows(9), 1, 64)
    alone = draw_numbers(EVERYTHING, 5, 6, rows(9)[4:5], 1, 64)
    part = together.take(slice(4, 5))
    for name in ("affine", "gamma", "contrast", "brightness", "sigma", "noise", "noise_at", "erase"):
        assert np.array_equal(getattr(alone, name), getattr(part, name)), name
    images = smooth(9, 64)
    assert torch.equal(apply(images[4:5], alone, MEAN, STD)[0], apply(images, together, MEAN, STD)[4])


def test_windows_stay_in_the_image_and_have_the_asked_area_and_ratio() -> None:
    view = View((40, 40), crop=(0.3, 0.9), ratio=(0.5, 2.0))
    affine = draw_numbers(view, 0, 0, rows(2000), 0, 100).affine
    across, down = affine[:, 0, 0] * 40, affine[:, 1, 1] * 40
    area = across * down / 100**2
    assert area.min() >= 0.3 - 1e-6 and area.max() <= 0.9 + 1e-6
    assert area.min() < 0.31 and area.max() > 0.89
    assert (across / down).min() < 0.6 and (across / down).max() > 1.7
    corner = affine[:, :, 2]
    assert corner.min() >= -1e-6 and (corner + np.stack([across, down], 1)).max() <= 100 + 1e-6


def test_left_and_right_are_exchanged_only_when_asked() -> None:
    for view, share in ((gentle_view(), 0.0), (plain_view(), 0.0), (strong_view(), 0.5), (View(flip=1.0), 1.0)):
        flipped = np.linalg.det(draw_numbers(view, 0, 0, rows(2000), 0, 256).affine[:, :, :2]) < 0
        assert abs(flipped.mean() - share) < (0.04 if 0 < share < 1 else 1e-9)


def test_every_range_is_kept_and_used() -> None:
    numbers = draw_numbers(EVERYTHING, 0, 0, rows(4000), 0, 64)
    for drawn, low, high in (
        (numbers.gamma, 1 / 1.5, 1.5),
        (numbers.contrast, 0.7, 1.3),
        (numbers.brightness, -0.2, 0.2),
        (numbers.sigma[numbers.sigma > 0], 0.1, 2.0),
        (numbers.noise, 0.0, 0.05),
    ):
        assert low <= drawn.min() < low + 0.02 * (high - low)
        assert high >= drawn.max() > high - 0.02 * (high - low)
    assert abs((numbers.sigma > 0).mean() - 0.7) < 0.03
    assert abs((numbers.erase[:, 2] > 0).mean() - 0.5) < 0.03
    turn = np.degrees(np.arctan2(numbers.affine[:, 1, 0], numbers.affine[:, 0, 0]))
    turn = np.minimum(np.abs(turn), 180 - np.abs(turn))
    assert 24 < turn.max() < 35  # above 25 where the window is wider than high


def test_outside_the_image_is_a_stored_black() -> None:
    view = View(32, zoom=(0.5, 0.5), brightness=0.3, contrast=0.2, gamma=0.4)
    images = np.full((2, 32, 32), 200, np.uint8)
    images[1] = 0
    numbers = draw_numbers(view, 0, 0, np.array([3, 3]), 0, 32)
    batch = apply(images, numbers, MEAN, STD)
    np.testing.assert_allclose(batch[0, 0, :4], batch[1, 0, :4])
    assert not torch.allclose(batch[0, 0, 14:18], batch[1, 0, 14:18])
    away = replace(numbers, affine=numbers.affine + np.array([0, 0, 500.0]))
    np.testing.assert_allclose(apply(images, away, MEAN, STD), batch[1:].expand(2, 1, 32, 32))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_intensity_by_hand(dtype: type) -> None:
    white = np.iinfo(dtype).max
    image = np.array([[[0, white // 5], [white // 5 * 3, white]]], dtype)
    numbers = replace(
        draw_numbers(plain_view(2), 0, 0, rows(1), 0, 2),
        gamma=np.array([2.0]),
        contrast=np.array([1.5]),
        brightness=np.array([0.1]),
    )
    value = (np.array([[0, 0.2**2], [0.6**2, 1]]) - MEAN) * 1.5 + MEAN + 0.1
    expected = (value.clip(0, 1) - MEAN) / STD
    np.testing.assert_allclose(apply(image, numbers, MEAN, STD)[0, 0], expected, atol=1e-5)
    np.testing.assert_allclose(apply_torch(torch.from_numpy(image), numbers, MEAN, STD)[0, 0], expected, atol=1e-5)


def test_noise_has_the_drawn_strength_and_is_normal() -> None:
    images = np.full((40, 64, 64), 128, np.uint8)
    numbers = draw_numbers(View(64, noise=0.1), 0, 0, rows(40), 0, 64)
    grain = gray(apply(images, numbers, MEAN, STD)) / 255
    np.testing.assert_allclose(grain.std((1, 2)), numbers.noise, rtol=0.08)
    bank = noise_bank(100_000)
    assert abs(bank.mean()) < 0.01 and abs(bank.std() - 1) < 0.01
    assert abs((np.abs(bank) < 1).mean() - 0.683) < 0.01
    assert np.array_equal(noise_bank(1000), bank[:1000])
    assert bank[:3].tobytes().hex() == "cc7ccebd8c59433c4317493e"


def test_blur_spreads_a_point_as_far_as_drawn() -> None:
    image = np.zeros((1, 33, 33), np.uint8)
    image[0, 16, 16] = 255
    numbers = replace(draw_numbers(plain_view(33), 0, 0, rows(1), 0, 33), sigma=np.array([2.0]))
    spot = gray(apply(image, numbers, MEAN, STD))[0]
    assert abs(spot.sum() - 255) < 1
    x = np.arange(33) - 16
    assert abs(np.sqrt((spot.sum(0) * x**2).sum() / spot.sum()) - 2) < 0.1


def test_erased_rectangles_hold_the_mean() -> None:
    images = smooth(30, 32)
    view = View(32, erase=(0.1, 0.3), erase_probability=1.0)
    numbers = draw_numbers(view, 0, 0, rows(30), 0, 32)
    batch = apply(images, numbers, MEAN, STD)[:, 0]
    for image, (x0, y0, x1, y1) in zip(batch, numbers.erase, strict=True):
        assert (image[y0:y1, x0:x1] == 0).all()
        assert (image == 0).sum() == (x1 - x0) * (y1 - y0)
        assert 0.05 < (x1 - x0) * (y1 - y0) / 32**2 < 0.35


def test_boxes_move_with_their_pixels() -> None:
    image = np.zeros((1, 64, 64), np.uint8)
    image[0, 20:30, 24:44] = 255
    view = View(96, flip=1.0, zoom=(1.2, 1.2), place=(0.5, 0.5), shift=0.1)
    numbers = draw_numbers(view, 0, 0, rows(1), 0, 64)
    shown = np.nonzero(gray(apply(image, numbers, MEAN, STD))[0] > 127)
    moved = move_boxes(np.array([[0, 5, 24, 20, 44, 30]], np.float32), numbers)
    assert moved.dtype == np.float32 and moved[0, :2].tolist() == [0, 5]
    seen = [shown[1].min(), shown[0].min(), shown[1].max() + 1, shown[0].max() + 1]
    np.testing.assert_allclose(moved[0, 2:], seen, atol=0.6)


def test_a_turned_box_becomes_the_upright_box_around_it() -> None:
    numbers = draw_numbers(plain_view(100), 0, 0, rows(1), 0, 100)
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    turned = replace(numbers, affine=np.array([[[c, -s, 50 - 50 * c + 50 * s], [s, c, 50 - 50 * s - 50 * c]]]))
    moved = move_boxes(np.array([[0, 0, 40, 45, 60, 55]], float), turned)
    half = np.array([10 * c + 5 * s, 10 * s + 5 * c])
    np.testing.assert_allclose(moved[0, 2:], [*(50 - half), *(50 + half)], atol=1e-4)


@pytest.mark.parametrize("side", [64, 200])
@pytest.mark.parametrize("turned", [False, True])
def test_boxes_are_where_their_pixels_are_drawn_however_a_view_moves_them(side: int, turned: bool) -> None:
    """Each box painted white, the view made, and what is white in it measured: to the pixel, at any scale."""
    view = replace(GEOMETRY, size=(96, 80), rotation=25 if turned else 0)
    random, count = np.random.default_rng(side), 60
    low = random.integers(0, int(0.7 * side), (count, 2))
    boxes = np.concatenate([low, low + random.integers(side // 8, int(0.3 * side), (count, 2))], axis=1)
    images = np.zeros((count, side, side), np.uint8)
    for image, (x0, y0, x1, y1) in zip(images, boxes, strict=True):
        image[y0:y1, x0:x1] = 255
    numbers = draw_numbers(view, 3, 1, rows(count), 0, side)
    table = np.concatenate([np.arange(count)[:, None], np.zeros((count, 1)), boxes], axis=1)
    moved = {int(row[0]): row[2:] for row in move_boxes(table, numbers, keep=0.0)}
    compared = 0
    for n, image in enumerate(gray(apply(images, numbers, MEAN, STD))):
        down, across = np.nonzero(image > 127)
        if not len(down):
            continue
        seen = np.array([across.min(), down.min(), across.max() + 1, down.max() + 1])
        assert (moved[n][:2] <= seen[:2] + 1).all() and (moved[n][2:] >= seen[2:] - 1).all()
        inside = moved[n].min() > 0 and (moved[n] < [80, 96, 80, 96]).all()
        strip = (moved[n][2:] - moved[n][:2]).min() < 4  # half a pixel wide: its corners are a quarter white
        if inside or not (turned or strip):
            scale = (
                np.abs(np.linalg.det(numbers.affine[n, :, :2])) ** -0.5
            )  # so many pixels of the view is a stored one
            corner = 1 + 1.5 * max(scale, 1) if turned else 0.6  # the tip of a turned corner is less than half white
            np.testing.assert_allclose(moved[n], seen, atol=corner)
            compared += 1
    assert compared > 10


def test_chances_are_what_differs_between_epochs() -> None:
    still = (plain_view(), View((32, 64), place=(0.0, 1.0)), replace(plain_view(), flip=1.0), *ten_crops())
    for view in still:
        assert augment.varying_settings(view) == ()
    assert augment.varying_settings(View((32, 64))) == ("place",)
    changes = ({"flip": 0.5}, {"rotation": 3.0}, {"shift": 0.1}, {"brightness": 0.1}, {"contrast": 0.1}, {"noise": 0.1})
    changes += ({"gamma": 0.1}, {"zoom": (0.9, 1.1)}, {"erase_probability": 0.5}, {"blur_probability": 0.5})
    for change in changes:
        assert set(change) <= set(augment.varying_settings(replace(plain_view(), **change)))
    for view in (*still, *(replace(plain_view(), **change) for change in changes), gentle_view(), strong_view()):
        one, other = (draw_numbers(view, 0, epoch, rows(50), 0, 64) for epoch in (0, 1))
        names = ("affine", "gamma", "contrast", "brightness", "sigma", "noise", "erase")
        same = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)
        assert same is (augment.varying_settings(view) == ())


def test_flipped_are_those_left_for_right() -> None:
    numbers = draw_numbers(strong_view(), 0, 0, rows(50), 0, 64)
    assert np.array_equal(numbers.flipped, numbers.affine[:, 0, 0] < 0) and 0 < numbers.flipped.sum() < 50


def test_boxes_are_cut_at_the_edge_and_dropped_when_little_is_left() -> None:
    numbers = draw_numbers(View(50, crop=(0.25, 0.25), place=(0.0, 0.0)), 0, 0, rows(2), 0, 100)
    boxes = np.array([[1, 0, 40, 0, 60, 20], [0, 1, 48, 0, 88, 20], [0, 2, 60, 60, 80, 80]], float)
    assert move_boxes(boxes, numbers).tolist() == [[1, 0, 40, 0, 50, 20]]
    assert move_boxes(boxes, numbers, keep=0.0)[:, 1].tolist() == [0, 1]
    assert move_boxes(np.empty((0, 6)), numbers).shape == (0, 6)


@pytest.mark.parametrize("view", [plain_view(), gentle_view((32, 64)), strong_view(), EVERYTHING, *ten_crops()])
def test_a_view_survives_json(view: View) -> None:
    assert View.from_dict(json.loads(json.dumps(view.to_dict()))) == view


def test_an_unknown_setting_is_named_with_the_nearest_known_one() -> None:
    with pytest.raises(ValueError, match=r"'rotatoin'.*'rotation'.*: size, crop"):
        View.from_dict({"rotatoin": 3, "xyz": 1})


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"flip .*2\.0\b.*crop ") as error:
        View(crop=(0.9, 0.1), flip=2.0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": (3, 4, 5)},
        {"size": 1e3},
        {"rotation": 400},
        {"rotation": float("nan")},
        {"zoom": (0, 1)},
        {"place": (2, 0)},
        {"place": 1.0},
        {"place": (0.1, 0.2, 0.3)},
        {"blur": (1, 9), "blur_probability": 0.5, "size": 20},
        {"gamma": "much"},
        {"crop": 0.5},
    ],
)
def test_impossible_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        View(**wrong)


def test_presets_are_made_at_any_size() -> None:
    assert all(preset((32, 48)).shape == (32, 48) for preset in augment.PRESETS.values())
    assert apply(np.empty((0, 8, 8), np.uint8), draw_numbers(gentle_view(), 0, 0, rows(0), 0, 8), MEAN, STD).shape == (
        0,
        1,
        224,
        224,
    )


def test_a_resized_view_shows_the_same_image_at_another_size() -> None:
    images = smooth(12, 160)
    view = replace(EVERYTHING, size=(40, 30), noise=0.0, erase_probability=0.0, blur=(0.5, 2.0))
    larger = augment.resized_view(view, (80, 60))
    assert larger.shape == (80, 60) and larger.blur == (1.0, 4.0)
    assert replace(larger, size=view.size, blur=view.blur) == view
    one, two = (apply(images, draw_numbers(each, 1, 0, rows(12), 0, 160), MEAN, STD) for each in (view, larger))
    away = np.abs(gray(torch.nn.functional.avg_pool2d(two, 2)) - gray(one))
    assert away.mean() < 1.5 and np.abs(gray(one) - gray(one)[::-1]).mean() > 20


def test_a_view_is_not_resized_to_another_shape() -> None:
    with pytest.raises(ValueError, match=r"40 × 30 .* 80 × 80"):
        augment.resized_view(plain_view((40, 30)), (80, 80))
