"""Checkpoints of Ark under its published names; the authors do not publish a package."""

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from refusals import has_facts, line
from test_formats_transformers import without_numbers
from torch import Tensor, nn

from ribcage.bundle import formats
from ribcage.bundle.conversion import converted_model
from ribcage.bundle.formats import ark
from ribcage.data.findings import CHESTXRAY14

WIDTHS = (14, 14, 14, 3, 6, 1)
"""Outputs of each head of Ark-6."""
TINY = "swin_tiny_patch4_window7_224"


def as_ark(state: dict[str, Tensor], width: int, mlp: bool = False) -> dict[str, Tensor]:
    """The weights of a Swin of timm under the names of timm 0.5, with the heads of Ark-6 and a projector."""
    found = {re.sub(r"^layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name): value
             for name, value in state.items() if not name.startswith("head.")}  # fmt: skip
    found |= {"head.weight": torch.ones(1000, width), "head.bias": torch.ones(1000)}  # not trained
    found["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    found["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.long)
    projector = {"0": (32, width), "2": (32, 32)} if mlp else {"": (32, width)}
    for number, shape in projector.items():
        at = ".".join(filter(None, ("projector", number)))
        found |= {f"{at}.weight": torch.randn(shape) / 10, f"{at}.bias": torch.randn(32)}
    for number, rows in enumerate(WIDTHS):
        found |= {f"omni_heads.{number}.weight": torch.randn(rows, 32), f"omni_heads.{number}.bias": torch.randn(rows)}
    return found


@pytest.fixture(scope="module")
def swin() -> Any:
    torch.manual_seed(0)
    model = timm.create_model(TINY, num_classes=0).eval()
    for value in model.parameters():
        nn.init.normal_(value, 0.3 if value.ndim < 2 else 0.0, 0.1 if value.ndim < 2 else 0.02)
    return model


def test_the_teacher_and_its_heads_answer_as_before(swin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ark, "SWINS", (TINY,))
    teacher = {f"module.{name}": value for name, value in as_ark(swin.state_dict(), 768).items()}
    student = {name: torch.ones((), dtype=value.dtype).expand(value.shape) for name, value in teacher.items()}
    torch.save({"epoch": 50, "state_dict": student, "teacher": teacher, "optimizer": {}}, tmp_path / "ark.pth.tar")
    found = formats.published(tmp_path / "ark.pth.tar")
    assert (found.layout, found.name, found.size) == ("ark", TINY, (224, 224))
    assert {"head.weight", "layers.0.blocks.1.attn_mask"} <= set(found.unused)
    opened = converted_model(tmp_path / "ark.pth.tar", found, agreed=True)
    assert opened.model.findings == CHESTXRAY14 and opened.strange == ()
    used = {one.name for one in opened.tensors if not one.reason}
    assert {"projector.weight", "omni_heads.5.bias", "layers.2.downsample.norm.bias"} <= used
    images = torch.rand(1, 1, 224, 224)
    spec, weights = opened.model, {name.removeprefix("module."): value for name, value in teacher.items()}
    with torch.inference_mode():
        given = (images - torch.tensor(found.mean)[:, None, None]) / torch.tensor(found.std)[:, None, None]
        inner = nn.functional.linear(swin(given), weights["projector.weight"], weights["projector.bias"])
        expected = nn.functional.linear(inner, weights["omni_heads.2.weight"], weights["omni_heads.2.bias"])
        seen = ((images - spec.mean) / spec.std).expand(-1, 3, -1, -1)
        torch.testing.assert_close(opened.method.logits(seen), expected, atol=1e-4, rtol=1e-4)


def test_findings_must_be_confirmed(
    swin: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ark, "SWINS", (TINY,))
    torch.save(as_ark(swin.state_dict(), 768), tmp_path / "ark.pth.tar")
    words = ["convert", str(tmp_path / "ark.pth.tar"), "--out", str(tmp_path / "out")]
    assert has_facts(line(words, capsys), "--layout ark", "--findings")


def test_heads_behind_two_layers_are_not_read(swin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ark, "SWINS", (TINY,))
    torch.save(as_ark(swin.state_dict(), 768, mlp=True), tmp_path / "mlp.pth.tar")
    found = formats.published(tmp_path / "mlp.pth.tar")
    assert found.name == TINY and found.findings == ()
    assert {"projector.2.weight", "omni_heads.0.weight"} <= set(found.unused)


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in timm.create_model(name, num_classes=0).state_dict().items()}


@pytest.mark.parametrize(("name", "width", "side"), [
    ("swin_base_patch4_window7_224", 1024, 224),
    ("swin_large_patch4_window12_384", 1536, 768),
])  # fmt: skip
def test_published_swins_tell_their_architecture_and_size(name: str, width: int, side: int) -> None:
    state = without_numbers(shapes(name) | {key: tuple(value.shape) for key, value in as_ark({}, width).items()})
    window = 12 if side == 768 else 7
    state["layers.0.blocks.1.attn_mask"] = torch.empty((side // 4 // window) ** 2, window**2, window**2, device="meta")
    state = {re.sub(r"^layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key): value
             for key, value in state.items()}  # fmt: skip
    found = ark.published(state)
    assert (found.name, found.size) == (name, (side, side))
    assert len(found.findings) == len(found.state["head.fc.bias"]) == sum(WIDTHS)


def test_a_convnext_has_the_names_of_its_authors() -> None:
    plain = without_numbers(shapes("convnext_base"))
    state = {}
    for key, value in plain.items():
        key = re.sub(r"^stem\.", "downsample_layers.0.", key)
        key = re.sub(r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1.", key)
        key = re.sub(r"^stages\.(\d)\.blocks\.(\d+)\.", r"stages.\1.\2.", key)
        key = key.replace(".conv_dw.", ".dwconv.").replace(".mlp.fc", ".pwconv").replace("head.norm.", "norm.")
        state[key] = value
    heads = {key: value for key, value in as_ark({}, 1024).items() if key.startswith(("omni", "projector", "head"))}
    found = ark.published(state | heads)
    assert found.name == "convnext_base" and plain.keys() == {key for key in found.state if "head.fc" not in key}
