"""I-JEPA: the distance of section 3, its blocks, the predictor and the target encoder."""

from typing import Any

import numpy as np
import pytest
import torch
from batches import batch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from ribcage.data.batch import Batch
from ribcage.methods.ijepa import IJEPA
from ribcage.models.backbone import Backbone
from ribcage.models.positions import sine_positions
from ribcage.models.target_blocks import BlockCounts, drawn_blocks

CPU = torch.device("cpu")
SIZE = (64, 48)


def made(model: str = "test_vit", **options: Any) -> IJEPA:
    torch.manual_seed(0)
    backbone = Backbone(model, size=SIZE)
    return IJEPA(backbone, **{"targets": 2, "predictor_dim": 24, "predictor_depth": 2, **options}).train()


def shown(count: int = 3) -> Batch:
    whole = batch(count)
    torch.manual_seed(1)
    whole.views[0] = torch.randn(count, 1, *SIZE)
    return whole


# ---- the loss


@pytest.mark.parametrize("distance", ["smooth_l1", "l2"])
def test_the_loss_is_the_distance_to_the_normalised_features_of_the_targets(distance: str) -> None:
    method, images = made(distance=distance), shown()
    with torch.no_grad():
        for weight in method.target.parameters():
            weight.mul_(1.5)
        context, targets = drawn_blocks(images.chance, method.blocks, CPU)
        features = method.target.model.forward_features(images.views[0])[:, 1:]
        z = method.backbone.model.patch_embed(images.views[0]).flatten(1, 2) + method.backbone.model.pos_embed[:, 1:]
        first = (method.backbone.model.cls_token + method.backbone.model.pos_embed[:, :1]).expand(3, -1, -1)
        expected = 0.0
        for n in range(3):
            tokens = torch.cat([first[n], z[n, context[n]]])[None]
            encoded = method.backbone.model.norm(method.backbone.model.blocks(tokens))[0, 1:]
            for block in targets[n]:
                predicted = one_block(method, encoded, context[n], block)
                for p, place in zip(predicted, block, strict=True):
                    h = features[n, place]
                    h = (h - h.mean()) / (h.var(correction=0) + 1e-5).sqrt()
                    apart = (p - h).abs()
                    each = (
                        torch.where(apart < 1, apart**2 / 2, apart - 0.5) if distance == "smooth_l1" else apart**2 / 2
                    )
                    expected += float(each.mean()) / targets.numel()
    assert method(images).loss.item() == pytest.approx(expected, rel=1e-4)


def one_block(method: IJEPA, encoded: Tensor, context: Tensor, block: Tensor) -> Tensor:
    """(K, dim): what the predictor says of one block."""
    places = sine_positions(method.blocks.grid, 24, 0)[0]
    known = F.linear(encoded, method.predictor_embed.weight, method.predictor_embed.bias) + places[context]
    tokens = torch.cat([known, method.mask_token + places[block]])[None]
    for each in method.predictor_blocks:
        tokens = each(tokens)
    return method.predictor_proj(method.predictor_norm(tokens))[0, len(context) :]


def test_the_context_encoder_does_not_see_the_targets() -> None:
    """Pixels of patches outside of the context change the targets and nothing else."""
    method, images = made(), shown(1)
    context, _ = drawn_blocks(images.chance, method.blocks, CPU)
    changed = images.views[0].clone()
    for place in set(range(12)) - set(context[0].tolist()):
        row, column = divmod(place, 3)
        changed[..., 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] += 1
    with torch.no_grad():
        before, after = (predicted(method, view, images) for view in (images.views[0], changed))
    assert torch.equal(before, after)


def predicted(method: IJEPA, view: Tensor, images: Batch) -> Tensor:
    """The prediction, which is seen where the distance gets it."""
    found = list[Tensor]()

    def seen(p: Tensor, h: Tensor) -> Tensor:
        found.append(p)
        return F.mse_loss(p, h)

    method.distance = seen
    images.views[0] = view
    method(images)
    return found[0]


# ---- blocks


@pytest.mark.parametrize("grid", [(14, 14), (4, 3), (6, 9)])
def test_a_context_has_no_patch_of_a_target(grid: tuple[int, int]) -> None:
    counts = BlockCounts(grid, 4)
    context, targets = drawn_blocks(torch.arange(200), counts, CPU)
    assert context.shape == (200, counts.context) and targets.shape == (200, 4, counts.target)
    for one, blocks in zip(context.tolist(), targets.flatten(1).tolist(), strict=True):
        assert len(set(one)) == counts.context and not set(one) & set(blocks)
        assert min(one + blocks) >= 0 and max(one + blocks) < grid[0] * grid[1]


def test_targets_are_rectangles_of_the_papers_area_and_aspect_ratios() -> None:
    counts = BlockCounts((14, 14), 4)
    assert 0.15 * 196 <= counts.target <= 0.2 * 196
    _, targets = drawn_blocks(torch.arange(300), counts, CPU)
    sides = set()
    for block in targets.flatten(0, 1):
        rows, columns = block // 14, block % 14
        height, width = (int(part.max() - part.min()) + 1 for part in (rows, columns))
        sides.add((height, width))
        assert 0 <= height * width - counts.target < width and len(block.unique()) == counts.target
    assert sides == {(5, 7), (6, 6), (7, 5)}
    places = np.bincount(targets.flatten().numpy(), minlength=196)
    assert places.all(), "every patch is a target sometimes"


def test_a_context_comes_from_one_block_and_depends_on_the_image_only() -> None:
    counts = BlockCounts((14, 14), 4)
    context, _ = drawn_blocks(torch.arange(100), counts, CPU)
    again, _ = drawn_blocks(torch.arange(50, 100), counts, CPU)
    assert torch.equal(context[50:], again)
    assert len({tuple(one) for one in context.tolist()}) == 100
    outer = [{place for place in range(196) if divmod(place, 14)[axis] == line} for axis in (0, 1) for line in (0, 13)]
    cut = [any(not line & set(one) for line in outer) for one in context.tolist()]
    assert 0.4 < np.mean(cut) < 0.7, "a block of 13 rows and columns of 14 is as frequent as one of 14"


# ---- networks


def test_the_defaults_are_those_of_the_authors_code() -> None:
    method = IJEPA(Backbone("test_vit", size=(64, 64)), predictor_depth=2)
    assert (method.blocks.targets, method.momentum, method.predictor_embed.out_features) == (4, 0.996, 384)
    assert method.distance is F.smooth_l1_loss and method.views((64, 64), "paper")[0].crop == (0.3, 1.0)
    blocks = [block for part in (method.backbone.model.blocks, method.predictor_blocks) for block in part[:2]]
    spreads = [(block.attn.proj.weight.std() / block.attn.qkv.weight.std()).item() for block in blocks]
    assert spreads == pytest.approx([0.5**0.5, 0.5, 0.5**0.5, 0.5], rel=0.1)


def test_positions_are_fixed_and_a_pretrained_backbone_keeps_its_weights() -> None:
    assert torch.equal(made().backbone.model.pos_embed, sine_positions((4, 3), 64, 1))
    assert not made().backbone.model.pos_embed.requires_grad
    backbone = Backbone("test_vit", size=SIZE)
    backbone.pretrained, before = True, {key: value.clone() for key, value in backbone.state_dict().items()}
    IJEPA(backbone, targets=2, predictor_dim=24, predictor_depth=1)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize(("progress", "m"), [(0.0, 0.9), (0.25, 0.925), (1.0, 1.0)])
def test_the_target_encoder_follows_ever_more_slowly(progress: float, m: float) -> None:
    method = made(momentum=0.9)
    before = [weight.clone() for weight in method.target.parameters()]
    with torch.no_grad():
        for weight in method.backbone.parameters():
            weight.add_(1)
    method.after_step(progress)
    for weight, old in zip(method.target.parameters(), before, strict=True):
        torch.testing.assert_close(weight, old + (1 - m))


def test_transformers_with_rotary_positions_are_trained_too() -> None:
    backbone = Backbone("eva02_tiny_patch14_224", size=(56, 56))
    backbone.model.blocks = nn.ModuleList(backbone.model.blocks[:1])
    method = IJEPA(backbone, targets=2, predictor_dim=24, predictor_depth=1)
    whole = batch(2, sides=(56,))
    method(whole).loss.backward()
    assert all(weight.grad is not None for weight in method.parameters() if weight.requires_grad)


def test_all_wrong_options_are_named_at_once() -> None:
    with pytest.raises(ValueError) as error:
        made(predictor_dim=10, predictor_depth=0, momentum=2, distance="l3", targets=6)
    said = str(error.value)
    named = ("predictor-dim", "predictor-depth", "momentum", "distance", "targets")
    assert all(f"--{name} " in said for name in named) and "\n" not in said
