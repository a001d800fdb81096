"""Distillation: its equation by hand, relations within a batch, and teachers that stay unchanged."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import pytest
import ranks
import torch
import torch.nn.functional as F  # noqa: N812
from batches import batch
from test_pretrain import equal
from torch import Tensor

from ribcage import methods
from ribcage.bundle.spec import ModelSpec
from ribcage.data.batch import Batch
from ribcage.methods.base import LabelCounts
from ribcage.methods.distil import Distil, TeacherOutput, agreed, map_places, related
from ribcage.models import losses
from ribcage.models.backbone import Backbone
from ribcage.models.mixing import mixed
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
    method = made(teachers=[stored()], label_weight=hard, temperature=temperature, distil_loss=match).eval()
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
        apart = made(distil_loss=match, temperature=1e4, loss=loss).apart(z, taught)
        apart.sum().backward()
        pulls[match] = (z.grad, apart.detach().sum())
    for kl, mse in zip(pulls["kl"], pulls["mse"], strict=True):
        torch.testing.assert_close(kl, mse, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("loss", ["bce", "cross-entropy"])
@pytest.mark.parametrize("match", ["kl", "mse"])
def test_a_student_that_equals_its_teacher_has_no_gradient(match: str, loss: str) -> None:
    z = torch.tensor([[0.3, -2.0, 40.0], [1.0, 0.0, -90.0]], requires_grad=True)
    apart = made(distil_loss=match, loss=loss).apart(z, z.detach())
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
    method = made(teachers=[stored()], loss="focal", label_weight=0.4).eval()
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
        method = made(teachers=whom, loss=loss, distil_loss=match, balanced=True)
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
    method.count(LabelCounts.of([labels], 2))
    assert method.present.shape == (3,)
    step, expected = method(shown(labels)), made(teachers=[stored()], balanced=True).eval()
    expected.count(LabelCounts.of([torch.where(torch.tensor([True, False, True]), LABELS, nan)], 3))
    torch.testing.assert_close(
        step.loss, expected(shown(torch.where(torch.tensor([True, False, True]), LABELS, nan))).loss
    )
    assert method.latest is not None and [tuple(part.shape) for part in method.latest] == [(4, 3), (4, 3)]
    bare = made(teachers=[stored()], columns=[]).eval()
    step = bare(shown(LABELS[:, :0]))
    assert step.logs["hard"] == 0 and step.logs["soft"] > 0 and step.loss.isfinite()


class Listening:
    """A teacher that remembers what it was shown."""

    weight, dim = torch.ones(3), 0

    def __call__(self, batch: Batch, views: list[Tensor], inside: bool) -> TeacherOutput:
        self.views = views
        return TeacherOutput(torch.zeros(len(views[0]), 3))


@pytest.mark.parametrize("how", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_mixed_images_are_mixed_alike_for_student_and_teacher(how: dict[str, float]) -> None:
    teacher, whole = Listening(), shown(sides=(32, 48))
    method = made(teachers=[teacher], **how).train()
    step = method(whole)
    views, targets = mixed(whole.views, LABELS, whole.chance, method.mixup, method.cutmix)
    assert all(torch.equal(*pair) for pair in zip(teacher.views, views, strict=True))
    assert not any(torch.equal(*pair) for pair in zip(teacher.views, whole.views, strict=True))
    assert method.latest is not None
    z, known = method.latest[0], ~targets.isnan()
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
    method = made(model, 64, teachers=[teacher], feature_weight=1.0, relation_weight=1.0, label_weight=0.0)
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
    for share in ("feature_weight", "relation_weight"):
        alone = made(
            model, 64, teachers=[teacher], **{share: 1.0}, label_weight=1.0
        )  # nothing else teaches: no label is known
        assert len(alone.projections) == (share == "feature_weight")
        alone(shown(torch.full((4, 3), nan), (64,))).loss.backward()
        stem = next(alone.backbone.parameters()).grad
        assert stem is not None and stem.isfinite().all() and stem.any()


def test_a_student_that_sees_as_its_teacher_does_has_the_same_relations() -> None:
    method = made(side=64, relation_weight=1.0)
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
    method = made(teachers=[stored(), live], feature_weight=1.0, relation_weight=1.0)
    assert len(method.projections) == 1
    step = method(shown())
    assert step.loss.isfinite() and step.logs["features"] > 0 and step.logs["relations"] > 0


# ---- a teacher stays as it is


def test_a_teacher_is_no_part_of_the_student_and_nothing_changes_it() -> None:
    teacher = ranks.teacher("test_vit", (32, 32))  # with batch norms
    before = copy.deepcopy(teacher.method.state_dict())
    method = made("test_vit", teachers=[teacher], feature_weight=1.0, relation_weight=1.0).train()
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
