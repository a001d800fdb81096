"""Weights in several files: transformers' index of safetensors, also a hostile one."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from refusals import has_facts
from safetensors.torch import save_file

from ribcage import cli
from ribcage.bundle import formats
from ribcage.bundle.io import load_bundle

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
CONFIG = {
    "architecture": "test_vit",
    "pretrained_cfg": {"input_size": [3, 160, 160], "mean": [0.5] * 3, "std": [0.25] * 3},
}


def index(folder: Path, listed: Any) -> Path:
    file = folder / "model.safetensors.index.json"
    file.write_text(listed if isinstance(listed, str) else json.dumps({"metadata": {}, "weight_map": listed}))
    return file


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Two files with the weights a and b, and c."""
    save_file({"a": torch.ones(2), "b": torch.zeros(3)}, tmp_path / ONE)
    save_file({"c": torch.full((1,), 2.0)}, tmp_path / TWO)
    return tmp_path, {"a": ONE, "b": ONE, "c": TWO}


def test_a_folder_with_shards_is_converted_as_one_with_a_single_file(tmp_path: Path) -> None:
    state = timm.create_model("test_vit", num_classes=0).state_dict()
    shards = {ONE: dict(list(state.items())[:5]), TWO: dict(list(state.items())[5:])}
    for name in ("one", "many"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(CONFIG))
    save_file(state, tmp_path / "one" / "model.safetensors")
    for name, part in shards.items():
        save_file(part, tmp_path / "many" / name)
    index(tmp_path / "many", {name: shard for shard, part in shards.items() for name in part})
    for name in ("one", "many"):
        assert cli.main(["convert", str(tmp_path / name), "--out", str(tmp_path / f"{name}-out")]) == 0
    one, many = (load_bundle(tmp_path / f"{name}-out") for name in ("one", "many"))
    states = [opened.method.backbone.model.state_dict() for opened in (one, many)]
    assert states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][key], states[1][key]) for key in states[0]
    )
    files = [tmp_path / "many" / name for name in ("model.safetensors.index.json", ONE, TWO)]
    assert many.spec.training.sha256 == hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    assert one.spec.training.sha256 == hashlib.sha256((tmp_path / "one" / "model.safetensors").read_bytes()).hexdigest()


def test_all_weights_of_the_shards_are_read(parts: tuple[Path, dict[str, str]]) -> None:
    state = formats.published(index(*parts)).state
    assert {name: value.tolist() for name, value in state.items()} == {"a": [1, 1], "b": [0, 0, 0], "c": [2]}


@pytest.mark.parametrize(("change", "fact"), [
    ({"c": "../other/model.safetensors"}, "../other"), ({"c": "/etc/model.safetensors"}, "/etc"),
    ({"c": "..\\model.safetensors"}, "model.safetensors"), ({"c": "model.bin"}, "model.bin"), ({"c": 1}, "weight_map"),
    ({"c": "model-00003-of-00002.safetensors"}, "model-00003"), ({"c": ONE}, "c"), ({"d": TWO}, "d"), ({"c": None}, "weight_map"),
])  # fmt: skip
def test_an_index_that_does_not_fit_its_files_is_refused(
    parts: tuple[Path, dict[str, str]], change: dict[str, Any], fact: str
) -> None:
    folder, listed = parts
    with pytest.raises(ValueError, match="cannot be read as weights") as error:
        formats.published(index(folder, listed | change))
    assert has_facts(str(error.value), "model.safetensors.index.json", fact)


def test_a_weight_in_two_files_or_twice_in_the_index_is_refused(parts: tuple[Path, dict[str, str]]) -> None:
    folder, listed = parts
    twice = json.dumps({"weight_map": listed}).replace('"c":', '"a":')
    for text in (twice, "{", "[]", '{"weight_map": {}}', "[" * 10000):
        with pytest.raises(ValueError, match="cannot be read as weights"):
            formats.published(index(folder, text))
    save_file({"c": torch.ones(1), "a": torch.ones(2)}, folder / TWO)
    with pytest.raises(ValueError, match="cannot be read as weights") as error:
        formats.published(index(folder, listed))
    assert has_facts(str(error.value), TWO, "a")
    (folder / TWO).write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match="cannot be read as weights"):
        formats.published(index(folder, listed))
