"""MAE: hidden patches are reconstructed from visible ones; masks do not depend on the number of processes."""

import os
import warnings
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812
from batches import batch, part
from safetensors.torch import load_file
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ribcage.bundle.init import initial_backbone
from ribcage.bundle.io import save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.data.provenance import Provenance
from ribcage.methods.mae import MAE
from ribcage.models import layers
from ribcage.models.backbone import Backbone
from ribcage.models.positions import sine_positions


def made(model: str = "test_vit", size: tuple[int, int] = (64, 48), channels: int = 1, **options: Any) -> MAE:
    torch.manual_seed(0)
    pool = options.pop("pool", "")
    return MAE(Backbone(model, channels=channels, size=size, pool=pool), **{"decoder": "dec128d2b", **options})


def images(count: int = 6, size: tuple[int, int] = (64, 48), channels: int = 1) -> Any:
    whole = batch(count)
    torch.manual_seed(1)
    return replace(whole, views=[torch.randn(count, channels, *size)])


@pytest.fixture(scope="module")
def lightly() -> Any:
    os.environ["LIGHTLY_DID_VERSION_CHECK"] = "True"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightly.models import modules, utils
    return modules, utils


# ---- the equation


def by_hand(method: MAE, shown: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Patches, what is drawn for all of them, and which are hidden: all tokens in their places, as published."""
    model, view = method.backbone.model, shown.views[0]
    (rows, columns), (p, q), channels = method.grid, method.patch, view.shape[1]
    patches = torch.stack(
        [
            view[:, :, p * r : p * (r + 1), q * c : q * (c + 1)].permute(0, 2, 3, 1).reshape(len(view), -1)
            for r in range(rows)
            for c in range(columns)
        ],
        dim=1,
    )
    assert patches.shape[2] == p * q * channels
    visible, hidden = method._places(shown)
    drawn = []
    for n, seen in enumerate(visible):
        tokens = model._pos_embed(model.patch_embed(view[n : n + 1]))[0]
        kept = torch.cat([tokens[: method.prefix], tokens[method.prefix :][seen]])
        encoded = model.fc_norm(model.norm(model.blocks(model.norm_pre(kept[None]))))
        encoded = method.decoder_embed(encoded)[0]
        whole = method.mask_token[0].repeat(rows * columns, 1)
        whole[seen] = encoded[method.prefix :]
        whole = torch.cat([encoded[: method.prefix], whole])[None] + method.decoder_pos_embed
        for block in method.decoder_blocks:
            whole = Block.forward(block, whole)
        drawn.append(method.decoder_pred(method.decoder_norm(whole))[0, method.prefix :])
    mask = torch.zeros(patches.shape[:2], dtype=torch.bool).scatter(1, hidden, True)
    return patches, torch.stack(drawn), mask


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("norm_pix", [False, True])
@pytest.mark.parametrize(
    ("model", "pool"), [("test_vit", ""), ("test_vit", "avg"), ("test_vit3", "avg"), ("test_vit4", "")]
)
def test_the_loss_is_the_mean_over_hidden_patches(model: str, pool: str, norm_pix: bool, channels: int) -> None:
    method, shown = made(model, channels=channels, norm_pix=norm_pix, pool=pool), images(channels=channels)
    patches, drawn, mask = by_hand(method, shown)
    if norm_pix:
        patches = (patches - patches.mean(2, keepdim=True)) / (patches.var(2, keepdim=True) + 1e-6) ** 0.5
    loss = (drawn - patches).square().mean(2)  # of each patch
    torch.testing.assert_close(method(shown).loss, (loss * mask).sum() / mask.sum(), rtol=1e-5, atol=1e-6)


def test_only_a_share_of_the_hidden_patches_is_drawn_and_the_others_are_not_even_looked_at() -> None:
    method, shown = made(decode_ratio=0.25), images()
    _, hidden = method._places(shown)
    assert hidden.shape[1] == 9 and method.drawn == 2
    loss = method(shown).loss
    others = method._patches(shown.views[0]).scatter(1, hidden[:, 2:, None].expand(-1, -1, 256), 100.0)
    torch.testing.assert_close(method(replace(shown, views=[method._images(others)])).loss, loss)
    assert not torch.equal(made()(shown).loss, loss)


def test_the_share_that_is_drawn_has_on_average_the_loss_of_all() -> None:
    """With a decoder that does not look at its neighbours, each hidden patch's loss is its own."""
    method, shown = made(decode_ratio=0.25), images(512)
    for block in method.decoder_blocks:  # no patch depends on another
        for layer in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(layer.weight)
    share, method.drawn = method(shown).loss, 9
    torch.testing.assert_close(share, method(shown).loss, rtol=0.02, atol=0)


# ---- as in lightly


@pytest.mark.parametrize("norm_pix", [False, True])
def test_lightly_finds_the_same_loss(lightly: Any, norm_pix: bool) -> None:
    modules, utils = lightly
    method, shown = made(size=(64, 64), channels=3, norm_pix=norm_pix), images(size=(64, 64), channels=3)
    visible, hidden = method._places(shown)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoder = modules.MaskedVisionTransformerTIMM(method.backbone.model, weight_initialization="skip")
        decoder = modules.MAEDecoderTIMM(16, 16, 3, 64, 128, 2, 16)
    decoder.load_state_dict({key: value for key, value in method.state_dict().items() if key in decoder.state_dict()})
    tokens = encoder.encode(shown.views[0], idx_keep=torch.cat([torch.zeros(6, 1, dtype=torch.long), visible + 1], 1))
    whole = utils.repeat_token(decoder.mask_token, (6, 17))
    whole = utils.set_at_index(
        whole, torch.cat([torch.zeros(6, 1, dtype=torch.long), visible + 1], 1), decoder.embed(tokens)
    )
    drawn = decoder.predict(utils.get_at_index(decoder.decode(whole), hidden + 1))
    target = utils.get_at_index(utils.patchify(shown.views[0], 16), hidden)
    target = utils.normalize_mean_var(target) if norm_pix else target
    torch.testing.assert_close(method(shown).loss, F.mse_loss(drawn, target), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_positions_are_lightlys(lightly: Any, prefix: int) -> None:
    expected = lightly[1].get_2d_sine_cosine_positional_embedding(64, 7, num_prefix_tokens=prefix)
    torch.testing.assert_close(sine_positions((7, 7), 64, prefix)[0], torch.tensor(expected, dtype=torch.float32))


def test_positions_of_a_wide_grid_are_those_of_a_square_one() -> None:
    square, wide = sine_positions((5, 5), 64, 0)[0].view(5, 5, 64), sine_positions((3, 5), 64, 0)[0].view(3, 5, 64)
    assert torch.equal(wide, square[:3])


# ---- as published


@pytest.mark.parametrize(
    ("model", "decoder", "expected"),
    [
        ("vit_small_patch16_224", "dec512d8b", 47_578_240),
        ("vit_small_patch16_224", "dec512d2b", 28_663_936),
        ("vit_small_patch16_224", "dec128d2b", 22_236_160),
        ("vit_base_patch16_224", "dec512d8b", 111_907_840),
    ],
)
def test_models_have_the_published_number_of_weights(model: str, decoder: str, expected: int) -> None:
    with torch.device("meta"):
        method = made(model, (224, 224), 3, decoder=decoder)
    assert sum(weight.numel() for weight in method.parameters()) == expected


def test_weights_have_the_published_names() -> None:
    method = made("vit_small_patch16_224", (224, 224), 3)
    names = {key.removeprefix("backbone.model.") for key in method.state_dict()}
    blocks = [
        f"{where}.{number}.{part}.{kind}"
        for where, depth in (("blocks", 12), ("decoder_blocks", 2))
        for number in range(depth)
        for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
        for kind in ("weight", "bias")
    ]
    layers = ("patch_embed.proj", "norm", "decoder_embed", "decoder_norm", "decoder_pred")
    single = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    assert names == {"cls_token", "pos_embed", "mask_token", "decoder_pos_embed", *single, *blocks}


def test_so_many_patches_are_visible_as_published() -> None:
    assert made("vit_small_patch16_224", (224, 224), mask_ratio=0.9).visible == 19
    assert made("vit_small_patch16_224", (224, 224)).visible == 49
    assert MAE.__init__.__kwdefaults__ == {
        "mask_ratio": 0.75,
        "decoder": "dec512d8b",
        "norm_pix": False,
        "decode_ratio": 1.0,
    }


def test_the_papers_view_flips_and_ours_does_not() -> None:
    (ours,), (paper,) = made().views((64, 48)), made().views((64, 48), "paper")
    assert (ours.crop, ours.flip, paper.crop, paper.flip) == ((0.5, 1.0), 0.0, (0.2, 1.0), 0.5)


# ---- what is hidden


def test_the_same_patches_are_hidden_for_any_number_of_ranks() -> None:
    method, whole = made(), images()
    visible, hidden = method._places(whole)
    halves = [method._places(part(whole, rank, 2)) for rank in range(2)]
    assert torch.equal(torch.cat([half[0] for half in halves]), visible)
    assert torch.equal(torch.cat([visible, hidden], 1).sort().values, torch.arange(12).expand(6, -1))
    assert len({tuple(row) for row in visible.sort().values.tolist()}) > 1


def test_every_patch_is_hidden_as_often_as_any_other() -> None:
    _, hidden = made()._places(images(4000))
    shares = hidden.flatten().bincount(minlength=12) / 4000
    torch.testing.assert_close(shares, torch.full((12,), 0.75), rtol=0, atol=0.03)


@pytest.mark.parametrize("norm_pix", [False, True])
def test_a_reconstruction_leaves_what_is_visible_as_it_is(norm_pix: bool) -> None:
    method, shown = made(norm_pix=norm_pix, decode_ratio=0.25), images()
    view = shown.views[0]
    seen, drawn = method.reconstructed(shown)
    visible = seen != 0
    assert visible.float().mean() == pytest.approx(0.25) and torch.equal(drawn[visible], view[visible])
    assert not drawn.requires_grad and (drawn != view).float().mean() == pytest.approx(0.75, abs=1e-3)
    if not norm_pix:
        method.drawn = 9
        error = (drawn - view)[~visible].square().mean()
        torch.testing.assert_close(error, method(shown).loss.detach())


def test_patches_become_the_image_again() -> None:
    method, view = made(channels=3), images(channels=3).views[0]
    assert torch.equal(method._images(method._patches(view)), view)


# ---- the backbone


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_positions_are_fixed_and_the_last_norm_is_trained(pool: str) -> None:
    method = made(pool=pool)
    method(images()).loss.backward()
    model = method.backbone.model
    assert torch.equal(model.pos_embed, sine_positions((4, 3), 64, 1)) and model.pos_embed.grad is None
    norm = model.fc_norm if pool == "avg" else model.norm
    assert norm.weight.grad.any() and model.cls_token.grad.any()


def test_a_pretrained_backbone_keeps_its_weights(tmp_path: Any) -> None:
    torch.manual_seed(2)
    weights = timm.create_model("test_vit").state_dict()
    torch.save(weights, tmp_path / "weights.pth")
    method = MAE(Backbone("test_vit", channels=3, init=str(tmp_path / "weights.pth")), decoder="dec128d2b")
    for key, value in method.backbone.model.state_dict().items():
        assert torch.equal(value, weights[key]), key
    method(images(2, (160, 160), 3)).loss.backward()
    assert method.backbone.model.pos_embed.grad.any()


def test_a_bundle_keeps_its_weights_and_all_of_them_learn_on(tmp_path: Any) -> None:
    training = TrainingRecord(method="mae", images=6, patients=6)
    facts = ModelSpec("test_vit", (), (64, 48), 64, "pad", 0.5, 0.25, pool="avg", training=training)
    save_bundle(tmp_path / "bundle", made(pool="avg"), facts, Provenance.nothing())
    weights = load_file(tmp_path / "bundle" / "model.safetensors")
    torch.manual_seed(5)
    model = MAE(initial_backbone(facts, str(tmp_path / "bundle"), 0.0), decoder="dec128d2b").backbone.model
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key]), key
    assert model.pos_embed.requires_grad


def test_the_decoder_has_the_gradients_of_plain_blocks() -> None:
    method, shown = made().double(), images()
    shown = replace(shown, views=[view.double() for view in shown.views])
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    patches, drawn, mask = by_hand(method, shown)
    plain = torch.autograd.grad(F.mse_loss(drawn[mask], patches[mask]), weights)
    own = torch.autograd.grad(method(shown).loss, weights)
    for mine, theirs in zip(own, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)


def test_attention_in_plain_steps_gives_what_fused_attention_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    method, shown = made(), images()
    found = []
    for short in (layers.SHORT, 0):
        monkeypatch.setattr(layers, "SHORT", short)
        with torch.autocast("cpu", torch.bfloat16):
            loss = method(shown).loss
        assert method.decoder_blocks[0].attn.fused_attn == (short == 0)
        found.append((loss, *torch.autograd.grad(loss, [method.mask_token, method.backbone.model.cls_token])))
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(plain, fused, rtol=0.05, atol=2e-3)
    assert method(shown).loss.isfinite() and method.decoder_blocks[0].attn.fused_attn


# ---- what cannot be


def test_a_cnn_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\bmae .*test_resnet.*mae_unet"):
        made("test_resnet")


def test_pooling_by_attention_is_refused() -> None:
    with pytest.raises(ValueError, match="--pool avg"):
        made("test_vit3")


def test_a_size_that_is_no_multiple_of_the_patch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(16, 16\).*\(60, 48\)"):
        made(size=(60, 48))


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"32×32.*\(64, 48\)"):
        made()(images(size=(32, 32)))


def test_a_mask_that_is_no_number_is_one_clear_line() -> None:
    with pytest.raises(ValueError, match=r"^--mask-ratio nan .*\b12 patches\b"):
        made(mask_ratio=float("nan"))


def test_all_wrong_options_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"--mask-ratio 0\.95 .*\b12 patches .*--decoder dec .*--decode-ratio 0"):
        made(mask_ratio=0.95, decoder="dec", decode_ratio=0.0)
