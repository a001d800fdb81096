"""The leakage check finds patients, identical images and near-copies, and nothing else; it tells training from selection."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from refusals import has_facts
from test_provenance import radiograph

from ribcage.commands import import_
from ribcage.data import dataset_folder
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.fingerprint_table import Fingerprints
from ribcage.data.provenance import Provenance
from ribcage.evaluation import leakage
from ribcage.evaluation.leakage import Leak
from ribcage.imaging import fingerprint

TRAIN, VAL = np.arange(6), np.arange(6, 10)
NOBODY = np.empty(0, np.uint64)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DatasetFolder]:
    """The same images of five patients at two sizes, and linked."""
    root = tmp_path_factory.mktemp("守卫 guard")
    (root / "files").mkdir()
    rows = [{"path": f"{n}.png", "patient": f"p{n // 2}", "split": "train", "Mass": 1} for n in range(10)]
    for number in range(10):
        cv2.imwrite(str(root / "files" / f"{number}.png"), radiograph(number))
    pd.DataFrame(rows).to_csv(root / "files" / "labels.csv", index=False)
    for name, size, link in (("large", 64, False), ("small", 48, False), ("linked", 64, True)):
        import_.run(import_.Options("folder", root / "files", out=root / name, size=size, link=link, name="one"))
    return {name: dataset_folder.open(root / name) for name in ("large", "small", "linked")}


@pytest.mark.parametrize("whose", ["large", "linked"])
@pytest.mark.parametrize("mine", ["large", "small"])
def test_selection_images_are_told_apart_from_training_images(
    whose: str, mine: str, sets: dict[str, DatasetFolder]
) -> None:
    seen, tested = Provenance.of(Datasets.of([sets[whose]]), TRAIN, VAL), Datasets.of([sets[mine]])
    found = leakage.check_leakage(seen, tested, VAL, selected=True)
    assert found.found and found.selected_on == (4 if whose == "large" else 0)  # linked: known by patients alone
    with pytest.raises(leakage.LeakError, match=r"4 test images.* 2 patients") as error:
        leakage.check_leakage(seen, tested, VAL)
    assert "--drop-shared" not in str(error.value) and "--allow-leak" in str(error.value)  # it would leave no image
    with pytest.raises(leakage.LeakError) as error:
        leakage.check_leakage(seen, tested, np.arange(4, 8), selected=True)
    assert (error.value.leak.images, error.value.leak.patients) == (2, 1)
    assert error.value.leak.sentence("validation").startswith("Of 4 validation images, 2 ")


def test_roles_of_patients_follow_from_images_in_older_files(sets: dict[str, DatasetFolder]) -> None:
    old = replace(Provenance.of(Datasets.of([sets["large"]]), TRAIN, VAL), selected=NOBODY)
    assert leakage.check_leakage(old, Datasets.of([sets["small"]]), VAL, selected=True).selected_on == 4
    with pytest.raises(leakage.LeakError):
        leakage.check_leakage(replace(Provenance.of(Datasets.of([sets["linked"]]), TRAIN, VAL), selected=NOBODY), Datasets.of([sets["large"]]), VAL,
                    selected=True)  # fmt: skip


def test_an_image_in_training_and_selection_counts_as_a_training_image(sets: dict[str, DatasetFolder]) -> None:
    both = Provenance.of(Datasets.of([sets["large"]]), TRAIN, np.append(VAL, 0))
    tested, rows = Datasets.of([sets["large"]]), np.array([0, 6])
    assert leakage.check_leakage(both, tested, rows, selected=True, allow=True).selected_on == 1
    with pytest.raises(leakage.LeakError) as error:
        leakage.check_leakage(both, tested, rows, selected=True)
    assert (error.value.leak.images, error.value.leak.identical, error.value.leak.alike) == (1, 1, 1)


def test_linked_folders_and_images_without_fingerprints_are_named_and_counted(sets: dict[str, DatasetFolder]) -> None:
    seen = Provenance.of(Datasets.of([sets["linked"]]), TRAIN, VAL[:2]) | Provenance.of(
        Datasets.of([sets["small"]]), VAL[2:3], VAL[:0]
    )
    for whose, names in (("large", ()), ("linked", ("one",))):
        found = leakage.check_leakage(seen, Datasets.of([sets[whose]]), VAL, allow=True)
        assert found.linked == names and (found.checked, found.tested) == (4, 4)
        assert (found.seen, found.unseen) == (9, 8)  # linked folders store no fingerprints


def test_patients_of_an_older_bundle_without_a_key_are_left_out_as_they_are_found(
    sets: dict[str, DatasetFolder],
) -> None:
    prints, tested = sets["large"].fingerprints, Datasets.of([sets["large"]])
    assert not np.isin(prints.patients, prints.without_key).any()  # private, so the site's key is used
    old = replace(Provenance.nothing(), patients=np.unique(prints.without_key[TRAIN]))
    found = leakage.check_leakage(old, tested, np.arange(10), allow=True)
    kept, left = leakage.unseen(old, tested, np.arange(10))
    assert kept.tolist() == VAL.tolist()
    assert (left.images, left.patients, left.copies) == (found.images, found.patients, found.alike) == (6, 3, 0)


def test_initial_weights_trained_on_validation_rows_are_warned_of(sets: dict[str, DatasetFolder]) -> None:
    learnt, chose = (
        Provenance.of(Datasets.of([sets["large"]]), VAL, TRAIN),
        Provenance.of(Datasets.of([sets["large"]]), TRAIN, VAL),
    )
    said = leakage.initial_weights_warning(learnt, Datasets.of([sets["small"]]), VAL, "val")
    assert has_facts(said, "split 'val'") and "4 validation images" in said
    assert leakage.initial_weights_warning(chose, Datasets.of([sets["small"]]), VAL, "val") == ""
    assert leakage.initial_weights_warning(Provenance.nothing(), Datasets.of([sets["small"]]), VAL, "val") == ""


def test_of_two_that_saw_the_same_who_was_trained_on_it_counts(sets: dict[str, DatasetFolder]) -> None:
    one = Provenance.of(Datasets.of([sets["large"]]), TRAIN, VAL)
    other = Provenance.of(Datasets.of([sets["large"]]), np.arange(6, 8), np.arange(4, 6))
    for both in (one | other, other | one):
        assert both.role.sum() == 2 and len(both.pixels) == 10
        assert set(both.pixels[both.role == 1]) == set(sets["large"].fingerprints.pixels[8:])
        assert set(both.selected) == set(sets["large"].fingerprints.patients[8:]) and len(both.patients) == 5


def test_what_nobody_knows_is_handed_on_and_older_files_open(sets: dict[str, DatasetFolder], tmp_path: Path) -> None:
    seen = (
        Provenance.of(Datasets.of([sets["large"]]), TRAIN, VAL)
        | Provenance.nothing("答案.csv")
        | Provenance.nothing("densenet")
    )
    seen.save(tmp_path / "new.npz")
    read = Provenance.load(tmp_path / "new.npz")
    assert read.unknown.tolist() == ["densenet", "答案.csv"] and np.array_equal(read.selected, seen.selected)
    assert leakage.check_leakage(read, Datasets.of([sets["large"]]), VAL, allow=True).unknown == (
        "densenet",
        "答案.csv",
    )
    names = ("patients", "pixels", "prints", "role")
    np.savez(tmp_path / "old.npz", **{name: getattr(seen, name) for name in names})
    old = Provenance.load(tmp_path / "old.npz")
    assert len(old.pixels) == 10 and not len(old.selected) and not len(old.unknown)
    for wrong in ({"unknown": np.arange(2)}, {"selected": np.array(["a"])}, {"unknown": np.array([["a"]])}):
        np.savez(tmp_path / "no.npz", **{name: getattr(seen, name) for name in names} | wrong)
        with pytest.raises(ValueError, match="is damaged"):
            Provenance.load(tmp_path / "no.npz")


def prints_of(images: list[np.ndarray], patients: list[int]) -> Fingerprints:
    return Fingerprints(
        np.stack([fingerprint.fingerprint(image) for image in images]),
        np.array([fingerprint.pixel_hash(image) for image in images], np.uint64),
        np.array(patients, np.uint64),
    )


def seen_of(prints: Fingerprints) -> Provenance:
    known = prints.patients[prints.patients > 0]
    return Provenance(np.unique(known), prints.pixels, prints.prints, np.zeros(len(prints.pixels), np.uint8))


IMAGES = [radiograph(seed) for seed in range(8)]
SEEN = seen_of(prints_of(IMAGES, [1, 1, 2, 2, 3, 3, 0, 0]))
OTHERS = [radiograph(seed) for seed in range(100, 105)]


def test_a_check_without_all_patients_is_incomplete(sets: dict[str, DatasetFolder]) -> None:
    tested, patients = Datasets.of([sets["large"]]), Provenance.of(Datasets.of([sets["large"]]), TRAIN, TRAIN[:0])
    assert leakage.check_leakage(patients, tested, VAL).complete
    for seen in (
        replace(patients, patients=NOBODY),
        replace(patients, unknown=np.array(["x.pt"])),
        replace(patients, pixels=NOBODY, prints=patients.prints[:0], patients=NOBODY),
    ):
        check = leakage.check_leakage(seen, tested, VAL)
        assert not check.found and not check.complete
    table = sets["large"].index.table
    nameless = replace(
        sets["large"].index, table=table.assign(patient=np.where(table.index == 9, "", table["patient"]))
    )
    check = leakage.check_leakage(patients, Datasets.of([replace(sets["large"], index=nameless)]), VAL)
    assert check.patients_unknown and not check.complete


def test_strangers_are_no_leak() -> None:
    leak = leakage.find_leak(SEEN, prints_of(OTHERS, [11, 12, 13, 14, 0]))
    assert leak == Leak(0, 0, 0, 0, 5) and not leak


def test_patients_are_counted_with_all_their_images() -> None:
    leak = leakage.find_leak(SEEN, prints_of(OTHERS, [1, 1, 3, 14, 15]))
    assert (leak.patients, leak.images, leak.identical, leak.alike) == (2, 3, 0, 0) and leak


def test_unknown_patients_are_nobody() -> None:
    assert not leakage.find_leak(SEEN, prints_of(OTHERS, [0] * 5))


def test_identical_images_count_as_copies_too() -> None:
    leak = leakage.find_leak(SEEN, prints_of([IMAGES[0], IMAGES[6], *OTHERS], [0] * 7))
    assert (leak.patients, leak.images, leak.identical, leak.alike) == (0, 0, 2, 2) and leak


def test_a_resized_compressed_or_inverted_copy_is_found() -> None:
    small = cv2.resize(IMAGES[0], (64, 64), interpolation=cv2.INTER_AREA)
    lossy = cv2.imdecode(cv2.imencode(".jpg", IMAGES[1], [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 0)
    leak = leakage.find_leak(SEEN, prints_of([small, lossy, 255 - IMAGES[2], *OTHERS], [0] * 8))
    assert (leak.identical, leak.alike) == (0, 3)


def test_the_sentence_names_all_counts() -> None:
    leak = leakage.find_leak(SEEN, prints_of([IMAGES[0], *OTHERS], [1, 1, 2, 0, 0, 9]))
    assert has_facts(str(leak), "6 test images", 3, "2 patients", 1, "copy", 1, "identical")
