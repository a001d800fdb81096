"""MONAI's DenseNets and ResNets, built from torchvision's. Parity with MONAI itself: benchmarks/foundation_parity.py."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from refusals import has_facts, line
from test_formats_writing import gray, stirred
from torch import nn

from ribcage.bundle import formats
from ribcage.bundle.conversion import converted_model


def monai_resnet(stride: int = 1) -> Any:
    """Of eighteen layers, for one channel: a stem of this stride, and shortcuts with a bias."""
    net = torchvision.models.resnet18(num_classes=3)
    net.conv1 = nn.Conv2d(1, 64, 7, stride, 3, bias=False)
    for stage in (net.layer2, net.layer3, net.layer4):
        conv = stage[0].downsample[0]
        stage[0].downsample[0] = nn.Conv2d(conv.in_channels, conv.out_channels, 1, 2)
    return stirred(net)


@pytest.mark.parametrize(("name", "stride"), [("monai_resnet18", 1), ("resnet18", 2)])
def test_a_resnet_with_biases_before_norms_answers_as_before(name: str, stride: int, tmp_path: Path) -> None:
    net = monai_resnet(stride)
    torch.save(net.state_dict(), tmp_path / "model.pt")
    found = formats.published(tmp_path / "model.pt")
    assert (found.layout, found.name, found.candidates) == ("monai", "", ("monai_resnet18", "resnet18"))
    with pytest.raises(ValueError, match="--model"):
        converted_model(tmp_path / "model.pt", found)
    names = ("Mass", "Nodule", "Hernia")
    opened = converted_model(tmp_path / "model.pt", replace(found, name=name), findings=names, agreed=True)
    used = {one.name for one in opened.tensors if not one.reason}
    assert "layer2.0.downsample.0.bias" in used and opened.model.findings == names
    assert (opened.model.mean, opened.model.std, opened.model.channels) == (0, 1, 1)
    with torch.inference_mode():
        torch.testing.assert_close(opened.method.logits(gray()), net(gray()), atol=1e-5, rtol=1e-4)


def test_a_densenet_has_its_layers_one_level_deeper(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = torchvision.models.densenet121(num_classes=2)
    state = {
        re.sub(r"(denselayer\d+)\.", r"\1.layers.", name).replace("classifier.", "class_layers.out."): value
        for name, value in net.state_dict().items()
    }
    torch.save(state, tmp_path / "model.pt")
    found = formats.published(tmp_path / "model.pt")
    assert (found.layout, found.name) == ("monai", "densenet121")
    assert found.state.keys() == net.state_dict().keys()
    words = ["convert", str(tmp_path / "model.pt"), "--out", str(tmp_path / "out")]
    assert has_facts(line(words, capsys), "--layout monai", "--mean")  # the preprocessing has to be confirmed


def test_what_is_not_a_whole_network_for_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = monai_resnet().state_dict()
    words = ["convert", str(tmp_path / "w.pt"), "--out", str(tmp_path / "out"), "--layout", "monai"]
    torch.save({name: value for name, value in state.items() if name != "layer4.1.bn2.running_var"}, tmp_path / "w.pt")
    assert has_facts(line([*words, "--model", "monai_resnet18"], capsys), "layer4.1.bn2.running_var")
    torch.save(state | {"layer4.1.relu.weight": torch.ones(1)}, tmp_path / "w.pt")  # PReLU
    assert has_facts(line([*words, "--model", "monai_resnet18"], capsys), "layer4.1.relu.weight")
    torch.save(state | {"conv1.weight": torch.ones(64, 1, 7, 7, 7)}, tmp_path / "w.pt")
    assert has_facts(line(words, capsys), "volumes")
