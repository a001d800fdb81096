"""DINOv2: the losses of crops, masked patches and features, and what the student does not see."""

import os
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from batches import batch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ribcage.methods.dinov2 import DINOv2, nearest_distances
from ribcage.models.backbone import Backbone
from ribcage.models.patch_masks import masked_crops
from ribcage.models.prototypes import sinkhorn

SIDES = (64, 64, 32, 32)


def made(model: str = "test_vit", **options: Any) -> DINOv2:
    """With one block."""
    torch.manual_seed(0)
    backbone = options.pop("backbone", None) or Backbone(model, size=(64, 64), pool=options.pop("pool", ""))
    backbone.model.blocks = backbone.model.blocks[:1]
    small = {"prototypes": 6, "hidden": 12, "dim": 4, "crops": 2}
    method = DINOv2(backbone, **{**small, **options}).eval()
    nn.init.normal_(method.mask_token)
    return method


@pytest.fixture(scope="module")
def lightly() -> Any:
    os.environ["LIGHTLY_DID_VERSION_CHECK"] = "True"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightly import loss
    return loss


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(-1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(-1, keepdims=True)
    return shares


def assigned(scores: np.ndarray, temperature: float) -> np.ndarray:
    """The Sinkhorn-Knopp algorithm as the authors write it: rows of prototypes, columns of images."""
    q = np.exp(scores.T / temperature)
    q /= q.sum()
    for _ in range(3):
        q /= q.sum(1, keepdims=True) * q.shape[0]
        q /= q.sum(0, keepdims=True) * q.shape[1]
    shares: np.ndarray = (q * q.shape[1]).T
    return shares


@torch.no_grad()
def by_hand(method: DINOv2, shown: Any) -> tuple[float, float, float]:
    """The three losses, one crop and one patch at a time, without Ribcage's tokens."""
    count, views = len(shown), shown.views
    masks, _ = masked_crops(shown.chance, 4, 4, *method.masked, torch.device("cpu"))

    def tokens(backbone: Any, images: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        model = backbone.model
        patches = model.patch_embed(images).flatten(1, 2)
        if hidden is not None:
            patches = torch.stack([
                torch.stack([method.mask_token if gone else patch for patch, gone in zip(*one, strict=True)])
                for one in zip(patches, hidden, strict=True)
            ])  # fmt: skip
        side = images.shape[2] // 16
        out = model.norm(model.blocks(model._pos_embed(patches.unflatten(1, (side, side)))))
        return model.forward_head(out, pre_logits=True), model.fc_norm(out[:, model.num_prefix_tokens :])

    backbone, head = method.teacher
    large = [tokens(method.backbone, views[v], masks[v * count : (v + 1) * count]) for v in range(2)]
    seen = [tokens(backbone, views[v]) for v in range(2)]
    crops = [one for one, _ in large] + [method.backbone(view) for view in views[2:]]
    t = np.concatenate([head(one).detach().double().numpy() for one, _ in seen])
    p = assigned(t, 0.04).reshape(2, count, -1)
    log_q = [np.log(softmax(method.head(one).detach().double().numpy() / 0.1)) for one in crops]
    pairs = [-(p[u] * log_q[v]).sum(1).mean() for u in range(2) for v in range(len(crops)) if u != v]
    first, second = method.patch_head or method.head, method.patch_teacher or head
    places = [(v, n, i) for v in range(2) for n in range(count) for i in range(16) if masks[v * count + n, i]]
    s = np.stack([first(large[v][1][n, i]).detach().double().numpy() for v, n, i in places])
    p = assigned(np.stack([second(seen[v][1][n, i]).detach().double().numpy() for v, n, i in places]), 0.04)
    losses = -(p * np.log(softmax(s / 0.1))).sum(1)
    own = np.array([v * count + n for v, n, _ in places])
    ibot = sum(losses[own == crop].mean() for crop in np.unique(own)) / (2 * count)
    koleo = 0.0
    for x, _ in large:
        x = x.detach().double().numpy()
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        apart = np.linalg.norm(x[:, None] - x, axis=2) + 10 * np.eye(count)
        koleo -= np.log(apart.min(1)).mean()
    return float(np.mean(pairs)), float(ibot), koleo


@pytest.mark.parametrize(
    "options", [{}, {"separate_head": True, "crops": 0}, {"pool": "avg", "patch_weight": 3.0, "koleo_weight": 0.5}]
)
def test_the_loss_is_the_sum_of_the_three_equations(options: dict[str, Any]) -> None:
    method, shown = made(**options), batch(5, sides=SIDES[: 2 + options.get("crops", 2)])
    dino, ibot, koleo = by_hand(method, shown)
    with torch.no_grad():
        step = method(shown)
    found = [float(step.logs[name]) for name in ("dino", "ibot", "koleo")]
    assert found == pytest.approx([dino, ibot, koleo], rel=1e-4)
    whole = dino + method.patch_weight * ibot + method.koleo_weight * koleo
    assert step.loss.item() == pytest.approx(whole, rel=1e-4)


def test_the_regularisation_is_lightlys(lightly: Any) -> None:
    x = torch.randn(9, 5, requires_grad=True)
    mine, theirs = nearest_distances(x).mean(), lightly.KoLeoLoss()(x)
    torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, x)[0] for loss in (mine, theirs)))


@pytest.mark.parametrize("crops", [0, 2])
def test_losses_of_crops_and_patches_are_lightlys_for_the_same_assignments(
    lightly: Any, crops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightly has no Sinkhorn-Knopp algorithm here: both assign by a softmax."""
    monkeypatch.setattr("ribcage.methods.dinov2.sinkhorn", lambda scores, tau, *_: (scores / tau).softmax(1))
    method, shown = made(crops=crops), batch(5, sides=SIDES[: 2 + crops])
    masks, places = masked_crops(shown.chance, 4, 4, *method.masked, torch.device("cpu"))
    large = torch.cat(shown.views[:2])
    t, t_patches = method._taught(large, places)
    _, s, s_patches = method._student_of(large, shown.views[2:], masks, places)
    step = method(shown)
    theirs = lightly.DINOLoss(6, teacher_temp=0.04)(list(t.unbind(1)), list(s.unbind(1)))
    torch.testing.assert_close(step.logs["dino"], theirs)
    hidden = places[masks.flatten()[places]]
    order = hidden.argsort()  # as in the mask
    t_patches, s_patches = (one[masks.flatten()[places]][order] for one in (t_patches, s_patches))
    theirs = lightly.IBOTPatchLoss(6, teacher_temp=0.04)(t_patches, s_patches, masks.view(-1, 4, 4))
    torch.testing.assert_close(step.logs["ibot"], theirs)


def test_assignments_are_those_of_the_authors_algorithm() -> None:
    scores = torch.nn.functional.normalize(torch.randn(50, 8), dim=1) @ torch.randn(8, 20) / 4
    q = sinkhorn(scores, 0.05, 3)
    np.testing.assert_allclose(q.numpy(), assigned(scores.double().numpy(), 0.05), rtol=1e-4, atol=1e-7)


# ---- masks


def test_one_large_crop_of_each_image_is_masked() -> None:
    chance = batch(400).chance
    masks, places = masked_crops(chance, 4, 4, 0.2, 0.6, torch.device("cpu"))
    counts = masks.sum(1).view(2, 400)
    assert ((counts > 0).sum(0) == 1).all() and counts.amax() <= 9 and counts.sum(0).min() >= 3
    assert 150 < int((counts[0] > 0).sum()) < 250
    share = counts.sum(0).double()
    assert abs(share[counts[0] > 0].mean() - share[counts[1] > 0].mean()) < 0.6, "whichever crop it is"
    found = masks.flatten()[places].view(400, -1)
    assert found.shape[1] == 9 and torch.equal(found.sum(1), counts.sum(0)), "all masked patches, then others"
    assert (places.view(400, -1) // 16 % 400 == torch.arange(400)[:, None]).all(), "of the same image"
    assert len(places.unique()) == len(places)


def test_the_student_does_not_see_what_is_masked_and_the_teacher_does() -> None:
    method, shown = made(crops=0), batch(3, sides=(64, 64))
    masks, places = masked_crops(shown.chance, 4, 4, *method.masked, torch.device("cpu"))
    hidden = masks.view(2, 3, 1, 4, 4).repeat_interleave(16, 3).repeat_interleave(16, 4)
    other = replace(shown, views=[torch.where(gone, 5.0, view) for gone, view in zip(hidden, shown.views, strict=True)])
    found = [method._student_of(torch.cat(one.views), [], masks, places) for one in (shown, other)]
    for one, same in zip(*found, strict=True):
        torch.testing.assert_close(one, same)
    taught = [method._taught(torch.cat(one.views), places)[1] for one in (shown, other)]
    assert not torch.allclose(*taught)


def test_patches_are_projected_by_a_head_of_their_own_only_if_asked_for() -> None:
    method, shown = made(separate_head=True, momentum=0.5), batch(3, sides=SIDES)
    before = method.patch_teacher.mlp[0].weight.clone()  # type: ignore[union-attr, operator]
    method(shown).logs["ibot"].backward()  # type: ignore[union-attr]
    assert method.head.mlp[0].weight.grad is None and method.patch_head.mlp[0].weight.grad.any()
    with torch.no_grad():
        method.patch_head.mlp[0].weight.zero_()
    method.after_step(0.0)
    torch.testing.assert_close(method.patch_teacher.mlp[0].weight, before / 2)
    assert "patch_head" not in {name.split(".")[0] for name in made().state_dict()}


@torch.no_grad()
def test_registers_are_neither_patches_nor_features() -> None:
    torch.manual_seed(0)
    backbone = Backbone("test_vit", size=(64, 64))
    backbone.model = VisionTransformer(64, 16, 1, 0, embed_dim=64, depth=1, num_heads=2, reg_tokens=3)
    method, shown = made(backbone=backbone), batch(3, sides=SIDES)
    assert method.backbone.model.num_prefix_tokens == 4
    assert by_hand(method, shown)[:2] == pytest.approx([float(method(shown).logs[name]) for name in ("dino", "ibot")])


# ---- options


def test_the_size_of_images_may_change() -> None:
    method = made(crops=0)
    assert method(batch(3, sides=(96, 96))).loss.isfinite()
    with pytest.raises(ValueError, match="60 × 60"):
        method(batch(3, sides=(60, 60)))


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        method = DINOv2(Backbone("vit_small_patch14_dinov2", size=(224, 224)))
    assert [view.shape for view in method.views((224, 224), "paper")] == [(224, 224)] * 2 + [(98, 98)] * 8
    assert [view.crop for view in method.views((224, 224), "paper")][1:3] == [(0.32, 1.0), (0.05, 0.32)]
    assert (method.momentum, method.patch_weight, method.koleo_weight, method.masked) == (0.992, 1, 0.1, (0.1, 0.5))


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"^--patch-weight -1.*--mask-min 0\.6 .*--mask-max 0\.5 .*--teacher-temp"):
        made(patch_weight=-1.0, mask_min=0.6, teacher_temperature=0.01)
    assert made().faults(100, 1) and not made().faults(100, 2)
