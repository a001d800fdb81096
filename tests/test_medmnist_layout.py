"""Checkpoints of MedMNIST's benchmark. Its networks are not in the package medmnist: one is written out here."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from refusals import has_facts, line
from test_formats_writing import gray, stirred
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – everybody's name for it

from ribcage.bundle import formats
from ribcage.bundle.conversion import Converted, converted_model
from ribcage.data.findings import CHESTXRAY14


class Block(nn.Module):
    """Two 3 × 3 convolutions; the shortcut is empty where nothing changes."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        changes = [nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width)] if stride > 1 else []
        self.shortcut = nn.Sequential(*changes)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet18(nn.Module):
    """As the benchmark trains it on images of 28 × 28 px."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64)
        for number, (before, width) in enumerate(((64, 64), (64, 128), (128, 256), (256, 512)), start=1):
            row = nn.Sequential(Block(before, width, 1 if number == 1 else 2), Block(width, width, 1))
            self.add_module(f"layer{number}", row)
        self.linear = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for number in (1, 2, 3, 4):
            x = self.get_submodule(f"layer{number}")(x)
        out: Tensor = self.linear(x.mean((2, 3)))
        return out


def network(channels: int = 1, classes: int = 14) -> Any:
    return stirred(ResNet18(channels, classes))


def converted(folder: Path, net: nn.Module) -> Converted:
    """As `ribcage convert --layout medmnist` does."""
    torch.save({"net": net.state_dict()}, folder / "best_model.pth")
    found = formats.published(folder / "best_model.pth", "medmnist")
    return converted_model(folder / "best_model.pth", found, agreed=True)


def normalised(images: Tensor, channels: int) -> Tensor:
    return ((images - 0.5) / 0.5).expand(-1, channels, -1, -1)


def test_chestmnist_answers_as_its_program(tmp_path: Path) -> None:
    net = network()
    opened = converted(tmp_path, net)
    spec = opened.model
    assert (spec.name, spec.findings, spec.size, spec.stored) == ("resnet18_small", CHESTXRAY14, (28, 28), 28)
    images = gray(28)
    with torch.inference_mode():
        found = opened.method.logits((images - spec.mean) / spec.std)
        torch.testing.assert_close(found, net(normalised(images, 1)), atol=2e-5, rtol=1e-4)


def test_a_softmax_over_two_classes_becomes_one_sigmoid(tmp_path: Path) -> None:
    """Of PneumoniaMNIST, at 224 px with torchvision's network, which is read only on request."""
    net = stirred(torchvision.models.resnet18(num_classes=2))
    nn.init.normal_(net.fc.bias)
    opened = converted(tmp_path, net)
    assert formats.published(tmp_path / "best_model.pth").layout == "torchvision"
    assert formats.published(tmp_path / "best_model.pth").other_layouts == ()
    spec = opened.model
    assert (spec.findings, spec.size, spec.stored) == (("Pneumonia",), (224, 224), 28)
    images = gray(64)
    with torch.inference_mode():
        found = opened.method.logits(((images - spec.mean) / spec.std).expand(-1, 3, -1, -1)).sigmoid()
        torch.testing.assert_close(found[:, 0], net(normalised(images, 3)).softmax(1)[:, 1], atol=2e-5, rtol=1e-4)


def test_other_outputs_get_no_names(tmp_path: Path) -> None:
    torch.save({"net": network(3, 9).state_dict()}, tmp_path / "path.pth")
    assert formats.published(tmp_path / "path.pth").findings == ()


def test_the_layout_is_confirmed_and_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = network().state_dict()
    torch.save({"net": state}, tmp_path / "w.pth")
    words = ["convert", str(tmp_path / "w.pth"), "--out", str(tmp_path / "out")]
    assert has_facts(line(words, capsys), "--layout medmnist", "Atelectasis")
    torch.save({"net": state | {"layer5.0.conv1.weight": torch.ones(1)}}, tmp_path / "w.pth")
    assert has_facts(line([*words, "--layout", "medmnist"], capsys), "layer5.0.conv1.weight")
    lost = "layer3.0.shortcut.1.running_var"
    torch.save({"net": {name: value for name, value in state.items() if name != lost}}, tmp_path / "w.pth")
    said = line([*words, "--layout", "medmnist", "--model", "resnet18_small"], capsys)
    assert has_facts(said, "layer3.0.downsample.1.running_var")
    assert not (tmp_path / "out").exists()
