"""Tokens: masked patches, some of the patches only, and crops of several sizes."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ribcage.models.backbone import Backbone
from ribcage.models.tokens import check_patch_transformer, patch_features, patch_grid, token_features

SIZE = (64, 48)
MODELS = ("test_vit", "test_vit4", "eva02_tiny_patch14_224")


def made(model: str = "test_vit", **options: Any) -> Backbone:
    """With two blocks; 12 patches of 16 pixels."""
    torch.manual_seed(0)
    backbone = Backbone(model, size=(56, 42) if model.startswith("eva") else SIZE, **options).eval()
    backbone.model.blocks = backbone.model.blocks[:2]
    return backbone


def images(backbone: Backbone, count: int = 3) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(count, 1, *backbone.size)


@pytest.mark.parametrize("model", MODELS)
def test_without_masks_tokens_are_those_of_the_backbone(model: str) -> None:
    backbone = made(model)
    shown = images(backbone)
    tokens = token_features(backbone, shown)
    torch.testing.assert_close(tokens, backbone.hidden(shown))
    torch.testing.assert_close(backbone.pool(tokens), backbone(shown))
    assert patch_features(backbone, tokens).shape == (3, 12, backbone.dim)
    assert patch_grid(backbone, backbone.size) == (4, 3)


@pytest.mark.parametrize("model", MODELS)
def test_a_masked_patch_is_not_seen_and_its_place_is(model: str) -> None:
    backbone, token = made(model), nn.Parameter(torch.randn(made(model).dim))
    shown, masked = images(backbone), torch.zeros(3, 12, dtype=torch.bool)
    masked[:, 4] = True
    found = token_features(backbone, shown, masked=masked, mask_token=token)
    step = shown.shape[2] // 4
    other = shown.clone()
    other[:, :, step : 2 * step, step : 2 * step] += 1  # row 1, column 1
    assert torch.equal(token_features(backbone, other, masked=masked, mask_token=token), found)
    assert not torch.allclose(token_features(backbone, other), token_features(backbone, shown))
    elsewhere = token_features(backbone, other, masked=masked.roll(1, 1), mask_token=token)
    assert not torch.allclose(elsewhere, found)
    found.sum().backward()
    assert token.grad is not None and token.grad.any()


@pytest.mark.parametrize("model", MODELS)
def test_visible_patches_do_not_see_the_others(model: str) -> None:
    backbone = made(model)
    shown, visible = images(backbone), torch.tensor([[0, 5, 7], [11, 1, 2], [3, 4, 9]])
    few = token_features(backbone, shown, visible=visible)
    assert few.shape[1] == backbone.model.num_prefix_tokens + 3
    all_of_them = torch.arange(12).expand(3, -1)
    torch.testing.assert_close(token_features(backbone, shown, visible=all_of_them), token_features(backbone, shown))
    step = shown.shape[2] // 4
    other = shown.clone()
    other[0, :, :step, step : 2 * step] += 1  # patch 1, which is visible in the second image only
    again = token_features(backbone, other, visible=visible)
    assert torch.equal(again[0], few[0])
    order = torch.tensor([2, 0, 1])
    prefix = backbone.model.num_prefix_tokens
    turned = token_features(backbone, shown, visible=visible[:, order])
    torch.testing.assert_close(turned[:, prefix:], few[:, prefix:][:, order])


def test_crops_of_another_size_have_interpolated_positions() -> None:
    backbone = made()
    before = token_features(backbone, images(backbone))
    backbone.accept_any_size()
    assert torch.equal(token_features(backbone, images(backbone)), before)
    masked, token = torch.tensor([[True, False, False, True]]).expand(2, -1), torch.zeros(backbone.dim)
    shown = torch.randn(2, 1, 32, 32)
    tokens = token_features(backbone, shown, masked=masked, mask_token=token)
    assert patch_features(backbone, tokens).shape == (2, 4, backbone.dim)
    torch.testing.assert_close(token_features(backbone, shown), backbone.hidden(shown))


def test_patches_have_the_last_norm_also_where_it_is_after_pooling() -> None:
    backbone = made(pool="avg")
    tokens = token_features(backbone, images(backbone))
    plain = nn.functional.layer_norm(tokens[:, 1:], (backbone.dim,), eps=1e-6)
    torch.testing.assert_close(patch_features(backbone, tokens), plain)


@pytest.mark.parametrize(("model", "says"), [("test_resnet", "test_resnet"), ("test_vit3", "--pool avg")])
def test_models_that_cannot_be_masked_are_refused(model: str, says: str) -> None:
    with pytest.raises(ValueError, match=rf"^dinov2 .*{says}"):
        check_patch_transformer(Backbone(model, size=(64, 64)), "dinov2")
    check_patch_transformer(made(), "dinov2")


def test_a_size_that_is_no_multiple_of_the_patch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"16 × 16 .*60 × 48"):
        patch_grid(made(), (60, 48))
