"""Untrusted bundles: flipped bits are detected, and model.json is checked before a network is built."""

import io
import json
import os
import pickle
import re
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ribcage.bundle import formats
from ribcage.bundle.init import initial_bundle
from ribcage.bundle.io import load_classifier, output_errors, save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.data.provenance import Provenance
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.models.catalogue import is_known
from ribcage.runtime import limits


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    method = Supervised(Backbone("test_resnet"), ("Effusion", "Mass"))
    nn.init.normal_(method.head.weight)
    model = ModelSpec("test_resnet", method.findings, (64, 64), 64, "pad", 0.5, 0.25, temperature=(1.0, 1.0), training=TrainingRecord(images=1, patients=1, selection=1))  # fmt: skip
    save_bundle(tmp_path / "m", method.eval(), model, Provenance.nothing())
    return tmp_path / "m"


def changed(folder: Path, **values: Any) -> None:
    """model.json with other values, without the digests that would notice."""
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    (folder / "model.json").write_text(json.dumps({**facts, **values}), encoding="utf-8")


@pytest.mark.parametrize("name", ["model.safetensors", "provenance.npz", "model.json"])
def test_a_flipped_bit_is_noticed(saved: Path, name: str) -> None:
    """Also in the weights, where any number would do, and in the temperature."""
    data = bytearray((saved / name).read_bytes())
    place = data.index(b"1.0") if name == "model.json" else len(data) - 40
    data[place] ^= 2
    (saved / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name} is damaged") as error:
        load_classifier(saved)
    assert "\n" not in str(error.value)


def test_a_file_that_the_digests_do_not_name_is_refused(saved: Path) -> None:
    lines = (saved / "SHA256SUMS").read_text(encoding="utf-8").splitlines(keepends=True)
    (saved / "SHA256SUMS").write_text("".join(one for one in lines if "safetensors" not in one), encoding="utf-8")
    with pytest.raises(ValueError, match=r"SHA256SUMS .*model\.safetensors"):
        load_classifier(saved)


def test_a_model_without_digests_opens_with_a_warning(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (saved / "SHA256SUMS").unlink()
    load_classifier(saved)
    assert "SHA256SUMS" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["eva_giant_patch14_560", "vit_giant_patch14_224", "convnextv2_huge"])
def test_a_giant_is_refused_before_it_is_built(saved: Path, name: str) -> None:
    """Thousands of millions of weights would take minutes and all memory; the file has a few thousand."""
    changed(saved, name=name)
    begun = time.perf_counter()
    with pytest.raises(ValueError, match=r"/m .*missing"):
        load_classifier(saved)
    assert time.perf_counter() - begun < 20


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"name": "hf-hub:timm/resnet18"}, "Unknown model"),
        ({"name": "resnet18.hf-hub:timm/x"}, "Unknown model"),
        ({"name": "local-dir:/tmp"}, "Unknown model"),
        ({"name": "test_resnet.no_such_weights"}, "Unknown model"),
        ({"pool": "__class__"}, "damaged: pool"),
        ({"mean": 1e308}, "damaged: mean"),
        ({"mean": 10**17}, "damaged: mean"),
        ({"std": 1e-300}, "damaged: std"),
        ({"channels": True}, "damaged: channels"),
        ({"size": [8192, 64]}, "damaged: size"),
        ({"findings": ["Mass\x1b[2J", "Nodule"]}, "damaged: findings"),
        ({"findings": ["x" * 5000, "Nodule"]}, "damaged: findings"),
        ({"temperature": [1e300, 1.0]}, "damaged: temperature"),
        ({"training": {"images": "many"}}, "damaged: training"),
        ({"training": {"teachers": [{}]}}, "damaged: training"),
    ],
)
def test_what_no_model_is_like_is_refused(saved: Path, values: dict[str, Any], says: str) -> None:
    changed(saved, **values)
    with pytest.raises(ValueError, match=says) as error:
        load_classifier(saved)
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value)


def test_what_tells_an_unlike_image_is_kept_with_the_weights(saved: Path, tmp_path: Path) -> None:
    opened = load_classifier(saved)
    check = SimpleNamespace(save=lambda file: file.write_bytes(b"what images are like"))
    save_bundle(tmp_path / "n", opened.method, opened.spec, Provenance.nothing(), check)  # type: ignore[arg-type]
    assert (tmp_path / "n" / "ood.npz").read_bytes() == b"what images are like"
    assert "ood.npz" in (tmp_path / "n" / "SHA256SUMS").read_text(encoding="utf-8")
    save_bundle(tmp_path / "n", opened.method, opened.spec, Provenance.nothing())
    assert not (tmp_path / "n" / "ood.npz").exists(), "nothing is left of the one before"


def test_a_single_weight_that_is_no_number_is_noticed(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    name = max(weights, key=lambda one: weights[one].numel())
    weights[name].view(-1)[3] = torch.nan
    save_file(weights, saved / "model.safetensors")
    changed(saved)
    with pytest.raises(ValueError, match=rf"model\.safetensors.*{name}"):
        load_classifier(saved)


def test_only_a_bundles_own_file_of_weights_stands_for_its_folder(saved: Path, tmp_path: Path) -> None:
    assert initial_bundle(str(saved / "model.safetensors")) == saved
    for other in (saved / "README.md", tmp_path / "model.safetensors"):
        other.touch()
        assert initial_bundle(str(other)) is None


def test_a_number_of_many_digits_is_refused(saved: Path) -> None:
    changed(saved)
    text = (saved / "model.json").read_text(encoding="utf-8").replace('"stored": 64', '"stored": 1' + "0" * 400)
    (saved / "model.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="not valid JSON"):
        load_classifier(saved)
    assert limits.json_integer("-12") == -12


def test_weights_that_are_no_numbers_are_refused(saved: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(saved / "model.safetensors")
    (saved / "SHA256SUMS").unlink()
    for value in (state["fc.bias"] / 0, state["fc.bias"].to(torch.int8)):
        save_file({**state, "fc.bias": value}, saved / "model.safetensors")
        with pytest.raises(ValueError, match=r"fc\.bias"):
            load_classifier(saved)


def test_a_file_longer_than_its_header_says_is_damaged(saved: Path) -> None:
    (saved / "SHA256SUMS").unlink()
    with (saved / "model.safetensors").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        load_classifier(saved)


def test_names_with_a_source_are_no_models() -> None:
    """timm would ask the network for them."""
    assert not any(map(is_known, ("hf-hub:timm/resnet18", "resnet18.hf-hub:x", "local-dir:/tmp", "", "resnet18.")))
    assert is_known("resnet18") and is_known("resnet18.a1_in1k")
    with pytest.raises(ValueError, match="'__class__'"):
        Backbone("test_resnet", pool="__class__")


# ---- files of weights


def test_one_array_of_many_names_is_one_array(tmp_path: Path) -> None:
    content = np.zeros(2**14, np.float32)
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps({f"w{number}": content for number in range(200)}))
    found = formats.published(tmp_path / "w.pdparams").state
    assert len(found) == 200 and len({value.data_ptr() for value in found.values()}) == 1
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps({f"w{number}": content for number in range(700)}))
    with pytest.raises(ValueError, match=r"w\.pdparams .*GB"):
        formats.published(tmp_path / "w.pdparams")


def test_an_array_of_numpys_is_as_long_as_it_says(tmp_path: Path) -> None:
    """NumPy makes room for what its head claims, before it reads."""
    array = io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)})
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as packed:
        packed.writestr("w.npy", array.getvalue() + bytes(16))
    with pytest.raises(ValueError, match=r"w\.npz .*header"):
        formats.published(tmp_path / "w.npz")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "empty"),
        ([torch.ones(1)], "list.*dict"),
        ({"state": {}, "param_groups": []}, "optimizer"),
        ({"ribcage": 2, "step": 3}, "run folder"),
        ({"epoch": 3, "best": 0.5}, "epoch, best"),
    ],
)
def test_a_file_of_another_kind_says_what_it_is(content: Any, says: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth .*no weights") as error:
        formats.published(tmp_path / "w.pth")
    assert re.search(says, str(error.value))


def test_a_bundle_is_written_to_a_new_folder_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    assert output_errors(tmp_path / "run") == output_errors(tmp_path / "a" / "b") == []
    (tmp_path / "run" / "options.json").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name in ("run", "run/options.json", "link", "run/options.json/in a file"):
        assert len(output_errors(tmp_path / name)) == 1, name
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    (wrong,) = output_errors(tmp_path / "a" / "b")
    assert str(tmp_path) in wrong
