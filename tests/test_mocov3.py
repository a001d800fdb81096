"""MoCo v3: algorithm 1 of the paper, its heads, the frozen patch projection and the momentum encoder."""

import math
import os
import warnings
from typing import Any

import pytest
import torch
from batches import batch
from torch import Tensor, nn

from ribcage.data.batch import Batch
from ribcage.methods.mocov3 import MoCoV3
from ribcage.models.backbone import Backbone
from ribcage.models.positions import sine_positions

PATIENTS = (7, 8, 7, 9)


def made(model: str = "test_vit", **options: Any) -> MoCoV3:
    torch.manual_seed(0)
    return MoCoV3(Backbone(model, size=(32, 32)), **{"hidden": 16, "dim": 3, **options}).train()


def pair(count: int = 4, **more: Any) -> Batch:
    return batch(count, sides=(32, 32), **more)


def of_length_one(z: Tensor) -> Tensor:
    return z / z.norm(dim=-1, keepdim=True)


def embedded(method: MoCoV3, shown: Batch) -> tuple[Tensor, Tensor]:
    """q and k of both views, (2, n, dim), of a method in evaluation mode."""
    with torch.no_grad():
        q = [method.predictor(method.projector(method.backbone(view))) for view in shown.views]
        k = [method.key(view) for view in shown.views]
    return of_length_one(torch.stack(q)), of_length_one(torch.stack(k))


# ---- the loss


@pytest.mark.parametrize("patient_aware", [False, True])
def test_the_loss_is_algorithm_1(patient_aware: bool) -> None:
    method, shown = made(temperature=0.5, patient_aware=patient_aware).eval(), pair(patients=PATIENTS)
    q, k = embedded(method, shown)
    expected = 0.0
    for one, other in ((0, 1), (1, 0)):
        for i in range(4):
            left = [j for j in range(4) if j == i or not patient_aware or PATIENTS[j] != PATIENTS[i]]
            scores = {j: math.exp(float(q[one, i] @ k[other, j]) / 0.5) for j in left}
            expected -= 2 * 0.5 * math.log(scores[i] / sum(scores.values())) / 4
    assert method(shown).loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def lightly_loss() -> Any:
    os.environ["LIGHTLY_DID_VERSION_CHECK"] = "True"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightly.loss import NTXentLoss
    return NTXentLoss


def test_the_loss_is_that_of_lightly_with_the_other_keys_as_its_memory(lightly_loss: Any) -> None:
    method, shown = made(dim=16, temperature=0.1).eval(), pair(6)
    q, k = embedded(method, shown)
    theirs = torch.zeros(())
    for one, other in ((0, 1), (1, 0)):
        for i in range(6):
            loss = lightly_loss(temperature=0.1, memory_bank_size=(5, 16))
            loss.memory_bank.bank.copy_(torch.cat([k[other, :i], k[other, i + 1 :]]))
            theirs += loss(q[one, i : i + 1], k[other, i : i + 1]) / 6
    torch.testing.assert_close(method(shown).loss, 2 * 0.1 * theirs, rtol=1e-5, atol=1e-5)


def test_accuracy_is_the_share_of_queries_nearest_to_the_key_of_their_own_image() -> None:
    method, shown = made(), pair()
    places = torch.eye(4)
    swapped = places[[1, 0, 2, 3]]  # the first two images are taken for each other, by the second view only
    z = torch.stack([places, swapped, places, places], dim=1)
    assert float(method.loss_of(z, shown).logs["acc1"]) == 75


def test_no_gradient_flows_through_keys() -> None:
    method, shown = made(), pair()
    z = of_length_one(torch.randn(4, 4, 3)).requires_grad_()
    method.loss_of(z, shown).loss.backward()
    assert z.grad is not None and z.grad[:, :2].any() and not z.grad[:, 2:].any()


# ---- networks


def layers(head: nn.Module) -> list[Any]:
    """What a head consists of: the width of a linear layer, the letters of others; n: a norm without weights."""
    names = {nn.ReLU: "r"}
    return [
        part.out_features
        if isinstance(part, nn.Linear)
        else names.get(type(part), "N" if list(part.parameters()) else "n")
        for part in head.children()
    ]


@pytest.mark.parametrize(
    ("model", "projector", "predictor"),
    [
        ("test_vit", [4096, "N", "r", 4096, "N", "r", 256, "n"], [4096, "N", "r", 256, "n"]),
        ("test_resnet", [4096, "N", "r", 256, "n"], [4096, "N", "r", 256]),
    ],
)
def test_the_defaults_are_those_of_the_authors_code(model: str, projector: list[Any], predictor: list[Any]) -> None:
    method = MoCoV3(Backbone(model))
    assert layers(method.projector) == projector and layers(method.predictor) == predictor
    linear = [part for head in (method.projector, method.predictor) for part in head if isinstance(part, nn.Linear)]
    assert all(part.bias is None for part in linear)
    assert (method.momentum, method.temperature) == (0.99, 0.2)


def test_patches_are_projected_at_random_unless_asked_and_positions_are_sines() -> None:
    for projection, trained in (("frozen", False), ("trained", True)):
        model = made(patch_projection=projection).backbone.model
        assert {weight.requires_grad for weight in model.patch_embed.parameters()} == {trained}
        assert not model.pos_embed.requires_grad and model.blocks[0].attn.qkv.weight.requires_grad
        assert torch.equal(model.pos_embed, sine_positions((2, 2), 64, 1))


def test_a_pretrained_backbone_keeps_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Backbone("test_vit", size=(32, 32))
    backbone.pretrained, before = True, {key: value.clone() for key, value in backbone.state_dict().items()}
    MoCoV3(backbone, hidden=8, dim=4)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize(("progress", "m"), [(0.0, 0.9), (0.5, 0.95), (1.0, 1.0)])
def test_the_momentum_encoder_follows_ever_more_slowly(progress: float, m: float) -> None:
    method = made(momentum=0.9)
    before = [weight.clone() for weight in method.key.parameters()]
    with torch.no_grad():
        for part in (method.backbone, method.projector):
            for weight in part.parameters():
                weight.add_(1)
    method.after_step(progress)
    for weight, old in zip(method.key.parameters(), before, strict=True):
        torch.testing.assert_close(weight, old + (1 - m))


# ---- views and options


def test_the_papers_views_differ_in_their_blur() -> None:
    views = made().views((32, 32), "paper")
    assert [view.blur_probability for view in views] == [1.0, 0.1] and {view.crop for view in views} == {(0.08, 1.0)}


def test_all_wrong_options_are_named_at_once() -> None:
    with pytest.raises(ValueError) as error:
        made(hidden=0, dim=0, momentum=2, temperature=0, patch_projection="melted")
    said = str(error.value)
    assert (
        all(f"--{name} " in said for name in ("hidden", "dim", "momentum", "temperature", "patch-projection"))
        and "\n" not in said
    )


def test_a_batch_of_one_image_has_no_negatives() -> None:
    assert "--batch 1" in made().faults(100, 1)[0] and not made().faults(100, 2)
