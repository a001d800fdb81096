"""Other programs load exported weights: their names, their shapes, and the same predictions."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from batches import batch
from test_formats import FILES, published
from torch import Tensor, nn

from ribcage import cli
from ribcage.bundle import formats
from ribcage.bundle.formats.writing import base
from ribcage.bundle.init import initial_backbone
from ribcage.bundle.io import load_classifier
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TeacherRecord, TrainingRecord
from ribcage.commands import finetune
from ribcage.data.findings import CHESTXRAY14
from ribcage.methods import Method
from ribcage.methods.mae import MAE
from ribcage.methods.moco import MoCo
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.training import setup

MEAN, STD = 0.53, 0.26
"""Of our gray; others take ImageNet's."""


def facts(name: str, channels: int = 1, size: int = 64) -> ModelSpec:
    training = TrainingRecord(options={"epochs": 7})
    return ModelSpec(name, (), (size, size), size, "pad", MEAN, STD, channels=channels, training=training)


def gray(side: int = 64, count: int = 3) -> Tensor:
    """(N, 1, S, S) in 0 … 1, bright at the edges, where padding would show."""
    return torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(5)).sqrt()


def ours(images: Tensor, channels: int = 1) -> Tensor:
    return ((images - MEAN) / STD).expand(-1, channels, -1, -1)


def theirs(images: Tensor) -> Tensor:
    """As torchvision's transforms have it."""
    means, stds = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    return torchvision.transforms.functional.normalize(images.expand(-1, 3, -1, -1), means, stds)


def stirred(module: nn.Module) -> Any:
    """Weights and statistics as after some training: norms are no identity, and the stem is not symmetric."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 1.5)
    return module.eval()


def moco(name: str = "resnet18", **options: Any) -> MoCo:
    torch.manual_seed(0)
    method = MoCo(Backbone(name), queue=24, dim=16, **options)
    nn.init.normal_(method.key[1][0].bias)  # the key encoder is another
    method.queue_at.fill_(8)
    return stirred(method)


# ---- three channels from one


@pytest.mark.parametrize("mean", [0.2, 0.449, 0.53])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_stem_in_colour_gives_the_same_of_gray_at_the_edges_too(mean: float, channels: int) -> None:
    torch.manual_seed(0)
    one = nn.Conv2d(channels, 8, 7, stride=2, padding=3, bias=False)
    three = nn.Conv2d(3, 8, 7, stride=2, padding=3, bias=False)
    three.weight.data = base.rgb_stem(one.weight.detach(), mean, 0.25)
    seen = ((gray() - mean) / 0.25).expand(-1, channels, -1, -1)
    torch.testing.assert_close(three(theirs(gray())), one(seen), atol=2e-5, rtol=1e-4)


def test_where_the_means_agree_all_channels_weigh_alike() -> None:
    weight = torch.randn(4, 1, 3, 3)
    channels = base.rgb_stem(weight, 0.449, 0.226).unbind(1)
    for channel, std in zip(channels, base.STD, strict=True):
        torch.testing.assert_close(channel / std * 0.226 * 3, weight[:, 0])


# ---- torchvision


@pytest.mark.parametrize(
    ("name", "fc"), [("resnet18", "fc"), ("resnet50.a1_in1k", "fc"), ("densenet121", "classifier")]
)
def test_torchvisions_own_model_takes_the_weights_and_answers_the_same(tmp_path: Path, name: str, fc: str) -> None:
    torch.manual_seed(0)
    method = stirred(Method(Backbone(name)))
    file = formats.load_layout("torchvision").export(method, facts(name), tmp_path)
    plain = name.split(".")[0]
    assert file == tmp_path / f"{plain}_xray.pth"
    network = torchvision.models.get_model(plain)
    missing = network.load_state_dict(torch.load(file, weights_only=True), strict=False)
    assert set(missing.missing_keys) == {f"{fc}.weight", f"{fc}.bias"} and not missing.unexpected_keys
    setattr(network, fc, nn.Identity())
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(theirs(gray())), method.backbone(ours(gray())), atol=1e-4, rtol=1e-3)


def test_a_supervised_method_brings_its_classifier(tmp_path: Path) -> None:
    torch.manual_seed(0)
    method = stirred(Supervised(Backbone("resnet18", channels=3), ("Mass", "Nodule")))
    file = formats.load_layout("torchvision").export(method, facts("resnet18", 3), tmp_path / "mine.pth")
    assert file == tmp_path / "mine.pth"
    network = torchvision.models.resnet18(num_classes=2)
    network.load_state_dict(torch.load(file, weights_only=True), strict=True)
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(theirs(gray())), method.logits(ours(gray(), 3)), atol=1e-4, rtol=1e-3)


def test_what_goes_out_comes_back_as_it_was(tmp_path: Path) -> None:
    """Folding the three channels into one again gives our own weights: a file of ours is as good as a bundle."""
    torch.manual_seed(0)
    method = stirred(Method(Backbone("resnet18")))
    file = formats.load_layout("torchvision").export(method, facts("resnet18"), tmp_path)
    content = torch.load(file, weights_only=True) | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(content, file)
    back = Backbone("resnet18", init=str(file), mean=MEAN, std=STD).model.state_dict()
    for key, value in method.backbone.model.state_dict().items():
        torch.testing.assert_close(back[key], value, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("test_resnet", "torchvision .*test_resnet"),
        ("resnet26", "torchvision .*resnet26.*'resnet"),
        ("convnext_tiny", "convnext_tiny"),
    ],
)
def test_a_model_that_torchvision_has_not_is_one_clear_line(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as error:
        formats.load_layout("torchvision").export(Method(Backbone(name)), facts(name), tmp_path)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


# ---- moco


def test_the_usual_reader_of_moco_finds_the_query_encoder(tmp_path: Path) -> None:
    """As the fine-tuning scripts do it: keep encoder_q without its fc, and nothing but fc may be missing."""
    method = moco()
    file = formats.load_layout("moco").export(method, facts("resnet18"), tmp_path)
    assert file.name == "resnet18_xray.pth.tar"
    checkpoint = torch.load(file, weights_only=True)
    assert checkpoint["arch"] == "resnet18" and checkpoint["epoch"] == 7 and "optimizer" in checkpoint
    state = checkpoint["state_dict"]
    for key in list(state):
        if key.startswith("module.encoder_q") and not key.startswith("module.encoder_q.fc"):
            state[key[len("module.encoder_q.") :]] = state[key]
        del state[key]
    network = torchvision.models.resnet18()
    missing = network.load_state_dict(state, strict=False)
    assert set(missing.missing_keys) == {"fc.weight", "fc.bias"} and not missing.unexpected_keys
    network.fc = nn.Identity()  # type: ignore[assignment]
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(theirs(gray())), method.backbone(ours(gray())), atol=1e-4, rtol=1e-3)


class Published(nn.Module):
    """The skeleton of MoCo's own builder: what a checkpoint of it must fill, and nothing more."""

    def __init__(self, mlp: bool) -> None:
        super().__init__()
        self.encoder_q, self.encoder_k = (torchvision.models.resnet18(num_classes=16) for _ in range(2))
        if mlp:
            for encoder in (self.encoder_q, self.encoder_k):
                encoder.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), encoder.fc)  # type: ignore[assignment]
        self.register_buffer("queue", torch.zeros(16, 24))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))


@pytest.mark.parametrize("head", ["mlp", "linear"])
def test_mocos_own_builder_takes_all_of_it(tmp_path: Path, head: str) -> None:
    method = moco(head=head)
    file = formats.load_layout("moco").export(method, facts("resnet18"), tmp_path)
    state = torch.load(file, weights_only=True)["state_dict"]
    assert all(key.startswith("module.") for key in state)
    published = Published(head == "mlp").eval()
    published.load_state_dict({key.removeprefix("module."): value for key, value in state.items()}, strict=True)
    with torch.inference_mode():
        query = method.head(method.backbone(ours(gray())))
        torch.testing.assert_close(published.encoder_q(theirs(gray())), query, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(published.encoder_k(theirs(gray())), method.key(ours(gray())), atol=1e-4, rtol=1e-3)
    assert torch.equal(published.queue.T, method.queue) and published.queue_ptr.tolist() == [8]


def test_a_densenet_has_its_head_where_torchvision_has_the_classifier(tmp_path: Path) -> None:
    file = formats.load_layout("moco").export(moco("densenet121", head="linear"), facts("densenet121"), tmp_path)
    state = torch.load(file, weights_only=True)["state_dict"]
    network = torchvision.models.densenet121(num_classes=16)
    prefix = "module.encoder_q."
    network.load_state_dict({key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)})


def test_only_moco_has_what_its_layout_holds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="torchvision"):
        formats.load_layout("moco").export(Supervised(Backbone("resnet18"), ()), facts("resnet18"), tmp_path)
    with pytest.raises(ValueError, match=r"torchvision .*test_vit"):
        formats.load_layout("moco").export(MoCo(Backbone("test_vit"), queue=8), facts("test_vit"), tmp_path)


# ---- mae


def mae(channels: int = 1, pool: str = "avg", seed: int = 0, **options: Any) -> MAE:
    torch.manual_seed(seed)
    backbone = Backbone("deit_tiny_patch16_224", channels=channels, size=(64, 64), pool=pool)
    return MAE(backbone, mask_ratio=0.5, decoder="dec128d2b", **options).eval()


def published_state(method: MAE) -> dict[str, str]:
    """Our names → the published ones."""
    return {
        key: key.removeprefix("backbone.model.").replace(
            "fc_norm.", "norm." if key.startswith("backbone") else "fc_norm."
        )
        for key in method.state_dict()
    }


@pytest.mark.parametrize(("channels", "pool"), [(1, "avg"), (3, "token")])
def test_an_mae_of_three_channels_draws_the_same_image(tmp_path: Path, channels: int, pool: str) -> None:
    method = mae(channels, pool)
    nn.init.normal_(method.decoder_pred.bias)
    file = formats.load_layout("mae").export(method, facts("deit_tiny_patch16_224", channels), tmp_path)
    assert file.name == "deit_tiny_patch16_224_xray.pth"
    checkpoint = torch.load(file, weights_only=True)
    assert checkpoint["epoch"] == 7
    other = mae(3, pool, seed=1)
    renamed = published_state(other)
    other.load_state_dict({key: checkpoint["model"][name] for key, name in renamed.items()})
    assert len(renamed) == len(checkpoint["model"])
    plain, colour = batch(3, sides=(64,)), batch(3, sides=(64,))
    plain.views[0], colour.views[0] = ours(gray(), channels), theirs(gray())
    drawn, shown = method.reconstructed(plain)[1] * STD + MEAN, other.reconstructed(colour)[1]
    mean, std = (torch.tensor(values)[:, None, None] for values in (base.MEAN, base.STD))
    torch.testing.assert_close(shown * std + mean, drawn.expand(-1, 3, -1, -1), atol=1e-4, rtol=1e-3)


def test_a_normalised_target_is_drawn_in_every_channel_alike(tmp_path: Path) -> None:
    method = mae(norm_pix=True)
    file = formats.load_layout("mae").export(method, facts("deit_tiny_patch16_224"), tmp_path)
    weight = torch.load(file, weights_only=True)["model"]["decoder_pred.weight"].unflatten(0, (-1, 3))
    for channel in weight.unbind(1):
        torch.testing.assert_close(channel, method.decoder_pred.weight.detach())


def test_the_published_vit_s_with_its_decoder_has_as_many_weights(tmp_path: Path) -> None:
    backbone = Backbone("vit_small_patch16_224", pool="avg")
    model = facts("vit_small_patch16_224", size=224)
    file = formats.load_layout("mae").export(MAE(backbone, decoder="dec512d2b"), model, tmp_path)
    assert sum(value.numel() for value in torch.load(file, weights_only=True)["model"].values()) == 28_663_936


def test_only_a_plain_transformer_fits_mae(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="MoCo"):
        formats.load_layout("mae").export(moco(), facts("resnet18"), tmp_path)
    backbone = Backbone("test_vit2", size=(64, 64))
    with pytest.raises(ValueError, match="test_vit2"):
        formats.load_layout("mae").export(MAE(backbone, decoder="dec128d2b"), facts("test_vit2"), tmp_path)


# ---- dtforcxr8

NUMBERED = ("eeea_net_c2", "ofa_595", "densenet121", "visformer_small", "autoformer_v2_base")
BACKWARDS = CHESTXRAY14[::-1]
"""The findings in another order than the layout's."""


def side_of(name: str) -> int:
    """Two of the models are made for one size."""
    return 224 if name in NUMBERED[3:] else 64


def chest(name: str, findings: tuple[str, ...] = BACKWARDS, channels: int = 1) -> Supervised:
    """A classifier of findings whose batch norms have statistics of images, so that rounding errors stay small."""
    torch.manual_seed(0)
    method = Supervised(Backbone(name, channels=channels), findings)
    nn.init.normal_(method.head.bias)
    for part in method.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None  # the statistics of all it has seen
    with torch.no_grad():
        method.train().logits(ours(gray(side_of(name)), channels))
    return method.eval()


def student(name: str = "eeea_net_c2", teachers: tuple[str, ...] = ("ofa_595",), **options: Any) -> ModelSpec:
    training = TrainingRecord(teachers=tuple(TeacherRecord(one, False, ()) for one in teachers))
    return ModelSpec(name, BACKWARDS, (64, 64), 64, "pad", MEAN, STD, training=training, **options)


def of_14_classes(name: str) -> dict[str, tuple[int, ...]]:
    """The published names and shapes, with the last layer as these programs replace it."""
    shapes = {key.replace("classifier.linear.", "classifier."): shape for key, shape in FILES[name].items()}
    ends = {"classifier.weight", "classifier.bias", "head.weight", "head.bias"}
    return {key: (14, *shape[1:]) if key in ends else shape for key, shape in shapes.items()}


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow if "base" in name else ()) for name in NUMBERED]
)
def numbered(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Supervised, Path]:
    """One of the five models, and its file."""
    name = request.param
    method, side = chest(name), side_of(name)
    file = formats.load_layout("dtforcxr8").export(method, facts(name, size=side), tmp_path_factory.mktemp(name))
    assert file.name == f"model{NUMBERED.index(name) + 1}.pth"
    return name, method, file


def test_a_numbered_file_has_every_published_name_and_no_other(numbered: tuple[str, Supervised, Path]) -> None:
    name, _, file = numbered
    found = {key: tuple(value.shape) for key, value in torch.load(file, weights_only=True).items()}
    if name == "densenet121":
        assert all(key.startswith("densenet121.") for key in found)
    else:
        assert found == of_14_classes(name)


def test_a_numbered_file_read_back_in_colour_answers_the_same(numbered: tuple[str, Supervised, Path]) -> None:
    name, method, file = numbered
    side, content = side_of(name), torch.load(file, weights_only=True)
    model = ModelSpec(name, CHESTXRAY14, (side, side), side, "pad", 0.0, 1.0, channels=3)
    back = initial_backbone(model, str(file), 0.0).eval()
    last = {"densenet121": "densenet121.classifier.0", **dict.fromkeys(NUMBERED[3:], "head")}.get(name, "classifier")
    images = gray(side, 2)
    with torch.inference_mode():
        said = nn.functional.linear(back(theirs(images)), content[f"{last}.weight"], content[f"{last}.bias"])
        torch.testing.assert_close(said.flip(1), method.logits(ours(images)), atol=1e-4, rtol=1e-4)


def test_chexnets_own_class_takes_its_file_and_answers_the_same(tmp_path: Path) -> None:
    method = chest("densenet121")
    file = formats.load_layout("dtforcxr8").export(method, facts("densenet121"), tmp_path)
    network: Any = nn.Module()
    network.densenet121 = torchvision.models.densenet121()
    network.densenet121.classifier = nn.Sequential(nn.Linear(1024, 14), nn.Sigmoid())
    network.load_state_dict(torch.load(file, weights_only=True), strict=True)
    with torch.inference_mode():
        said = network.eval().densenet121(theirs(gray()))
        torch.testing.assert_close(said.flip(1), method.logits(ours(gray())).sigmoid(), atol=1e-4, rtol=1e-3)


def test_chexnets_weights_of_2017_are_read(tmp_path: Path) -> None:
    """Names as PyTorch had them then: with a dot before the number of a layer, without counts of batches."""
    method = chest("densenet121", channels=3)
    state = torch.load(
        formats.load_layout("dtforcxr8").export(method, facts("densenet121", 3), tmp_path), weights_only=True
    )
    named = {re.sub(r"(denselayer\d+\.(norm|conv))(\d)", r"\1.\3", key): value for key, value in state.items()}
    old = {f"module.{key}": value for key, value in named.items() if not key.endswith("num_batches_tracked")}
    assert "module.densenet121.features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save({"state_dict": old}, tmp_path / "model.pth.tar")
    found = initial_backbone(facts("densenet121", 3), str(tmp_path / "model.pth.tar"), 0.0).model.state_dict()
    own = {f"densenet121.{key}": value for key, value in found.items() if not key.endswith("num_batches_tracked")}
    assert not [key for key, value in own.items() if not torch.equal(state[key], value)]


@pytest.mark.parametrize("name", ["visformer_tiny", "autoformer_v2_tiny"])
def test_a_head_with_a_sigmoid_behind_it_is_no_hindrance(name: str, tmp_path: Path) -> None:
    """As the programs that train models 4 and 5 write it."""
    state = {key.replace("head.", "head.0."): value for key, value in published(name).items()}
    assert "head.0.weight" in state
    torch.save(state, tmp_path / "model.pth")
    model = ModelSpec(name, (), (224, 224), 256, "pad", MEAN, STD, channels=3)
    found = initial_backbone(model, str(tmp_path / "model.pth"), 0.0).model.state_dict()
    assert torch.equal(found["norm.weight"], next(value for key, value in state.items() if key in ("norm.weight", "norm.bn.weight")))  # fmt: skip


@pytest.mark.parametrize("teacher", NUMBERED)
def test_a_student_has_the_number_of_its_teacher(teacher: str, tmp_path: Path) -> None:
    model = student(teachers=(f"{teacher}.some_weights",))
    file = formats.load_layout("dtforcxr8").export(chest("eeea_net_c2"), model, tmp_path)
    assert file.name == f"modeld{NUMBERED.index(teacher) + 1}.pth"
    shapes = {key: tuple(value.shape) for key, value in torch.load(file, weights_only=True).items()}
    assert shapes == of_14_classes("eeea_net_c2")


@pytest.mark.parametrize(
    ("findings", "model", "says"),
    [
        (BACKWARDS, facts("test_resnet"), ("test_resnet", "(eeea_net_c2, ofa_595",)),
        (("Mass",), facts("eeea_net_c2"), ("14 findings of ChestX-ray14",)),
        (BACKWARDS, student("densenet121"), ("eeea_net_c2", "densenet121", "ofa_595")),
        (BACKWARDS, student(teachers=("ofa_595", "b")), ("ofa_595, b",)),
        (BACKWARDS, student(teachers=("said.parquet",)), (" said",)),
        (BACKWARDS, student(pool="max"), ("'max'",)),
        (BACKWARDS, student(loss="cross-entropy"), ("each finding")),
        (("Mass",), facts("visformer_small"), ("224 × 224", "64 × 64", "14",)),
    ],
)  # fmt: skip
def test_what_those_programs_would_not_take_is_one_line(
    findings: tuple[str, ...], model: ModelSpec, says: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="dtforcxr8") as error:
        formats.load_layout("dtforcxr8").export(chest("test_resnet", findings), model, tmp_path)
    assert all(words in str(error.value) for words in says) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_method_without_a_head_is_none_of_the_numbered_models(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="14 findings"):
        formats.load_layout("dtforcxr8").export(Method(Backbone("test_resnet")), facts("eeea_net_c2"), tmp_path)


# ---- all of them


def test_an_unknown_layout_is_refused_before_the_run() -> None:
    options = finetune.Options(data=("set",), out=Path("run"), export_as="mocco")
    with pytest.raises(ValueError, match=r"'mocco'.*'moco'"):
        setup.check_layout(options, chest("test_resnet", ("a",)), facts("test_resnet"))


def test_a_finetuned_model_goes_out_as_it_was_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The averaged weights here, not those of the last step; and what cannot be written is said before the run."""
    data, out = str(tmp_path / "data"), tmp_path / "run"
    assert cli.main(["import", "phantom", "--out", data, "--images", "120", "--size", "32"]) == 0
    asked = "finetune --model resnet18 --size 32 --epochs 1 --batch 16 --ema 0.5"
    words = [*asked.split(), "--data", data, "--out", str(out)]
    assert cli.main([*words, "--export-as", "moco"]) == 2
    assert "torchvision layout" in capsys.readouterr().err
    assert not out.exists()
    assert cli.main([*words, "--export-as", "torchvision"]) == 0
    assert f"Wrote {out / 'resnet18_xray.pth'}." in capsys.readouterr().out
    kept, file = load_classifier(out), torch.load(out / "resnet18_xray.pth", weights_only=True)
    assert torch.equal(file["fc.weight"], kept.method.head.weight)
    assert torch.equal(file["layer4.1.conv2.weight"], kept.method.backbone.model.layer4[1].conv2.weight)


def test_an_unknown_layout_is_named_beside_those_there_are() -> None:
    written = (
        "byol",
        "chexnet",
        "dtforcxr8",
        "huggingface",
        "mae",
        "moco",
        "paddle",
        "supcontrast",
        "swav",
        "torchvision",
    )
    assert formats.writable_layouts() == written
    with pytest.raises(
        ValueError, match=r"Unknown layout 'moko'. Did you mean 'moco'.* Layouts: byol, chexnet, .*swav"
    ):
        formats.load_layout("moko")


def test_a_file_may_be_named_and_its_folder_is_made(tmp_path: Path) -> None:
    target = tmp_path / "权重 w" / "mine.pth.tar"
    assert formats.load_layout("moco").export(moco(), facts("resnet18"), target) == target
    assert [file.name for file in target.parent.iterdir()] == ["mine.pth.tar"]
