"""A vision transformer that is fine-tuned with another pooling than it was trained with keeps its last norm."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from ribcage.bundle.init import initial_backbone
from ribcage.bundle.spec import ModelSpec
from ribcage.models.stem import GRAY


def test_the_norm_of_each_token_becomes_the_norm_of_their_average(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """timm's model has `norm` if it uses the class token, and `fc_norm` if it averages. The log says what was done."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit").eval()
    norm: nn.LayerNorm = model.norm
    nn.init.normal_(norm.weight, 1, 0.5)
    nn.init.normal_(norm.bias)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    spec = ModelSpec("test_vit", (), (160, 160), 160, "crop", *GRAY, channels=3, pool="avg")
    backbone = initial_backbone(spec, str(tmp_path / "w.safetensors"), 0.0).eval()
    images = torch.randn(2, 3, 160, 160)
    model.norm = nn.Identity()
    with torch.inference_mode():
        torch.testing.assert_close(backbone(images), norm(model.forward_features(images)[:, 1:].mean(1)))
    assert "norm → fc_norm" in capsys.readouterr().out
    assert backbone.coverage is not None and {"norm.weight", "norm.bias"} <= backbone.coverage.used


def test_a_norm_that_is_missing_is_not_replaced_by_its_initial_values(tmp_path: Path) -> None:
    weights = timm.create_model("test_vit", num_classes=0).state_dict()
    del weights["norm.bias"]
    save_file(weights, tmp_path / "w.safetensors")
    spec = ModelSpec("test_vit", (), (160, 160), 160, "crop", *GRAY, channels=3, pool="avg")
    with pytest.raises(ValueError, match=r"fc_norm\.bias"):
        initial_backbone(spec, str(tmp_path / "w.safetensors"), 0.0)
