from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from ribcage.data import phantom
from ribcage.data.datasets import phantom as dataset
from ribcage.data.index import Index


def severe(name: str, severity: float, view: str = "PA", patient: int = 3, **more: object) -> phantom.Case:
    options = {"seed": 0, "patient": patient, "study": 0, "image": 0, "view": view, "hospital": "A", "age": 50.0}
    return phantom.case(**{**options, "female": False, "severities": {name: severity}, **more})


@pytest.fixture(scope="module")
def small() -> Index:
    return dataset.index(images=400, seed=1)


def test_same_seed_gives_same_pixels_in_any_order_on_any_thread(small: Index) -> None:
    draw = dataset.images(small, size=64)
    rows = list(range(24))
    forth = [draw(row) for row in rows]
    with ThreadPoolExecutor(4) as pool:
        back = list(pool.map(dataset.images(small, size=64), reversed(rows)))
    assert all(np.array_equal(a, b) for a, b in zip(forth, reversed(back), strict=True))


def test_a_plainer_processor_draws_the_same_pixels(small: Index) -> None:
    draw = dataset.images(small, size=256, depth=16)
    quick = [draw(row) for row in range(24)]
    cv2.setUseOptimized(False)
    try:
        plain = [draw(row) for row in range(24)]
    finally:
        cv2.setUseOptimized(True)
    assert all(np.array_equal(a, b) for a, b in zip(quick, plain, strict=True))


def test_numbers_of_an_address_never_change() -> None:
    assert (phantom.uniforms(0, 1, 2, count=3)[0] * 1e6).astype(int).tolist() == PINNED


PINNED = [519246, 713183, 207489]


def test_a_longer_dataset_begins_with_the_shorter_one(small: Index) -> None:
    longer = dataset.index(images=500, seed=1)
    columns = ["patient", "view", "split", "hospital", "severity_Edema", "age"]
    assert longer.table[columns].iloc[:400].equals(small.table[columns])


def test_another_seed_gives_other_patients() -> None:
    one, other = (dataset.images(dataset.index(images=1, seed=seed), size=64)(0) for seed in (0, 1))
    assert np.abs(one.astype(int) - other).mean() > 10


def test_the_options_are_stored_in_the_rows(small: Index, tmp_path: Path) -> None:
    folder = tmp_path / "胸部 X"
    folder.mkdir()
    small.save(folder / "index.parquet")
    again = Index.load(folder / "index.parquet").take([37])
    assert np.array_equal(dataset.images(again, size=64)(0), dataset.images(small, size=64)(37))


@pytest.mark.parametrize("size", [64, 100, 256, 500, 1024])
@pytest.mark.parametrize("depth", [8, 16])
def test_any_size_and_depth(size: int, depth: int) -> None:
    image = phantom.draw(severe("Effusion", 0.5), size=size, depth=depth)
    assert image.shape == (size, size)
    assert image.dtype == (np.uint8 if depth == 8 else np.uint16)
    assert image.std() > image.max() / 8


def test_sizes_show_the_same_image() -> None:
    large, small = (phantom.draw(severe("Mass", 0.7), size=size).astype(np.float32) for size in (512, 128))
    shrunk = cv2.resize(large, (128, 128), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(shrunk.ravel(), small.ravel())[0, 1] > 0.97


def test_wrong_size_and_depth_are_refused() -> None:
    with pytest.raises(ValueError, match=r"size .*8"):
        phantom.draw(severe("Mass", 0.5), size=8)
    with pytest.raises(ValueError, match=r"depth .*12"):
        phantom.draw(severe("Mass", 0.5), depth=12)


@pytest.mark.parametrize("view", ["PA", "AP", "LATERAL"])
@pytest.mark.parametrize("name", phantom.FINDINGS)
def test_every_finding_changes_the_image_more_when_it_is_severe(name: str, view: str) -> None:
    healthy, mild, bad = (phantom.draw(severe(name, s, view), size=128).astype(int) for s in (0.0, 0.1, 0.9))
    assert 0 < np.abs(mild - healthy).mean() < np.abs(bad - healthy).mean()


@pytest.mark.parametrize(
    "name", ["Mass", "Nodule", "Consolidation", "Pneumonia", "Effusion", "Atelectasis", "Infiltration"]
)
def test_the_box_holds_what_the_finding_changed(name: str) -> None:
    inside, outside = [], []
    for patient in range(8):
        healthy, ill = (severe(name, s, patient=patient) for s in (0.0, 0.7))
        change = np.abs(phantom.draw(ill, size=256).astype(int) - phantom.draw(healthy, size=256))
        place = phantom.box(ill, name)
        if place is None:
            continue
        x, y, width, height = (round(share * 256) for share in place)
        within = np.zeros((256, 256), bool)
        within[y : y + height, x : x + width] = True
        inside.append(change[within].mean())
        outside.append(change[~within].mean())
    assert len(inside) > 5
    assert np.median(np.array(inside) / (np.array(outside) + 0.1)) > 2.5


def test_a_large_heart_is_wide() -> None:
    widths = [phantom.box(severe("Cardiomegaly", s), "Cardiomegaly") for s in (0.1, 0.9)]
    assert widths[0] and widths[1]
    assert widths[1][2] > 1.15 * widths[0][2]


def test_pneumothorax_is_dark_and_effusion_is_bright() -> None:
    def change(name: str) -> float:
        healthy, ill = (phantom.draw(severe(name, s), size=128, depth=16).astype(int) for s in (0.0, 0.6))
        x, y, width, height = (round(share * 128) for share in phantom.box(severe(name, 0.6), name) or (0, 0, 0, 0))
        part = np.s_[y : y + height, x : x + width]
        return float(np.percentile((ill - healthy)[part], 10 if name == "Pneumothorax" else 90))

    assert change("Pneumothorax") < 0 < change("Effusion")


def test_a_patient_keeps_split_sex_and_hospital(small: Index) -> None:
    for column in ("split", "sex", "hospital"):
        assert small.table.groupby("patient")[column].nunique().max() == 1
    assert set(small.table["split"]) == {"train", "val", "test"}


def test_patients_come_back_and_their_findings_change(small: Index) -> None:
    visits = small.table.groupby("patient")["study"].nunique()
    assert visits.max() > 2
    severities = [f"severity_{name}" for name in phantom.FINDINGS]
    returning = small.table[small.table["patient"].isin(visits.index[visits > 1])]
    assert (returning.groupby("patient")[severities].nunique().max(axis=1) > 1).any()


def test_labels_hold_what_was_drawn_apart_from_doubt_and_silence() -> None:
    rows = dataset.index(images=3000)
    truth = rows.table[[f"severity_{name}" for name in phantom.FINDINGS]].to_numpy() > 0
    said = np.isin(rows.labels, (0, 1))
    assert np.array_equal(rows.labels[said] == 1, truth[said])
    assert abs((rows.labels == -1).mean() - 0.05) < 0.02
    assert abs(np.isnan(rows.labels).mean() - 0.1) < 0.02
    assert ((rows.labels == 1).sum(0) > 50).all()


def test_without_doubt_and_silence_every_label_is_known() -> None:
    labels = dataset.index(images=300, uncertain=0, missing=0).labels
    assert set(np.unique(labels)) == {0.0, 1.0}


def test_findings_come_together_as_in_people() -> None:
    rows = dataset.index(images=4000, uncertain=0, missing=0).table
    for first, second in (("Edema", "Cardiomegaly"), ("Effusion", "Edema"), ("Pneumonia", "Consolidation")):
        assert rows.loc[rows[first] == 1, second].mean() > 2 * rows[second].mean()


def test_people_of_other_seeds_are_others() -> None:
    first, other = (dataset.index(images=50, seed=seed).table for seed in (0, 7))
    assert first["patient"].iloc[0] == "P000000" and first["path"].iloc[0] == "phantom/000000.png"
    assert not set(first["patient"]) & set(other["patient"]) and not set(first["path"]) & set(other["path"])


def test_hospitals_differ() -> None:
    rows = dataset.index(images=2000, lateral=0).table
    lying = rows.assign(ap=rows["view"] == "AP").groupby("hospital")["ap"].mean()
    assert lying["B"] > lying["A"] + 0.2


def test_lateral_share_is_what_was_asked_for() -> None:
    none, some = (dataset.index(images=3000, lateral=share).table for share in (0.0, 0.15))
    assert not (none["view"] == "LATERAL").any()
    assert abs((some["view"] == "LATERAL").sum() / some["study"].nunique() - 0.15) < 0.03


def test_the_shortcut_follows_the_label_in_one_hospital_only() -> None:
    rows = dataset.index(images=4000, shortcut=True, uncertain=0, missing=0).table
    rows = rows[rows["view"] != "LATERAL"]
    share = rows.groupby(["hospital", "Pneumothorax"])["token"].mean()
    assert share["A", 1.0] > 0.8
    assert share["A", 0.0] < 0.1
    assert share["B"].max() == 0
    assert not dataset.index(images=200).table["token"].any()


def test_the_token_is_seen() -> None:
    plain, marked = (phantom.draw(severe("Mass", 0, token=token), size=256).astype(int) for token in (False, True))
    assert ((marked - plain) > 20).sum() > 8


def test_boxes_lie_in_the_frame_and_belong_to_positive_labels(small: Index) -> None:
    found = small.boxes
    assert len(found) > 50
    assert small.box_frame == (1024, 1024)
    assert (found[["x", "y"]] >= 0).all(axis=None)
    assert ((found["x"] + found["width"]) <= 1024.5).all()
    assert all(small.table.at[row, name] == 1 for row, name in zip(found["row"], found["finding"], strict=True))


@pytest.mark.parametrize("lateral", [False, True])
def test_patients_look_different(lateral: bool) -> None:
    rows = dataset.index(images=600, seed=1, lateral=0.62 if lateral else 0.0)  # 0.62: every study taken standing
    chosen = ((rows.table["view"] == "LATERAL") == lateral) & (rows.table["study_number"] == 0)
    draw = dataset.images(rows.take(chosen.to_numpy()), size=64)
    prints = np.array([fingerprint(draw(row)) for row in range(120)])
    apart = (prints[:, None] != prints[None]).sum(-1)[np.triu_indices(120, 1)]
    assert apart.min() > 40
    assert np.median(apart) > 95


def test_side_views_face_either_way() -> None:
    poses = [phantom.pose(0, patient, 0, 1, view="LATERAL") for patient in range(200)]
    assert 0.2 < np.mean([pose.mirrored for pose in poses]) < 0.5
    assert not any(phantom.pose(0, patient, 0, 0, view="PA").mirrored for patient in range(200))


def test_a_hernia_is_common_enough_to_be_learnt() -> None:
    assert dataset.index(images=4000, uncertain=0, missing=0).table["Hernia"].mean() > 0.06


def test_air_in_a_hernia_lies_above_a_level_only_while_standing() -> None:
    def below_against_above(patient: int, view: str) -> float:
        healthy, ill = (severe("Hernia", s, view, patient) for s in (0.0, 0.9))
        change = phantom.draw(ill, size=256, depth=16).astype(int) - phantom.draw(healthy, size=256, depth=16)
        x, y, width, height = (round(share * 256) for share in phantom.box(ill, "Hernia") or (0, 0, 0, 0))
        lines = change[y : y + height, x + width // 3 : x + 2 * width // 3].mean(1)
        return float(lines[height * 7 // 10 : height * 9 // 10].mean() - lines[height // 8 : height // 3].mean())

    standing, lying = (
        np.median([below_against_above(patient, view) for patient in range(12)]) for view in ("PA", "AP")
    )
    assert standing > 3 * abs(lying)


def fingerprint(image: np.ndarray) -> np.ndarray:
    ranks = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA).ravel().argsort(kind="stable").argsort()
    low = cv2.dct(ranks.reshape(64, 64).astype(np.float32))[:16, :16].ravel()[1:]
    return low > np.median(low)


def test_brightness_alone_gives_no_label_away() -> None:
    rows = dataset.index(images=600, lateral=0, uncertain=0, missing=0)
    draw = dataset.images(rows, size=64)
    mean = np.array([draw(row).mean() for row in range(len(rows))])
    order = mean.argsort().argsort()
    for k, name in enumerate(phantom.FINDINGS):
        ill = rows.labels[:, k] == 1
        auroc = (order[ill].mean() - (ill.sum() - 1) / 2) / (~ill).sum()
        assert 0.2 < auroc < 0.8, name


@pytest.mark.parametrize("options", [{"images": 0}, {"uncertain": 1.5}, {"missing": -0.1}, {"lateral": 2}])
def test_wrong_options_are_refused_in_one_line(options: dict) -> None:
    with pytest.raises(ValueError) as error:
        dataset.index(**options)
    assert "\n" not in str(error.value)
    assert all(name in str(error.value) and f"not {value}" in str(error.value) for name, value in options.items())


def test_a_foreign_index_is_refused(small: Index) -> None:
    foreign = Index("nih", small.table.drop(columns="seed"), small.findings)
    with pytest.raises(ValueError, match=r"\bseed\b"):
        dataset.images(foreign)
