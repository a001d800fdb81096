"""Audits find patients, images and labels that would bias an evaluation."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from refusals import has_facts

from ribcage import cli
from ribcage.data import audit, dataset_facts, dataset_folder, splits
from ribcage.data import index as indexes
from ribcage.data.audit import audited, copies, counts, shared
from ribcage.data.audit.audited import Member
from ribcage.data.collection import Datasets
from ribcage.data.importer import tables as importer_tables
from ribcage.data.importer import writer
from ribcage.data.index import Index
from ribcage.data.masks import DrawnMask, mask_frame
from ribcage.data.points import point_frame
from ribcage.data.readings import reading_frame
from ribcage.imaging.mask import Mask
from ribcage.reports import audit as datasheet

REAL = os.environ.get("RIBCAGE_REAL_DATA")
real = pytest.mark.skipif(not REAL, reason="RIBCAGE_REAL_DATA names no folder of real images")


def tables(rows: dict[str, list[object]], name: str = "made") -> Member:
    findings = [column for column in rows if column in ("Mass", "Nodule")]
    return Member(name, Index(name, indexes.index_table(pd.DataFrame(rows), findings), tuple(findings)))


def folder(root: Path, pixels: dict[str, np.ndarray], rows: dict[str, list[object]], name: str = "made") -> Member:
    """A dataset folder of these images."""
    (root / "in").mkdir(parents=True)
    for path, image in pixels.items():
        cv2.imencode(".png", image)[1].tofile(root / "in" / path)
    table = indexes.index_table(
        pd.DataFrame({"path": list(pixels), **rows}), [column for column in rows if column == "Mass"]
    )
    index = Index(name, table, ("Mass",) if "Mass" in rows else (), root=root / "in")
    facts = dataset_facts.Facts(name, "nih", "", "", 0, 0, 128, "pad", 8, 0.0, 1.0, index.findings, str(root / "in"))
    with writer.Writer(index, facts, root / "out") as work:
        list(work.run())
    return audited.member(str(root / "out"))


def soft(seed: int, side: int = 160) -> np.ndarray:
    """An image with structure at every scale, another for every seed."""
    chance = np.random.default_rng(seed)
    layers = [
        cv2.resize(chance.normal(0, 1 / grid, (grid, grid)), (side, side), interpolation=cv2.INTER_CUBIC)
        for grid in (4, 8, 16, 32)
    ]
    return cv2.normalize(sum(layers), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)  # type: ignore[call-overload]


def test_labels_are_counted_by_split_as_they_stand() -> None:
    member = tables({"path": list("abcd"), "split": ["train", "train", "train", "test"], "Mass": [1, -1, np.nan, 0]})
    rows = {row["split"]: row for row in counts.finding_counts(member.index)}
    assert rows["train"] == {
        "finding": "Mass",
        "split": "train",
        "positive": 1,
        "negative": 0,
        "uncertain": 1,
        "unknown": 1,
    }
    assert rows["test"]["negative"] == 1


def test_a_patient_on_both_sides_is_named() -> None:
    member = tables({"path": list("abc"), "patient": ["p", "p", "q"], "split": ["train", "test", "test"]})
    found = audit.audit([member])
    assert found["patients"][0]["patients"] == 1 and found["patients"][0]["examples"] == ["p"]
    assert any(has_facts(text, "1 patient", "test", "train") for text in found["problems"])


def test_what_is_in_no_split_is_no_problem_and_what_splits_share_can_be_left_out() -> None:
    rows: dict[str, list[object]] = {"path": list("abc"), "patient": ["p", "p", ""], "split": ["train", "test", ""]}
    shared = "\n".join(audit.audit([tables(rows)])["problems"])
    assert "--drop-shared test" in shared and "is unknown" not in shared
    aside = "\n".join(audit.audit([tables(rows | {"split": ["train", "", "test"]})])["problems"])
    assert "--drop-shared" not in aside and "1 patient" not in aside
    assert has_facts(aside, "patient", "1 image", "not known")


def test_unknown_patients_are_never_one_and_the_same() -> None:
    member = tables({"path": list("ab"), "patient": ["", ""], "split": ["train", "test"]})
    assert not audit.audit([member])["patients"]


def test_patients_of_two_folders_meet_only_in_one_name_space() -> None:
    one = tables({"path": ["a"], "patient": ["7"], "split": ["train"]}, "nih")
    same = Member("again", tables({"path": ["a"], "patient": ["7"], "split": ["test"]}, "nih").index)
    other = tables({"path": ["a"], "patient": ["7"], "split": ["test"]}, "chexpert")
    assert audit.audit([one, same])["patients"][0]["splits"] == ["train", "test"]
    assert not audit.audit([one, other])["patients"]


def test_published_splits_that_contradict_each_other_are_named() -> None:
    member = tables({"path": list("abc"), "split_a": ["test", "test", "train"], "split_b": ["train", "test", "test"]})
    families = audit.audit([member])["families"]
    facts = {"images": 1, "of": 2, "patients": 0, "of_patients": 0}
    assert {"set": "made", "one": ["a", "test"], "other": ["b", "train"], **facts} in families


def test_a_split_without_positives_is_a_problem() -> None:
    member = tables({"path": list("ab"), "split": ["train", "test"], "Mass": [1, 0], "Nodule": [1, 1]})
    assert any(has_facts(text, "test", "no positive", "Mass") for text in audit.audit([member])["problems"])


def test_a_finding_that_is_only_ever_present_is_a_problem() -> None:
    member = tables({"path": list("ab"), "split": ["train", "train"], "Mass": [1, np.nan]})
    assert any(has_facts(text, "train", "Mass", "AUROC") for text in audit.audit([member])["problems"])


@pytest.mark.parametrize("blank", [True, False])
def test_blanks_that_count_as_absent_are_proposed_only_where_there_are_any(blank: bool) -> None:
    labels = [1, np.nan if blank else 1, 1]
    member = tables({"path": list("abc"), "split": ["test"] * 3, "Mass": labels})
    assert any("blank=zeros" in text for text in audit.audit([member])["problems"]) == blank


def test_lists_are_compared_and_their_leaks_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x/1.png\n2.png\n")
    (tmp_path / "b.txt").write_text("image\n2.png 0 1\n3.png 1 0\n")
    rows = {"path": ["1.png", "2.png", "3.png"], "patient": ["p", "q", "p"]}
    words = [f"train={tmp_path / 'a.txt'}", f"test={tmp_path / 'b.txt'}"]
    index = tables(rows).index
    found = shared.listed_splits(Member("made", index, lists=splits.lists(words, rows["path"])))
    assert [(each["images"], each["patients"]) for each in found] == [(1, 2)]


def test_lists_are_compared_without_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By their stems; where a list has a stem twice, by whole paths."""
    (tmp_path / "a.txt").write_text("x/1.png\n2\n4.png\n")
    (tmp_path / "b.txt").write_text("image\n2.png 0 1\ny/1.png 1 0\n3.png 0 0\n")
    words = [f"{name}={tmp_path / file}" for name, file in (("train", "a.txt"), ("test", "b.txt"))]
    found = audit.audit(audited.members((), words))
    assert [(each["images"], each["of"], each["patients"]) for each in found["families"]] == [(2, 3, 0)]
    assert not any("label" in text or "split" in text for text in found["problems"])
    assert cli.main(["inspect", "--split-list", *words, "--html", str(tmp_path / "a.html")]) == 0
    assert has_facts(capsys.readouterr().out, 2, 3, "train", "test")
    (tmp_path / "a.txt").write_text("x/1.png\nz/1.png\n2.png\n")
    (both,) = audit.audit(audited.members((), words))["families"]
    assert both["images"] == 1  # 2.png
    assert cli.main(["inspect"]) == 2 and "--split-list" in capsys.readouterr().err


def test_a_set_without_labels_or_test_is_a_problem() -> None:
    found = audit.audit([tables({"path": list("ab"), "split": ["train", "val"], "split_x": ["train", "val"]})])
    facts = ("label",), ("test split",), ("x split", "test")
    assert all(any(has_facts(text, *each) for text in found["problems"]) for each in facts)


def test_prevalence_is_of_the_labelled_and_of_all() -> None:
    member = tables({"path": list("abcd"), "split": ["train"] * 4, "Mass": [1, np.nan, np.nan, np.nan]})
    table = datasheet.label_table(counts.describe(member))
    assert table.rows[0][table.head.index("prevalence")] == "100.0/25.0 %"
    full = tables({"path": list("ab"), "split": ["train"] * 2, "Mass": [1, 0]})
    assert datasheet.label_table(counts.describe(full)).rows[0][table.head.index("prevalence")] == "50.0 %"


def test_readers_and_what_they_read_are_counted() -> None:
    plain = tables({"path": list("abc"), "split": ["train"] * 3, "Mass": [1, -1, 0]})
    assert "readers" not in dict(datasheet.dataset_facts(counts.describe(plain)))
    rows = pd.DataFrame({"row": [0, 0, 1, 1], "reader": ["R1", "R2", "R2", "R3"], "Mass": [1, 1, 0, 1]})
    read = replace(plain, index=replace(plain.index, readings=reading_frame(rows, ["Mass"])))
    numbers = re.findall(r"\d+", dict(datasheet.dataset_facts(counts.describe(read)))["readers"])
    assert numbers == ["3", "4", "2"]


def test_bit_rot_is_found_by_the_audit_and_before_a_training(tmp_path: Path) -> None:
    member = folder(tmp_path, {"a.png": soft(1), "b.png": soft(2)}, {"split": ["train", "test"]})
    file = tmp_path / "out" / "images.npy"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    opened = dataset_folder.open(tmp_path / "out")
    assert opened.damaged().tolist() == [1]
    assert any(has_facts(text, "1 image", "import") for text in audit.audit([member])["problems"])
    Datasets.of([opened]).require_intact(np.array([0]))
    with pytest.raises(ValueError, match=r"1 image of .* row 1\b"):
        Datasets.of([opened, opened]).require_intact(np.array([3]))


def test_identical_images_are_counted_as_a_person_counts_them(tmp_path: Path) -> None:
    """One image three times, twice in train and once in test: it is in both, and more than once in train."""
    pixels = {"a.png": soft(1), "b.png": soft(1), "c.png": soft(1), "d.png": soft(2)}
    member = folder(tmp_path, pixels, {"split": ["train", "train", "test", "test"], "Mass": [1, 1, 0, 0]})
    found = audit.audit([member])["identical"]
    assert (found["groups"], found["images"], found["other_labels"]) == (1, 3, 1)
    assert {(place["one"][1], place["other"][1]): place["groups"] for place in found["places"]} == {
        ("test", "train"): 1,
        ("train", "train"): 1,
    }


def test_near_copies_are_found_across_folders_and_others_are_not(tmp_path: Path) -> None:
    base = {f"{seed}.png": soft(seed) for seed in range(8)}
    darker = {
        "x.png": cv2.resize((255 * (soft(3) / 255.0) ** 1.6).astype(np.uint8), (100, 100), interpolation=cv2.INTER_AREA)
    }
    one = folder(tmp_path / "one", base, {"split": ["train"] * 8}, "one")
    two = folder(tmp_path / "two", {**darker, "y.png": soft(77)}, {"split": ["test"] * 2}, "two")
    found = audit.audit([one, two])["near"]
    assert [[row[2] for row in group] for group in found["examples"]] == [["3.png", "x.png"]]
    assert audit.audit([one])["near"]["groups"] == 0


def test_linked_things_get_one_group_however_long_the_chain() -> None:
    first, second = np.array([5, 1, 3, 7]), np.array([3, 2, 1, 6])
    assert copies.components(8, first, second).tolist() == [0, 1, 1, 1, 4, 1, 6, 6]


def test_the_audit_is_json_and_the_page_stands_alone(tmp_path: Path) -> None:
    hostile = '<script>alert("x")</script> 病.png'.replace("/", "")
    member = folder(
        tmp_path,
        {hostile: soft(1), "b.png": soft(1)},
        {"split": ["train", "test"], "Mass": [1, 0], "view": ["PA", "AP"]},
    )
    result = audit.audit([member])
    assert json.loads(json.dumps(result)) == result
    page = datasheet.audit_page([member], result, 5)
    assert "<script" not in page and "http" not in page.replace("http://www.w3.org", "")
    assert page.count("<figure>") == 2


def test_a_sheet_shows_each_finding_first() -> None:
    labels = {"Mass": [0, 0, 0, 1], "Nodule": [0, 0, 1, 0]}
    member = tables({"path": list("abcd"), **labels})
    assert datasheet.sample_rows(member, 2) == [3, 2]
    assert sorted(datasheet.sample_rows(member, 9)) == [0, 1, 2, 3]


# ---- the whole way, as typed


def test_importing_and_inspecting_own_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, seeds in (("train", (1, 2, 3)), ("test", (3, 4))):
        for seed in seeds:
            place = tmp_path / "胸片 x" / split / ("Mass" if seed % 2 else "normal")
            place.mkdir(parents=True, exist_ok=True)
            cv2.imencode(".png", soft(seed))[1].tofile(place / f"{seed}.png")
    assert cli.main(["import", "folder", str(tmp_path / "胸片 x"), "--out", str(tmp_path / "o"), "--size", "192"]) == 0
    assert "5 of 5 images" in (said := capsys.readouterr().out)  # they are 160 × 160
    assert "--size 160 enlarges none" in said
    assert cli.main(["inspect", str(tmp_path / "o"), "--json", str(tmp_path / "o.json")]) == 0
    assert has_facts(" ".join(capsys.readouterr().out.split()), 1, "both", "test")
    (described,) = json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))["sets"]
    assert described["images"] == 5
    assert described["enlarged"] in said
    assert ("files", f"160 × 160 px; {described['enlarged']}") in datasheet.dataset_facts(described)


@pytest.mark.parametrize(
    ("fit", "enlarged", "size"), [("pad", "1 of 4", "--size 224 enlarges none"), ("crop", "2 of 4", "--size 150 ")]
)
def test_enlarged_images_are_counted_by_the_side_that_fits(fit: dataset_facts.Fit, enlarged: str, size: str) -> None:
    facts = dataset_facts.Facts("made", "nih", "", "", 4, 0, 256, fit, 8, 0.0, 1.0, (), "")
    table = pd.DataFrame({"width": [224, 300, 256, 512], "height": [200, 150, 256, 700]})
    said = importer_tables.enlarged(table, facts)
    assert enlarged in said
    assert size in said
    assert importer_tables.enlarged(table, replace(facts, size=150)) == ""
    assert importer_tables.enlarged(table.drop(columns="width"), facts) == ""


def test_a_few_small_images_do_not_decide_the_size() -> None:
    facts = dataset_facts.Facts("made", "nih", "", "", 100, 0, 256, "pad", 8, 0.0, 1.0, (), "")
    table = pd.DataFrame({"width": [20] + 99 * [512], "height": [20] + 99 * [512]})
    assert "1 of 100 images (1%)" in (said := importer_tables.enlarged(table, facts))
    assert "--size" not in said


def test_inspecting_no_dataset_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(tmp_path)]) == 1
    assert has_facts(capsys.readouterr().err, tmp_path, "dataset folder")


@pytest.mark.parametrize("word", ["http://host/data", "nih:https://host/data"])
def test_inspecting_an_address_of_another_kind_is_one_line(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", word]) == 2
    assert has_facts(capsys.readouterr().err, word.removeprefix("nih:").partition("//")[0], "s3://")


def test_another_import_does_not_touch_a_finished_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["import", "phantom", "--out", str(tmp_path / "p"), "--images", "10", "--size", "32"]
    assert cli.main(words) == 0
    assert cli.main([*words, "--seed", "5"]) == 2
    assert has_facts(capsys.readouterr().err, tmp_path / "p", "another dataset")


# ---- on the real thing


@real
def test_the_real_split_families_contaminate_each_other() -> None:
    """17,920 of the 25,596 official test images are in the other family's train list."""
    member = audited.member(f"nih:{REAL}/nih")
    found = {
        (*family["one"], *family["other"]): (family["images"], family["patients"])
        for family in shared.split_families(member)
    }
    assert found["official", "test", "arnoweng", "train"] == (17920, 1901)
    assert found["official", "test", "arnoweng", "val"] == (2463, 306)
    assert (
        found["arnoweng", "test", "official", "train"][0] == 14936 and ("arnoweng", "val", "official", "train") in found
    )


@real
def test_lists_that_were_published_together_share_images_and_patients() -> None:
    """The lists of DTforCXR8: the official one to train, arnoweng's to test."""
    lists = (f"train={REAL}/nih/train_val_list.txt.gz", f"test={REAL}/nih/arnoweng/test_list.txt.gz")
    result = audit.audit(audited.members([f"nih:{REAL}/nih"], lists), near=False)
    shared = next(each for each in result["families"] if each["one"][0] == "list")
    assert (shared["images"], shared["patients"]) == (17220, 5597)
    assert any(has_facts(text, "17,220", "86,524", "train", "5,597") for text in result["problems"])


@real
def test_the_duplicates_of_pneumoniamnist_are_found(tmp_path: Path) -> None:
    assert cli.main(["import", "medmnist", f"{REAL}/pneumoniamnist.npz", "--out", str(tmp_path / "pm")]) == 0
    found = copies.identical([audited.member(str(tmp_path / "pm"))])
    places = {(place["one"][1], place["other"][1]): place["groups"] for place in found["places"]}
    assert places == {("train", "val"): 8, ("train", "train"): 18, ("test", "test"): 3}


def test_masks_and_points_are_counted_and_outlined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gray = {f"{place}.png": np.full((128, 128), 40 * place, np.uint8) for place in range(3)}
    index = audited.member(str(folder(tmp_path / "a", gray, {"split": ["train"] * 3}).dataset.folder)).index  # type: ignore[union-attr]
    drawn = [DrawnMask(0, "Heart", Mask.of_pixels(np.eye(128))), DrawnMask(0, "Left_Lung", Mask(128, 128)),
             DrawnMask(2, "Heart", Mask.of_pixels(np.ones((128, 128))))]  # fmt: skip
    points = pd.DataFrame({"row": [1], "structure": "Nodule", "x": [3.0], "y": [4.0]})
    index = replace(index, masks=mask_frame(drawn), points=point_frame(points), root=tmp_path / "a" / "in")
    described = counts.describe(Member("a", index))
    assert described["masks"] == {"Heart": {"masks": 2, "empty": 0}, "Left_Lung": {"masks": 0, "empty": 1}}
    assert described["masked_images"] == 2 and described["points"] == {"Nodule": 1}
    facts = dataset_facts.Facts("a", "nih", "", "", 0, 0, 64, "pad", 8, 0.0, 1.0, (), str(index.root))
    with writer.Writer(index, facts, tmp_path / "out") as work:
        list(work.run())
    opened = dataset_folder.open(tmp_path / "out")
    assert opened.masks_of(2)["Heart"].all() and not opened.masks_of(1) and set(opened.masks_of(0)) == {"Heart"}
    assert cli.main(["inspect", str(tmp_path / "out"), "--html", str(tmp_path / "a.html")]) == 0
    page, printed = (tmp_path / "a.html").read_text(encoding="utf-8"), capsys.readouterr().out
    assert has_facts(printed, "Heart 2", "Left_Lung 0", "1 empty") and has_facts(page, "Heart 2")
    assert opened._repr_html_() != dataset_folder.open(tmp_path / "a" / "out")._repr_html_()
