"""Pictures unlike those a model learnt from are noticed, those like them are not, and a bundle tells no more than that."""

import io
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from models import trained

from ribcage import bundle, cli, image, store, typical
from ribcage.provenance import Provenance
from ribcage.typical import Typical

REAL = os.environ.get("RIBCAGE_REAL_DATA", "")
COUNT = 420


def chest(seed: int, side: int = 64) -> np.ndarray:
    """A bright trunk with two dark lungs, a heart, a belly and noise."""
    rng = np.random.default_rng(seed)
    grown, moved = rng.uniform(0.9, 1.1, 6), rng.normal(0, 1.5, 6)
    picture = np.full((64, 64), 30.0, np.float32)
    cv2.ellipse(picture, (32, 44), (int(29 * grown[0]), 46), 0, 0, 360, 190, -1)
    for at, (x, wide) in enumerate(((19, 9), (45, 8))):
        centre = (int(x + moved[at]), int(27 + moved[2]))
        cv2.ellipse(picture, centre, (int(wide * grown[1]), int(19 * grown[2])), 0, 0, 360, 60, -1)
    cv2.ellipse(picture, (int(38 + moved[3]), 38), (int(9 * grown[3]), 8), 0, 0, 360, 170, -1)
    noisy = cv2.GaussianBlur(picture, (0, 0), 1.5) * rng.uniform(0.8, 1.2) + rng.normal(0, 4, (64, 64))
    return cv2.resize(np.clip(noisy, 0, 255).astype(np.uint8), (side, side), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def known() -> Typical:
    pictures = np.stack([typical.small(chest(seed)) for seed in range(COUNT)])
    return typical.fitted(pictures[:250], pictures[250:])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder: 250 pictures to learn from, the others to choose by; a few laterals, many children."""
    files = tmp_path_factory.mktemp("医院 one") / "files"
    files.mkdir()
    for seed in range(COUNT):
        (files / f"{seed:03d}.png").write_bytes(cv2.imencode(".png", chest(seed, 32))[1].tobytes())
    place = np.arange(COUNT)
    pd.DataFrame(
        {
            "path": [f"{seed:03d}.png" for seed in place],
            "patient": [f"p{seed // 2}" for seed in place],
            "split": np.where(place < 250, "train", "val"),
            "view": np.where(place % 50 == 0, "LATERAL", "PA"),
            "age": np.where(place % 4 == 0, 7, 60),
            "Mass": place % 3 == 0,
        }
    ).to_csv(files / "labels.csv", index=False)
    out = files.parent / "set"
    assert cli.main(["import", "folder", str(files), "--out", str(out), "--size", "32", "--name", "one"]) == 0
    return out


def rows(data: Path) -> tuple[list[store.Store], np.ndarray, np.ndarray]:
    opened = store.open(data)
    split = opened.index.table["split"].to_numpy()
    return [opened], np.flatnonzero(split == "train"), np.flatnonzero(split == "val")


# -- Pictures ---------------------------------------------------------------------------------------------------------


def test_pictures_like_those_learnt_from_are_not_remarked_on(known: Typical) -> None:
    said = [typical.remarks(known, chest(seed), {}) for seed in range(1000, 1200)]
    assert sum(map(bool, said)) <= 6


@pytest.mark.parametrize(
    ("look", "alter"),
    [
        ("inverted", lambda picture: 255 - picture),
        ("upside down", lambda picture: picture[::-1, ::-1]),
        ("turned to the left by 90°", lambda picture: np.rot90(picture)),
        ("turned to the right by 90°", lambda picture: np.rot90(picture, -1)),
    ],
    ids=["inverted", "upside-down", "left", "right"],
)
def test_a_picture_that_only_has_to_be_mended_is_said_to_be_so(known: Typical, look: str, alter: object) -> None:
    said = [typical.remarks(known, alter(chest(seed)), {}) for seed in range(1000, 1050)]  # type: ignore[operator]
    assert sum(bool(one) and one[0].startswith(f"Looks {look}: ") for one in said) >= 45


def test_an_inverted_picture_with_black_borders_is_inverted(known: Typical) -> None:
    padded = np.zeros((96, 96), np.uint8)
    padded[:, 16:80] = 255 - cv2.resize(chest(1000), (64, 96))
    mended = typical._exchanged(padded.astype(np.float32))
    assert not mended[:, :16].any() and not mended[:, 80:].any()
    assert (mended[:, 16:80] == cv2.resize(chest(1000), (64, 96))).all()


def test_what_is_no_chest_is_far(known: Typical) -> None:
    rng = np.random.default_rng(0)
    stripes = np.tile(np.repeat([0, 255], 4).astype(np.uint8), (64, 8))
    for strange in (rng.integers(0, 256, (64, 64), dtype=np.uint8), stripes):
        (said,) = typical.remarks(known, strange, {})
        assert said.startswith("Far from the training pictures, perhaps no frontal chest radiograph: distance ")
        assert f"{known.held_out} validation pictures are within {known.limit:.2f}." in said


def test_an_empty_picture_is_empty_whatever_is_known(known: Typical) -> None:
    for gray in (0, 128, 255):
        square = np.full((64, 64), gray, np.uint8)
        assert typical.remarks(known, square, {}) == typical.remarks(None, square, {}) != ()


def test_sixteen_bits_look_as_eight(known: Typical) -> None:
    strange = 255 - chest(1000)
    assert typical.remarks(known, strange.astype(np.uint16) * 257, {}) == typical.remarks(known, strange, {}) != ()


def test_the_limit_is_what_it_is_said_to_be(known: Typical) -> None:
    held_out = np.stack([typical.small(chest(seed)) for seed in range(250, COUNT)])
    distances = known.distances(held_out)
    assert known.inside == (distances <= known.limit).sum() == len(held_out)  # of so few, their greatest
    assert known.scale * 2 == pytest.approx(known.parts(held_out).mean(axis=0) * 2)
    many = np.arange(2000.0)
    assert (many <= typical._kept_by(many, 0.995)).mean() == 0.9955  # 1,991: the least that a new one keeps in 99.5 %


def test_the_distance_is_the_one_of_the_docstring(known: Typical) -> None:
    z = typical.thumbnail(typical.small(chest(1000))) - known.mean
    along = np.array([component @ z for component in known.components])
    wanted = (along**2 / known.variances).sum() / known.scale[0] + (z @ z - along @ along) / known.scale[1]
    assert known.distances(typical.small(chest(1000))[None])[0] ** 2 == pytest.approx(wanted)


# -- Tags -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "start"),
    [
        ({"modality": "CT"}, "No plain radiograph: its DICOM says modality CT."),
        ({"body": "HIP"}, "Perhaps no chest: its DICOM says body part HIP."),
        ({"view": "LATERAL"}, "Not a frontal picture: its DICOM says it is a lateral; how many"),
        ({"age": "7"}, "A child: its DICOM says age 7; how many"),
        ({"age": "0.8333"}, "A child: its DICOM says age 0.833;"),
        ({"body": "\x1b[31m" + "X" * 99}, "Perhaps no chest: its DICOM says body part that is no DICOM word."),
    ],
    ids=["modality", "body", "lateral", "child", "infant", "hostile"],
)
def test_what_a_dicom_says_is_said(tags: dict[str, str], start: str) -> None:
    (said,) = typical.remarks(None, chest(0), tags)
    assert said.startswith(start)


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
def test_of_an_ordinary_dicom_nothing_is_said(tags: dict[str, str]) -> None:
    assert typical.remarks(None, chest(0), tags) == ()


def test_who_has_learnt_from_laterals_and_children_does_not_call_them_strange(known: Typical) -> None:
    tags = {"view": "LATERAL", "age": "7"}
    few = replace(known, ages=np.array([1000, 49]), views=np.array([1000, 0]))
    many = replace(known, ages=np.array([1000, 50]), views=np.array([1000, 300]))
    lateral, child = typical.remarks(few, chest(1000), tags)
    assert "of the training pictures with a known view, 1,000, 0 were laterals" in lateral
    assert "with a known age, 1,000, 49 were of children" in child
    assert typical.remarks(many, chest(1000), tags) == ()


# -- From dataset folders, and in bundles -----------------------------------------------------------------------------


def saved(found: Typical) -> bytes:
    file = Path(os.environ["PYTEST_TMP"]) / "x.npz"
    found.save(file)
    return file.read_bytes()


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_TMP", str(tmp_path))


def test_the_same_pictures_give_the_same_bytes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores, learning, choosing = rows(data)
    found = Typical.of(stores, learning, choosing)
    assert found and found.ages.tolist() == [250, 63] and found.views.tolist() == [250, 5] and found.learnt
    again = Typical.of(stores, learning[::-1], choosing)
    assert again and saved(found) == saved(again)
    monkeypatch.setattr(typical, "MOST", 220)
    some, again = Typical.of(stores, learning, choosing), Typical.of(stores, learning, choosing)
    assert some and again and saved(some) == saved(again) != saved(found)


def test_rows_are_counted_through_all_stores(data: Path) -> None:
    (one,), _, _ = rows(data)
    wanted = [typical.small(one.picture(row)) for row in (3, 7)]
    assert (typical._pictures([one, one], np.array([3, COUNT + 7])) == np.stack(wanted)).all()


def test_of_few_pictures_there_is_no_description(data: Path) -> None:
    stores, learning, choosing = rows(data)
    assert Typical.of(stores, learning[:199], choosing) is None
    assert Typical.of(stores, learning, choosing[:99]) is None


def test_somebody_elses_model_is_described_by_what_its_thresholds_are_from(data: Path, known: Typical) -> None:
    stores, _, _ = rows(data)
    found = typical.halved(stores, np.arange(COUNT))
    assert found and not found.learnt and 190 < found.held_out < 220
    (said,) = typical.remarks(found, 255 - chest(1000), {})
    assert "nearer to the pictures that its thresholds were chosen on" in said
    assert typical.known(known, found) is known and typical.known(found, known) is known
    assert typical.known(None, found) is found is typical.known(found, None)


def test_a_trained_model_keeps_what_its_pictures_look_like_and_predict_tells(data: Path, tmp_path: Path) -> None:
    run, table = tmp_path / "模型 run", tmp_path / "said.csv"
    words = ["finetune", "--data", str(data), "--out", str(run), "--model", "test_resnet", "--size", "32"]
    assert cli.main([*words, "--epochs", "1", "--threads", "1", "--precision", "float32"]) == 0
    opened, wanted = bundle.load(run), Typical.of(*rows(data))
    assert opened.typical and wanted and saved(opened.typical) == saved(wanted)
    cv2.imwrite(str(tmp_path / "a.png"), chest(1000, 48))
    cv2.imwrite(str(tmp_path / "b.png"), 255 - chest(1000, 48))
    assert cli.main(["predict", str(run), *(str(tmp_path / f"{name}.png") for name in "ab"), "--out", str(table)]) == 0
    plain, inverted = pd.read_csv(table)["remarks"].fillna("")
    assert not plain and inverted.startswith("Looks inverted: ")


def test_a_bundle_without_a_description_says_nothing_of_pixels(data: Path, tmp_path: Path, known: Typical) -> None:
    opened = bundle.load(trained(tmp_path, store.open(data)))
    assert opened.typical is None
    bundle.save(opened.folder, opened.method, opened.model, Provenance.nothing(), known)
    told = bundle.load(tmp_path).typical
    assert told and saved(told) == saved(known)
    bundle.save(opened.folder, opened.method, opened.model, Provenance.nothing())
    assert bundle.load(tmp_path).typical is None  # not the one of the model before


def test_a_description_holds_no_picture(known: Typical) -> None:
    lengths = {len(np.atleast_1d(value)) for value in vars(known).values()}
    assert lengths <= {1, 2, 4, typical.COMPONENTS, typical.SIDE**2}
    assert len(saved(known)) < 120_000


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
    "missing": lambda own: packed(limit=1.0),
    "pickled": lambda own: packed(**{**own, "mean": np.array([{}], object)}),
    "nan": lambda own: packed(**{**own, "mean": own["mean"] * np.nan}),
    "infinite": lambda own: packed(**{**own, "limit": np.inf}),
    "zero": lambda own: packed(**{**own, "variances": 0 * own["variances"]}),
    "shape": lambda own: packed(**{**own, "mean": own["mean"][:9]}),
    "many": lambda own: packed(**{**own, "limit": np.ones(3)}),
    "text": lambda own: packed(**{**own, "ages": np.array(["a", "b"])}),
    "bomb": bomb,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_damaged_description_is_one_clear_line(kind: str, known: Typical, tmp_path: Path) -> None:
    (tmp_path / typical.FILE).write_bytes(HOSTILE[kind](dict(vars(known))))
    with pytest.raises(ValueError, match="is damaged") as raised:
        typical.load(tmp_path)
    assert "\n" not in str(raised.value)


# -- The real thing ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not REAL, reason="RIBCAGE_REAL_DATA names no folder of real radiographs")
def test_of_real_files_the_inverted_twin_is_inverted_and_a_leg_is_no_chest() -> None:
    files = sorted((Path(REAL) / "nih" / "images_256").glob("*.jpg"))[:450]
    pictures = np.stack([typical.small(image.read(file).pixels) for file in files])
    known = typical.fitted(pictures[:300], pictures[300:])

    def said(name: str) -> list[str]:
        read = image.read(next((Path(REAL) / "dicom").glob(name)))
        square, _ = image.fit(read.pixels, 256, "squash")
        return [one.split(":")[0] for one in typical.remarks(known, square, read.tags)]

    assert said("1.2.276*") == said("RG1_J2KI*") == []
    assert said("Fake_MONOHR1*") == ["Looks inverted"]
    assert said("RG3_J2KI*")[0] == "Perhaps no chest"
    assert said("syntaxes/CTImage.dcm")[0] == "No plain radiograph"


def test_a_dark_picture_and_a_tag_that_is_no_word_are_told_without_what_it_says() -> None:
    plain = chest(0)
    (dark,) = typical.remarks(None, plain, {}, ("only 12 of 16 bits used, which is dark", "16 bit to 8"))
    assert dark == "Perhaps too dark: only 12 of 16 bits used."
    (body,) = typical.remarks(None, plain, {"body": "SECRET^NAME"})
    assert "SECRET" not in body and "that is no DICOM word" in body
