"""SupCon: eq. 2 of the paper for one class, its weighted form for findings, and zero where labels are unknown."""

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from batches import batch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ribcage.data.batch import Batch
from ribcage.imaging.augment import published_view, strong_view
from ribcage.methods.base import LabelCounts
from ribcage.methods.supcon import SupCon, comparable, contrast, label_overlap
from ribcage.models.backbone import Backbone

nan = math.nan
MIXED = torch.tensor([[1, 0, 1], [1, nan, 0], [0, 0, 0], [0.6, 0, 0.2], [nan, nan, nan], [0, 0, 0]])


def made(**options: Any) -> SupCon:
    torch.manual_seed(0)
    return SupCon(Backbone("test_resnet"), ("a", "b", "c"), **options)


def shown(labels: Tensor, views: int = 2, patients: Sequence[int] = ()) -> Batch:
    return replace(batch(len(labels), sides=(32,) * views, patients=patients), labels=labels)


def embedded(method: SupCon, images: Batch) -> list[Tensor]:
    """z of every view, view after view, as the paper numbers them."""
    torch.manual_seed(1)
    return list(F.normalize(method.head(method.backbone(torch.cat(images.views))), dim=1))


def by_hand(z: list[Tensor], w: list[list[float]], temperature: float, labels: Sequence[list[float]] = ()) -> Tensor:
    """The equation, word by word; without labels everything is known."""
    losses = []
    for i, one in enumerate(z):
        others = [a for a in range(len(z)) if a != i and (not labels or w[i][a] or shared(labels[i], labels[a]))]
        below = sum(torch.exp(one @ z[a] / temperature) for a in others)
        total = sum(w[i][j] for j in others)
        if total:
            logs = [w[i][j] * torch.log(torch.exp(one @ z[j] / temperature) / below) for j in others]
            losses.append(-torch.stack(logs).sum() / total)
    return torch.stack(losses).mean()


def shared(a: list[float], b: list[float]) -> bool:
    return any(not math.isnan(x) and not math.isnan(y) for x, y in zip(a, b, strict=True))


def jaccard(a: list[float], b: list[float]) -> float:
    known = [(x, y) for x, y in zip(a, b, strict=True) if not math.isnan(x) and not math.isnan(y)]
    either = sum(max(pair) for pair in known)
    if either:
        return sum(min(pair) for pair in known) / either
    return float(not any(math.isnan(x) for x in a + b))


@pytest.fixture(scope="module")
def lightly() -> Any:
    os.environ["LIGHTLY_DID_VERSION_CHECK"] = "True"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightly import loss
    return loss


# ---- who is whose positive


def test_overlap_is_of_what_both_know() -> None:
    expected = [
        [1, 1 / 2, 0, 0.8 / 2, 0, 0],  # of the second, b is unknown: {a} of {a, c}
        [1 / 2, 1, 0, 0.6 / 1.2, 0, 0],
        [0, 0, 1, 0, 0, 1],  # nothing is found in either, and everything was looked for
        [0.8 / 2, 0.6 / 1.2, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],  # nothing is known
        [0, 0, 1, 0, 0, 1],
    ]
    torch.testing.assert_close(label_overlap(MIXED, MIXED), torch.tensor(expected))


def test_two_images_without_what_both_know_are_alike_only_if_both_know_all() -> None:
    labels = torch.tensor([[0.0, 0, nan], [0.0, 0, 0], [0.0, 0, 0]])
    assert label_overlap(labels, labels).tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 1]]


def test_images_with_the_same_findings_are_alike_however_certain() -> None:
    labels = torch.tensor([[0.6, 0.6, 0.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(label_overlap(labels[:1], labels), torch.tensor([[1.0, 0.6 / 1.6]]))


# ---- the equation


def test_the_loss_is_the_equation() -> None:
    method, images = made(), shown(MIXED)
    rows = MIXED.tolist() * 2
    w = [[1.0 if i % 6 == j % 6 else jaccard(a, b) for j, b in enumerate(rows)] for i, a in enumerate(rows)]
    step = method(images)
    expected = by_hand(embedded(method, images), w, 0.07, rows)
    torch.testing.assert_close(step.loss, expected, rtol=1e-5, atol=1e-5)
    positives = sum(sum(row) for row in w) / len(w) - 1
    assert float(step.logs["positives"]) == pytest.approx(positives)


@pytest.mark.parametrize("temperature", [0.07, 0.1])
def test_one_class_each_is_the_papers_equation_2(temperature: float) -> None:
    """L_out: the mean over the positives P(i) of -log p, each of the batch's views an anchor."""
    classes = [0, 1, 0, 2, 0, 1]
    method = made(temperature=temperature)
    images = shown(F.one_hot(torch.tensor(classes)).float())
    z, losses = torch.stack(embedded(method, images)), []
    for i, mine in enumerate(classes * 2):
        logits = torch.cat([z[:i], z[i + 1 :]]) @ z[i] / temperature
        others = [each for a, each in enumerate(classes * 2) if a != i]
        losses.append(-logits.log_softmax(0)[[each == mine for each in others]].mean())
    torch.testing.assert_close(method(images).loss, torch.stack(losses).mean(), rtol=1e-5, atol=1e-5)


def test_where_each_image_is_a_class_of_its_own_it_is_lightlys_nt_xent(lightly: Any) -> None:
    method, images = made(), shown(torch.eye(6))
    first, second = torch.stack(embedded(method, images)).chunk(2)
    torch.testing.assert_close(
        method(images).loss, lightly.NTXentLoss(temperature=0.07)(first, second), rtol=1e-5, atol=1e-5
    )


def test_more_views_are_more_positives() -> None:
    method, images = made(), shown(torch.eye(4), views=3)
    w = [[float(i % 4 == j % 4) for j in range(12)] for i in range(12)]
    torch.testing.assert_close(method(images).loss, by_hand(embedded(method, images), w, 0.07), rtol=1e-5, atol=1e-5)


# ---- nothing known, nobody alike


def test_images_with_nothing_known_in_common_are_not_compared() -> None:
    assert comparable(MIXED[:2], MIXED).tolist() == [[True, True, True, True, False, True]] * 2
    apart = torch.tensor([[1.0, nan], [nan, 1.0]])
    assert comparable(apart, apart).tolist() == [[True, False], [False, True]]
    labels = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    method, images = made().eval(), shown(labels)
    more = shown(torch.cat([labels, torch.full((3, 3), nan)]))
    more = replace(more, views=[torch.cat([a, b[:3]]) for a, b in zip(images.views, more.views, strict=True)])
    # of twelve anchors six have nothing to be told from: they lose nothing, and the others do not see them
    torch.testing.assert_close(method(more).loss, method(images).loss / 2)


def test_a_patients_image_of_which_nothing_is_known_is_still_a_positive() -> None:
    labels = torch.tensor([[1.0, 0, 0], [nan, nan, nan], [0, 1, 0]])
    steps = [made(patient_aware=mindful)(shown(labels, patients=[7, 7, 8])) for mindful in (False, True)]
    assert [float(step.logs["positives"]) for step in steps] == pytest.approx([1, 1 + 4 * 2 / 6])
    assert steps[0].loss != steps[1].loss


def test_labels_without_information_are_refused() -> None:
    with pytest.raises(ValueError, match=r"supcon .*labels"):
        made().count(LabelCounts.of([torch.full((4, 3), nan)], 3))
    made().count(LabelCounts.of([MIXED], 3))


def test_an_anchor_without_positives_costs_nothing_and_the_mean_is_over_the_others() -> None:
    method = made()
    images = shown(torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0], [nan, nan, nan]]), views=1)
    w = [[float(i < 2 and j < 2) for j in range(4)] for i in range(4)]
    expected = by_hand(embedded(method, images), w, 0.07, images.labels.tolist())
    torch.testing.assert_close(method(images).loss, expected, rtol=1e-5, atol=1e-5)
    logits = torch.randn(3, 3, requires_grad=True)
    losses = contrast(logits, torch.tensor([[0.0, 1, 0], [0, 0, 0], [0, 0, 0.5]]))
    assert losses.tolist()[1] == 0 and losses.isfinite().all()
    losses.sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and not logits.grad[1].any()


@pytest.mark.parametrize("count", [1, 3])
def test_where_nobody_has_positives_the_loss_is_0(count: int) -> None:
    method = made().eval()
    loss = method(shown(torch.eye(3)[:count], views=1)).loss
    loss.backward()
    assert loss == 0
    assert all(weight.grad is not None and not weight.grad.any() for weight in method.parameters())


# ---- patients


def test_images_of_a_patient_are_positives_whatever_was_found() -> None:
    labels, patients = F.one_hot(torch.tensor([0, 1, 2, 0])).float(), [7, 7, 8, 9]
    losses = [made(patient_aware=mindful)(shown(labels, patients=patients)).loss for mindful in (False, True)]
    rows = labels.tolist() * 2
    for mindful, loss in zip((False, True), losses, strict=True):
        w = [
            [float(i % 4 == j % 4 or a == b or (mindful and {i % 4, j % 4} == {0, 1})) for j, b in enumerate(rows)]
            for i, a in enumerate(rows)
        ]
        z = embedded(made(), shown(labels))
        torch.testing.assert_close(loss, by_hand(z, w, 0.07), rtol=1e-5, atol=1e-5)


# ---- options


def test_the_authors_values_are_the_defaults() -> None:
    method = made()
    assert method.temperature == 0.07
    widths = [(layer.in_features, layer.out_features) for layer in method.head if isinstance(layer, torch.nn.Linear)]
    dim = method.backbone.dim
    assert widths == [(dim, dim), (dim, 128)]
    assert method.views((64, 48)) == [strong_view((64, 48))] * 2
    assert method.views((64, 48), "paper") == [published_view((64, 48), crop=(0.2, 1.0))] * 2


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"--findings.*--temperature 0 .*--dim 0 "):
        SupCon(Backbone("test_resnet"), (), temperature=0, dim=0)
