"""ribcage evaluate and compare: leakage, warnings, files of a test, and what is refused."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import models
import numpy as np
import pandas as pd
import pytest
import trees
from markupsafe import escape
from refusals import has_facts

from ribcage import cli
from ribcage.bundle.io import load_classifier
from ribcage.bundle.spec import ModelSpec
from ribcage.data import dataset_folder
from ribcage.data.collection import Datasets
from ribcage.data.label_policy import Policy
from ribcage.evaluation import leakage
from ribcage.evaluation.labelled import labelled_predictions
from ribcage.evaluation.planned_test import PlannedTest, Rules
from ribcage.inference.predictions import Predictions

# ---- the command, on a small tree with both families of lists


@pytest.fixture(scope="module")
def nih(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dataset folders of the same images under both splits, and a model trained on the arnoweng one."""
    folder = tmp_path_factory.mktemp("评估 evaluation")
    root = trees.nih(folder / "download")
    for family in ("arnoweng", "official"):
        words = ["import", "nih", str(root), "--out", str(folder / family), "--split", family, "--size", "32"]
        assert cli.main(words) == 0
    models.trained(folder / "run", dataset_folder.open(folder / "arnoweng"))
    return folder


def evaluate(nih: Path, *words: str, on: str = "arnoweng") -> int:
    return cli.main(["evaluate", str(nih / "run"), "--data", str(nih / on), "--resamples", "20", *words])


def test_a_model_of_one_split_family_is_not_tested_on_the_other(nih: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(nih, on="official") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "9 test images" in said and "3 patients" in said and "9 are copies" in said and "--allow-leak" in said
    assert not (nih / "run" / "evaluation" / "nih-test" / "metrics.json").exists()


def test_an_allowed_leak_is_a_warning_in_report_and_numbers(nih: Path, tmp_path: Path) -> None:
    assert evaluate(nih, "--allow-leak", "--out", str(tmp_path / "结果"), on="official") == 0
    found = json.loads((tmp_path / "结果" / "metrics.json").read_text(encoding="utf-8"))
    assert found["leak"]["found"] and found["leak"]["identical"] == 9
    assert "leak" in found["warnings"][0]
    assert escape(found["warnings"][0]) in (tmp_path / "结果" / "index.html").read_text(encoding="utf-8")


def test_an_evaluation_leaves_a_table_numbers_and_a_page(nih: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(nih) == 0
    out = nih / "run" / "evaluation" / "nih-test"
    table = pd.read_parquet(out / "predictions.parquet")
    opened = dataset_folder.open(nih / "arnoweng")
    assert len(table) == 6 and set(table["split"]) == {"test"}
    assert table["Effusion_label"].tolist() == opened.index.table["Effusion"][table["row"]].tolist()
    assert ((table["Effusion"] > 0) & (table["Effusion"] < 1)).all()
    found = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert not found["leak"]["found"] and found["warnings"] == []
    assert found["command"].startswith("ribcage evaluate") and "--resamples 20" in found["command"]
    assert "Effusion" in capsys.readouterr().out


def test_tests_by_other_rules_do_not_overwrite_each_other(nih: Path, tmp_path: Path) -> None:
    shutil.copytree(nih / "run" / "bundle", tmp_path / "bundle")
    words = ["evaluate", str(tmp_path), "--data", str(nih / "arnoweng"), "--resamples", "5", "--table", "chexnet"]
    assert cli.main([*words, "--protocol", "peers", "--rule", "f1", "--policy", "ones,blank=zeros"]) == 0
    assert [file.name for file in (tmp_path / "evaluation").iterdir()] == ["nih-test-peers-f1-ones-blank-zeros"]


def test_wrong_numbers_and_images_given_twice_are_refused(nih: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(nih, "--batch", "0", "--worst", "-1") == 2
    assert has_facts(capsys.readouterr().err, "--batch 0", "--worst -1")
    assert cli.main(["evaluate", str(nih / "run"), "--data", *[str(nih / "arnoweng")] * 2]) == 2
    assert has_facts(capsys.readouterr().err, "images", "more than one")


def test_who_learnt_from_frontal_images_is_not_tested_on_others_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ["--images", "300", "--size", "32", "--lateral", "0.5"]
    assert cli.main(["import", "phantom", "--out", str(tmp_path / "data"), *made]) == 0
    small = ["--model", "test_resnet", "--size", "32", "--epochs", "1", "--batch", "16", "--frontal"]
    assert cli.main(["finetune", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), *small]) == 0
    words = ["evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "data"), "--resamples", "5"]
    assert cli.main(words) == 0 and cli.main([*words, "--frontal"]) == 0
    opened = dataset_folder.open(tmp_path / "data").index.table
    lateral = int(((opened["split"] == "test") & ~opened["view"].isin(["PA", "AP"])).sum())
    tests = tmp_path / "run" / "evaluation"
    every, frontal = (
        json.loads((tests / name / "metrics.json").read_text(encoding="utf-8"))
        for name in ("phantom-test", "phantom-test-frontal")
    )
    assert lateral > 3 and any(has_facts(text, lateral, "frontal") for text in every["warnings"])
    assert every["images"] - frontal["images"] == lateral and not any("frontal" in text for text in frontal["warnings"])


def test_the_table_of_chexnet_is_printed_in_its_form(nih: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(nih, "--table", "chexnet") == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("The final AUROCs: ")
    assert lines[start + 1].startswith("The average AUROC is ")
    assert lines[start + 2] == "The AUROC of Atelectasis is –"  # nobody in this tree has it
    assert any(line.startswith("The AUROC of Effusion is 0.") or line.endswith(" 1.0") for line in lines)


def test_validation_images_are_a_leak_unless_peers_are_followed(nih: Path, tmp_path: Path) -> None:
    assert evaluate(nih, "--split", "val") == 2
    assert evaluate(nih, "--split", "val", "--protocol", "peers", "--out", str(tmp_path)) == 0
    found = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert found["leak"]["selected_on"] == 3
    assert any("test images" in text for text in found["warnings"])
    assert evaluate(nih, "--split", "train", "--protocol", "peers") == 2


def test_a_linked_folder_is_fingerprinted_for_the_leakage_check(
    nih: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["import", "nih", str(nih / "download"), "--out", str(tmp_path / "linked"), "--split", "official"]
    assert cli.main([*words, "--size", "32", "--link", "--name", "renamed"]) == 0  # other patients by name
    assert cli.main(["evaluate", str(nih / "run"), "--data", str(tmp_path / "linked")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "0 patients" in said and "9 are copies" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--split", "tset"), "tset"),
        (("--policy", "ones+lsr"), "'ones+lsr'"),
        (("--rule", "best"), "'best'"),
    ],
)
def test_what_cannot_be_tested_is_one_clear_line(
    nih: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(nih, *words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0]


def test_a_run_without_a_bundle_is_one_clear_line(nih: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(nih), "--data", str(nih / "arnoweng")]) == 1
    assert has_facts(capsys.readouterr().err, "no model")


def test_findings_the_data_lacks_are_left_out_and_named(nih: Path) -> None:
    opened, model = dataset_folder.open(nih / "arnoweng"), load_classifier(nih / "run").spec
    some = replace(opened, index=replace(opened.index, findings=("Effusion", "Mass")))
    said = Predictions(model.findings, np.arange(6), np.zeros((6, 14), np.float32))
    found = labelled_predictions(said, Datasets.of([some]), model)
    assert found.findings == ("Effusion", "Mass") and found.predictions.logits.shape == (6, 2)
    none = replace(opened, index=replace(opened.index, findings=()))
    with pytest.raises(ValueError, match="no finding"):
        labelled_predictions(said, Datasets.of([none]), model)


def test_compare_reads_runs_and_writes_a_page(nih: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(nih) == 0
    second = tmp_path / "第二 run" / "evaluation" / "nih-test"
    second.mkdir(parents=True)
    shutil.copy(nih / "run" / "evaluation" / "nih-test" / "predictions.parquet", second)
    page = tmp_path / "compare.html"
    words = ["compare", str(nih / "run"), str(tmp_path / "第二 run"), "--html", str(page), "--resamples", "20"]
    assert cli.main(words) == 0
    assert "第二 run" in page.read_text(encoding="utf-8") and "<script" not in page.read_text(encoding="utf-8")
    assert cli.main(["compare", str(nih / "run"), str(tmp_path)]) == 1
    assert has_facts(capsys.readouterr().err, "no predictions")


def test_an_honest_test_stands_on_the_card_and_a_leak_does_not(
    nih: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(nih / "run" / "bundle", tmp_path / "模型")
    file = tmp_path / "模型" / "README.md"
    noted = file.read_text(encoding="utf-8")  # other tests may have tested this very model
    plain = re.sub(r"<!-- (tests|tested:.*?) -->.*?<!-- /\1 -->\n\n", "", noted, flags=re.DOTALL)
    file.write_text(plain, encoding="utf-8")
    (tmp_path / "模型" / "tests.json").unlink(missing_ok=True)
    words = ["evaluate", str(tmp_path / "模型"), "--data", str(nih / "arnoweng"), "--resamples", "20"]
    assert cli.main([*words, "--split", "train", "--allow-leak"]) == 0
    said = capsys.readouterr().out
    assert "test 1 of" in said and re.search(r"\n! .*leak", said)  # a first test is no warning
    leaky = file.read_text(encoding="utf-8")
    assert (
        "## Test:" not in leaky and "| 1 | nih, train (leak) |" in leaky and re.search(r"\*\*not [^*]*\*\* \|", leaky)
    )
    assert (
        cli.main([*words, "--out", str(tmp_path / "one")]) == 0
        and cli.main([*words, "--out", str(tmp_path / "two")]) == 0
    )
    text, result = (
        file.read_text(encoding="utf-8"),
        json.loads((tmp_path / "two" / "metrics.json").read_text(encoding="utf-8")),
    )
    assert text.count("## Test: nih, split test") == 1 and text.count("## Limitations") == 1
    assert str(tmp_path) not in text  # cards are shared
    mean = result["macro"]["auroc"]
    assert f"AUROC over {mean['findings']} findings: {mean['value']:.3f} ({mean['low']:.3f}–{mean['high']:.3f})" in text
    assert text.replace(text[text.index("<!-- tests") : text.index("## Limitations")], "") == plain
    assert "3 times" in text and "2 times" in text and "2nd use" in text and "test 2" in text
    assert result["test"]["number"] == 3 and result["test"]["before"] == [2]
    assert "\n! This is test 3 " in capsys.readouterr().out
    page = (tmp_path / "two" / "index.html").read_text(encoding="utf-8")
    assert has_facts(page, "test 3", "2nd", "test 2")


def test_a_tested_split_gives_way_to_what_the_model_has_seen(nih: Path, tmp_path: Path) -> None:
    opened = load_classifier(nih / "run")
    datasets = Datasets.of([dataset_folder.open(nih / "official")])
    rows = np.arange(len(datasets[0]))
    kept, left = leakage.unseen(opened.provenance, datasets, rows)
    assert 0 < len(kept) == len(rows) - left.images and left.patients and left.copies
    assert not leakage.check_leakage(opened.provenance, datasets, kept).found
    with pytest.raises(ValueError, match="--drop-shared leaves no image"):
        leakage.unseen(opened.provenance, datasets, np.setdiff1d(rows, kept))
    assert evaluate(nih, "--split", "all", "--drop-shared", "all", "--out", str(tmp_path), on="official") == 0
    found = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert found["images"] == len(kept) and not found["leak"]["found"]
    assert any(has_facts(note, f"{left.images:,} images", "--drop-shared") for note in found["notes"])
    assert evaluate(nih, "--drop-shared", "train") == 2


def test_a_test_of_other_data_of_the_same_name_goes_elsewhere_and_out_is_not_overwritten(
    nih: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(nih / "run" / "bundle", tmp_path / "bundle")
    words = ["evaluate", str(tmp_path), "--resamples", "5", "--table", "chexnet", "--data"]
    assert cli.main([*words, str(nih / "arnoweng")]) == 0
    kept = (tmp_path / "evaluation" / "nih-test" / "metrics.json").read_text(encoding="utf-8")
    assert cli.main([*words, str(nih / "official"), "--allow-leak", "--out", str(tmp_path / "mine")]) == 0
    assert cli.main([*words, str(nih / "arnoweng"), "--out", str(tmp_path / "mine")]) == 2
    assert str(tmp_path / "mine") in capsys.readouterr().err
    other = dataset_folder.open(nih / "official")
    spec = ModelSpec.load(tmp_path / "bundle" / "model.json")
    policy = Policy.parse("ignore", ["Mass"])
    planned = PlannedTest(Rules(tmp_path), spec, Datasets.of([other]), np.arange(4), policy)
    assert planned.folder().name == f"nih-test-{planned.key[:6]}"
    assert cli.main([*words, str(nih / "arnoweng")]) == 0
    again = json.loads((tmp_path / "evaluation" / "nih-test" / "metrics.json").read_text(encoding="utf-8"))
    first = json.loads(kept)
    assert again["test"]["key"] == first["test"]["key"] and again["test"]["number"] == first["test"]["number"] + 2
    assert again["findings"] == first["findings"]
