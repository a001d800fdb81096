"""Files of torchvision, timm and TorchXRayVision: the architecture is recognised, weights are bit-equal, predictions the same."""

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from refusals import line
from safetensors.torch import load_file, save_file
from test_formats_writing import gray, stirred, theirs
from torch import Tensor, nn

from ribcage import cli
from ribcage.bundle import formats
from ribcage.bundle.conversion import converted_model
from ribcage.bundle.formats import timm_names, xrayvision
from ribcage.bundle.formats.reading.published_weights import DENSENETS, RESNETS
from ribcage.bundle.io import load_bundle

COUNTS = "num_batches_tracked"
TORCHVISIONS = ("--layout", "torchvision")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("权重 t")


def converted(folder: Path, file: str, *words: str) -> Any:
    """The bundle of a file."""
    out = folder / f"of {file}"
    assert cli.main(["convert", str(folder / file), "--out", str(out), *words]) == 0
    return load_bundle(out)


def same(opened: Any, expected: dict[str, Tensor]) -> bool:
    """Whether the bundle holds these numbers; 2017's files do not count batches."""
    found = load_file(opened.folder / "model.safetensors")
    counted = {name for name in found if not name.endswith(COUNTS)}
    return counted == {name for name in expected if not name.endswith(COUNTS)} and all(
        torch.equal(found[name], expected[name]) for name in expected if not name.endswith(COUNTS)
    )


def shown(opened: Any, images: Tensor) -> Tensor:
    """As our loader gives it."""
    return ((images - opened.spec.mean) / opened.spec.std).expand(-1, opened.spec.channels, -1, -1)


# ---- torchvision


def test_a_file_of_torchvision_arrives_and_goes_out_to_the_bit(folder: Path) -> None:
    net = stirred(torchvision.models.resnet34(num_classes=3))
    torch.save(net.state_dict(), folder / "r34.pth")
    opened = converted(folder, "r34.pth", *TORCHVISIONS, "--findings", "Mass", "Nodule", "Hernia")
    assert (opened.spec.name, opened.spec.training.layout) == ("resnet34", "torchvision")
    assert opened.spec.data[0].source == "unknown"  # a ResNet of anybody's
    assert cli.main(["convert", str(opened.folder), "--to", "torchvision", "--out", str(folder / "back.pth")]) == 0
    with torch.inference_mode():  # in double precision only a true difference is left
        found = opened.method.double().logits(shown(opened, gray().double()))
        torch.testing.assert_close(found, net.double()(theirs(gray().double())), atol=1e-9, rtol=1e-9)
    net = net.float()
    back = torch.load(folder / "back.pth", weights_only=True)
    assert back.keys() == net.state_dict().keys()
    assert not [
        key for key, value in net.state_dict().items() if COUNTS not in key and not torch.equal(back[key], value)
    ]


def test_one_of_imagenet_answers_no_finding(folder: Path) -> None:
    net = stirred(torchvision.models.resnet18())
    torch.save(net.state_dict(), folder / "r18.pth")
    opened = converted(folder, "r18.pth", *TORCHVISIONS)
    assert opened.spec.findings == () and opened.spec.data[0].source.endswith("pytorch/vision")
    assert same(opened, {name: value for name, value in net.state_dict().items() if not name.startswith("fc.")})


def test_a_densenet_by_its_names_of_2017_with_a_sigmoid_behind_it(folder: Path) -> None:
    """As the benchmark of transfer learning keeps it: {epoch, lossMIN, state_dict, optimizer, scheduler}."""
    net = stirred(torchvision.models.densenet121(num_classes=14))
    own = net.state_dict()
    dotted = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", name): value for name, value in own.items()}
    state = {f"module.{name.replace('classifier.', 'classifier.0.')}": dotted[name] for name in dotted}
    assert "module.features.denseblock1.denselayer1.norm.1.weight" in state and "module.classifier.0.bias" in state
    content = {"epoch": 3, "lossMIN": 0.2, "state_dict": state, "optimizer": {"state": {}}, "scheduler": {}}
    torch.save(content, folder / "d121.pth.tar")
    found = formats.published(folder / "d121.pth.tar")
    assert (found.layout, found.name, found.findings) == ("torchvision", "densenet121", ())  # 14 of whom, nobody says
    names = [f"F{number}" for number in range(14)]
    assert same(converted(folder, "d121.pth.tar", *TORCHVISIONS, "--findings", *names), own)


def test_a_resnet_without_last_layer_is_a_backbone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """LoVT's backbone_weights.pt."""
    state = stirred(torchvision.models.resnet50()).state_dict()
    body = {name: value for name, value in state.items() if not name.startswith("fc.")}
    torch.save(body, folder / "backbone_weights.pt")
    opened = converted(folder, "backbone_weights.pt", *TORCHVISIONS)
    assert opened.spec.name == "resnet50" and same(opened, body)
    assert "backbone" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("resnet101", "densenet169") else pytest.mark.slow) for name in RESNETS + DENSENETS],
)  # fmt: skip
def test_every_net_of_torchvision_tells_its_architecture(name: str) -> None:
    """Also those of which a smaller one is a part."""
    with torch.device("meta"):
        state = dict(torchvision.models.get_model(name, weights=None).state_dict())
    found = formats.readable_layouts()["torchvision"].published(state)
    assert (found.name, found.source) == (name, "")


@pytest.mark.parametrize("lost", ["layer3.1.conv2.weight", "layer2.0.downsample.1.running_mean", "conv1.weight"])
def test_a_file_that_lacks_a_weight_is_refused(lost: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torchvision.models.resnet18().state_dict()
    del state[lost]
    torch.save(state, tmp_path / "w.pth")
    words = ["convert", str(tmp_path / "w.pth"), "--out", str(tmp_path / "out")]
    assert lost in line([*words, "--model", "resnet18"], capsys)
    assert not (tmp_path / "out").exists()


# ---- timm


def test_a_safetensors_file_of_timm_answers_as_timm(folder: Path) -> None:
    net = stirred(timm.create_model("mobilenetv3_small_050", num_classes=2))
    save_file(net.state_dict(), folder / "m.safetensors")
    opened = converted(folder, "m.safetensors", "--layout", "timm_names", "--findings", "Mass", "Nodule")
    assert (opened.spec.name, opened.spec.training.layout) == ("mobilenetv3_small_050", "timm_names")
    assert same(opened, net.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(
            opened.method.logits(shown(opened, gray())), net(theirs(gray())), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize(
    "name",
    [
        "convnext_tiny",
        "resnet50d",
        "visformer_tiny",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for names in timm_names.FAMILIES.values()
            for name in names
            if name not in ("convnext_tiny", "resnet50d", "visformer_tiny")
        ),
    ],
)
def test_a_common_architecture_is_told_by_its_weights(name: str) -> None:
    with torch.device("meta"):
        state = dict(timm.create_model(name).state_dict())
    assert timm_names.recognises(state)
    found = timm_names.published(state)
    assert name in (found.candidates or (found.name,))


def test_unknown_names_stay_unknown() -> None:
    assert not timm_names.recognises({"a.weight": torch.zeros(3), "conv_stem.weight": torch.zeros(3)})


# ---- TorchXRayVision


def xray(net: nn.Module, stem: str) -> Any:
    """For one channel, as that library has it; the first layer's weights are small, as images are in -1024 … 1024."""
    first = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    with torch.no_grad():
        first.weight /= 1024
    net.get_submodule(stem.rpartition(".")[0]).register_module(stem.rpartition(".")[2], first)
    return stirred(net)


def cuts(*without: int) -> Tensor:
    """Thresholds; none for these rows."""
    found = torch.arange(1, 19) / 20
    found[list(without)] = torch.nan
    return found


def test_a_densenet_of_torchxrayvision_answers_as_its_program(folder: Path) -> None:
    net = xray(torchvision.models.densenet121(num_classes=18), "features.conv0")
    torch.save(net.state_dict() | {"op_threshs": cuts()}, folder / "x.pt")
    opened = converted(folder, "x.pt")
    assert opened.spec.name == "densenet121" and opened.spec.channels == 1 and opened.spec.size == (224, 224)
    assert opened.spec.findings == xrayvision.OUTPUTS and opened.spec.fit == "crop"
    assert opened.spec.thresholds == {"published": tuple(cuts().tolist())}
    assert same(opened, net.state_dict())
    with torch.inference_mode():
        expected = net((2 * gray() - 1) * 1024)
        torch.testing.assert_close(opened.method.logits(shown(opened, gray())), expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.01


def test_rows_that_learnt_nothing_are_left_out(folder: Path) -> None:
    net = xray(torchvision.models.densenet121(num_classes=18), "features.conv0")
    rows = [row for row in range(18) if row not in (8, 16)]
    torch.save(net.state_dict() | {"op_threshs": cuts(*rows)}, folder / "rsna.pt")
    opened = converted(folder, "rsna.pt")
    assert opened.spec.findings == ("Pneumonia", "Lung_Opacity")
    assert opened.spec.thresholds == {"published": tuple(cuts()[[8, 16]].tolist())}
    assert torch.equal(opened.method.head.weight, net.classifier.weight[[8, 16]])


def test_a_resnet_of_torchxrayvision(folder: Path) -> None:
    """All its rows were trained; for two of them no threshold was published."""
    net = xray(torchvision.models.resnet50(num_classes=18), "conv1")
    state = {f"model.{name}": value for name, value in net.state_dict().items()} | {"op_threshs": cuts(14, 17)}
    torch.save(state, folder / "x50.pt")
    opened = converted(folder, "x50.pt")
    assert (opened.spec.name, opened.spec.size, opened.spec.stored) == ("resnet50", (512, 512), 512)
    assert opened.spec.findings == xrayvision.OUTPUTS
    assert [place for place, cut in enumerate(opened.spec.thresholds["published"]) if cut is None] == [14, 17]
    assert same(opened, net.state_dict())
    torch.save(net.state_dict(), folder / "bare.pt")
    found = formats.published(folder / "bare.pt")
    assert (found.layout, found.findings, found.thresholds) == ("xrayvision", xrayvision.OUTPUTS, ())


class Rectified(torchvision.models.resnet.Bottleneck):  # type: ignore[misc]
    """TorchXRayVision's block: also the output of the last norm is rectified."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.relu(self.bn3(self.conv3(y)))
        return self.relu(y + (self.downsample(x) if self.downsample else x))


def test_the_encoder_of_an_autoencoder_is_a_backbone(tmp_path: Path) -> None:
    """A ResNet-101 whose last stage has two blocks, a stride of 6 and a quarter of the channels."""
    net: Any = torchvision.models.ResNet(Rectified, [3, 4, 23, 2])
    net.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    net.inplanes = 1024
    net.layer4 = net._make_layer(Rectified, 128, 2, stride=6)
    net.fc = nn.Identity()
    state = stirred(net).state_dict()
    decoder = {f"{name}.weight": torch.ones(2) for name in ("uplayer1.0.conv1", "uplayer_top.conv1", "conv1_1")}
    torch.save(state | decoder, tmp_path / "ae.pt")
    found = formats.published(tmp_path / "ae.pt")
    assert (found.layout, found.name, set(found.unused)) == ("xrayvision", "xrv_resnet101_encoder", set(decoder))
    made = converted_model(tmp_path / "ae.pt", found)
    with torch.inference_mode():
        given = (gray(128) - made.model.mean) / made.model.std
        torch.testing.assert_close(made.method.backbone(given), net((2 * gray(128) - 1) * 1024), atol=1e-4, rtol=1e-4)
    lost = {name: value for name, value in state.items() if name != "layer3.7.bn2.weight"}
    torch.save(lost | decoder, tmp_path / "ae.pt")
    assert formats.published(tmp_path / "ae.pt").name == ""


def test_thresholds_go_with_their_own_findings_only(folder: Path) -> None:
    net = xray(torchvision.models.densenet121(num_classes=18), "features.conv0")
    torch.save(net.state_dict() | {"op_threshs": cuts()}, folder / "other.pt")
    opened = converted(folder, "other.pt", "--findings", "Mass", *("-" for _ in range(17)))
    assert opened.spec.findings == ("Mass",) and opened.spec.thresholds == {}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "older"])
def test_a_whole_model_is_refused_with_what_to_do(
    zipped: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(torchvision.models.resnet18(), tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    said = line(["convert", str(tmp_path / "w.pt"), "--out", str(tmp_path / "out")], capsys)
    assert "torchvision.models.resnet.ResNet" in said and "save its state_dict()" in said
    assert not (tmp_path / "out").exists()


def test_torchxrayvisions_own_classes_are_known(tmp_path: Path) -> None:
    """Where it is installed: its names, its order, its scale."""
    library = pytest.importorskip("torchxrayvision")
    assert [name.replace(" ", "_") for name in library.datasets.default_pathologies] == list(xrayvision.OUTPUTS)
    net = stirred(library.models.DenseNet(op_threshs=cuts()))
    torch.save(net.state_dict(), tmp_path / "x.pt")
    opened = converted(tmp_path, "x.pt")
    pixels = (gray() * 255).round()
    seen = torch.from_numpy(library.utils.normalize(pixels.numpy(), 255))
    with torch.inference_mode():
        expected = net.classifier(net.features2(seen))
        torch.testing.assert_close(opened.method.logits(shown(opened, pixels / 255)), expected, atol=1e-5, rtol=1e-5)
