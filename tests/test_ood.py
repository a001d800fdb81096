"""The OOD check flags images unlike the training images and few others; it stores no image."""

import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from models import trained
from refusals import has_facts

from ribcage import cli
from ribcage.bundle import counterexamples, ood
from ribcage.bundle.io import load_classifier, save_bundle
from ribcage.bundle.ood import OODCheck, fitting
from ribcage.data import dataset_folder, phantom
from ribcage.data.collection import Datasets
from ribcage.data.provenance import Provenance
from ribcage.imaging import appearance, image_file
from ribcage.imaging.gray_image import Note
from ribcage.inference import image_files
from ribcage.metrics.evaluation_context import TrainingData
from ribcage.server.served_models import ServedModel

REAL = os.environ.get("RIBCAGE_REAL_DATA", "")
TRAIN, COUNT = 40, 100


def chest(seed: int, side: int = 64) -> np.ndarray:
    """A bright trunk with two dark lungs, a heart, a belly and noise."""
    rng = np.random.default_rng(seed)
    grown, moved = rng.uniform(0.9, 1.1, 6), rng.normal(0, 1.5, 6)
    drawn = np.full((64, 64), 30.0, np.float32)
    cv2.ellipse(drawn, (32, 44), (int(29 * grown[0]), 46), 0, 0, 360, 190, -1)
    for at, (x, wide) in enumerate(((19, 9), (45, 8))):
        centre = (int(x + moved[at]), int(27 + moved[2]))
        cv2.ellipse(drawn, centre, (int(wide * grown[1]), int(19 * grown[2])), 0, 0, 360, 60, -1)
    cv2.ellipse(drawn, (int(38 + moved[3]), 38), (int(9 * grown[3]), 8), 0, 0, 360, 170, -1)
    noisy = cv2.GaussianBlur(drawn, (0, 0), 1.5) * rng.uniform(0.8, 1.2) + rng.normal(0, 4, (64, 64))
    return cv2.resize(np.clip(noisy, 0, 255).astype(np.uint8), (side, side), interpolation=cv2.INTER_AREA)


@pytest.fixture(autouse=True, scope="module")
def _with_checks() -> Iterator[None]:
    """What conftest.py takes from all other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "FEWEST", 20)
        yield


@pytest.fixture(scope="module")
def check(_with_checks: None) -> OODCheck:
    images = [appearance.cropped_content(chest(seed)) for seed in range(COUNT)]
    return ood.fitted_check(images[:TRAIN], images[TRAIN:])


@pytest.fixture(scope="module")
def data(_with_checks: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder: 40 training images and 60 of validation; a few laterals, many children."""
    files = tmp_path_factory.mktemp("医院 one") / "files"
    files.mkdir()
    for seed in range(COUNT):
        (files / f"{seed:03d}.png").write_bytes(cv2.imencode(".png", chest(seed, 32))[1].tobytes())
    place = np.arange(COUNT)
    pd.DataFrame(
        {
            "path": [f"{seed:03d}.png" for seed in place],
            "patient": [f"p{seed // 2}" for seed in place],
            "split": np.where(place < TRAIN, "train", "val"),
            "view": np.where(place == 0, "LATERAL", "PA"),
            "age": np.where(place % 4 == 0, 7, 60),
            "Mass": place % 3 == 0,
        }
    ).to_csv(files / "labels.csv", index=False)
    out = files.parent / "set"
    assert cli.main(["import", "folder", str(files), "--out", str(out), "--size", "32", "--name", "one"]) == 0
    return out


def rows(data: Path) -> tuple[Datasets, np.ndarray, np.ndarray]:
    opened = dataset_folder.open(data)
    split = opened.index.table["split"].to_numpy()
    return Datasets.of([opened]), np.flatnonzero(split == "train"), np.flatnonzero(split == "val")


def noticed(check: OODCheck, seeds: range, change: Callable[[np.ndarray], np.ndarray] = np.asarray) -> list[str]:
    """What is said of the pixels of fresh images, altered; "" for nothing."""
    return [" ".join(ood.image_warnings(check, np.ascontiguousarray(change(chest(seed))), {})) for seed in seeds]


# -- Images -----------------------------------------------------------------------------------------------------------


def with_bars(square: np.ndarray, wide: int, high: int) -> np.ndarray:
    """An image of another shape, as it is stored: black bars beside it."""
    return image_file.fit(cv2.resize(square, (wide, high)), 96, "pad")[0]


@pytest.mark.parametrize(
    "change",
    [
        np.asarray,
        lambda square: with_bars(square, 150, 75),
        lambda square: with_bars(square, 75, 150),
        lambda square: with_bars(square[4:60], 150, 100),
        lambda square: cv2.copyMakeBorder(square, 9, 0, 0, 9, cv2.BORDER_CONSTANT, value=255),
        lambda square: np.rint(255 * (square / 255.0) ** 0.6).astype(np.uint8),
    ],
    ids=["plain", "landscape", "portrait", "cut", "white-border", "brighter"],
)
def test_upright_images_of_any_shape_are_not_noticed(check: OODCheck, change: Callable) -> None:
    said = noticed(check, range(1000, 1040), change)
    assert sum(map(bool, said)) <= 3


@pytest.mark.parametrize(
    ("look", "change"),
    [
        ("Possibly inverted", lambda square: 255 - square),
        ("Possibly upside down", lambda square: square[::-1, ::-1]),
        ("Possibly upside down", lambda square: square[::-1]),
        ("Possibly rotated to the left by 90°", lambda square: np.rot90(square)),
        ("Possibly rotated to the right by 90°", lambda square: np.rot90(square, -1)),
        ("Possibly rotated to the left by 90°", lambda square: np.rot90(with_bars(square, 150, 75))),
    ],
    ids=["inverted", "upside-down", "flipped", "left", "right", "left-landscape"],
)
def test_turned_and_inverted_images_are_noticed(check: OODCheck, look: str, change: Callable) -> None:
    said = noticed(check, range(1000, 1020), change)
    assert sum(one.startswith(f"{look}.") for one in said) >= 18


def test_mirrored_images_are_noticed_where_the_sides_differ(check: OODCheck) -> None:
    said = noticed(check, range(1000, 1020), lambda square: square[:, ::-1])
    assert sum(one.startswith("Possibly mirrored") for one in said) >= 15


def test_what_is_no_frontal_chest_is_noticed(check: OODCheck) -> None:
    rng = np.random.default_rng(0)
    disc = cv2.circle(np.zeros((96, 96), np.uint8), (40, 50), 30, 200, -1)
    strange = [rng.integers(0, 256, (64, 64), dtype=np.uint8), np.tile(np.repeat([0, 255], 4), (64, 8)), disc]
    strange += [one.astype(np.uint8) for one in counterexamples.phantoms(8, "LATERAL")]
    assert sum(bool(ood.image_warnings(check, one.astype(np.uint8), {})) for one in strange) >= len(strange) - 1


def test_training_images_that_lie_on_their_side_hide_no_others(check: OODCheck) -> None:
    images = [
        appearance.cropped_content(np.rot90(chest(seed)) if seed % 10 == 0 else chest(seed)) for seed in range(COUNT)
    ]
    mixed = ood.fitted_check(images[:TRAIN], images[TRAIN:])
    turned = [one.startswith("Possibly rotated to the left") for one in noticed(mixed, range(1000, 1010), np.rot90)]
    assert sum(turned) >= 9 and sum(map(bool, noticed(mixed, range(1000, 1010)))) <= 1


def test_an_empty_image_is_empty_whatever_is_known(check: OODCheck) -> None:
    for gray in (0, 128, 255):
        square = np.full((64, 64), gray, np.uint8)
        assert ood.image_warnings(check, square, {}) == ood.image_warnings(None, square, {}) != ()


def test_sixteen_bits_have_the_appearance_of_eight(check: OODCheck) -> None:
    strange = 255 - chest(1000)
    assert (
        ood.image_warnings(check, strange.astype(np.uint16) * 257, {}) == ood.image_warnings(check, strange, {}) != ()
    )


def test_the_content_of_an_image_is_what_is_inside_its_bars() -> None:
    rng = np.random.default_rng(0)
    inside = rng.integers(0, 256, (60, 60)).astype(np.uint8)
    padded = cv2.copyMakeBorder(inside, 20, 20, 0, 0, cv2.BORDER_CONSTANT, value=0)
    padded[8:14, 20:26] = 255  # a letter in the bar
    assert np.abs(appearance.cropped_content(padded) - appearance.cropped_content(inside)).max() < 1


def test_the_scores_are_those_of_the_docstring(check: OODCheck) -> None:
    vector = appearance.vector(counterexamples.plainly(appearance.cropped_content(chest(1000))))
    z = vector.astype(np.float64) @ check.weights + check.bias
    s = np.log(np.exp(z[0]) + np.exp(z[1])) - np.log(np.exp(z[2:]).sum())
    assert ood.usualness(check.scores(vector[None]))[0] == pytest.approx(s, rel=1e-3)
    rest = vector - check.mean
    axes = check.components.astype(np.float64)
    assert check.distances(vector[None])[0] == pytest.approx(np.linalg.norm(rest - axes.T @ (axes @ rest)), rel=1e-2)


def test_the_limit_has_the_documented_false_alarm_rate() -> None:
    many = np.arange(2000.0)
    assert (many <= ood.upper_limit(many, 0.995)).mean() == 0.9955  # 1,991: the least that a new one keeps in 99.5 %
    assert ood.upper_limit(many[:9], 0.995) == 8  # of so few, their greatest


def test_the_weakness_of_a_check_is_reported(check: OODCheck) -> None:
    assert check.fitted_on == TRAIN and check.held_out == COUNT - TRAIN
    assert (check.altered[1:6] >= 0.9 * check.held_out).all() and check.alarms.sum() <= 3
    assert f"{check.fitted_on:,} images" in ood.weakness(check) and "no OOD check" in ood.weakness(None)
    plenty = replace(check, fitted_on=600, held_out=200)
    assert not ood.weakness(plenty)
    assert "10%" in ood.weakness(replace(plenty, alarms=np.array([0, 20, 0, 0, 0, 0, 0, 0])))


def test_a_check_without_held_out_images_is_reported_as_untested() -> None:
    alone = ood.fitted_check([appearance.cropped_content(chest(seed)) for seed in range(20)], [])
    assert (
        alone.held_out == 0
        and np.isfinite(alone.limits).all()
        and has_facts(ood.weakness(alone), "20 images", "not tested")
    )
    assert any(noticed(alone, range(1000, 1003), np.rot90))


# -- Tags -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "facts"),
    [
        ({"modality": "CT"}, ("DICOM", "modality", "CT")),
        ({"body": "HIP"}, ("chest", "DICOM", "body part", "HIP")),
        ({"view": "LATERAL"}, ("frontal", "DICOM", "lateral")),
        ({"age": "7"}, ("child", "DICOM", "age", "7")),
        ({"age": "0.8333"}, ("child", "DICOM", "age", "0.833")),
        ({"body": "\x1b[31m" + "X" * 99}, ("chest", "DICOM", "body part")),
    ],
    ids=["modality", "body", "lateral", "child", "infant", "hostile"],
)
def test_tags_of_a_dicom_lead_to_warnings(tags: dict[str, str], facts: tuple[str, ...]) -> None:
    (said,) = ood.image_warnings(None, chest(0), tags)
    assert has_facts(said, *facts) and "X" * 50 not in said


def test_adults_are_reported_to_users_of_a_model_of_children(check: OODCheck) -> None:
    children = replace(check, ages=np.array([1000, 990]))
    (said,) = ood.image_warnings(children, chest(1000), {"age": "45"})
    assert has_facts(said, "adult", "DICOM", "age", "45", 10)
    assert ood.image_warnings(check, chest(1000), {"age": "45"}) == ()  # of unknown ages most are of adults


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"modality": "DX", "body": "CHEST", "view": "PA", "age": "18"},
        {"modality": "CR", "body": "Portable chest", "view": "AP", "age": ""},
        {"modality": "OT", "body": "", "view": "", "age": "nan"},
    ],
    ids=["none", "full", "portable", "unknown"],
)
def test_an_ordinary_dicom_has_no_warning(tags: dict[str, str]) -> None:
    assert ood.image_warnings(None, chest(0), tags) == ()


def test_a_model_trained_on_laterals_and_children_has_no_warning_of_them(check: OODCheck) -> None:
    tags = {"view": "LATERAL", "age": "7"}
    few = replace(check, ages=np.array([1000, 49]), views=np.array([1000, 0]))
    many = replace(check, ages=np.array([1000, 50]), views=np.array([1000, 300]))
    lateral, child = ood.image_warnings(few, chest(1000), tags)
    assert has_facts(lateral, "1,000", "training images", "view", 0)
    assert has_facts(child, "age", "1,000", 49)
    assert ood.image_warnings(many, chest(1000), tags) == ()


# -- From dataset folders, and in bundles -----------------------------------------------------------------------------


def saved(found: OODCheck) -> bytes:
    file = Path(os.environ["PYTEST_TMP"]) / "x.npz"
    found.save(file)
    return file.read_bytes()


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_TMP", str(tmp_path))


def test_the_same_images_give_the_same_bytes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets, train, val = rows(data)
    found = ood.fit_check(datasets, train, val)
    assert found and found.ages.tolist() == [40, 10] and found.views.tolist() == [40, 1] and found.learnt
    assert found.fitted_on == 39  # the lateral is an example of what is unusual
    again = ood.fit_check(datasets, train[::-1], val)
    assert again and saved(found) == saved(again)
    monkeypatch.setattr(fitting, "MOST", 30)
    some = ood.fit_check(datasets, train, val)
    assert some and some.fitted_on == some.held_out == 30 and saved(some) != saved(found)


def test_rows_are_counted_through_all_stores(data: Path) -> None:
    (one,), _, _ = rows(data)
    wanted = [appearance.cropped_content(one.image(row)) for row in (3, 7)]
    assert (np.stack(fitting._images(Datasets.of([one, one]), np.array([3, COUNT + 7]))) == np.stack(wanted)).all()


def test_of_few_images_there_is_no_check(data: Path) -> None:
    datasets, train, val = rows(data)
    assert ood.fit_check(datasets, train[:19], val) is None  # one of them is a lateral
    assert ood.fit_check(datasets, train[1:21], val[:0]) is not None


def test_somebody_elses_model_knows_the_images_that_its_thresholds_are_from(data: Path, check: OODCheck) -> None:
    datasets, _, _ = rows(data)
    found = ood.halved(datasets, np.arange(COUNT))
    assert found and not found.learnt and 40 <= found.held_out <= 60
    (said,) = ood.image_warnings(found, chest(1000), {"age": "7"} | {"view": "LATERAL"})
    assert has_facts(said, "thresholds", "view")
    assert ood.preferred_check(check, found) is check and ood.preferred_check(found, check) is check
    assert ood.preferred_check(None, found) is found is ood.preferred_check(found, None)


def test_a_trained_model_keeps_its_check_and_predict_tells(data: Path, tmp_path: Path) -> None:
    run, table = tmp_path / "模型 run", tmp_path / "said.csv"
    words = ["finetune", "--data", str(data), "--out", str(run), "--model", "test_resnet", "--size", "32"]
    assert cli.main([*words, "--epochs", "1", "--threads", "1", "--precision", "float32"]) == 0
    opened, wanted = load_classifier(run), ood.fit_check(*rows(data))
    assert opened.ood and wanted and saved(opened.ood) == saved(wanted)
    cv2.imwrite(str(tmp_path / "a.png"), chest(1000, 48))
    cv2.imwrite(str(tmp_path / "b.png"), 255 - chest(1000, 48))
    assert cli.main(["predict", str(run), *(str(tmp_path / f"{name}.png") for name in "ab"), "--out", str(table)]) == 0
    plain, inverted = pd.read_csv(table)["image_warnings"].fillna("")
    assert not plain and inverted.startswith("Possibly inverted.")


def test_a_bundle_without_a_check_has_no_warning_of_pixels(data: Path, tmp_path: Path, check: OODCheck) -> None:
    opened = load_classifier(trained(tmp_path, dataset_folder.open(data)))
    assert opened.ood is None
    save_bundle(opened.folder, opened.method, opened.spec, Provenance.nothing(), check)
    told = load_classifier(tmp_path).ood
    assert told and saved(told) == saved(check)
    save_bundle(opened.folder, opened.method, opened.spec, Provenance.nothing())
    assert load_classifier(tmp_path).ood is None  # not the one of the model before


def test_a_check_holds_no_image(check: OODCheck) -> None:
    assert len(check.components) <= TRAIN / 10
    assert len(saved(check)) < 100_000


def test_a_model_of_synthetic_images_warns_with_every_prediction(data: Path, tmp_path: Path) -> None:
    opened = load_classifier(trained(tmp_path / "own", dataset_folder.open(data)))
    assert not opened.spec.warning
    drawn = TrainingData("phantom", phantom.SOURCE, "CC0-1.0")
    image_file = tmp_path / "a.png"
    cv2.imwrite(str(image_file), chest(1000, 48))
    for sources, word in (((drawn,), "only"), ((*opened.spec.data, replace(drawn, before=True)), "include")):
        model = replace(opened.spec, data=sources)
        save_bundle(tmp_path / word, opened.method, model, Provenance.nothing())
        made = load_classifier(tmp_path / word)
        said = image_files.classified_files(made, [image_file]).warning
        assert "synthetic images" in said and word in said
        assert ServedModel("a", made).about()["warning"] == said
        assert said in (tmp_path / word / "README.md").read_text(encoding="utf-8")


def packed(**arrays: object) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def bomb(own: dict) -> bytes:
    """Whole, and much more than whole."""
    stream = io.BytesIO(packed(**own))
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.npy", bytes(1 << 24))
    return stream.getvalue()


HOSTILE = {
    "nothing": lambda own: b"",
    "cut": lambda own: packed(**own)[:5000],
    "missing": lambda own: packed(limits=1.0),
    "pickled": lambda own: packed(**{**own, "mean": np.array([{}], object)}),
    "nan": lambda own: packed(**{**own, "mean": own["mean"] * np.nan}),
    "infinite": lambda own: packed(**{**own, "limits": np.full(3, np.inf)}),
    "negative": lambda own: packed(**{**own, "held_out": -1}),
    "shape": lambda own: packed(**{**own, "mean": own["mean"][:9]}),
    "many": lambda own: packed(**{**own, "fitted_on": np.ones(3, int)}),
    "text": lambda own: packed(**{**own, "ages": np.array(["a", "b"])}),
    "bomb": bomb,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_damaged_check_is_one_clear_line(kind: str, check: OODCheck, tmp_path: Path) -> None:
    (tmp_path / ood.FILE).write_bytes(HOSTILE[kind](dict(vars(check))))
    with pytest.raises(ValueError, match="is damaged") as raised:
        ood.load_check(tmp_path)
    assert "\n" not in str(raised.value)


# -- The real thing ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL, reason="RIBCAGE_REAL_DATA names no folder of real radiographs")
def test_of_real_files_the_inverted_twin_is_inverted_and_a_leg_is_no_chest() -> None:
    files = sorted((Path(REAL) / "nih" / "images_256").glob("*.jpg"))[:100]
    images = [appearance.cropped_content(image_file.read_image(file).pixels) for file in files]
    check = ood.fitted_check(images[:60], images[60:])

    def said(name: str) -> list[str]:
        read = image_file.read_image(next((Path(REAL) / "dicom").glob(name)))
        square, _ = image_file.fit(read.pixels, 256, "squash")
        return [re.split("[.:]", one)[0] for one in ood.image_warnings(check, square, read.tags)]

    assert said("1.2.276*") == said("RG1_J2KI*") == []
    assert said("Fake_MONOHR1*") == ["Possibly inverted"]
    assert said("RG3_J2KI*")[0].startswith("Possibly not a chest")
    assert said("syntaxes/CTImage.dcm")[0] == "Not a plain radiograph"


def test_a_dark_image_and_an_invalid_tag_are_warned_of_without_its_text() -> None:
    plain = chest(0)
    (dark,) = ood.image_warnings(
        None, plain, {}, (Note("only 12 of 16 bits are used", caution=True), Note("16 bit converted to 8"))
    )
    assert has_facts(dark, "12 of 16 bits")
    (body,) = ood.image_warnings(None, plain, {"body": "SECRET^NAME"})
    assert "SECRET" not in body and "DICOM" in body
