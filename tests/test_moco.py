"""MoCo: the loss of the paper's equation, a first-in first-out queue, and batch norm that leaks nothing."""

import math
import os
import warnings
from typing import Any

import pytest
import torch
from batches import batch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ribcage.data.batch import Batch
from ribcage.methods.moco import MoCo
from ribcage.models.backbone import Backbone
from ribcage.training.micro_batches import micro_batches


def made(model: str = "test_resnet", **options: Any) -> MoCo:
    torch.manual_seed(0)
    backbone = Backbone(model, size=(32, 32))
    return MoCo(backbone, **{"dim": 3, "queue": 8, "bn_group": 0, **options}).train()


def pair(count: int = 4, **more: Any) -> Batch:
    return batch(count, sides=(32, 32), **more)


def embedded(method: MoCo, shown: Batch) -> tuple[Tensor, Tensor]:
    """q and k of a method in evaluation mode."""
    with torch.no_grad():
        q = F.normalize(method.head(method.backbone(shown.views[0])), dim=1)
        return q, F.normalize(method.key(shown.views[1]), dim=1)


# ---- the equation


def test_the_defaults_are_those_of_the_second_version() -> None:
    method = MoCo(Backbone("test_resnet"))
    assert method.queue.shape == (65536, 128) and (method.momentum, method.temperature) == (0.999, 0.2)
    assert [type(layer).__name__ for layer in method.head] == ["Linear", "ReLU", "Linear"]
    assert [type(layer).__name__ for layer in made(head="linear").head] == ["Linear"]
    first, second = method.views((32, 32), "paper")
    assert first == second and first.crop == (0.2, 1.0)


def test_the_loss_is_the_equation() -> None:
    method, shown = made(temperature=0.5).eval(), pair()
    q, k = embedded(method, shown)
    expected = 0.0
    for n in range(4):
        against = sum(math.exp(float(q[n] @ each) / 0.5) for each in method.queue)
        right = math.exp(float(q[n] @ k[n]) / 0.5)
        expected -= math.log(right / (right + against)) / 4
    assert method(shown).loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def lightly_loss() -> Any:
    os.environ["LIGHTLY_DID_VERSION_CHECK"] = "True"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightly.loss import NTXentLoss
    return NTXentLoss


def test_the_loss_is_that_of_lightly(lightly_loss: Any) -> None:
    method, shown = made(dim=16, queue=32, temperature=0.1).eval(), pair(8)
    theirs = lightly_loss(temperature=0.1, memory_bank_size=(32, 16))
    theirs.memory_bank.bank.copy_(method.queue)
    torch.testing.assert_close(method(shown).loss, theirs(*embedded(method, shown)), rtol=1e-5, atol=1e-5)


def test_accuracy_is_the_share_of_keys_ranked_first_or_among_five_and_ties_are_wrong() -> None:
    method, shown = made(queue=6).eval(), pair(4)
    q, k = embedded(method, shown)
    method.queue.copy_(-q[0].expand(6, 3))
    method.queue[:2] = k[0]  # two as near as the key of the first image, and no five
    nearer = [sum(float(q[n] @ each) >= float(q[n] @ k[n]) for each in method.queue) for n in range(1, 4)]
    logs = method(shown).logs
    assert float(logs["acc1"]) == 25 * sum(count < 1 for count in nearer)
    assert float(logs["acc5"]) == 25 * (1 + sum(count < 5 for count in nearer))


# ---- patients


def test_keys_of_the_same_patient_are_positives_and_never_negatives() -> None:
    method, shown = made(patient_aware=True, temperature=0.5).eval(), pair(4, patients=(7, 8, 9, -1))
    method.queue_patients.copy_(torch.tensor([7, 7, 8, 1, 2, 3, -2, -3]))
    q, k = embedded(method, shown)
    losses = []
    for n, patient in enumerate(shown.patients):
        others = [float(q[n] @ each) / 0.5 for each in method.queue]
        same = (method.queue_patients == patient).tolist()
        against = sum(math.exp(value) for value, mate in zip(others, same, strict=True) if not mate)
        right = [float(q[n] @ k[n]) / 0.5, *[value for value, mate in zip(others, same, strict=True) if mate]]
        losses.append(sum(-math.log(math.exp(one) / (math.exp(one) + against)) for one in right) / len(right))
    assert method(shown).loss.item() == pytest.approx(sum(losses) / 4, rel=1e-5)


def test_without_same_patient_keys_in_the_queue_excluding_them_changes_nothing() -> None:
    shown = pair()
    plain, mindful = (made(patient_aware=aware).eval()(shown) for aware in (False, True))
    assert torch.equal(plain.loss, mindful.loss) and plain.logs == mindful.logs


def test_a_queue_of_one_patient_only_teaches_nothing_and_breaks_nothing() -> None:
    method = made(patient_aware=True)
    method.queue_patients.fill_(5)
    loss = method(pair(patients=(5, 5, 5, 5))).loss
    loss.backward()
    assert loss.item() == 0
    assert all(weight.grad.isfinite().all() for weight in method.parameters() if weight.grad is not None)


# ---- the queue


def test_the_queue_begins_with_directions_drawn_from_the_seed() -> None:
    torch.testing.assert_close(made().queue.norm(dim=1), torch.ones(8))
    assert torch.equal(made().queue, made().queue) and len(made().queue.unique(dim=0)) == 8


def test_a_step_does_not_see_its_own_keys_and_the_oldest_leave_first() -> None:
    method = made(queue=5)
    before = method.queue.clone()
    for number, places in enumerate(([0, 1], [2, 3], [4, 0], [1, 2])):
        shown = pair(2, patients=(10 * number, 10 * number + 1), seed=number)
        method(shown)
        assert torch.equal(method.queue, before)
        assert method.latest is not None
        keys = method.latest[0]
        method.after_step(0.5)
        before[places] = keys
        assert torch.equal(method.queue, before)
        assert method.queue_patients[places].tolist() == shown.patients.tolist()
    assert method.queue_at == 3
    torch.testing.assert_close(method.queue.norm(dim=1), torch.ones(5))


def test_evaluation_mode_leaves_no_keys() -> None:
    method = made().eval()
    method(pair())
    assert method.latest is None


def test_a_queue_that_is_too_short_is_refused() -> None:
    method = made(queue=3)
    method(pair(4))
    with pytest.raises(ValueError, match=r"--queue 3 .*4 keys"):
        method.after_step(0.0)


def test_the_key_encoder_follows() -> None:
    method = made(momentum=0.75)
    before = [weight.clone() for weight in method.key.parameters()]
    with torch.no_grad():
        for weight in method.parameters():
            if weight.requires_grad:
                weight.add_(1)
    method(pair())
    method.after_step(0.5)
    for weight, old in zip(method.key.parameters(), before, strict=True):
        torch.testing.assert_close(weight, old + 0.25)


# ---- batch norms over groups


def test_a_query_and_its_key_are_judged_among_as_few_of_the_same_images_as_possible() -> None:
    method = made(bn_group=4)
    order = method._order(16, torch.device("cpu"))
    assert order.tolist() == [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]
    keys = {int(i): set(group.tolist()) for group in order.split(4) for i in group}
    queries = {i: set(range(i // 4 * 4, i // 4 * 4 + 4)) for i in range(16)}
    assert all(keys[i] & queries[i] == {i} for i in range(16))


def test_keys_come_back_in_the_order_of_their_queries() -> None:
    method, plain, shown = made(bn_group=2, queue=16), made(queue=16), pair(6)
    groups = [[0, 3], [1, 4], [2, 5]]  # image i in group i mod 3
    expected = torch.empty(6, 3)
    for places in groups:
        expected[places] = plain._keys(shown.views[1][places])
    torch.testing.assert_close(method._keys(shown.views[1]), expected, rtol=1e-4, atol=1e-5)


def test_queries_are_judged_in_the_order_of_the_batch() -> None:
    method, plain, shown = made(bn_group=2), made(), pair(4)
    apart = [plain.head(plain.backbone(part)) for part in shown.views[0].split(2)]
    torch.testing.assert_close(method.head(method.backbone(shown.views[0])), torch.cat(apart), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("count", "group", "would_do"),
    [
        (4, 32, "--bn-group 2"),
        (4, 4, "--bn-group 2"),
        (6, 4, "--bn-group 3"),
        (64, 48, "--bn-group 32"),
        (7, 4, "--batch 8"),
    ],
)
def test_less_than_two_groups_and_broken_ones_are_refused_with_what_would_do(
    count: int, group: int, would_do: str
) -> None:
    with pytest.raises(ValueError, match=rf"^--bn-group {group}\b.* {count} .*{would_do}"):
        made(bn_group=group)._order(count, torch.device("cpu"))
    option, value = would_do.split()
    shown, size = (int(value), group) if option == "--batch" else (count, int(value))
    assert len(made(bn_group=size)._order(shown, torch.device("cpu"))) == shown


def test_the_keys_of_all_micro_batches_are_queued_in_the_order_of_the_batch() -> None:
    whole, parted, shown = made("test_vit"), made("test_vit"), pair(6)
    whole(shown)
    for part in micro_batches(shown, 2):
        parted(part)
        parted.after_forward()
    for method in (whole, parted):
        method.after_step(0.5)
    torch.testing.assert_close(parted.queue, whole.queue)
    assert torch.equal(parted.queue_patients, whole.queue_patients) and parted.queue_at == 6


def test_the_gradient_of_a_batch_is_that_of_its_micro_batches() -> None:
    whole, parted, shown = made("test_vit"), made("test_vit"), pair(6)
    whole(shown).loss.backward()
    for part in micro_batches(shown, 2):
        (parted(part).loss * parted.share(part, shown)).backward()
    for one, other in zip(whole.parameters(), parted.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6)


def test_without_groups_batch_norms_are_those_of_any_method() -> None:
    assert made(bn_group=4).own_norms and not made(bn_group=0).own_norms


def test_the_key_encoder_sees_images_in_the_order_in_memory_that_the_loop_gave_them() -> None:
    method, shown, orders = made(bn_group=2), pair(4), []
    images = torch.cat([shown.views[1]] * 3, dim=1).to(memory_format=torch.channels_last)
    method.key.register_forward_pre_hook(lambda _, given: orders.append(given[0].stride()))
    method.key.forward = lambda given: given.mean((2, 3))  # type: ignore[method-assign]
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        method._keys(images)
    finally:
        torch.distributed.destroy_process_group()
    assert orders == [images.stride()]


def test_where_there_are_no_batch_norms_any_batch_will_do() -> None:
    method = made("test_vit", bn_group=4)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in method.modules())
    assert method(pair(6)).loss.isfinite()


def test_all_wrong_options_are_named_at_once() -> None:
    with pytest.raises(ValueError) as error:
        made(dim=0, queue=0, momentum=2, temperature=0, head="deep", bn_group=1)
    said = str(error.value)
    assert all(
        f"--{name.replace('_', '-')} " in said
        for name in ("dim", "queue", "momentum", "temperature", "head", "bn_group")
    )
    assert "\n" not in said
