import contextlib
import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ribcage.metrics import froc, resampling
from ribcage.metrics.box_precision import box_average_precision
from ribcage.metrics.boxes import BoxTable
from ribcage.metrics.detection import FindingBoxes, Skipping, bootstrap_detection, mean_average_precision
from ribcage.metrics.image_precision import best_score_threshold, image_precision
from ribcage.metrics.matching import THRESHOLDS, BoxPairs, match_boxes
from ribcage.metrics.patients import patient_numbers
from ribcage.metrics.resampling import paired_difference

REAL = os.environ.get("RIBCAGE_REAL_DATA")
NAN, INF = np.nan, np.inf


def marks(*rows: tuple[float, ...]) -> BoxTable:
    """(image, score, x0, y0, x1, y1) each."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return BoxTable(table[:, 0].astype(np.int64), table[:, 2:], table[:, 1])


def case(seed: int) -> tuple[BoxTable, BoxTable, int]:
    """Synthetic found and true boxes of one or many images: crowded or empty, with equal scores and equal overlaps."""
    chance = np.random.default_rng(seed)
    count, side = int(chance.choice([1, 5, 40])), int(chance.choice([6, 40]))
    true_of = np.repeat(np.arange(count), chance.poisson(chance.choice([0.3, 1, 6]), count))
    found_of = chance.permutation(np.repeat(np.arange(count), chance.poisson(chance.choice([0.5, 3, 20]), count)))
    true, found = (np.tile(chance.integers(0, side, (len(of), 2)), 2).astype(float) for of in (true_of, found_of))
    for boxes in (true, found):
        boxes[:, 2:] += chance.integers(1, 12, (len(boxes), 2))
    for place, image in enumerate(found_of):
        own = np.flatnonzero(true_of == image)
        if len(own) and chance.random() < 0.5:  # near a true one
            found[place] = true[chance.choice(own)] + chance.integers(-1, 2, 4) * [1, 1, 0, 0]
    scores = chance.random(len(found)).round(int(chance.choice([1, 8])))
    return BoxTable(found_of, found, scores), BoxTable.ground_truth(true_of, true), count


def coco(found: BoxTable, true: BoxTable, count: int) -> np.ndarray:
    """(T,) AP as pycocotools has it, with our thresholds and all the boxes."""
    sides = [
        np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()
        for boxes in (found.boxes, true.boxes)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        there = COCO()
        there.dataset = {
            "info": {},
            "images": [{"id": image + 1} for image in range(count)],
            "categories": [{"id": 1}],
            "annotations": [
                {
                    "id": place + 1,
                    "image_id": image + 1,
                    "category_id": 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
                for place, (image, box) in enumerate(zip(true.images.tolist(), sides[1], strict=True))
            ],
        }
        there.createIndex()
        said = [
            {"image_id": image + 1, "category_id": 1, "bbox": box, "score": score}
            for image, box, score in zip(found.images.tolist(), sides[0], found.scores.tolist(), strict=True)
        ]
        judge = COCOeval(there, there.loadRes(said), "bbox")
        judge.params.iouThrs, judge.params.maxDets = np.array(THRESHOLDS), [10**6]
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, 0, 0, 0]
    return np.where((precision > -1).all(axis=1), precision.mean(axis=1), NAN)


def repeated(of: BoxTable, images: np.ndarray) -> BoxTable:
    """The marks of these images, one after the other, some more than once."""
    places = [np.flatnonzero(of.images == image) for image in images]
    numbers = np.repeat(np.arange(len(images)), [len(each) for each in places])
    chosen = np.concatenate([np.empty(0, np.int64), *places])
    return BoxTable(numbers, of.boxes[chosen], of.scores[chosen])


# --- average precision ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(120))
def test_ap_is_that_of_pycocotools(seed: int) -> None:
    found, true, count = case(seed)
    own = box_average_precision(found, true, count)
    if not len(found):  # pycocotools cannot read an empty list
        assert np.array_equal(own, np.full(8, 0.0 if len(true) else NAN), equal_nan=True)
        return
    assert own == pytest.approx(coco(found, true, count), abs=1e-12, nan_ok=True)


def test_the_cases_hold_what_is_hard() -> None:
    cases = [case(seed) for seed in range(120)]
    assert any(not len(true) for _, true, _ in cases) and any(not len(found) for found, _, _ in cases)
    assert any(len(np.unique(found.scores)) < len(found) / 5 for found, _, _ in cases)
    assert any(len(found) > 500 for found, _, _ in cases)
    assert sum(0.05 < np.nan_to_num(box_average_precision(*each)[0]) < 0.95 for each in cases) > 50


@pytest.mark.parametrize("seed", range(12))
def test_positives_only_is_that_of_pycocotools_on_those_images(seed: int) -> None:
    found, true, count = case(seed + 500)
    positive = np.unique(true.images)
    ours = bootstrap_detection([FindingBoxes.of(found, true, count)], resamples=1)
    there = repeated(found, positive), repeated(true, positive), len(positive)
    values = coco(*there) if len(there[0]) and len(positive) else np.full(8, 0.0 if len(positive) else NAN)
    found_values = [ours[name].value[0] for name in ("map_positives", "ap50_positives", "ap75_positives")]
    assert found_values == pytest.approx([values.mean(), values[2], values[7]], abs=1e-12, nan_ok=True)


def test_ap_by_hand() -> None:
    true = marks((0, 1, 0, 0, 10, 10), (1, 1, 0, 0, 10, 10))
    found = marks((0, 0.9, 0, 0, 10, 10), (2, 0.8, 0, 0, 10, 10), (1, 0.7, 0, 0, 10, 6))  # right, wrong, IoU .6
    #  recall 0 … .50 at precision 1: 51 of 101; then .51 … 1 at 2/3, as long as .6 is enough
    low, high = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert box_average_precision(found, true, 3) == pytest.approx([low] * 5 + [high] * 3, abs=1e-15)
    assert mean_average_precision([found, BoxTable.none()], [true, BoxTable.none()], 3) == pytest.approx(
        (5 * low + 3 * high) / 8
    )


def test_a_true_box_is_taken_once_by_the_surest() -> None:
    true = marks((0, 1, 0, 0, 10, 10))
    found = marks((0, 0.5, 0, 0, 10, 10), (0, 0.9, 0, 0, 10, 6))
    right = match_boxes(found, true, 1).right  # down the scores: the second box is the first
    assert right[:5].tolist() == [[True, False]] * 5 and right[5:].tolist() == [[False, True]] * 3


def test_a_low_score_is_no_reason_to_be_left_out() -> None:
    true = marks((0, 1, 0, 0, 10, 10))
    assert box_average_precision(marks((0, 1e-9, 0, 0, 10, 10)), true, 1) == pytest.approx(1)
    assert box_average_precision(marks((0, -5, 0, 0, 10, 10)), true, 1) == pytest.approx(1)


def test_nothing_to_find_is_undefined_and_nothing_found_is_zero() -> None:
    true = marks((0, 1, 0, 0, 10, 10))
    assert np.isnan(box_average_precision(true, BoxTable.none(), 1)).all() and np.isnan(
        mean_average_precision([true], [BoxTable.none()], 1)
    )
    assert (box_average_precision(BoxTable.none(), true, 1) == 0).all()


def test_whole_pixels_are_one_wider() -> None:
    found, true = marks((0, 1, 0, 0, 9, 9)), marks((0, 1, 0, 0, 9, 19))
    assert BoxPairs.of(found, true, 1).overlaps() == pytest.approx([9 / 19]) and BoxPairs.of(found, true, 1).overlaps(
        True
    ) == pytest.approx([0.5])
    assert box_average_precision(found, true, 1, [0.5]) == 0 and box_average_precision(
        found, true, 1, [0.5], whole_pixels=True
    ) == pytest.approx(1)


def test_boxes_without_area_overlap_nothing() -> None:
    point = marks((0, 1, 5, 5, 5, 5))
    assert BoxPairs.of(point, point, 1).overlaps() == 0
    assert (
        BoxPairs.of(marks((0, 1, 5, 5, 2, 2)), marks((0, 1, 0, 0, 9, 9)), 1).overlaps() == 0
    )  # corners the wrong way round


def test_the_mean_that_skips_images_forgets_what_was_missed() -> None:
    true = marks(*((image, 1, 0, 0, 10, 10) for image in range(4)))
    found = marks((0, 0.9, 0, 0, 10, 10), (1, 0.4, 0, 0, 10, 10), (5, 0.95, 0, 0, 10, 10))
    values = bootstrap_detection([FindingBoxes.of(found, true, 6)], resamples=1)
    assert values["map_skipping"].value == pytest.approx([1])  # one image of four is asked, and no healthy one
    assert values["map_positives"].value == pytest.approx([51 / 101])
    assert values["map"].value[0] < 0.4
    shifted = marks((0, 0.9, 0, 0, 9, 3))
    own = [
        bootstrap_detection(
            [FindingBoxes.of(shifted, marks((0, 1, 0, 0, 9, 9)), 1)], skipping=Skipping(0.5, whole), resamples=1
        )["map_skipping"].value[0]
        for whole in (False, True)
    ]
    assert own == pytest.approx([0, 1 / 8])  # IoU 3/9, or 4/10 of whole pixels


# --- FROC -----------------------------------------------------------------------------------------------------------


def test_froc_by_hand() -> None:
    true = marks((0, 1, 0, 0, 10, 10), (0, 1, 20, 20, 30, 30), (1, 1, 0, 0, 10, 10))
    found = marks(
        (0, 0.9, 0, 0, 10, 10),  # finds the first
        (0, 0.8, 1, 1, 10, 10),  # finds it again: neither gain nor false mark
        (2, 0.7, 0, 0, 10, 10),  # false
        (1, 0.6, 4, 4, 14, 14),  # centre (9, 9) inside, IoU 36/164: by the centre only
        (3, 0.6, 0, 0, 10, 10),  # false, of equal score: comes with it
        (0, 0.1, 20, 20, 30, 30),
    )
    by_centre = froc.froc_curve(froc.froc_events(found, true, 4), 4)
    assert by_centre[0] == pytest.approx([0, 0, 0.25, 0.5, 0.5])
    assert by_centre[1] == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3, 1])
    assert by_centre[2].tolist() == [INF, 0.9, 0.7, 0.6, 0.1]
    by_overlap = froc.froc_curve(froc.froc_events(found, true, 4, 0.4), 4)
    assert by_overlap[0] == pytest.approx([0, 0, 0.25, 0.75, 0.75])
    assert by_overlap[1] == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 2 / 3])
    values = bootstrap_detection([FindingBoxes.of(found, true, 4)], resamples=1)
    at = {kind: [values[f"{kind}_at_{rate:g}"].value[0] for rate in froc.RATES] for kind in ("centre", "overlap")}
    assert at["centre"] == pytest.approx([1 / 3, 1 / 3, 1, 1, 1, 1, 1])
    assert at["overlap"] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3])
    assert values["centre_mean"].value[0] == pytest.approx(np.mean(at["centre"]))


def test_one_box_can_hit_two() -> None:
    true = marks((0, 1, 0, 0, 10, 10), (0, 1, 2, 2, 12, 12))
    assert froc.froc_events(marks((0, 0.9, 1, 1, 11, 11)), true, 1).found.tolist() == [True, True]


def froc_by_definition(found: BoxTable, true: BoxTable, count: int, rate: float, overlap: float | None) -> float:
    """Try every cut."""
    best = 0.0
    for cut in np.unique(found.scores):
        hit, false = set(), 0
        for image, box in zip(found.at_least(cut).images, found.at_least(cut).boxes, strict=True):
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            own = set()
            for place in np.flatnonzero(true.images == image):
                other = true.boxes[place]
                sides = [max(0, min(box[k + 2], other[k + 2]) - max(box[k], other[k])) for k in (0, 1)]
                both = sides[0] * sides[1]
                areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (box, other)]
                inside = other[0] <= x <= other[2] and other[1] <= y <= other[3]
                if inside if overlap is None else both / (sum(areas) - both) >= overlap:
                    own.add(place)
            hit |= own
            false += not own
        if false <= rate * count:
            best = max(best, len(hit) / len(true))
    return best


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("overlap", [None, 0.4])
def test_froc_is_the_best_of_all_cuts(seed: int, overlap: float | None) -> None:
    found, true, count = case(seed)
    if not len(true) or len(found) > 60:
        found, true, count = (
            found.on_images(np.arange(count) < 3),
            BoxTable.ground_truth(np.array([0]), np.array([[1, 1, 5, 5]])),
            count,
        )
    values = froc.sensitivities(
        froc.froc_events(found, true, count, overlap),
        np.ones(count, bool),
        np.arange(count),
        np.ones((count, 1), np.int32),
    )
    expected = [froc_by_definition(found, true, count, rate, overlap) for rate in froc.RATES]
    assert values[:, 0] == pytest.approx(expected, abs=1e-12)


# --- image by image ---------------------------------------------------------------------------------------------


def test_image_precision_by_hand() -> None:
    true = marks((0, 1, 0, 0, 10, 10), (0, 1, 20, 20, 30, 30), (1, 1, 0, 0, 10, 10))
    found = marks((0, 0.9, 0, 0, 10, 10), (0, 0.8, 50, 50, 60, 60), (1, 0.7, 0, 0, 10, 6), (2, 0.6, 0, 0, 5, 5))
    #  image 0: TP 1, FP 1, FN 1; image 1: above .40, .45, .50, .55 but not above .60; 2: healthy; 3: left out
    assert image_precision(found, true, 4) == pytest.approx([1 / 3, 4 / 8, 0, NAN], nan_ok=True)
    assert image_precision(found, true, 4, 0.65) == pytest.approx([1 / 3, 4 / 8, NAN, NAN], nan_ok=True)
    assert image_precision(found, true, 4, 0.85) == pytest.approx([1 / 2, 0, NAN, NAN], nan_ok=True)
    assert best_score_threshold(found, true, 4) == pytest.approx((0.7, 5 / 12))
    values = bootstrap_detection([FindingBoxes.of(found, true, 4)], cuts=[0.65], resamples=1)
    assert values["kaggle"].value == pytest.approx([5 / 12])
    assert "kaggle" not in bootstrap_detection([FindingBoxes.of(found, true, 4)], resamples=1)


def test_an_image_with_a_false_box_counts_where_all_true_ones_are_of_one_patient() -> None:
    true, found = marks((0, 1, 0, 0, 10, 10)), marks((0, 0.9, 0, 0, 10, 10), (1, 0.8, 0, 0, 9, 9), (2, 0.1, 0, 0, 9, 9))
    boxes = FindingBoxes.of(found, true, 3)
    sizes = [bootstrap_detection([boxes], cuts=[cut], resamples=50)["kaggle"].effective_n[0] for cut in (0.5, 0.85)]
    assert sizes[0] > 1 and np.isnan(sizes[1])  # the score of image 2 is below both thresholds
    assert np.isnan(bootstrap_detection([boxes], resamples=50)["map"].effective_n[0])


@pytest.mark.parametrize("seed", range(40))
def test_the_best_cut_is_the_best(seed: int) -> None:
    found, true, count = case(seed)
    if not len(true):
        assert np.isnan(best_score_threshold(found, true, count)).all()
        return
    means = {cut: np.nanmean(image_precision(found, true, count, cut)) for cut in [*np.unique(found.scores), INF]}
    cut, value = best_score_threshold(found, true, count)
    assert value == pytest.approx(max(means.values()), abs=1e-12) == pytest.approx(means[cut], abs=1e-12)


# --- intervals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [2, 4, 5, 7, 8, 9])
def test_a_resample_is_the_metric_of_the_images_drawn(seed: int) -> None:
    chance = np.random.default_rng(seed)
    found, true, count = case(seed * 3)
    patients = chance.integers(-1, max(count // 2, 1), count)
    values = bootstrap_detection([FindingBoxes.of(found, true, count)], patients, cuts=[0.3], resamples=70, seed=seed)
    codes = patient_numbers(patients, count)
    #  boxes of equal score in one image: drawn twice, "both firsts, both seconds" or "one image, then the other"
    tied = len(np.unique(found.scores)) < len(found)
    asked = [name for name in values if not tied or not name.startswith(("map", "ap"))]
    assert len(asked) == (17 if tied else 24)
    for number in (0, 13, 69):
        drawn = resampling.resample(seed, number, codes.max() + 1)
        images = np.sort(np.concatenate([np.flatnonzero(codes == person) for person in drawn]))
        own = FindingBoxes.of(repeated(found, images), repeated(true, images), len(images))
        expected = bootstrap_detection([own], cuts=[0.3], resamples=1)
        for name in asked:
            assert values[name].resampled[number] == pytest.approx(expected[name].value, abs=1e-12, nan_ok=True), name


def test_threads_and_blocks_do_not_change_a_bit() -> None:
    found, true, count = case(4)
    once, again = (
        bootstrap_detection([FindingBoxes.of(found, true, count)], cuts=[0.3], resamples=130, threads=threads)
        for threads in (1, 3)
    )
    fewer = bootstrap_detection([FindingBoxes.of(found, true, count)], cuts=[0.3], resamples=7)
    for name in once:
        assert np.array_equal(once[name].resampled, again[name].resampled, equal_nan=True), name
        assert np.array_equal(once[name].resampled[:7], fewer[name].resampled, equal_nan=True), name


def test_the_optimism_of_map_in_few_images_is_told_from_halves() -> None:
    """mAP of 10 images with a box is larger, on average, than that of all; what the halves say takes most of it off."""
    chance, apart, told = np.random.default_rng(3), [], []
    count = 1500
    true = marks(*((n, 1, 10, 10, 40, 40) for n in range(0, count, 3)))
    hit = true.select(chance.random(len(true)) < 0.7)
    corners = hit.boxes + chance.normal(0, 3, hit.boxes.shape)
    stray = np.arange(count)
    boxes = np.concatenate([corners, np.tile([50.0, 50.0, 80.0, 80.0], (count, 1))])
    found = BoxTable(
        np.append(hit.images, stray), boxes, np.append(chance.random(len(hit)) + 0.5, chance.random(count))
    )
    whole = bootstrap_detection([FindingBoxes.of(found, true, count)], resamples=1)["map"].value[0]
    for start in range(0, count, 30):
        rows = np.arange(start, start + 30)
        part = [each.select((each.images >= start) & (each.images < start + 30)) for each in (found, true)]
        own = [BoxTable(each.images - start, each.boxes, each.scores) for each in part]
        value = bootstrap_detection([FindingBoxes.of(own[0], own[1], len(rows))], resamples=2)["map"]
        apart.append(value.value[0] - whole)
        told.append(float(value.bias[0]))
    assert 0.5 * np.mean(apart) < np.mean(told) < 1.5 * np.mean(apart) and np.mean(apart) > 0.02


def test_a_detector_differs_from_itself_by_nothing_and_from_a_worse_one_by_something() -> None:
    chance = np.random.default_rng(0)
    boxes = np.tile([10.0, 10, 30, 30], (60, 1))
    true = BoxTable.ground_truth(np.arange(60), boxes)
    good = BoxTable(np.arange(60), boxes + chance.integers(-1, 2, boxes.shape), chance.random(60))
    bad = BoxTable(np.arange(60), boxes + chance.integers(-7, 8, boxes.shape), chance.random(60))
    one, other = (bootstrap_detection([FindingBoxes.of(each, true, 60)], resamples=200)["map"] for each in (good, bad))
    assert paired_difference(one, one).value == 0 and paired_difference(one, one).p_value() == 1
    apart = paired_difference(one, other)
    assert apart.interval().low[0] > 0 and apart.p_value()[0] < 0.05


def test_images_nobody_drew_on_are_left_out() -> None:
    found, true, count = case(8)
    known = np.arange(count) % 3 > 0
    kept = np.flatnonzero(known)
    own = bootstrap_detection([FindingBoxes.of(found, true, count, known)], cuts=[0.3], resamples=1)
    rest = bootstrap_detection(
        [FindingBoxes.of(repeated(found, kept), repeated(true, kept), len(kept))], cuts=[0.3], resamples=1
    )
    assert len(true.on_images(~known)) and len(found.on_images(~known))
    for name in own:
        assert own[name].value == pytest.approx(rest[name].value, abs=1e-12, nan_ok=True), name


def test_findings_have_their_own_numbers_and_a_mean_of_what_is_defined() -> None:
    found, true, count = case(3)
    findings = [
        FindingBoxes.of(found, true, count),
        FindingBoxes.of(found, BoxTable.none(), count),
        FindingBoxes.of(BoxTable.none(), true, count),
    ]
    values = bootstrap_detection(findings, resamples=20)["map"]
    assert (
        values.value[2] == 0
        and np.isnan(values.value[1])
        and values.macro().value == pytest.approx([values.value[0] / 2])
    )
    assert np.isnan(values.interval().low[1])


# --- borders --------------------------------------------------------------------------------------------------------


def test_impossible_detections_are_refused() -> None:
    with pytest.raises(ValueError, match=r"boxes.*\(M, 4\)"):
        BoxTable(np.zeros(2, np.int64), np.zeros((1, 4)), np.ones(2))
    with pytest.raises(ValueError, match="finite"):
        BoxTable(np.zeros(1, np.int64), np.array([[0, 0, NAN, 1.0]]), np.ones(1))
    with pytest.raises(ValueError, match="0 to 2"):
        box_average_precision(marks((3, 1, 0, 0, 1, 1)), marks((0, 1, 0, 0, 1, 1)), 3)
    with pytest.raises(ValueError, match=r"resamples .*\b0\b"):
        bootstrap_detection([FindingBoxes.of(BoxTable.none(), BoxTable.none(), 1)], resamples=0)


# --- real boxes -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL, reason="RIBCAGE_REAL_DATA names no folder of real data")
def test_a_known_set_of_detections_on_the_boxes_of_rsna_is_judged_as_by_pycocotools() -> None:
    rows = pd.read_csv(Path(str(REAL)) / "rsna" / "stage_2_train_labels.csv.zip")
    names = rows["patientId"].drop_duplicates().reset_index(drop=True)
    drawn = rows.dropna(subset=["x"])
    true_of = drawn["patientId"].map(pd.Series(names.index, index=names)).to_numpy(np.int64)
    sides = drawn[["x", "y", "width", "height"]].to_numpy(np.float64)
    true = BoxTable.ground_truth(true_of, np.concatenate([sides[:, :2], sides[:, :2] + sides[:, 2:]], axis=1))
    assert (len(names), len(true)) == (26_684, 9_555)

    chance = np.random.default_rng(0)
    near = np.flatnonzero(chance.random(len(true)) < 0.7)
    others = chance.integers(0, len(names), 20_000)
    places = chance.integers(0, len(true), len(others))
    boxes = np.concatenate([true.boxes[near] + chance.normal(0, 25, (len(near), 4)).round(), true.boxes[places]])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    scores = np.concatenate([chance.beta(4, 2, len(near)), chance.beta(2, 4, len(others))]).round(3)
    found = BoxTable(np.concatenate([true.images[near], others]), boxes, scores)
    own = box_average_precision(found, true, len(names))
    assert own == pytest.approx(coco(found, true, len(names)), abs=1e-6)
    assert 0.1 < own.mean() < 0.6


def test_the_froc_score_is_read_at_an_eighth_to_eight_false_positives_per_image() -> None:
    """As in LUNA16: each rate is twice the one before."""
    assert tuple(2.0**power for power in range(-3, 4)) == froc.RATES
