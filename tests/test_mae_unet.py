"""MAE for CNNs: hidden squares are reconstructed by a U-Net over any CNN."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from batches import batch, part
from torch import nn

from ribcage.data.batch import Batch
from ribcage.methods.mae_unet import MAEUNet
from ribcage.models.backbone import Backbone


def made(model: str = "test_resnet", channels: int = 1, **options: Any) -> MAEUNet:
    torch.manual_seed(0)
    return MAEUNet(Backbone(model, channels=channels), **options)


def images(count: int = 4, size: tuple[int, int] = (64, 64), channels: int = 1) -> Batch:
    torch.manual_seed(1)
    return replace(batch(count), views=[torch.randn(count, channels, *size)])


# ---- the equation


@pytest.mark.parametrize("channels", [1, 3])
def test_the_loss_is_the_mean_over_hidden_pixels(channels: int) -> None:
    method, shown = made(channels=channels), images(channels=channels)
    x, mask = shown.views[0], method._mask(shown)
    drawn = method._drawn(x.masked_fill(mask.bool(), 0.0))
    found, wanted = drawn.detach().numpy(), x.numpy()
    errors = [
        (found[n, c, i, j] - wanted[n, c, i, j]) ** 2
        for n, i, j in mask[:, 0].nonzero().tolist()
        for c in range(channels)
    ]
    assert method(shown).loss.item() == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    torch.testing.assert_close(made(channels=channels, loss_on="all")(shown).loss, (drawn - x).square().mean())


def test_the_loss_on_all_pixels_is_the_published_ones_and_not_the_default() -> None:
    assert MAEUNet.__init__.__kwdefaults__ == {"mask_ratio": 0.75, "patch": 16, "width": 256, "loss_on": "masked"}


def test_what_is_hidden_changes_nothing_but_the_target() -> None:
    method, shown = made(), images()
    x, mask = shown.views[0], method._mask(shown).bool()
    drawn = method.eval()._drawn(x * ~mask)
    other = replace(shown, views=[torch.where(mask, 5.0, x)])
    torch.testing.assert_close(method(other).loss, (drawn - 5)[mask].square().mean())


# ---- what is hidden


@pytest.mark.parametrize(
    ("size", "patch", "side"),
    [((64, 64), 16, 16), ((48, 64), 16, 8), ((32, 32), 16, 8), ((64, 64), 8, 8), ((8, 8), 16, 2), ((28, 28), 7, 7)],
)
def test_whole_squares_are_hidden_smaller_ones_where_four_would_not_fit(
    size: tuple[int, int], patch: int, side: int
) -> None:
    mask = made(patch=patch)._mask(images(size=size))
    assert mask.shape == (4, 1, *size) and set(mask.unique().tolist()) == {0.0, 1.0}
    squares = mask.unfold(2, side, side).unfold(3, side, side).flatten(4)  # (N, 1, rows, columns, pixels)
    assert torch.equal(squares.amin(4), squares.amax(4))
    count = squares[0, 0, :, :, 0].numel()
    assert (squares[..., 0].sum((1, 2, 3)) == count - int(count * 0.25)).all()


def test_the_same_squares_are_hidden_for_any_number_of_ranks() -> None:
    method, whole = made(), images()
    halves = [method._mask(part(whole, rank, 2)) for rank in range(2)]
    assert torch.equal(torch.cat(halves), method._mask(whole))
    assert not torch.equal(halves[0], halves[1])


def test_a_reconstruction_leaves_what_is_visible_and_the_statistics_as_they_are() -> None:
    method, shown = made().train(), images()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    x, mask = shown.views[0], method._mask(shown).bool()
    seen, drawn = method.reconstructed(shown)
    assert torch.equal(seen, x.masked_fill(mask, 0.0)) and torch.equal(drawn[~mask], x[~mask])
    assert (drawn[mask] != x[mask]).all() and method.training and not drawn.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


# ---- any CNN


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("test_resnet", (64, 64)),
        ("test_efficientnet", (64, 48)),  # a wide layer behind the last of its maps, none of reduction 1
        ("test_convnext", (64, 64)),  # no map of reduction 2, a norm behind the pooling
        ("mobilenetv3_small_050", (64, 64)),  # a wide layer behind the pooling
        ("test_mambaout", (64, 64)),  # channels last
        ("dla34", (32, 32)),  # a map as large as the image
        ("densenet121", (64, 64)),
        ("resnet18", (48, 80)),  # sides that cannot be halved five times
    ],
)
def test_every_weight_of_any_cnn_gets_a_gradient_and_its_names_stay(model: str, size: tuple[int, int]) -> None:
    names = list(Backbone(model).state_dict())
    method, shown = made(model), images(2, size)
    assert list(method.backbone.state_dict()) == names
    assert method._drawn(shown.views[0]).shape == shown.views[0].shape
    method(shown).loss.backward()
    assert not [name for name, weight in method.named_parameters() if weight.grad is None]
    norms = [module for module in method.backbone.modules() if isinstance(module, nn.LayerNorm | nn.BatchNorm2d)]
    assert norms[-1].weight.grad is not None and norms[-1].weight.grad.any()


def test_the_decoder_is_the_published_one() -> None:
    with torch.device("meta"):
        method = made("densenet121", 3)
    convolutions = [module for module in method.stages.modules() if isinstance(module, nn.Conv2d)]
    widths = [(layer.in_channels, layer.out_channels) for layer in convolutions]
    inputs = (1024 + 1024, 256 + 512, 128 + 256, 64 + 64, 32)
    assert widths == [pair for a, b in zip(inputs, (256, 128, 64, 32, 16), strict=True) for pair in ((a, b), (b, b))]
    assert (method.head.in_channels, method.head.out_channels, method.head.kernel_size) == (16, 3, (3, 3))


def test_a_narrow_decoder_draws_with_fewer_channels() -> None:
    method = made("resnet18", width=32)
    wanted = [stage[0].out_channels for stage in method.stages if isinstance(stage, nn.Sequential)]
    assert wanted == [32, 16, 8, 4, 2] and method.head.in_channels == 2
    shown = images(2, (64, 64))
    assert method._drawn(shown.views[0]).shape == shown.views[0].shape
    with pytest.raises(ValueError, match=r"--width 8 .*16\b"):
        made("resnet18", width=8)


def test_the_papers_view_flips_and_ours_does_not() -> None:
    (ours,), (paper,) = made().views((64, 48)), made().views((64, 48), "paper")
    assert (ours.crop, ours.flip, paper.crop, paper.flip) == ((0.5, 1.0), 0.0, (0.2, 1.0), 0.5)


# ---- what cannot be


def test_a_vision_transformer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\bmae_unet .*test_vit.*\bmae\b"):
        made("test_vit")


def test_squares_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"--patch 16 --mask-ratio 0\.75 .*100×100"):
        made()(images(size=(100, 100)))


def test_impossible_masks_are_refused_before_the_first_image() -> None:
    with pytest.raises(ValueError, match="100×100"):
        made().views((100, 100))
    with pytest.raises(ValueError, match=r"--mask-ratio 0\.97 .*64×64.*visible"):
        made(mask_ratio=0.97).views((64, 64))
    with pytest.raises(ValueError, match=r"^--mask-ratio nan must be between 0 and 1\.$"):
        made(mask_ratio=float("nan"))


def test_a_mask_that_leaves_nothing_visible_is_refused() -> None:
    with pytest.raises(ValueError, match=r"4×4 .*visible"):
        made(mask_ratio=0.97)(images())


def test_all_wrong_options_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"--mask-ratio 1\.0 .*--patch 0 .*--loss-on some"):
        made(mask_ratio=1.0, patch=0, loss_on="some")
