"""Distillation: its equation by hand, teachers that nothing changes, and what ribcage distil promises."""

import copy
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import processes
import pytest
import ranks
import torch
import torch.nn.functional as F  # noqa: N812
from batches import batch
from models import trained
from safetensors.torch import load_file
from test_pretrain import equal, stopped
from torch import Tensor

from ribcage import cli, methods
from ribcage.bundle.init import initial_provenance
from ribcage.bundle.io import load_classifier, save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.commands import distil, finetune
from ribcage.data import dataset_folder
from ribcage.data.batch import Batch
from ribcage.data.collection import Datasets
from ribcage.data.provenance import Provenance
from ribcage.methods.distil import Distil, TeacherOutput, agreed, map_places, related
from ribcage.models import losses
from ribcage.models.backbone import Backbone
from ribcage.training import checkpoint
from ribcage.training.options import with_defaults
from ribcage.training.teachers import opening
from ribcage.training.teachers.stored import StoredTeacher

nan = math.nan
FINDINGS = ("a", "b", "c")
LABELS = torch.tensor([[1.0, 0.0, nan], [0.0, nan, 1.0], [1.0, 0.0, 0.0], [nan, nan, nan]])
TAUGHT = torch.tensor([[2.0, -1.0, nan], [nan, 0.5, 1.0], [0.0, 3.0, -2.0], [1.0, nan, nan]])


def stored(logits: Tensor = TAUGHT, weight: Sequence[float] = (1, 1, 1)) -> StoredTeacher:
    return StoredTeacher(logits.numpy(), torch.tensor(weight, dtype=torch.float32))


def shown(labels: Tensor = LABELS, sides: Sequence[int] = (32,)) -> Batch:
    whole = batch(len(labels), sides=sides)
    return Batch(whole.views, labels, whole.boxes, whole.rows, whole.sources, whole.patients, whole.chance)


def made(model: str = "test_resnet", side: int = 32, **options: Any) -> Distil:
    torch.manual_seed(0)
    method = Distil(Backbone(model, size=(side, side)), FINDINGS, **options)
    with torch.no_grad():
        method.head.weight.normal_(std=0.3)
    return method


# ---- the equation


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def divergence(t: float, z: float) -> float:
    """KL of one finding, present or absent."""
    p, q = sigmoid(t), sigmoid(z)
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


@pytest.mark.parametrize(
    ("hard", "temperature", "match"),
    [(0.5, 2.0, "kl"), (0.0, 1.0, "kl"), (0.3, 4.0, "kl"), (1.0, 2.0, "kl"), (0.25, 3.0, "mse")],
)
def test_the_loss_is_that_of_the_equation(hard: float, temperature: float, match: str) -> None:
    method = made(teachers=[stored()], hard=hard, temperature=temperature, match=match).eval()
    step = method(shown())
    z = method.logits(shown().views[0]).tolist()
    told, said = [], []
    for n in range(4):
        for f in range(3):
            if (y := LABELS[n, f].item()) == y:
                told.append(-math.log(sigmoid(z[n][f]) if y else 1 - sigmoid(z[n][f])))
            if (t := TAUGHT[n, f].item()) == t:
                kl = temperature**2 * divergence(t / temperature, z[n][f] / temperature)
                said.append(kl if match == "kl" else (t - z[n][f]) ** 2 / 8)
    assert (len(told), len(said)) == (7, 8)
    parts = (sum(told) / 7, sum(said) / 8)
    assert float(step.logs["hard"]) == pytest.approx(parts[0], rel=1e-5)
    assert float(step.logs["soft"]) == pytest.approx(parts[1], rel=1e-4)
    assert step.loss.item() == pytest.approx(hard * parts[0] + (1 - hard) * parts[1], rel=1e-4)


@pytest.mark.parametrize("loss", ["bce", "cross-entropy"])
def test_mse_is_what_kl_becomes_for_a_high_temperature(loss: str) -> None:
    """KL of two sigmoids that are nearly alike is (p - q)² / 2 p (1 - p), and a sigmoid's slope at 0 is a quarter; a
    softmax minds only by how much one logit is above the others."""
    pulls = {}
    for match in ("kl", "mse"):
        z = torch.tensor([[0.3, -2.0, 4.0]], dtype=torch.float64, requires_grad=True)
        taught = torch.tensor([[1.0, 0.5, -3.0]], dtype=torch.float64)
        apart = made(match=match, temperature=1e4, loss=loss).apart(z, taught)
        apart.sum().backward()
        pulls[match] = (z.grad, apart.detach().sum())
    for kl, mse in zip(pulls["kl"], pulls["mse"], strict=True):
        torch.testing.assert_close(kl, mse, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("loss", ["bce", "cross-entropy"])
@pytest.mark.parametrize("match", ["kl", "mse"])
def test_who_says_what_the_teacher_says_is_not_moved(match: str, loss: str) -> None:
    z = torch.tensor([[0.3, -2.0, 40.0], [1.0, 0.0, -90.0]], requires_grad=True)
    apart = made(match=match, loss=loss).apart(z, z.detach())
    apart.sum().backward()
    assert z.grad is not None
    torch.testing.assert_close(apart, torch.zeros_like(apart), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.grad, torch.zeros_like(z.grad), atol=1e-5, rtol=0)


def test_findings_that_exclude_each_other_have_one_softmax_and_whole_rows_only() -> None:
    taught = torch.tensor([[2.0, -1.0, 0.5], [nan, 0.5, 1.0], [0.0, 3.0, -2.0], [nan, nan, nan]])
    method = made(teachers=[stored(taught)], loss="cross-entropy", temperature=2.0).eval()
    batched = shown(torch.tensor([[1.0, 0, 0], [0, nan, 1], [0, 0, 1.0], [nan, nan, nan]]))
    step, z = method(batched), method.logits(batched.views[0])
    rows = [0, 2]
    soft = 4 * F.kl_div((z[rows] / 2).log_softmax(1), (taught[rows] / 2).softmax(1), reduction="batchmean")
    torch.testing.assert_close(step.logs["hard"], F.cross_entropy(z[rows], torch.tensor([0, 2])).detach())
    torch.testing.assert_close(step.logs["soft"], soft.detach())


def test_labels_may_be_learnt_with_focal_loss() -> None:
    method = made(teachers=[stored()], loss="focal", hard=0.4).eval()
    step, z = method(shown()), method.logits(shown().views[0])
    known = ~LABELS.isnan()
    p = torch.where(LABELS == 1, z.sigmoid(), 1 - z.sigmoid())[known]
    torch.testing.assert_close(step.logs["hard"], ((1 - p) ** 2 * -p.log()).mean().detach())
    torch.testing.assert_close(step.loss, 0.4 * step.logs["hard"] + 0.6 * step.logs["soft"])


@pytest.mark.parametrize("loss", losses.LOSSES)
@pytest.mark.parametrize("match", ["kl", "mse"])
def test_where_nothing_is_known_and_nothing_taught_the_loss_is_zero_and_its_gradient_too(loss: str, match: str) -> None:
    nothing = torch.full((4, 3), nan)
    for whom in ([], [stored(nothing)]):
        method = made(teachers=whom, loss=loss, match=match, balanced=True)
        step = method(shown(nothing))
        assert step.loss.item() == 0
        step.loss.backward()
        assert all(weight.grad is None or (weight.grad == 0).all() for weight in method.parameters())


def test_teachers_agree_on_the_weighted_mean_of_those_who_know() -> None:
    other = torch.tensor([[4.0, nan, nan], [1.0, 0.5, 3.0], [nan, nan, nan], [3.0, nan, 2.0]])
    weights = [torch.tensor([1.0, 1.0, 0.0]), torch.tensor([3.0, 1.0, 1.0])]
    found = agreed([TeacherOutput(TAUGHT), TeacherOutput(other)], weights, TAUGHT)
    wanted = torch.tensor([[3.5, -1.0, nan], [1.0, 0.5, 3.0], [0.0, 3.0, nan], [2.5, nan, 2.0]])
    torch.testing.assert_close(found, wanted, equal_nan=True)
    assert agreed([], [], TAUGHT).isnan().all()


def test_columns_of_the_data_are_put_where_the_student_has_them() -> None:
    """Data with two findings in another order, of three that are taught; or with none."""
    method = made(teachers=[stored()], columns=[2, 0], balanced=True).eval()
    labels = LABELS[:, [2, 0]]
    method.count(labels)
    assert method.present.shape == (3,)
    step, expected = method(shown(labels)), made(teachers=[stored()], balanced=True).eval()
    expected.count(torch.where(torch.tensor([True, False, True]), LABELS, nan))
    torch.testing.assert_close(
        step.loss, expected(shown(torch.where(torch.tensor([True, False, True]), LABELS, nan))).loss
    )
    assert [tuple(part.shape) for part in method.answers[-1]] == [(4, 3), (4, 3)]
    bare = made(teachers=[stored()], columns=[]).eval()
    step = bare(shown(LABELS[:, :0]))
    assert step.logs["hard"] == 0 and step.logs["soft"] > 0 and step.loss.isfinite()


class Listening:
    """A teacher that remembers what it was shown."""

    weight, dim = torch.ones(3), 0

    def __call__(self, batch: Batch, views: list[Tensor], inside: bool) -> TeacherOutput:
        self.views = views
        return TeacherOutput(torch.zeros(len(views[0]), 3))


def test_mixed_images_are_mixed_alike_for_student_and_teacher() -> None:
    teacher, whole = Listening(), shown(sides=(32, 48))
    method = made(teachers=[teacher], mixup=1.0).train()
    torch.manual_seed(3)
    a = torch.distributions.Beta(1.0, 1.0).sample().item()
    torch.manual_seed(3)
    step = method(whole)
    assert 0.01 < a < 0.99
    for seen, view in zip(teacher.views, whole.views, strict=True):
        torch.testing.assert_close(seen, a * view + (1 - a) * view.flip(0))
    z, targets = method.answers[-1][0], a * LABELS + (1 - a) * LABELS.flip(0)
    known = ~targets.isnan()
    torch.testing.assert_close(step.logs["hard"], F.binary_cross_entropy_with_logits(z[known], targets[known]))
    method.eval()(whole)
    assert all(torch.equal(*pair) for pair in zip(teacher.views, whole.views, strict=True))


# ---- inside a teacher


def test_relations_are_cosines_between_places() -> None:
    maps = torch.tensor([[[[1.0, 0.0], [3.0, -2.0]], [[0.0, 2.0], [4.0, 0.0]]]])  # (1, 2, 2, 2)
    places = maps[0].flatten(1).T
    by_hand = [[float(F.cosine_similarity(one, other, dim=0)) for other in places] for one in places]
    torch.testing.assert_close(related(maps, torch.zeros(1, 5, 3, 4)), torch.tensor([by_hand]))
    assert by_hand[0][2] == pytest.approx(0.6) and by_hand[0][3] == pytest.approx(-1)
    coarse = related(torch.randn(2, 3, 8, 6), torch.randn(2, 5, 2, 3))
    assert coarse.shape == (2, 6, 6)
    torch.testing.assert_close(coarse.diagonal(dim1=1, dim2=2), torch.ones(2, 6))


@pytest.mark.parametrize("model", ["test_resnet", "test_vit"])
def test_a_student_learns_from_what_a_teacher_of_another_kind_has_inside(model: str) -> None:
    teacher = ranks.teacher(model, (64, 64))
    method = made(model, 64, teachers=[teacher], features=1.0, relations=1.0, hard=0.0)
    torch.manual_seed(5)
    step = method(shown(sides=(64,)))
    answer = teacher(shown(sides=(64,)), shown(sides=(64,)).views, True)
    assert answer.features is not None and answer.maps is not None
    assert answer.features.shape == (4, teacher.dim) and answer.maps.shape[:2] == (4, teacher.dim)
    hidden = method.backbone.hidden(shown(sides=(64,)).views[0])
    cosines = F.cosine_similarity(method.projections[0](method.backbone.pool(hidden)), answer.features)
    torch.testing.assert_close(step.logs["features"], (1 - cosines).mean().detach())
    maps = method.backbone.grid(hidden, (64, 64))
    unlike = (related(maps, answer.maps) - related(answer.maps, maps)).square().mean()
    torch.testing.assert_close(step.logs["relations"], unlike.detach())
    assert unlike > 1e-3
    for share in ("features", "relations"):
        alone = made(model, 64, teachers=[teacher], **{share: 1.0}, hard=1.0)  # nothing else teaches: no label is known
        assert len(alone.projections) == (share == "features")
        alone(shown(torch.full((4, 3), nan), (64,))).loss.backward()
        stem = next(alone.backbone.parameters()).grad
        assert stem is not None and stem.isfinite().all() and stem.any()


def test_a_student_that_sees_as_its_teacher_does_has_the_same_relations() -> None:
    method = made(side=64, relations=1.0)
    method.eval()
    teacher = ranks.teacher("test_vit", (64, 64))  # a test_resnet with three channels
    teacher.method.backbone, teacher.model = copy.deepcopy(method.backbone), ModelSpec(
        "test_resnet", ("c", "other", "a"), (64, 64), 32, "pad", 0.5, 0.25
    )  # fmt: skip
    method.teachers = (teacher,)  # type: ignore[assignment]
    assert map_places(method.backbone, (64, 64)) == 4 and map_places(method.backbone, (32, 32)) == 1
    assert method(shown(sides=(64,))).logs["relations"] == pytest.approx(0, abs=1e-10)


def test_what_only_some_teachers_show_is_learnt_from_these() -> None:
    """A table has nothing inside, and of an empty part of a batch nothing is said."""
    live = ranks.teacher("test_resnet", (32, 32))
    method = made(teachers=[stored(), live], features=1.0, relations=1.0)
    assert len(method.projections) == 1
    step = method(shown())
    assert step.loss.isfinite() and step.logs["features"] > 0 and step.logs["relations"] > 0


# ---- a teacher stays as it is


def test_a_teacher_is_no_part_of_the_student_and_nothing_changes_it() -> None:
    teacher = ranks.teacher("test_vit", (32, 32))  # with batch norms
    before = copy.deepcopy(teacher.method.state_dict())
    method = made("test_vit", teachers=[teacher], features=1.0, relations=1.0).train()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        method(shown()).loss.backward()
        optimizer.step()
    assert equal(dict(teacher.method.state_dict()), dict(before))
    assert not any(module.training for module in teacher.method.modules())
    assert all(weight.grad is None and not weight.requires_grad for weight in teacher.method.parameters())
    own = {id(weight) for weight in method.parameters()}
    assert not own & {id(weight) for weight in teacher.method.parameters()}
    assert {key.partition(".")[0] for key in method.state_dict()} == {
        "backbone", "head", "projections", "present", "absent",
    }  # fmt: skip
    averaged = copy.deepcopy(method)
    assert averaged.teachers[0] is teacher and averaged.head is not method.head


def test_the_method_is_found_by_its_name_and_has_a_command_of_its_own() -> None:
    assert methods.load_method("distil") is Distil and Distil.command == "distil"


# ---- ribcage distil


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("数据 set") / "phantom"
    assert cli.main(["import", "phantom", "--out", str(folder), "--images", "120", "--size", "48"]) == 0
    return folder


@pytest.fixture(scope="module")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It looks at more pixels than its student will, and knows only two of the findings."""
    findings = dataset_folder.open(data).index.findings[:2]
    return trained(tmp_path_factory.mktemp("老师 teacher") / "run", dataset_folder.open(data), findings, side=48)


def words(teacher: Path | str, data: Path, out: Path, *more: str) -> list[str]:
    plain = ["distil", "--teacher", str(teacher), "--data", str(data), "--out", str(out), "--model", "test_resnet"]
    small = ["--size", "40", "--epochs", "2", "--batch", "16", "--threads", "1", "--precision", "float32"]
    return [*plain, *small, *more]


HOW = {"live": ["--features", "0.1", "--relations", "0.1", "--ema", "0.5"], "stored": ["--teach", "stored"]}
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
def test_a_run_leaves_a_student_that_answers_all_findings_and_says_whom_it_learnt_from(
    how: str, runs: dict[str, Path], data: Path, teacher: Path
) -> None:
    one, findings = load_classifier(runs[how]), dataset_folder.open(data).index.findings
    assert one.spec.findings == findings and one.spec.size == (40, 40)
    said = one.spec.training["teachers"]
    assert said == [{"name": "test_resnet", "table": False, "findings": list(findings[:2])}]
    lines = [json.loads(line) for line in (runs[how] / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    parts = {"hard", "soft"} | ({"features", "relations"} if how == "live" else set())
    assert all(parts <= set(line) and line["soft"] > 0 for line in lines if "loss" in line)
    assert {line["step"] for line in lines if "loss" in line} == set(range(1, lines[-1]["step"] + 1))
    card = (runs[how] / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "distilled from test_resnet (2 findings)" in card and "**The training data of" not in card


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


def test_a_table_teaches_what_it_speaks_of(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = dataset_folder.open(data).index
    learning = Datasets.open([data]).rows_of("train")
    table = index.table.iloc[learning[:30]][["path"]].assign(prob_Edema=0.3)
    table.to_csv(tmp_path / "说.csv", index=False)
    out = tmp_path / "run"
    assert cli.main(words(tmp_path / "说.csv", data, out, "--epochs", "1")) == 0
    said = capsys.readouterr().out
    assert all(fact in said for fact in ("说.csv", " 30 of ", "Edema"))
    assert load_classifier(out).spec.training["teachers"] == [{"name": "说.csv", "table": True, "findings": ["Edema"]}]
    card = (out / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "distilled from the table 说.csv (Edema)" in card and "The training data of 说.csv are not known" in card
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
    assert cli.main(words(teacher, data, run, "--epochs", "1", "--teach", "stored")) == 2
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
        assert cli.main(words(tmp_path / "broken", data, tmp_path / teach, "--teach", teach)) == 2
        said = capsys.readouterr().err
        assert f"{tmp_path / 'broken' / 'bundle'}" in said.splitlines()[-1] and "not finite" in said.splitlines()[-1]


def test_what_is_strange_about_teachers_is_said(
    data: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that learnt from cropped images, and labels that pass for answers; and what each of them weighs."""
    one = load_classifier(teacher)
    first, second = one.spec.findings
    metrics = {"validation": {f"auroc_{first}": 0.8}}
    save_bundle(tmp_path / "cropped", one.method, replace(one.spec, fit="crop", metrics=metrics), one.provenance)
    own = dataset_folder.open(data).index.table[["path", first, "Infiltration"]]
    own.replace(-1, 0).to_csv(tmp_path / "labels.csv", index=False)
    both = [str(tmp_path / "cropped"), str(tmp_path / "labels.csv")]
    asked = words(both[0], data, tmp_path / "run", "--epochs", "1", "--weigh", "auroc", "--teacher", both[1])
    assert cli.main(asked) == 0
    said = capsys.readouterr().out
    assert f"{both[0]}: " in said and "crop" in said and "pad" in said
    assert f"{both[1]}: " in said
    assert f"{first} 0.30, {second} 1.00" in said  # nobody else speaks of the second
    assert f"{first} 0.30, Infiltration 0.50" in said  # it has no score for the first: as the other


def test_relations_need_more_than_one_place(data: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--relations .* test_resnet at 8 × 8 .*--size"):
        options = distil.Options(
            teacher=(str(teacher),), data=(str(data),), out=tmp_path / "run", model="test_resnet", size=(8,),
            relations=1.0, threads=1, batch=16,
        )  # fmt: skip
        distil.run(options)


# ---- the leak guard


def test_who_learnt_from_what_chooses_may_not_teach_unless_told(
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
    assert "**Leakage**: its teacher seen" in card
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
    assert "learnt from what chooses" not in capsys.readouterr().out
    assert not len(load_classifier(tmp_path / "run").provenance.unknown)
    assert cli.main(["evaluate", str(tmp_path / "run"), "--data", str(data)]) == 2
    said = capsys.readouterr().err
    tested = len(Datasets.open([data]).rows_of("test"))
    assert f"Of {tested} test images, {tested} show" in said and "--allow-leak" in said


# ---- what cannot be


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--micro-batch", "2", "--patience", "3", "--keep", "last"],
         ["--patience needs", "--micro-batch"]),
        (["--hard", "1.5", "--temperature", "0", "--features=-1"],
         ["--hard 1.5 is not from 0 to 1", "--temperature 0 is not more than 0", "--features -1 is not 0 or more"]),
        (["--relations", "1", "--mixup", "0.2", "--teach", "stored"],
         ["--relations", "--mixup"]),
        (["--freeze", "backbone", "--features", "1"],
         ["--freeze backbone needs --init", "by --features"]),
        (["--hard", "1", "--match", "mse", "--temperature", "3"],
         ["--hard 1", "--temperature", "--match mse"]),
        (["--teacher", "{teacher}/bundle"], ["{teacher} and {teacher}/bundle"]),
        (["--teacher", "{teacher}/no.CSV"], ["{teacher}/no.CSV does not exist."]),
        (["--weigh", "auroc"], ["--weigh auroc", "{teacher}"]),
        (["--teacher", "{teacher}", "{teacher}"], ["--teacher has {teacher} twice"]),
        (["--teacher", "{teacher}/nothing"], ["nothing"]),
        (["--findings", "Edema", "Mas"], ["Mas. Did you mean 'Mass'?"]),
        (["--size", "64"], ["--size 40 64", "{teacher} 48 × 48"]),
        (["--match", "ce"], ["--match"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_all_of_it(
    data: Path, teacher: Path, tmp_path: Path, more: list[str], says: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = words(teacher, data, tmp_path / "run", *(word.format(teacher=teacher) for word in more))
    assert cli.main(asked) in (1, 2)
    told = capsys.readouterr().err
    assert all(part.format(teacher=teacher) in told for part in says), told
    assert told.count("\n") == 1 and "fault in Ribcage" not in told
    assert not (tmp_path / "run").exists()
