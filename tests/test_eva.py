"""EVA: cosine distance to the teacher's features at masked patches, its teacher, and the records of a run."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import batch
from ranks import patch_teacher
from refusals import line
from torch import Tensor

from ribcage import cli
from ribcage.bundle.init import initial_provenance
from ribcage.bundle.io import Classifier
from ribcage.bundle.spec import ModelSpec
from ribcage.data.provenance import Provenance
from ribcage.methods.eva import EVA
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.models.patch_masks import block_mask_tensor
from ribcage.models.tokens import token_features
from ribcage.training.teachers.patches import FrozenPatches

CPU = torch.device("cpu")


def made(model: str = "test_vit", **options: Any) -> EVA:
    torch.manual_seed(0)
    options.setdefault("teacher", patch_teacher())
    return EVA(Backbone(model, size=(64, 64)), **options).train()


# ---- the loss


def test_the_loss_is_one_minus_the_cosine_at_masked_patches() -> None:
    method, images = made(mask_ratio=0.3), batch(3, sides=(64,))
    masks = block_mask_tensor(images.chance, 4, 4, 0.3, 0.3, CPU)
    assert masks.sum(1).tolist() == [4, 4, 4]
    with torch.no_grad():
        tokens = token_features(method.backbone, images.views[0], masked=masks, mask_token=method.mask_token)
        predicted = method.head(tokens[:, 1:])
        taught = method.teacher(images.views[0], (4, 4))
        expected = 0.0
        for n, place in masks.nonzero().tolist():
            p, t = predicted[n, place], taught[n, place]
            expected += (1 - float(p @ t) / math.sqrt(float(p @ p) * float(t @ t))) / 12
    assert method(images).loss.item() == pytest.approx(expected, rel=1e-5)


def test_what_is_under_the_mask_is_not_seen() -> None:
    method, images = made(), batch(1, sides=(64,))
    masks = block_mask_tensor(images.chance, 4, 4, 0.4, 0.4, CPU)
    changed = images.views[0].clone()
    for place in masks[0].nonzero().flatten().tolist():
        row, column = divmod(place, 4)
        changed[..., 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] += 1
    taught = method.teacher(images.views[0], (4, 4))
    method.teacher = Fixed(taught)
    with torch.no_grad():
        before = method(images).loss
        images.views[0] = changed
        assert torch.equal(method(images).loss, before)


class Fixed:
    """A teacher of the same features for all images."""

    def __init__(self, features: Tensor) -> None:
        self.features, self.dim = features, features.shape[2]

    def __call__(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.features


def test_the_teacher_is_no_part_of_the_student() -> None:
    method = made()
    assert not [key for key in method.state_dict() if "teacher" in key]
    assert all(weight.grad is None for weight in method.teacher.backbone.parameters())
    method(batch(2, sides=(64,))).loss.backward()
    assert all(weight.grad is None for weight in method.teacher.backbone.parameters())


# ---- teachers


def test_a_teacher_sees_the_image_in_its_own_gray_values_and_size() -> None:
    """The same gray values, however the student normalises them."""
    pixels = torch.rand(2, 1, 64, 64)
    one, other = patch_teacher(scale=(0.5, 0.25)), patch_teacher(scale=(0.1, 0.7))
    features = one((pixels - 0.5) / 0.25, (4, 4))
    torch.testing.assert_close(other((pixels - 0.1) / 0.7, (4, 4)), features, rtol=1e-4, atol=1e-4)
    shown = ((pixels - one.model.mean) / one.model.std).expand(-1, 3, -1, -1)
    expected = one.backbone.model.forward_features(shown)[:, 1:]
    torch.testing.assert_close(features, one.backbone.model.fc_norm(expected), rtol=1e-4, atol=1e-4)
    assert one((pixels - 0.5) / 0.25, (3, 5)).shape == (2, 15, one.dim)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset folder, and a run on it that can be a teacher."""
    folder = tmp_path_factory.mktemp("eva")
    line = ["import", "phantom", "--out", str(folder / "data"), "--images", "40", "--size", "32"]
    assert cli.main(line) == 0
    given = ["--model", "test_vit", "--size", "32", "--batch", "16", "--epochs", "1", "--threads", "1"]
    line = ["pretrain", "mae", "--data", str(folder / "data"), "--out", str(folder / "teacher"), *given]
    assert cli.main([*line, "--decoder", "dec128d2b"]) == 0
    return folder / "data", folder / "teacher"


def words(data: Path, out: Path, *more: str, model: str = "test_vit") -> list[str]:
    line = ["pretrain", "eva", "--data", str(data), "--out", str(out), "--model", model, "--size", "32"]
    return [*line, "--batch", "16", "--epochs", "1", "--threads", "1", *more]


def test_a_model_records_its_teacher_and_what_the_teacher_saw(teacher: tuple[Path, Path], tmp_path: Path) -> None:
    _, folder = teacher
    other = tmp_path / "other"
    assert cli.main(["import", "phantom", "--out", str(other), "--images", "20", "--seed", "9", "--size", "32"]) == 0
    assert cli.main(words(other, tmp_path / "run", "--teacher", str(folder), "--batch", "8")) == 0
    spec = ModelSpec.load(tmp_path / "run" / "bundle" / "model.json")
    assert spec.training.teachers is not None and [one.name for one in spec.training.teachers] == ["test_vit"]
    seen = [initial_provenance(str(run)) for run in (folder, tmp_path / "run")]
    assert len(seen[0].pixels) and np.isin(seen[0].pixels, seen[1].pixels).all()


def made_of_cnn() -> Supervised:
    return Supervised(Backbone("test_resnet", size=(32, 32)), ("a",))


def test_what_cannot_be_a_teacher_is_refused_in_one_line(
    teacher: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, folder = teacher
    assert "eva needs --teacher" in line(words(data, tmp_path / "a"), capsys)
    moco = ["pretrain", "moco", "--data", str(data), "--out", str(tmp_path / "c"), "--teacher", str(folder)]
    assert "--teacher has no effect with moco" in line(moco, capsys)
    cnn = Classifier(
        Path("a cnn"), ModelSpec.load(folder / "bundle" / "model.json"), made_of_cnn(), Provenance.nothing()
    )
    with pytest.raises(ValueError, match=r"--teacher a cnn.*test_resnet"):
        FrozenPatches(cnn, (0.5, 0.25), CPU)
    with pytest.raises(ValueError, match="--mask-ratio 1"):
        made(mask_ratio=1.0)
