"""Any timm model for gray images of any size; folding RGB weights does not change the output."""

import copy
import time
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ribcage.models.backbone import Backbone
from ribcage.models.stem import GRAY, fold_stem

STRIDES = {
    "test_resnet": 32,
    "test_vit": 16,
    "swin_tiny_patch4_window7_224": 32,
    "resnet18_small": 8,
    "resnet18_slim": 8,
}


@pytest.mark.parametrize("name", STRIDES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(64, 64), (96, 64)])
def test_features_and_maps_of_any_architecture_and_size(name: str, channels: int, size: tuple[int, int]) -> None:
    """A plain CNN, tokens with a class token, channels last, and one of our own."""
    backbone = Backbone(name, channels=channels, size=size).eval()
    images = torch.randn(2, channels, *size)
    with torch.inference_mode():
        features, maps = backbone(images), backbone.maps(images)
    assert features.shape == (2, backbone.dim)
    assert maps.shape == (2, backbone.dim, size[0] // STRIDES[name], size[1] // STRIDES[name])


@pytest.mark.parametrize("name", ["xcit_nano_12_p16_224", "levit_128s"])
def test_tokens_of_unusual_transformers_go_back_on_their_grid(name: str) -> None:
    backbone = Backbone(name, size=(224, 224)).eval()
    with torch.inference_mode():
        maps = backbone.maps(torch.randn(1, 1, 224, 224))
    assert maps.shape[1] == backbone.dim and maps.shape[2] == maps.shape[3] > 1


@pytest.mark.parametrize("name", ["test_resnet", "swin_tiny_patch4_window7_224"])
def test_features_are_the_mean_of_the_maps_where_the_model_pools_so(name: str) -> None:
    backbone = Backbone(name, size=(96, 64)).eval()
    images = torch.randn(2, 1, 96, 64)
    with torch.inference_mode():
        torch.testing.assert_close(backbone(images), backbone.maps(images).mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_a_map_knows_its_place_in_the_image() -> None:
    """Tokens go back on their grid row by row: a change of one patch changes most the map at its place."""
    backbone = Backbone("test_vit", size=(96, 64)).eval()
    images = torch.zeros(1, 1, 96, 64)
    spotted = images.clone()
    spotted[:, :, 48:64, 16:32] = 5
    with torch.inference_mode():
        change = (backbone.maps(spotted) - backbone.maps(images)).abs().sum(1)[0]
    assert divmod(int(change.argmax()), change.shape[1]) == (3, 1)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_pooling_can_be_chosen(name: str) -> None:
    backbone = Backbone(name, size=(64, 64), pool="max").eval()
    with torch.inference_mode():
        assert backbone(torch.randn(2, 1, 64, 64)).shape == (2, backbone.dim)


# ---- what is wrong is said


def test_an_unknown_model_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"Unknown model 'densnet121'. Did you mean 'densenet121'\?"):
        Backbone("densnet121")


def test_two_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        Backbone("test_resnet", channels=2)


# ---- weights


def rgb(name: str, seed: int = 0) -> nn.Module:
    """An RGB model with weights that nothing makes easy: biases and running statistics are not zero."""
    torch.manual_seed(seed)
    model = timm.create_model(name, in_chans=3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)  # type: ignore[union-attr, operator]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    return model.eval()


def as_rgb(gray: Tensor, model: nn.Module) -> Tensor:
    """(N, 3, H, W): a gray image in 0 … 1 as these weights want it."""
    config = model.pretrained_cfg
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))  # type: ignore[index]
    return (gray - mean) / std


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
def test_weights_come_from_a_file(name: str, suffix: str, tmp_path: Path) -> None:
    model, file = rgb(name), tmp_path / f"权重 w.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": model.state_dict()}, file)
    else:
        save_file(model.state_dict(), file)
    backbone = Backbone(name, channels=3, init=str(file)).eval()
    images = torch.randn(1, 3, 160, 160)
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(images), pre_logits=True)  # type: ignore[operator]
        torch.testing.assert_close(backbone(images), expected)


def test_a_plain_file_fits_a_model_whose_own_weights_have_a_special_form(tmp_path: Path) -> None:
    """timm reads vit_tiny's published weights from a NumPy archive; a person's file is a plain one."""
    model = rgb("vit_tiny_patch16_224")
    torch.save(model.state_dict(), tmp_path / "w.pth")
    backbone = Backbone("vit_tiny_patch16_224", channels=3, init=str(tmp_path / "w.pth"))
    assert torch.equal(backbone.model.blocks[3].mlp.fc1.weight, model.blocks[3].mlp.fc1.weight)  # type: ignore[union-attr, index]


def test_position_embeddings_are_made_for_another_size(tmp_path: Path) -> None:
    model = rgb("test_vit")
    torch.save(model.state_dict(), tmp_path / "w.pth")
    backbone = Backbone("test_vit", size=(96, 64), init=str(tmp_path / "w.pth"))
    assert backbone.model.pos_embed.shape[1] == 6 * 4 + 1
    assert torch.equal(backbone.model.blocks[1].mlp.fc1.weight, model.blocks[1].mlp.fc1.weight)  # type: ignore[union-attr, index]


# A stem without padding (a transformer's patches) and the inside of padded ones are exact; stems with and without bias.
STEMS = {
    "test_vit": 0,
    "test_convnext": 0,
    "test_resnet": 1,
    "test_efficientnet": 1,
    "densenet121": 2,
    "poolformer_s12": 1,
}


@pytest.mark.parametrize("name", STEMS)
@pytest.mark.parametrize("scale", [GRAY, (0.5, 0.27)])
def test_a_folded_stem_gives_what_rgb_gave(name: str, scale: tuple[float, float]) -> None:
    """After the stem and its norm, without a border of as many outputs as its padding reaches."""
    model, border = rgb(name), STEMS[name]
    folded = copy.deepcopy(model)
    fold_stem(folded, timm.get_pretrained_cfg(name), *scale)
    gray = torch.rand(2, 1, 160, 160)
    with torch.inference_mode():
        expected = stem_output(model, as_rgb(gray, model))
        found = stem_output(folded, (gray - scale[0]) / scale[1])
    inside = (..., slice(border, -border), slice(border, -border)) if border else (...,)
    torch.testing.assert_close(found[inside], expected[inside], rtol=1e-4, atol=1e-5)


def stem_output(model: nn.Module, images: Tensor) -> Tensor:
    """(N, C, h, w) behind the first convolution and, where it has no bias, the norm that follows it."""
    stem = model.pretrained_cfg["first_conv"]  # type: ignore[index]
    modules = list(model.named_modules())
    place = [name for name, _ in modules].index(stem)
    wanted = modules[place][1]
    if wanted.bias is None:
        wanted = next(module for _, module in modules[place:] if isinstance(module, nn.BatchNorm2d))
    found: list[Tensor] = []
    handle = wanted.register_forward_hook(lambda module, inputs, output: found.append(output))
    model(images)
    handle.remove()
    return found[0]


@pytest.mark.parametrize(("name", "side"), [("test_vit", 160), ("vit_xsmall_patch16_clip_224", 224)])
def test_a_whole_model_without_padding_is_folded_exactly(name: str, side: int) -> None:
    """CLIP's first layer has no bias: its position embeddings take the constant."""
    model = rgb(name)
    folded = copy.deepcopy(model)
    fold_stem(folded, timm.get_pretrained_cfg(name), *GRAY)
    gray = torch.rand(2, 1, side, side)
    with torch.inference_mode():
        torch.testing.assert_close(folded((gray - GRAY[0]) / GRAY[1]), model(as_rgb(gray, model)), rtol=1e-4, atol=1e-5)


def test_folding_is_part_of_loading(tmp_path: Path) -> None:
    model = rgb("test_vit")
    torch.save(model.state_dict(), tmp_path / "w.pth")
    backbone = Backbone("test_vit", init=str(tmp_path / "w.pth"), mean=0.4, std=0.3).eval()
    gray = torch.rand(2, 1, 160, 160)
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(as_rgb(gray, model)), pre_logits=True)  # type: ignore[operator]
        torch.testing.assert_close(backbone((gray - 0.4) / 0.3), expected, rtol=1e-4, atol=1e-5)


def test_a_stem_that_cannot_be_folded_is_named() -> None:
    model = timm.create_model("test_vit", in_chans=1)
    with pytest.raises(ValueError, match=r"patch_embed\.proj.*--channels 3"):
        fold_stem(model, timm.get_pretrained_cfg("test_vit"), *GRAY)


def test_a_stem_that_standardises_its_weights_is_not_folded_wrongly() -> None:
    model = rgb("nf_resnet26")
    with pytest.raises(ValueError, match="use --channels 3"):
        fold_stem(model, timm.get_pretrained_cfg("nf_resnet26"), *GRAY)


@pytest.mark.parametrize("name", ["repvgg_a0", "fastvit_t8"])
def test_a_stem_of_several_convolutions_is_folded_wholly(name: str) -> None:
    model = rgb(name)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
    folded = copy.deepcopy(model)
    fold_stem(folded, timm.get_pretrained_cfg(name), *GRAY)
    gray = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        part = model.stem[0] if isinstance(model.stem, nn.Sequential) else model.stem  # type: ignore[index]
        other = folded.stem[0] if isinstance(folded.stem, nn.Sequential) else folded.stem  # type: ignore[index]
        found, expected = other((gray - GRAY[0]) / GRAY[1]), part(as_rgb(gray, model))
    torch.testing.assert_close(found[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "exist"), (b"junk", "cannot be read"), ({"a": torch.zeros(1)}, "conv1")],
)
def test_a_missing_damaged_or_foreign_file_is_one_line(content: object, says: str, tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises((ValueError, OSError), match=says) as error:
        Backbone("test_resnet", init=str(file))
    assert "\n" not in str(error.value) and str(file) in str(error.value)


def test_code_in_a_file_of_weights_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    torch.save({"state_dict": Evil()}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth cannot be read"):
        Backbone("test_resnet", init=str(tmp_path / "w.pth"))
    assert not (tmp_path / "ran").exists()


def test_without_a_network_the_wanted_file_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A proxy where nobody listens stands for a missing network."""
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    start = time.perf_counter()
    with pytest.raises(OSError, match=r"model\.safetensors .*timm/test_resnet\.r160_in1k") as error:
        Backbone("test_resnet", init="imagenet")
    assert time.perf_counter() - start < 5
    assert "\n" not in str(error.value) and capfd.readouterr() == ("", "")


def test_a_model_without_published_weights_is_named() -> None:
    with pytest.raises(OSError, match="resnet18_small"):
        Backbone("resnet18_small", init="imagenet")


def test_half_the_widths_are_a_quarter_of_the_weights() -> None:
    small, slim = (Backbone(name, size=(28, 28)) for name in ("resnet18_small", "resnet18_slim"))
    assert slim.dim * 2 == small.dim
    weights = [sum(weight.numel() for weight in each.parameters()) for each in (slim, small)]
    assert weights[0] / weights[1] == pytest.approx(1 / 4, rel=0.02)


def test_weights_that_were_downloaded_before_need_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = "mobilenetv3_small_050"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / Path(timm.get_pretrained_cfg(name).url).name
    file.parent.mkdir(parents=True)
    model = rgb(name)
    torch.save(model.state_dict(), file)
    backbone = Backbone(name, channels=3, init="imagenet")
    assert torch.equal(backbone.model.conv_head.weight, model.conv_head.weight)  # type: ignore[union-attr]
