"""An exported file is used only if this site made it from exactly this model."""

import os
from pathlib import Path

import pytest

from ribcage.bundle import attestation
from ribcage.data import site_key


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("model.safetensors", "model.json", "model.onnx"):
        (tmp_path / name).write_bytes(name.encode())
    attestation.attest(tmp_path / "model.onnx", tmp_path)
    return tmp_path


def test_an_export_of_this_site_is_taken(folder: Path) -> None:
    assert attestation.attested(folder / "model.onnx", folder) == b"model.onnx"


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "model.onnx", "model.onnx.hmac"])
def test_a_change_of_any_file_is_noticed(name: str, folder: Path) -> None:
    (folder / name).write_bytes(b"another")
    assert attestation.attested(folder / "model.onnx", folder) is None


def test_another_sites_export_is_not_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(site_key.VARIABLE, "a stranger's")
    assert attestation.attested(folder / "model.onnx", folder) is None


def test_reading_makes_no_key(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(site_key.VARIABLE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert attestation.attested(folder / "model.onnx", folder) is None
    assert site_key.existing() is None and not (tmp_path / "config").exists()
    (tmp_path / "config").write_text("a file where a folder should be", encoding="utf-8")
    assert site_key.existing() is None
    with pytest.raises(OSError, match=site_key.VARIABLE):
        attestation.attest(folder / "model.onnx", folder)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.hmac"])
def test_a_pipe_is_not_waited_for(name: str, folder: Path) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert attestation.attested(folder / "model.onnx", folder) is None


def test_a_vast_file_is_not_read(folder: Path) -> None:
    os.truncate(folder / "model.onnx", attestation.LARGEST + 1)
    assert attestation.attested(folder / "model.onnx", folder) is None
