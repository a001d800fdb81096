"""ribcage distil: students of bundles and tables, resumed, on two processes, and what is refused."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import processes
import pytest
import torch
from models import trained
from refusals import has_facts
from safetensors.torch import load_file
from trainings import equal, stopped

from ribcage import cli
from ribcage.bundle.init import initial_provenance
from ribcage.bundle.io import load_classifier, save_bundle
from ribcage.bundle.training_record import TeacherRecord
from ribcage.commands import distil, finetune
from ribcage.data import dataset_folder
from ribcage.data.collection import Datasets
from ribcage.data.provenance import Provenance
from ribcage.training import checkpoint
from ribcage.training.options import with_defaults
from ribcage.training.teachers import opening

nan = math.nan


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("数据 set") / "phantom"
    assert cli.main(["import", "phantom", "--out", str(folder), "--images", "120", "--size", "48"]) == 0
    return folder


@pytest.fixture(scope="module")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its input is larger than the student's, and it has only two of the findings."""
    findings = dataset_folder.open(data).index.findings[:2]
    return trained(tmp_path_factory.mktemp("老师 teacher") / "run", dataset_folder.open(data), findings, side=48)


def words(teacher: Path | str, data: Path, out: Path, *more: str) -> list[str]:
    plain = ["distil", "--teacher", str(teacher), "--data", str(data), "--out", str(out), "--model", "test_resnet"]
    small = ["--size", "40", "--epochs", "2", "--batch", "16", "--threads", "1", "--precision", "float32"]
    return [*plain, *small, *more]


HOW = {
    "live": ["--feature-weight", "0.1", "--relation-weight", "0.1", "--ema", "0.5"],
    "stored": ["--teacher-mode", "stored"],
}
every_way = pytest.mark.parametrize("how", HOW)


@pytest.fixture(scope="module")
def runs(data: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A student that learnt in either way."""
    folder = tmp_path_factory.mktemp("学生 students")
    for name, more in HOW.items():
        assert cli.main(words(teacher, data, folder / name, *more)) == 0
    return {name: folder / name for name in HOW}


def loosened(teacher: Path, data: Path, folder: Path, learnt: str, chose: str = "") -> Path:
    """The same teacher, as if it had learnt from another split and been chosen by a third."""
    opened, one = Datasets.of([dataset_folder.open(data)]), load_classifier(teacher)
    rows = [opened.rows_of(split) if split else np.empty(0, np.int64) for split in (learnt, chose)]
    save_bundle(folder / "bundle", one.method, one.spec, Provenance.of(opened, rows[0], rows[1]))
    return folder


@every_way
def test_a_run_leaves_a_student_of_all_findings_with_its_teachers_on_the_card(
    how: str, runs: dict[str, Path], data: Path, teacher: Path
) -> None:
    one, findings = load_classifier(runs[how]), dataset_folder.open(data).index.findings
    assert one.spec.findings == findings and one.spec.size == (40, 40)
    said = one.spec.training.teachers
    assert said == (TeacherRecord("test_resnet", False, findings[:2]),)
    lines = [json.loads(line) for line in (runs[how] / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    parts = {"hard", "soft"} | ({"features", "relations"} if how == "live" else set())
    assert all(parts <= set(line) and line["soft"] > 0 for line in lines if "loss" in line)
    assert {line["step"] for line in lines if "loss" in line} == set(range(1, lines[-1]["step"] + 1))
    card = (runs[how] / "bundle" / "README.md").read_text(encoding="utf-8")
    assert has_facts(card, "distilled", "test_resnet (2 findings)") and not has_facts(
        card, "training data", "not known"
    )


@every_way
def test_going_on_gives_the_same_bits_as_never_stopping(
    how: str, runs: dict[str, Path], data: Path, teacher: Path, tmp_path: Path
) -> None:
    asked = words(teacher, data, tmp_path / "run", *HOW[how])
    assert stopped(asked, tmp_path / "run", after=3) == 75
    whole = checkpoint.load_checkpoint(runs[how] / "checkpoint.pt")["run"]
    assert checkpoint.load_checkpoint(tmp_path / "run" / "checkpoint.pt")["run"]["step"] < whole["step"]
    assert cli.main([*asked, "--resume"]) == 0
    assert equal(checkpoint.load_checkpoint(tmp_path / "run" / "checkpoint.pt")["run"], whole)
    assert equal(*(load_file(run / "bundle" / "model.safetensors") for run in (tmp_path / "run", runs[how])))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["live"])
def test_two_processes_train_what_one_trains(
    how: str, runs: dict[str, Path], data: Path, teacher: Path, tmp_path: Path
) -> None:
    asked = words(teacher, data, tmp_path / "two", *HOW[how])
    processes.together(processes.command, asked, said=tmp_path / "said")
    found = [
        [json.loads(line).get("loss") for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for run in (tmp_path / "two", runs[how])
    ]
    together = [(two, one) for two, one in zip(*found, strict=True) if one is not None]
    assert len(together) > 5 and all(two == pytest.approx(one, rel=2e-3) for two, one in together)
    assert together[0][0] == pytest.approx(together[0][1], rel=1e-5)
    assert set(initial_provenance(str(tmp_path / "two")).pixels) == set(initial_provenance(str(runs[how])).pixels)


def test_a_table_teaches_the_findings_that_it_has(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = dataset_folder.open(data).index
    learning = Datasets.open([data]).rows_of("train")
    table = index.table.iloc[learning[:30]][["path"]].assign(prob_Edema=0.3)
    table.to_csv(tmp_path / "说.csv", index=False)
    out = tmp_path / "run"
    assert cli.main(words(tmp_path / "说.csv", data, out, "--epochs", "1")) == 0
    said = capsys.readouterr().out
    assert all(fact in said for fact in ("说.csv", " 30 of ", "Edema"))
    assert load_classifier(out).spec.training.teachers == (TeacherRecord("说.csv", True, ("Edema",)),)
    card = (out / "bundle" / "README.md").read_text(encoding="utf-8")
    assert has_facts(card, "distilled", "说.csv (Edema)") and has_facts(card, "training data", "说.csv", "not known")
    assert cli.main(["evaluate", str(out), "--data", str(data), "--resamples", "5", "--out", str(tmp_path / "on")]) == 0
    stamps = json.loads((tmp_path / "on" / "metrics.json").read_text(encoding="utf-8"))["warnings"]
    assert any("说.csv" in text and "training data" in text for text in stamps)


def test_images_without_labels_are_taught_and_the_last_student_is_kept(
    data: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened, files = dataset_folder.open(data), tmp_path / "files"
    files.mkdir()
    chosen = np.concatenate([Datasets.of([opened]).rows_of(split) for split in ("train", "val")])
    for number in chosen:
        cv2.imencode(".png", opened.image(number))[1].tofile(files / f"{number}.png")
    rows = opened.index.table.iloc[chosen][["patient", "split"]]
    rows.assign(path=[f"{number}.png" for number in chosen]).to_csv(files / "list.csv", index=False)
    bare = tmp_path / "bare"
    assert cli.main(["import", "folder", str(files), "--out", str(bare), "--size", "48", "--name", "clinic"]) == 0
    assert dataset_folder.open(bare).index.findings == ()
    assert cli.main(words(teacher, bare, tmp_path / "run")) == 0
    said = capsys.readouterr().out
    assert "'val'" in said and "last epoch" in said
    one = load_classifier(tmp_path / "run")
    assert one.spec.findings == load_classifier(teacher).spec.findings and not one.spec.thresholds
    last = checkpoint.load_checkpoint(tmp_path / "run" / "checkpoint.pt")["run"]["method"]
    assert torch.equal(one.method.head.weight, last["head.weight"])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["hard"] == 0 and line["soft"] > 0 for line in lines if "loss" in line)


def test_labels_are_shown_of_those_patients_that_finetune_learns_from(
    data: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = {"data": (str(data),), "model": "test_resnet", "size": (32,), "labels": 0.2, "seed": 3, "batch": 16}
    options = with_defaults(distil.Options(teacher=(str(teacher),), out=tmp_path / "run", **common))  # type: ignore[arg-type]
    datasets, opened = Datasets.open([data]), opening.open_teachers(options.teacher)
    alone, choosing = finetune.split_rows(finetune.Options(out=tmp_path, **common), datasets)  # type: ignore[arg-type]
    learning, policy = datasets.rows_of("train"), finetune.policy_of(options, datasets)
    model = finetune.describe(options, datasets, learning, choosing, policy)
    run = distil.build(options, datasets, learning, choosing, model, policy, opened, torch.device("cpu"))
    known = ~np.isnan(run.loader.labels(0, learning)).all(axis=1)
    assert learning[known].tolist() == alone.tolist() and 0 < len(alone) < len(learning) / 2
    assert run.loader.rows.tolist() == learning.tolist()
    assert f"Labels of {len(alone)} " in capsys.readouterr().out


def test_who_goes_on_needs_the_same_teacher_wherever_it_lies(
    data: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    assert cli.main(words(teacher, data, run, "--epochs", "1")) == 0
    capsys.readouterr()
    assert cli.main(words(teacher, data, run, "--epochs", "1", "--teacher-mode", "stored")) == 2
    assert "--resume" in capsys.readouterr().err
    shutil.copytree(teacher, moved)
    assert cli.main(words(moved, data, run, "--epochs", "1", "--resume")) == 0
    one = load_classifier(moved)
    save_bundle(moved / "bundle", one.method, replace(one.spec, temperature=(2.0, 2.0)), one.provenance)
    assert cli.main(words(moved, data, run, "--epochs", "1", "--resume")) == 2
    said = capsys.readouterr().err
    assert "/moved" in said and said.count("\n") == 1


def test_a_teacher_that_answers_no_number_stops_the_run_by_its_name(
    data: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = load_classifier(teacher)
    with torch.no_grad():
        one.method.head.bias[0] = nan
    save_bundle(tmp_path / "broken" / "bundle", one.method, one.spec, one.provenance)
    for teach in ("live", "stored"):
        assert cli.main(words(tmp_path / "broken", data, tmp_path / teach, "--teacher-mode", teach)) == 2
        said = capsys.readouterr().err
        assert f"{tmp_path / 'broken' / 'bundle'}" in said.splitlines()[-1] and "NaN" in said.splitlines()[-1]


def test_odd_teachers_are_warned_of(
    data: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A teacher trained on cropped images, a table of labels instead of scores, and the weight of each."""
    one = load_classifier(teacher)
    first, second = one.spec.findings
    metrics = {"validation": {f"auroc_{first}": 0.8}}
    save_bundle(tmp_path / "cropped", one.method, replace(one.spec, fit="crop", metrics=metrics), one.provenance)
    own = dataset_folder.open(data).index.table[["path", first, "Infiltration"]]
    own.replace(-1, 0).to_csv(tmp_path / "labels.csv", index=False)
    both = [str(tmp_path / "cropped"), str(tmp_path / "labels.csv")]
    asked = words(both[0], data, tmp_path / "run", "--epochs", "1", "--teacher-weights", "auroc", "--teacher", both[1])
    assert cli.main(asked) == 0
    said = capsys.readouterr().out
    assert f"{both[0]}: " in said and "crop" in said and "pad" in said
    assert f"{both[1]}: " in said
    assert f"{first} 0.30, {second} 1.00" in said  # nobody else speaks of the second
    assert f"{first} 0.30, Infiltration 0.50" in said  # it has no score for the first: as the other


def test_relations_need_more_than_one_place(data: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--relation-weight .* test_resnet at 8 × 8 .*--size"):
        options = distil.Options(
            teacher=(str(teacher),), data=(str(data),), out=tmp_path / "run", model="test_resnet", size=(8,),
            relation_weight=1.0, threads=1, batch=16,
        )  # fmt: skip
        distil.run(options)


# ---- leakage


def test_a_teacher_trained_on_validation_images_is_refused_unless_allowed(
    data: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = loosened(teacher, data, tmp_path / "seen", "val")
    asked = words(seen, data, tmp_path / "run", "--epochs", "1")
    assert cli.main(asked) == 2
    said = capsys.readouterr().err
    assert str(seen) in said and "--allow-leak" in said and said.count("\n") == 1
    assert f"Of {len(Datasets.open([data]).rows_of('val'))} validation images" in said and "test images" not in said
    assert not (tmp_path / "run").exists()
    assert cli.main([*asked, "--allow-leak"]) == 0
    assert f"{seen}" in capsys.readouterr().out
    card = (tmp_path / "run" / "bundle" / "README.md").read_text(encoding="utf-8")
    assert has_facts(card, "**Leakage**", "teacher seen")
    assert cli.main(["evaluate", str(tmp_path / "run"), "--data", str(data), "--resamples", "5"]) == 0
    found = json.loads(next(tmp_path.glob("run/evaluation/*/metrics.json")).read_text(encoding="utf-8"))
    assert any("its teacher" in one for one in found["warnings"])


@pytest.mark.parametrize("table", [False, True], ids=["model", "table"])
def test_a_student_is_not_tested_on_what_its_teacher_learnt_from(
    table: bool, data: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table is one that ribcage evaluate wrote: it lies in the run of the model that speaks."""
    seen = loosened(teacher, data, tmp_path / "seen", "test")
    whom = seen
    if table:
        assert cli.main(["evaluate", str(seen), "--data", str(data), "--split", "train", "--resamples", "5"]) == 0
        whom = next(seen.glob("evaluation/*/predictions.parquet"))
    assert cli.main(words(whom, data, tmp_path / "run", "--epochs", "1")) == 0
    assert "WARNING" not in capsys.readouterr().out
    assert not len(load_classifier(tmp_path / "run").provenance.unknown)
    assert cli.main(["evaluate", str(tmp_path / "run"), "--data", str(data)]) == 2
    said = capsys.readouterr().err
    tested = len(Datasets.open([data]).rows_of("test"))
    assert f"Of {tested} test images, {tested} " in said and "--allow-leak" in said


# ---- what cannot be


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--micro-batch", "2", "--patience", "3", "--keep", "last"],
         ["--patience needs", "--micro-batch"]),
        (["--label-weight", "1.5", "--temperature", "0", "--feature-weight=-1"],
         ["--label-weight 1.5 must be from 0 to 1", "--temperature 0 must be", "--feature-weight -1 must be 0 or more"]),
        (["--relation-weight", "1", "--mixup", "0.2", "--teacher-mode", "stored"],
         ["--relation-weight", "--mixup"]),
        (["--adapt", "head", "--feature-weight", "1"],
         ["--adapt head needs --init", "by --feature-weight"]),
        (["--label-weight", "1", "--distil-loss", "mse", "--temperature", "3"],
         ["--label-weight 1", "--temperature", "--distil-loss mse"]),
        (["--teacher", "{teacher}/bundle"], ["{teacher} and {teacher}/bundle"]),
        (["--teacher", "{teacher}/no.CSV"], ["{teacher}/no.CSV does not exist."]),
        (["--teacher-weights", "auroc"], ["--teacher-weights auroc", "{teacher}"]),
        (["--teacher", "{teacher}", "{teacher}"], ["--teacher has {teacher} twice"]),
        (["--teacher", "{teacher}/nothing"], ["nothing"]),
        (["--findings", "Edema", "Mas"], ["Mas. Did you mean 'Mass'?"]),
        (["--size", "64"], ["--size 40 64", "{teacher} 48 × 48"]),
        (["--distil-loss", "ce"], ["--distil-loss"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_all_of_it(
    data: Path, teacher: Path, tmp_path: Path, more: list[str], says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = words(teacher, data, tmp_path / "run", *(word.format(teacher=teacher) for word in more))
    assert cli.main(asked) in (1, 2)
    told = capsys.readouterr().err
    assert all(part.format(teacher=teacher) in told for part in says), told
    assert told.count("\n") == 1 and "bug in Ribcage" not in told
    assert not (tmp_path / "run").exists()
