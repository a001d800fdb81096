"""Recognition of published files: by which evidence, and an account of every tensor."""

import csv
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from refusals import has_facts, line
from test_formats_writing import stirred
from torch import Tensor

from ribcage import cli
from ribcage.bundle import formats
from ribcage.bundle.formats.reading.twins import TWINS
from ribcage.bundle.init import file_source, initial_backbone
from ribcage.bundle.io import load_bundle, load_classifier
from ribcage.bundle.spec import ModelSpec

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def resnet() -> State:
    return dict(stirred(torchvision.models.resnet18(num_classes=3)).state_dict())


def headed(state: State, rows: int, last: str = "fc") -> State:
    """With a last layer of so many rows."""
    body = {name: value for name, value in state.items() if not name.startswith("fc.")}
    return body | {f"{last}.weight": torch.ones(rows, 512) / 512, f"{last}.bias": torch.zeros(rows)}


def one_channel(state: State) -> State:
    return state | {"conv1.weight": state["conv1.weight"].sum(1, keepdim=True)}


def numbered(state: State) -> State:
    """A ResNet cut into a row, as many programs cut it."""
    parts = {"conv1": "0", "bn1": "1", **{f"layer{n}": str(n + 3) for n in range(1, 5)}}
    split = {name: name.partition(".") for name in state}
    return {
        f"features.{parts[first]}.{rest}" if (first := split[name][0]) in parts else name: value
        for name, value in state.items()
        for rest in (split[name][2],)
    }


GUESSES: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "18 rows": (lambda state: one_channel(headed(state, 18)), "xrayvision", ("--mean", "--findings")),
    "5 rows": (lambda state: numbered(headed(state, 5, "cls")), "drmodel", ("--mean", "--findings")),
    "1000 rows": (lambda state: headed(state, 1000), "torchvision", ("--mean",)),
    "3 rows": (lambda state: state, "torchvision", ("--mean",)),
}


@pytest.mark.parametrize("case", GUESSES)
def test_shapes_alone_are_no_evidence(
    case: str, resnet: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, layout, instead = GUESSES[case]
    torch.save(make(resnet), tmp_path / "own.pth")
    words = ["convert", str(tmp_path / "own.pth"), "--out", str(tmp_path / "out"), "--size", "64"]
    said = line(words, capsys)
    assert f"--layout {layout}" in said and all(option in said for option in instead)
    assert not (tmp_path / "out").exists()
    assert cli.main([*words, "--layout", layout]) == 0
    told = capsys.readouterr().out
    assert "other programs" in told and "preprocessing: " in told and "ASSUMED" in told
    training = load_bundle(tmp_path / "out").spec.training
    assert training.agreed and "other programs" in (training.evidence or "")
    assert "ASSUMED" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_options_instead_of_guesses_need_no_agreement(resnet: State, tmp_path: Path) -> None:
    torch.save(resnet, tmp_path / "own.pth")
    words = ["convert", str(tmp_path / "own.pth"), "--out", str(tmp_path / "out"), "--mean", "0.5", "--std", "0.25"]
    assert cli.main([*words, "--findings", "Mass", "Edema", "Hernia"]) == 0
    model = load_classifier(tmp_path / "out").spec
    assert model.rgb_normalisation == ((0.5,) * 3, (0.25,) * 3) and not model.training.agreed
    assert [one for one in model.training.claims or () if "given" in one and "option" in one]


def test_one_file_can_be_read_as_another_layout(
    resnet: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A ResNet with eighteen outputs is not TorchXRayVision's because of their number."""
    torch.save(one_channel(headed(resnet, 18)), tmp_path / "own.pth")
    words = ["convert", str(tmp_path / "own.pth"), "--out", str(tmp_path / "out")]
    assert has_facts(line(words, capsys), "xrayvision", "torchvision")
    assert has_facts(line([*words, "--layout", "moco"], capsys), "own.pth", "moco layout")
    assert "Did you mean 'torchvision'" in line([*words, "--layout", "torchvison"], capsys)
    assert cli.main([*words, "--layout", "torchvision"]) == 0
    model = load_bundle(tmp_path / "out").spec
    assert model.findings == () and model.training.layout == "torchvision"


def test_fourteen_rows_get_names_only_by_an_option(
    resnet: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the names are one program's own: CheXpert has fourteen findings, too."""
    state = {f"densenet121.{name}": value for name, value in torchvision.models.densenet121().state_dict().items()}
    state = {name: value for name, value in state.items() if "classifier" not in name}
    state |= {"densenet121.classifier.0.weight": torch.ones(14, 1024), "densenet121.classifier.0.bias": torch.ones(14)}
    torch.save(state, tmp_path / "own.pth")
    said = line(["convert", str(tmp_path / "own.pth"), "--out", str(tmp_path / "out")], capsys)
    assert "chexnet" in said and "--layout" in said and "--findings" in said and "--mean" not in said


# ---- architectures of the same weights


def test_of_two_architectures_with_the_same_weights_none_is_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {"tf_efficientnet_b0"} <= set(TWINS["efficientnet_b0"]) and "resnetblur18" in TWINS["resnet18"]
    state = timm.create_model("tf_efficientnet_b0", num_classes=2).state_dict()
    torch.save(state, tmp_path / "own.pth")
    words = ["convert", str(tmp_path / "own.pth"), "--out", str(tmp_path / "out"), "--layout", "timm_names"]
    said = line(words, capsys)
    assert "(efficientnet_b0, " in said and "tf_efficientnet_b0" in said and "--model" in said
    torch.save({"arch": "tf_efficientnet_b0", "state_dict": state}, tmp_path / "own.pth")
    found = formats.published(tmp_path / "own.pth")
    assert found.name == "tf_efficientnet_b0" and "architecture" in found.stated


# ---- every tensor


def accounted(folder: Path) -> dict[str, str]:
    """Each tensor of the file, and why it is left out."""
    with (folder / "account.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len({row["tensor"] for row in rows}) == len(rows)
    return {row["tensor"]: row["reason"] for row in rows}


def test_a_layer_beside_another_of_its_name_is_not_lost(
    resnet: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = resnet | {"fc.1.weight": torch.ones(14, 3), "fc.1.bias": torch.ones(14)}
    torch.save(more, tmp_path / "own.pth")
    words = ["convert", str(tmp_path / "own.pth"), "--out", str(tmp_path / "out"), "--layout", "torchvision"]
    assert "fc.1.weight" in line(words, capsys)
    assert cli.main([*words, "--partial"]) == 0
    reasons = accounted(tmp_path / "out")
    assert reasons.keys() == more.keys()
    assert {name for name, reason in reasons.items() if reason} == {
        "fc.weight", "fc.bias", "fc.1.weight", "fc.1.bias"
    }  # fmt: skip


def test_every_tensor_of_a_file_is_in_the_account(
    resnet: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second copy of the model, an optimizer, a queue: by name, with the reason."""
    content = {
        "state_dict": {f"module.{name}": value for name, value in resnet.items()},
        "state_dict_ema": dict(resnet),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []},
        "scores": [torch.ones(1)],
    }
    torch.save(content, tmp_path / "own.pth")
    words = ["convert", str(tmp_path / "own.pth"), "--out", str(tmp_path / "out"), "--layout", "torchvision"]
    assert cli.main([*words, "--findings", "Mass", "Edema", "Hernia"]) == 0
    reasons = accounted(tmp_path / "out")
    beside = {f"state_dict.module.{name}" for name in resnet} | {"optimizer.state.0.exp_avg", "scores.0"}
    assert reasons.keys() == resnet.keys() | beside
    assert {name for name, reason in reasons.items() if reason} == beside
    assert has_facts(capsys.readouterr().out, f"{2 * len(resnet) + 2} tensors", f"{len(resnet)} used")


def test_two_weights_that_would_become_one_are_refused(resnet: State, tmp_path: Path) -> None:
    """Whatever the layout: here MoCo's encoder and a weight that already has the name it gets."""
    state = {f"encoder_{one}.{name}": value for one in "qk" for name, value in resnet.items()}
    torch.save(state | {"conv1.weight": torch.ones(1)}, tmp_path / "own.pth")
    with pytest.raises(ValueError, match=r"own\.pth .*moco.*conv1\.weight"):
        formats.published(tmp_path / "own.pth")


# ---- initial weights


def facts(channels: int = 3) -> ModelSpec:
    return ModelSpec("resnet18", (), (64, 64), 64, "pad", 0.5, 0.25, channels=channels)


def test_initial_weights_are_reported_with_their_layout_and_what_is_left_out(
    resnet: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(resnet | {"adapter.weight": torch.ones(1)}, tmp_path / "own.pth")
    initial_backbone(facts(), str(tmp_path / "own.pth"), 0.0)
    said = capsys.readouterr().out
    assert has_facts(said, "torchvision", "other programs") and "ASSUMED" in said
    assert has_facts(said, "1 left out", "(adapter.weight)")
    (row,) = file_source(str(tmp_path / "own.pth"))
    assert row.source == "unknown" and "torchvision" in (row.evidence or "")


def test_initial_weights_of_either_scale_are_refused(resnet: State, tmp_path: Path) -> None:
    torch.save(one_channel(headed(resnet, 18)), tmp_path / "own.pth")
    with pytest.raises(ValueError, match=r"own\.pth .*xrayvision.*torchvision"):
        initial_backbone(facts(1), str(tmp_path / "own.pth"), 0.0)
