"""Published files load completely: names and shapes are written out here from the papers' code."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ribcage.bundle import formats as layouts
from ribcage.bundle.init import initial_backbone
from ribcage.bundle.spec import ModelSpec
from ribcage.models.backbone import Backbone

# kernel, inputs, outputs, inside, SE – block by block
EEEA_NET_C1 = """
    3 16 16 16 -, 3 16 24 48 -, 5 24 24 72 -, 7 24 40 72 se, 5 40 40 120 se, 7 40 80 120 -, 7 80 80 320 -,
    5 80 112 320 se, 3 112 112 448 se, 7 112 160 672 se, 3 160 160 640 se, 3 160 160 960 se, 7 160 160 480 se"""
EEEA_NET_C2 = """
    3 16 16 16 -, 3 16 24 48 -, 5 24 24 96 -, 3 24 24 72 -, 7 24 40 96 se, 3 40 40 120 se, 7 40 40 120 se,
    5 40 80 240 -, 7 80 80 480 -, 5 80 80 240 -, 3 80 80 240 -, 7 80 112 480 se, 5 112 112 448 se, 3 112 112 336 se,
    3 112 112 336 se, 5 112 160 672 se, 3 160 160 960 se, 5 160 160 960 se, 7 160 160 480 se"""
OFA_595 = """
    3 24 24 24 -, 3 24 32 72 -, 5 32 32 128 -, 3 32 32 96 -, 5 32 48 128 se, 5 48 48 192 se, 3 48 48 288 se,
    5 48 48 144 se, 7 48 96 288 -, 5 96 96 576 -, 3 96 96 288 -, 5 96 96 384 -, 3 96 136 576 se, 5 136 136 816 se,
    7 136 136 816 se, 3 136 136 544 se, 3 136 192 816 se, 3 192 192 1152 se, 5 192 192 1152 se, 3 192 192 576 se"""
REDUCED = {72: 24, 96: 24, 120: 32, 128: 32, 144: 40, 192: 48, 288: 72, 320: 80, 336: 88, 448: 112, 480: 120, 544: 136, 576: 144, 640: 160, 672: 168, 816: 208, 960: 240, 1152: 288}  # fmt: skip
"""A quarter of the channels, as a multiple of eight."""


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    """What a batch norm keeps."""
    parts: dict[str, tuple[int, ...]] = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (width,))
    return {f"{name}.{part}": shape for part, shape in parts.items()} | {f"{name}.num_batches_tracked": ()}


def linear(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    """A layer with a bias."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def mobile_net(table: str, expanded: int, mixed: int, classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a file of darmo's."""
    blocks = [block.split() for block in table.split(",")]
    shapes = {"first_conv.conv.weight": (int(blocks[0][1]), 3, 3, 3)} | norm("first_conv.bn", int(blocks[0][1]))
    for number, (k, i, o, m, se) in enumerate(blocks):
        at, kernel, inputs, outputs, inside = f"blocks.{number}.mobile_inverted_conv", int(k), int(i), int(o), int(m)
        if number:
            shapes |= {f"{at}.inverted_bottleneck.conv.weight": (inside, inputs, 1, 1)}
            shapes |= norm(f"{at}.inverted_bottleneck.bn", inside)
        shapes |= {f"{at}.depth_conv.conv.weight": (inside, 1, kernel, kernel)} | norm(f"{at}.depth_conv.bn", inside)
        if se == "se":
            shapes |= linear(f"{at}.depth_conv.se.fc.reduce", REDUCED[inside], inside, 1, 1)
            shapes |= linear(f"{at}.depth_conv.se.fc.expand", inside, REDUCED[inside], 1, 1)
        shapes |= {f"{at}.point_linear.conv.weight": (outputs, inside, 1, 1)} | norm(f"{at}.point_linear.bn", outputs)
    shapes |= {"final_expand_layer.conv.weight": (expanded, outputs, 1, 1)} | norm("final_expand_layer.bn", expanded)
    return (
        shapes
        | {"feature_mix_layer.conv.weight": (mixed, expanded, 1, 1)}
        | linear("classifier.linear", classes, mixed)
    )


def autoformer_v2(depths: tuple[int, ...], windows: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of S3-T.pth, S3-S.pth and S3-B.pth, buffers included."""
    shapes = linear("patch_embed.proj", 96, 3, 4, 4) | linear("patch_embed.norm", 96)
    for stage, (depth, window, grid) in enumerate(zip(depths, windows, (56, 28, 14, 7), strict=True)):
        width, heads = 96 * 2**stage, 3 * 2**stage
        for block in range(depth):
            at = f"layers.{stage}.blocks.{block}"
            if block % 2 and window < grid:
                shapes[f"{at}.attn_mask"] = ((grid // window) ** 2, window**2, window**2)
            shapes |= linear(f"{at}.norm1", width) | linear(f"{at}.norm2", width)
            shapes[f"{at}.attn.relative_position_bias_table"] = ((2 * window - 1) ** 2, heads)
            shapes[f"{at}.attn.relative_position_index"] = (window**2, window**2)
            shapes |= linear(f"{at}.attn.qkv", 3 * width, width) | linear(f"{at}.attn.proj", width, width)
            shapes |= linear(f"{at}.mlp.fc1", 4 * width, width) | linear(f"{at}.mlp.fc2", width, 4 * width)
        if stage < 3:
            shapes[f"layers.{stage}.downsample.reduction.weight"] = (2 * width, 4 * width)
            shapes |= linear(f"layers.{stage}.downsample.norm", 4 * width)
    return shapes | linear("norm", 768) | linear("head", 1000, 768)


def visformer(stem: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of visformer_tiny.pth and visformer_small.pth."""
    shapes = {"stem.0.weight": (stem, 3, 7, 7)} | norm("stem.1.bn", stem)
    before = stem
    for stage, depth, patch, grid in ((1, 7, 4, 28), (2, 4, 2, 14), (3, 4, 2, 7)):
        width = 3 * stem * 2**stage
        shapes[f"pos_embed{stage}"] = (1, width, grid, grid)
        shapes |= linear(f"patch_embed{stage}.proj", width, before, patch, patch)
        shapes |= norm(f"patch_embed{stage}.norm.bn", width)
        for block in range(depth):
            at, inside = f"stage{stage}.{block}", 2 * width if stage == 1 else 4 * width
            shapes |= norm(f"{at}.norm2.bn", width)
            shapes |= {f"{at}.mlp.conv1.weight": (inside, width, 1, 1), f"{at}.mlp.conv3.weight": (width, inside, 1, 1)}
            if stage == 1:
                shapes[f"{at}.mlp.conv2.weight"] = (inside, inside // 8, 3, 3)
            else:
                shapes |= norm(f"{at}.norm1.bn", width)
                shapes |= {f"{at}.attn.qkv.weight": (3 * width, width, 1, 1), f"{at}.attn.proj.weight": (width, width, 1, 1)}  # fmt: skip
        before = width
    return shapes | norm("norm.bn", width) | linear("head", 1000, width)


FILES = {
    "eeea_net_c1": mobile_net(EEEA_NET_C1, 960, 1280, 1000),
    "eeea_net_c2": mobile_net(EEEA_NET_C2, 960, 1280, 1000),
    "ofa_595": mobile_net(OFA_595, 1152, 1536, 10_450),  # as the one for ImageNet-21k
    "autoformer_v2_tiny": autoformer_v2((2, 2, 6, 2), (7, 7, 14, 7)),
    "autoformer_v2_small": autoformer_v2((2, 2, 18, 2), (14, 14, 14, 7)),
    "autoformer_v2_base": autoformer_v2((2, 2, 30, 2), (7, 7, 14, 7)),
    "visformer_tiny": visformer(16),
    "visformer_small": visformer(32),
}


def published(name: str) -> dict[str, Tensor]:
    """The file's weights, each a number of its own everywhere, so that none is taken for another."""
    return {
        key: torch.tensor(number) if key.endswith("num_batches_tracked") else torch.full(shape, 1 + number / 8)
        for number, (key, shape) in enumerate(FILES[name].items())
    }


def ours(name: str) -> str:
    """A published name as the model has it."""
    if name.startswith("layers.") and ".downsample." in name:  # published behind a stage, in timm before the next
        stage = int(name.split(".")[1])
        name = name.replace(f"layers.{stage}.", f"layers.{stage + 1}.")
    return name.replace(".bn.", ".") if name.startswith(("stem", "patch_embed", "stage", "norm")) else name


def model(name: str, channels: int = 3, side: int = 224) -> ModelSpec:
    return ModelSpec(name, ("Hernia",), (side, side), 256, "pad", 0.449, 0.226, channels=channels)


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow if name.endswith(("_small", "_base")) else ()) for name in FILES],
)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A model's name and its file."""
    file = tmp_path_factory.mktemp(request.param) / "w.pth"
    torch.save(published(request.param), file)
    return request.param, file


def test_every_weight_of_a_published_file_arrives(file: tuple[str, Path]) -> None:
    name, path = file
    left_out = ("classifier.", "head.", "attn_mask", "relative_position_index")
    expected = {ours(key): value for key, value in published(name).items()}
    expected = {key: value for key, value in expected.items() if not key.startswith(left_out) and not key.endswith(left_out)}  # fmt: skip
    found = initial_backbone(model(name), str(path), 0.0).model.state_dict()
    assert found.keys() == expected.keys()
    assert not [key for key, value in expected.items() if not torch.equal(found[key], value)]


@pytest.mark.parametrize(
    ("name", "side"), [("eeea_net_c2", 64), ("autoformer_v2_tiny", 96), ("visformer_tiny", 64), ("visformer_tiny", 96)]
)
def test_a_published_file_serves_gray_images_of_another_size(name: str, side: int, tmp_path: Path) -> None:
    """A stem is folded; maps of positions and biases of windows, the same everywhere in this file, stay so."""
    weights = published(name)
    torch.save({"model": {f"module.{key}": value for key, value in weights.items()}}, tmp_path / "w.pth")
    built = initial_backbone(model(name, channels=1, side=side), str(tmp_path / "w.pth"), 0.0)
    with torch.inference_mode():
        assert built.eval().maps(torch.randn(1, 1, side, side)).shape[2:] == (side // 32, side // 32)
    found, checked = built.model.state_dict(), 0
    for key, value in weights.items():
        if "pos_embed" in key or "bias_table" in key:
            torch.testing.assert_close(found[key], value.flatten()[0].expand(found[key].shape))
            checked += found[key].shape != value.shape
    assert checked > 0 or name == "eeea_net_c2"
    stem: str = built.model.pretrained_cfg["first_conv"] + ".weight"
    assert found[stem].shape[1] == 1 and weights[stem].shape[1] == 3


def test_maps_of_positions_are_interpolated_where_they_are(tmp_path: Path) -> None:
    """From left to right they rise, in twice as many steps as before."""
    weights = published("visformer_tiny")
    weights["pos_embed1"] = torch.arange(28.0).expand(1, 96, 28, 28).contiguous()
    torch.save(weights, tmp_path / "w.pth")
    found = initial_backbone(model("visformer_tiny", side=448), str(tmp_path / "w.pth"), 0.0).model.pos_embed1
    inside = torch.arange(4, 52)
    expected = ((inside + 0.5) / 2 - 0.5).expand(1, 96, 56, 48)
    torch.testing.assert_close(found[..., 4:52], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("part", ["depth_conv.bn.weight", "depth_conv.bn.running_mean", "point_linear.conv.weight"])
def test_a_file_with_a_weight_too_few_is_refused(part: str, tmp_path: Path) -> None:
    """Also of a norm, which begins with the same numbers in every model."""
    weights, lost = published("eeea_net_c2"), f"blocks.7.mobile_inverted_conv.{part}"
    del weights[lost]
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth .*eeea_net_c2: 1 ") as error:
        initial_backbone(model("eeea_net_c2"), str(tmp_path / "w.pth"), 0.0)
    assert lost in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "of", "says"),
    [
        ("eeea_net_c2", "ofa_595", "different shape"),
        ("autoformer_v2_tiny", "autoformer_v2_small", "no attribute `6`"),
    ],
)
def test_a_file_of_another_model_is_refused_in_a_line(name: str, of: str, says: str, tmp_path: Path) -> None:
    torch.save(published(of), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=rf"w\.pth .*{name}: .*{says}") as error:
        initial_backbone(model(name), str(tmp_path / "w.pth"), 0.0)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_a_classifier_stays_where_the_model_has_one(tmp_path: Path) -> None:
    """timm's own call, as a person without Ribcage's heads makes it."""
    import timm

    weights = published("eeea_net_c2")
    built = timm.create_model("eeea_net_c2", pretrained=True, pretrained_cfg_overlay={"state_dict": weights})
    assert torch.equal(built.get_classifier().weight, weights["classifier.linear.weight"])  # type: ignore[operator]


def test_names_of_no_known_layout_stay_as_they_are(tmp_path: Path) -> None:
    weights = {"norm.bn.weight": torch.ones(3), "pos_embed": torch.ones(1, 2, 3)}
    torch.save(weights, tmp_path / "w.pth")
    assert layouts.published(tmp_path / "w.pth").state.keys() == weights.keys()


def test_without_its_layout_a_file_of_visformers_does_not_fit(tmp_path: Path) -> None:
    """Its norms would stay what they were when nothing had been learnt."""
    torch.save(published("visformer_tiny"), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth .*visformer_tiny: 112 .*\(stem\.1\.weight …\)"):
        Backbone("visformer_tiny", channels=3, init=str(tmp_path / "w.pth"))
