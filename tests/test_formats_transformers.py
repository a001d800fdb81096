"""Published transformers and mobile nets: names and shapes are written out here, and predictions are computed by hand."""

import argparse
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from refusals import has_facts, line
from safetensors.torch import load_file
from test_formats import FILES, linear, ours, published
from test_formats_writing import gray, stirred, theirs
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – everybody's name for it

from ribcage import cli
from ribcage.bundle import formats
from ribcage.bundle.formats import autoformer, darmo, deit, mae, medical_mae
from ribcage.bundle.io import load_bundle
from ribcage.data.findings import CHESTXRAY14, CHEXPERT5

AS = ("--layout",)
WIDTH, DEPTH = 192, 12
"""Of the smallest published transformer."""


def blocks(at: str, width: int, count: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for block in (f"{at}.{number}" for number in range(count)):
        shapes |= linear(f"{block}.norm1", width) | linear(f"{block}.norm2", width)
        shapes |= linear(f"{block}.attn.qkv", 3 * width, width) | linear(f"{block}.attn.proj", width, width)
        shapes |= linear(f"{block}.mlp.fc1", 4 * width, width) | linear(f"{block}.mlp.fc2", width, 4 * width)
    return shapes


def vit(
    norm: str = "norm", rows: int = 0, side: int = 224, prefix: int = 1, width: int = WIDTH, depth: int = DEPTH
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a transformer of 16 × 16 patches."""
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, (side // 16) ** 2 + prefix, width)}
    shapes |= linear("patch_embed.proj", width, 3, 16, 16) | blocks("blocks", width, depth) | linear(norm, width)
    return shapes | (linear("head", rows, width) if rows else {})


def decoder(width: int, depth: int, encoder: int = WIDTH) -> dict[str, tuple[int, ...]]:
    """What MAE has beside its transformer."""
    shapes = {"mask_token": (1, 1, width), "decoder_pos_embed": (1, 197, width)}
    shapes |= linear("decoder_embed", width, encoder) | blocks("decoder_blocks", width, depth)
    return shapes | linear("decoder_norm", width) | linear("decoder_pred", 16 * 16 * 3, width)


def drawn(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights as after some training."""
    drawing = torch.Generator().manual_seed(3)
    return {
        name: torch.randn(shape, generator=drawing) * (0.2 if len(shape) < 2 else 0.05)
        + float(len(shape) == 1 and name.endswith("weight"))
        for name, shape in shapes.items()
    }


def without_numbers(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def by_hand(state: dict[str, Tensor], images: Tensor, prefix: int = 1, heads: int = 3) -> Tensor:
    """(N, tokens, width): what comes out of the last block, of an image as the file's program normalises it."""
    x = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], 16).flatten(2).mT
    first = [state[name].expand(len(x), -1, -1) for name in ("cls_token", "dist_token")[:prefix]]
    x = torch.cat([*first, x], 1) + state["pos_embed"]
    for number in range(DEPTH):

        def layer(name: str, value: Tensor, block: str = f"blocks.{number}") -> Tensor:
            return F.linear(value, state[f"{block}.{name}.weight"], state[f"{block}.{name}.bias"])

        y = normed(state, f"blocks.{number}.norm1", x)
        q, k, v = layer("attn.qkv", y).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        y = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v
        x = x + layer("attn.proj", y.transpose(1, 2).flatten(2))
        y = normed(state, f"blocks.{number}.norm2", x)
        x = x + layer("mlp.fc2", F.gelu(layer("mlp.fc1", y)))
    return x


def normed(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("权重 w")


def converted(folder: Path, name: str, content: Any, *words: str) -> Any:
    """The bundle of a file with this content."""
    torch.save(content, folder / f"{name}.pth")
    assert cli.main(["convert", str(folder / f"{name}.pth"), "--out", str(folder / name), *words]) == 0
    return load_bundle(folder / name)


def kept(opened: Any) -> dict[str, Tensor]:
    return load_file(opened.folder / "model.safetensors")


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def normalised(images: Tensor, mean: float = 0.5056, std: float = 0.252) -> Tensor:
    """As medical_mae has it."""
    return ((images - mean) / std).expand(-1, 3, -1, -1)


def shown(opened: Any, images: Tensor) -> Tensor:
    """As our loader gives it."""
    return ((images - opened.spec.mean) / opened.spec.std).expand(-1, opened.spec.channels, -1, -1)


# ---- MAE


@pytest.fixture(scope="module")
def drawing() -> dict[str, Tensor]:
    return drawn(vit() | decoder(128, 2))


@pytest.fixture(scope="module")
def pretrained(drawing: dict[str, Tensor], folder: Path) -> Any:
    args = argparse.Namespace(model="mae_vit_tiny", output_dir=Path("./out"), datasets_names=["chexpert"])
    content = {"model": drawing, "optimizer": {"state": {}}, "epoch": 799, "scaler": {"scale": 65536.0}, "args": args}
    return converted(folder, "mae", content)


def test_an_mae_arrives_without_its_decoder(drawing: dict[str, Tensor], pretrained: Any, folder: Path) -> None:
    encoder = {name: value for name, value in drawing.items() if name in vit()}
    assert same(kept(pretrained), encoder)
    found = formats.published(folder / "mae.pth")
    assert (found.layout, found.name, found.findings) == ("mae", "vit_tiny_patch16_224", ())
    assert set(found.unused) == set(decoder(128, 2))
    images = gray(224, 2)
    with torch.inference_mode():
        expected = normed(encoder, "norm", by_hand(encoder, theirs(images)))[:, 0]
        torch.testing.assert_close(
            pretrained.method.backbone(shown(pretrained, images)), expected, atol=2e-5, rtol=1e-4
        )


def test_an_mae_goes_out_again_to_the_bit(drawing: dict[str, Tensor], pretrained: Any, folder: Path) -> None:
    """But for its decoder, which is not kept."""
    assert cli.main(["convert", str(pretrained.folder), "--to", "mae", "--out", str(folder / "back.pth")]) == 0
    back = torch.load(folder / "back.pth", weights_only=True)["model"]
    assert same(back, {name: value for name, value in drawing.items() if name in vit()})


def test_positions_are_interpolated_for_another_size(drawing: dict[str, Tensor], folder: Path) -> None:
    found = kept(converted(folder, "small", {"model": drawing}, "--size", "96"))["pos_embed"]
    grid = drawing["pos_embed"][:, 1:].mT.unflatten(2, (14, 14))
    expected = F.interpolate(grid, (6, 6), mode="bicubic", antialias=True).flatten(2).mT
    assert torch.equal(found[:, :1], drawing["pos_embed"][:, :1])
    torch.testing.assert_close(found[:, 1:], expected)


@pytest.mark.parametrize("findings", [CHESTXRAY14, CHEXPERT5], ids=["ChestX-ray14", "CheXpert"])
def test_a_finetuned_transformer_of_medical_mae_answers_as_its_program(findings: tuple[str, ...], folder: Path) -> None:
    state = drawn(vit("fc_norm", len(findings)))
    opened = converted(
        folder, f"tuned{len(findings)}", {"model": state, "args": argparse.Namespace(nb_classes=14)}, *AS, "medical_mae"
    )
    assert opened.spec.findings == findings and opened.spec.pool == "avg"
    assert same(kept(opened), state)
    images = gray(224, 2)
    with torch.inference_mode():
        mean = normed(state, "fc_norm", by_hand(state, normalised(images))[:, 1:].mean(1))
        expected = F.linear(mean, state["head.weight"], state["head.bias"])
        torch.testing.assert_close(opened.method.logits(shown(opened, images)), expected, atol=2e-5, rtol=1e-4)


def test_what_other_rows_answer_is_not_guessed(folder: Path) -> None:
    """They may be named; then the file goes out again to the bit."""
    state = drawn(vit("fc_norm", 3))
    torch.save({"model": state}, folder / "three.pth")
    found = formats.published(folder / "three.pth")
    assert (found.layout, found.findings, found.pool) == ("mae", (), "avg")
    opened = converted(folder, "three", {"model": state}, *AS, "mae", "--findings", "Mass", "Nodule", "Hernia")
    assert opened.spec.findings == ("Mass", "Nodule", "Hernia")
    assert cli.main(["convert", str(opened.folder), "--to", "mae", "--out", str(folder / "three back.pth")]) == 0
    assert same(torch.load(folder / "three back.pth", weights_only=True)["model"], state)


def test_a_unet_of_medical_mae_gives_its_encoder(folder: Path) -> None:
    net = stirred(torchvision.models.resnet18())
    encoder = {name: value for name, value in net.state_dict().items() if not name.startswith("fc.")}
    state = {f"model.encoder.{name}": value for name, value in encoder.items()}
    state |= {"model.decoder.blocks.0.conv1.0.weight": torch.ones(256, 768, 3, 3)}
    state |= {"model.segmentation_head.0.weight": torch.ones(3, 16, 3, 3), "model.segmentation_head.0.bias": torch.ones(3)}  # fmt: skip
    opened = converted(folder, "unet", {"model": state, "epoch": 800}, *AS, "medical_mae")
    assert opened.spec.name == "resnet18" and opened.spec.findings == ()
    assert same(kept(opened), encoder)
    assert len(formats.published(folder / "unet.pth").unused) == 3


def test_the_architecture_is_told_by_the_shapes() -> None:
    for width, depth, name in ((384, 12, "small_patch16"), (768, 12, "base_patch16"), (1024, 24, "large_patch16")):
        shapes = vit(width=width, depth=depth) | decoder(512, 8, width)
        assert mae.published(without_numbers(shapes)).name == f"vit_{name}_224"
    tuned = without_numbers(vit("fc_norm", 14, width=384))
    assert medical_mae.recognises(tuned) and medical_mae.published(tuned).name == "vit_small_patch16_224"


# ---- DeiT


def test_a_deit_arrives(folder: Path) -> None:
    state = drawn(vit(rows=1000))
    opened = converted(folder, "deit", {"model": state}, *AS, "deit")
    assert opened.spec.name == "deit_tiny_patch16_224"
    assert (
        opened.spec.rgb_normalisation[0] == (0.485, 0.456, 0.406)
        and "facebookresearch/deit" in opened.spec.data[0].source
    )
    assert same(kept(opened), {name: value for name, value in state.items() if not name.startswith("head.")})


def test_a_distilled_deit_has_the_mean_of_two_tokens(folder: Path) -> None:
    state = drawn(vit(rows=1000, prefix=2) | {"dist_token": (1, 1, WIDTH)} | linear("head_dist", 1000, WIDTH))
    opened = converted(folder, "distilled", {"model": state})
    assert opened.spec.name == "deit_tiny_distilled_patch16_224"
    assert same(kept(opened), {name: value for name, value in state.items() if not name.startswith("head")})
    images = gray(224, 2)
    with torch.inference_mode():
        expected = normed(state, "norm", by_hand(state, theirs(images), 2))[:, :2].mean(1)
        torch.testing.assert_close(opened.method.backbone(shown(opened, images)), expected, atol=2e-5, rtol=1e-4)


def test_two_heads_on_two_tokens_are_not_made_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = drawn(vit(rows=2, prefix=2) | {"dist_token": (1, 1, WIDTH)} | linear("head_dist", 2, WIDTH))
    torch.save({"model": state}, tmp_path / "w.pth")
    words = ["convert", str(tmp_path / "w.pth"), "--out", str(tmp_path / "out"), "--findings", "Mass", "Hernia"]
    assert has_facts(line(words, capsys), "tokens", "(head, head_dist)")
    assert not (tmp_path / "out").exists()


def test_other_deits_are_known_by_name_and_size() -> None:
    large = deit.published(without_numbers(vit(rows=1000, side=384, width=768)))
    assert (large.name, large.size, large.stored) == ("deit_base_patch16_224", (384, 384), 384)
    plain = deit.published(without_numbers(vit(rows=3, width=1024, depth=24)))
    assert (plain.name, plain.source) == ("vit_large_patch16_224", "unknown")
    third = vit(rows=1000, prefix=0, width=384) | {f"blocks.{n}.gamma_{k}": (384,) for n in range(12) for k in (1, 2)}
    assert deit.published(without_numbers(third)).name == "deit3_small_patch16_224"


# ---- what DTforCXR8 fine-tunes


def small_head(name: str, head: str) -> dict[str, Tensor]:
    """A published file as fine-tuned, with 14 rows in its last layer."""
    ends = ("classifier.", "head.")
    state = {key: value for key, value in published(name).items() if not key.startswith(ends)}
    width = next(shape[1] for key, shape in FILES[name].items() if key.startswith(ends) and len(shape) == 2)
    return state | drawn(linear(head, 14, width))


@pytest.mark.parametrize(
    ("name", "head", "layout"),
    [
        ("eeea_net_c2", "classifier", "darmo"),
        ("visformer_tiny", "head.0", "visformer"),
        ("autoformer_v2_tiny", "head.0", "autoformer"),
    ],
)
def test_a_model_of_dtforcxr8_arrives_and_answers(name: str, head: str, layout: str, folder: Path) -> None:
    state = small_head(name, head)
    opened = converted(folder, name, state, *AS, layout)
    assert (opened.spec.name, opened.spec.findings) == (name, CHESTXRAY14)
    assert opened.spec.training.layout == layout and "DTforCXR8" in opened.spec.data[0].source
    last = {"darmo": "classifier", "visformer": "head", "autoformer": "head.fc"}[layout]
    expected = {
        ours(key): value
        for key, value in state.items()
        if not key.startswith(head) and not key.endswith(("attn_mask", "relative_position_index"))
    } | {f"{last}.{part}": state[f"{head}.{part}"] for part in ("weight", "bias")}
    assert same(kept(opened), expected)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "base" in name else ()) for name in FILES]
)
def test_every_published_file_tells_its_architecture(name: str) -> None:
    """Also those that begin as a smaller one does, and with the last layer of ImageNet, of which nothing is answered."""
    layout = {"e": darmo, "o": darmo, "a": autoformer}.get(name[0], formats.readable_layouts()["visformer"])
    state = without_numbers(FILES[name])
    assert layout.recognises(state)
    found = layout.published(state)
    assert (found.name, found.findings) == (name, ())
    assert not [key for key in found.unused if not key.endswith(("attn_mask", "relative_position_index"))]


def test_swins_files_have_the_same_names() -> None:
    shapes = FILES["autoformer_v2_tiny"] | {
        f"layers.2.blocks.{n}.attn.relative_position_bias_table": (13**2, 12) for n in range(6)
    }
    found = autoformer.published(without_numbers(shapes))
    assert found.name == "swin_tiny_patch4_window7_224" and "Swin-Transformer" in found.source


# ---- what is not whole


def lacking(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    assert name in state
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("shapes", "lost"),
    [
        (vit() | decoder(128, 2), "blocks.7.attn.qkv.bias"),
        (vit() | decoder(128, 2), "cls_token"),
        (vit("fc_norm", 14), "fc_norm.bias"),
        (vit("fc_norm", 14), "blocks.3.mlp.fc2.weight"),
        (vit(rows=1000), "blocks.0.norm1.weight"),
        (FILES["eeea_net_c2"], "blocks.7.mobile_inverted_conv.depth_conv.bn.running_var"),
        (FILES["autoformer_v2_tiny"], "layers.1.blocks.0.attn.relative_position_bias_table"),
    ],
    ids=["mae", "mae token", "fc_norm", "medical_mae", "deit", "darmo", "autoformer"],
)
def test_a_file_that_lacks_a_weight_is_refused(
    shapes: dict[str, tuple[int, ...]], lost: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its architecture is then named by the user, if it was that by which it is known."""
    state = {name: torch.zeros(shape) for name, shape in shapes.items()}
    torch.save({"model": lacking(state, lost)}, tmp_path / "w.pth")
    words = ["convert", str(tmp_path / "w.pth"), "--out", str(tmp_path / "out")]
    said = line(words, capsys)
    if lost not in said:  # the architecture was not recognised
        name = {"cls": "vit_tiny_patch16_224", "blo": "vit_tiny_patch16_224", "lay": "autoformer_v2_tiny"}[lost[:3]]
        said = line([*words, "--model", name], capsys)
    assert lost in said
    assert not (tmp_path / "out").exists()


def test_half_a_file_is_refused(pretrained: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (folder / "mae.pth").read_bytes()
    (folder / "half.pth").write_bytes(whole[: len(whole) // 2])
    said = line(["convert", str(folder / "half.pth"), "--out", str(folder / "half")], capsys)
    assert "damaged" in said and not (folder / "half").exists()
