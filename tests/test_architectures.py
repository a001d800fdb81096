"""Ribcage's own architectures: the interface of timm's models, and as many weights as the papers give."""

import pkgutil
from pathlib import Path

import pytest
import timm
import torch
from timm.layers import DropPath

from ribcage.bundle.init import initial_backbone
from ribcage.bundle.io import load_classifier, save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.data.provenance import Provenance
from ribcage.methods.mae_unet import MAEUNet
from ribcage.methods.supervised import Supervised
from ribcage.models import architectures
from ribcage.models.backbone import Backbone
from ribcage.training.optim import optimizer

MODULES = [f"ribcage.models.architectures.{module.name}" for module in pkgutil.iter_modules(architectures.__path__)]
OURS = [name for name in timm.list_models() if timm.model_entrypoint(name).__module__ in MODULES]
LARGE = ("autoformer_v2_small", "autoformer_v2_base", "resnet34_small", "resnet101_small")
LARGE += ("vit_base_patch16_reg4_dinov2", "vit_large_patch16_reg4_dinov2")
LARGE += ("eva_x_small_patch16", "eva_x_base_patch16", "eva_x_base_patch16_rope16")
LARGE += ("monai_resnet34", "monai_resnet50", "monai_resnet101")
LARGE += ("vit_small_patch16_clip_224", "vit_small_patch32_clip_224")
LARGE += ("vit_base_patch16_siglip_tanh_224", "vit_so400m_patch14_siglip_tanh_224")
LARGE += ("monai_resnet34", "monai_resnet50", "monai_resnet101", "xrv_resnet101_encoder")
NAMES = [name for name in OURS if name not in LARGE]
MOBILE = ("eeea_net_c1", "eeea_net_c2", "ofa_595")


def test_all_of_them_are_found() -> None:
    assert set(OURS) >= {*MOBILE, *LARGE, "autoformer_v2_tiny", "resnet18_small", "resnet18_slim"}


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        ("eeea_net_c2", 14, 4_732_838),
        ("eeea_net_c2", 1000, 5_995_904),
        ("ofa_595", 14, 7_620_446),
        ("ofa_595", 1000, 9_135_928),
        ("densenet121", 14, 6_968_206),
        ("densenet121", 1000, 7_978_856),
        ("visformer_small", 14, 39_461_358),
        ("visformer_small", 1000, 40_219_592),
        ("autoformer_v2_base", 14, 70_367_528),
        ("autoformer_v2_base", 1000, 71_125_762),
    ],
)
def test_weights_are_as_many_as_published(name: str, classes: int, count: int) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=classes)
    assert sum(weight.numel() for weight in model.parameters()) == count


@pytest.mark.parametrize("name", [*NAMES, "densenet121", "visformer_tiny"])
@pytest.mark.parametrize(("channels", "side"), [(1, 64), (3, 64), (1, 96)])
def test_a_batch_of_one_keeps_its_dimension(name: str, channels: int, side: int) -> None:
    backbone = Backbone(name, channels=channels, size=(side, side)).eval()
    images = torch.randn(1, channels, side, side)
    with torch.inference_mode():
        features, maps = backbone(images), backbone.maps(images)
    reduction = backbone.model.feature_info[-1]["reduction"]
    assert features.shape == (1, backbone.dim)
    assert maps.shape == (1, backbone.model.num_features, side // reduction, side // reduction)


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_reaches_every_weight(name: str) -> None:
    torch.manual_seed(0)
    method = Supervised(Backbone(name, size=(64, 64)), ("Mass", "Nodule")).train()
    with torch.no_grad():
        method.head.weight.normal_()
        for norm in method.modules():  # some residual branches begin with a factor of zero
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.weight.fill_(1)
    method.logits(torch.randn(4, 1, 64, 64)).square().sum().backward()
    grads = {key: weight.grad for key, weight in method.named_parameters()}
    assert not [key for key, grad in grads.items() if grad is None or not grad.abs().sum()]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_dropped_unless_asked_for(name: str) -> None:
    def shares(drop_path: float) -> list[float]:
        with torch.device("meta"):
            model = Backbone(name, size=(64, 64), drop_path=drop_path).model
        return [float(part.drop_prob or 0) for part in model.modules() if isinstance(part, DropPath)]

    assert not any(shares(0))
    if not (asked := shares(0.2)):
        pytest.skip(f"{name} drops no paths")
    assert asked == sorted(asked) and asked[0] < 0.1 and 0.15 < asked[-1] < 0.2001


@pytest.mark.parametrize("name", NAMES)
def test_the_head_can_be_had_and_lost(name: str) -> None:
    model = timm.create_model(name, in_chans=1, num_classes=3).eval()
    model.reset_classifier(5)  # type: ignore[operator]
    images = torch.randn(2, 1, 64, 64) if not hasattr(model, "patch_embed") else torch.randn(2, 1, 224, 224)
    with torch.inference_mode():
        assert model(images).shape == (2, 5)
        model.reset_classifier(0)  # type: ignore[operator]
        features = model.forward_head(model.forward_features(images), pre_logits=True)  # type: ignore[operator]
        assert torch.equal(model(images), features) and features.shape == (2, model.head_hidden_size)


@pytest.mark.parametrize("name", NAMES)
def test_deeper_layers_move_faster(name: str) -> None:
    with torch.device("meta"):
        method = Supervised(Backbone(name, size=(64, 64)), ("Mass",))
    scale = {id(weight): group["scale"] for group in optimizer(method, layer_decay=0.7).param_groups for weight in group["params"]}  # fmt: skip
    scales = [scale[id(weight)] for _, weight in method.backbone.model.named_parameters()]
    assert scales[0] == min(scales) and len(set(scales)) > 2
    if name in MOBILE or name.startswith("autoformer"):
        assert len(set(scales)) > 4
    if name in MOBILE:  # whose weights stand in the order in which they are used
        assert scales == sorted(scales)


@pytest.mark.parametrize("name", MOBILE)
def test_maps_of_every_size(name: str) -> None:
    model = Backbone(name).eval().model
    with torch.inference_mode():
        hidden, maps = model.forward_intermediates(torch.randn(1, 1, 96, 64))
        assert torch.equal(maps[-1], hidden)
        last = model.forward_intermediates(torch.randn(1, 1, 96, 64), indices=2, intermediates_only=True)
    for info, found in zip(model.feature_info, maps, strict=True):
        assert found.shape == (1, info["num_chs"], 96 // info["reduction"], 64 // info["reduction"])
    assert [one.shape for one in last] == [one.shape for one in maps[-2:]]


def test_a_mobile_net_may_be_pretrained_by_drawing() -> None:
    torch.manual_seed(0)
    method = MAEUNet(Backbone("eeea_net_c1", size=(64, 64)))
    assert method._drawn(torch.randn(2, 1, 64, 64)).shape == (2, 1, 64, 64)


@pytest.mark.parametrize("pool", ["avg", "max", "catavgmax"])
def test_a_mobile_net_pools_as_asked(pool: str) -> None:
    backbone = Backbone("eeea_net_c1", pool=pool).eval()
    with torch.inference_mode():
        assert backbone(torch.randn(1, 1, 64, 64)).shape == (1, 1280)


@pytest.mark.parametrize("name", MOBILE)
def test_a_new_mobile_nets_residual_blocks_hand_on_what_they_are_given(name: str) -> None:
    """Without this EEEA-Net-C2 hardly learnt in 440 steps: see the distillation in docs/benchmarks.md."""
    for block in Backbone(name).train().model.blocks:
        if block.residual:
            x = torch.randn(2, block.mobile_inverted_conv.point_linear.conv.out_channels, 4, 4)
            assert torch.equal(block(x), x)


def test_a_mobile_nets_block_is_the_equation() -> None:
    """h-swish(x) = x relu6(x + 3) / 6, weights of channels relu6(x + 3) / 6 of the mean, and x itself where shapes allow."""
    block = Backbone("eeea_net_c2").eval().model.blocks[12]
    expand, depth, point = block.mobile_inverted_conv
    torch.nn.init.uniform_(point.bn.weight, 0.5, 2)  # at first it is zero
    x = torch.randn(1, 112, 6, 6)

    def hard(x: torch.Tensor) -> torch.Tensor:
        return torch.clamp(x + 3, 0, 6) / 6

    with torch.inference_mode():
        y = expand.bn(expand.conv(x))
        y = depth.bn(depth.conv(y * hard(y)))
        y = y * hard(y)
        weight = torch.relu(depth.se.fc.reduce(y.mean((2, 3), keepdim=True)))
        y = y * hard(depth.se.fc.expand(weight))
        torch.testing.assert_close(block(x), x + point.bn(point.conv(y)))


def test_autoformer_v2_shifts_where_windows_are_smaller_than_the_map() -> None:
    """At 224 pixels windows of 7 are shifted by 3 in the first two stages; the third and fourth see all of their map."""
    with torch.device("meta"):
        layers = Backbone("autoformer_v2_base", size=(224, 224)).model.layers
    found = [[(block.window_size[0], block.shift_size[0]) for block in layer.blocks[:2]] for layer in layers]
    assert found == [[(7, 0), (7, 3)], [(7, 0), (7, 3)], [(14, 0), (14, 0)], [(7, 0), (7, 0)]]
    assert [len(layer.blocks) for layer in layers] == [2, 2, 30, 2]


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_gives_the_answers_of_the_saved_model(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    method = Supervised(Backbone(name, size=(64, 64)), ("Mass", "Nodule"))
    for _ in range(2):  # norms of batches have then seen something
        method.logits(torch.randn(4, 1, 64, 64))
    facts = TrainingRecord(images=8, patients=8, selection=1)
    model = ModelSpec(name, ("Mass", "Nodule"), (64, 64), 64, "pad", 0.5, 0.25, training=facts)
    save_bundle(tmp_path, method.eval(), model, Provenance.nothing())
    opened, images = load_classifier(tmp_path).method, torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        assert torch.equal(opened.logits(images), method.logits(images))
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f'timm.create_model("{name}"' in card and "ribcage" in card
    built = initial_backbone(model, str(tmp_path / "model.safetensors"), 0.1).model.state_dict()
    assert all(torch.equal(built[key], value) for key, value in method.backbone.model.state_dict().items())
