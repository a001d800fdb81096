"""ribcage doctor checks everything whatever is broken, names the cure, and exits with 1 if a requirement fails."""

import builtins
import importlib
import io
import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ribcage
from ribcage import cli
from ribcage.imaging import dicom
from ribcage.imaging.dicom import samples, transfer_syntaxes
from ribcage.training import checkup
from ribcage.training.checkup import InstallationCheck


@pytest.mark.parametrize("syntax", samples.SYNTAXES)
def test_every_syntax_is_really_read_or_reported_as_untried(syntax: str) -> None:
    said, good, package = samples.try_syntax(syntax)
    assert good and package
    assert said.startswith("not tested") == (syntax in samples.UNWRITTEN)


def test_no_syntax_that_is_read_is_forgotten() -> None:
    own = set(transfer_syntaxes.READ)
    assert set(samples.SYNTAXES) == own


def test_a_sample_is_written_in_its_syntax() -> None:
    import pydicom

    pixels = np.zeros((samples.SIDE, samples.SIDE), np.uint8)
    for syntax in set(samples.SYNTAXES) - set(samples.UNWRITTEN):
        read = pydicom.dcmread(io.BytesIO(samples.sample_file(syntax, pixels)))
        assert read.file_meta.TransferSyntaxUID == syntax


def test_a_decoder_that_reads_wrongly_is_not_good(monkeypatch: pytest.MonkeyPatch) -> None:
    real = dicom.decode_dicom

    def off(*words: Any, **named: Any) -> Any:
        found = real(*words, **named)
        found.pixels[3, 4] ^= 1
        return found

    monkeypatch.setattr(dicom, "decode_dicom", off)
    assert samples.try_syntax(transfer_syntaxes.RLE) == ("read wrongly, off by 1", False, "pydicom")


def test_a_decoder_that_is_missing_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(syntax: str) -> Any:
        raise ImportError("no such plugin")

    monkeypatch.setattr(samples, "try_syntax", missing)
    found = {one.name: one for one in checkup.decoders()}
    assert len(found) == len(samples.SYNTAXES) and all(one.broken for one in found.values())
    assert found["JPEG 2000"].fix == "pip install pylibjpeg pylibjpeg-openjpeg"
    assert found["JPEG-LS, lossless"].fix == "pip install pyjpegls"
    assert found["JPEG, lossless"].fix == "pip install numba"


# ---- packages


def test_packages_asked_for_are_those_of_pyproject() -> None:
    known = {one.name: one for one in checkup.requirements()}
    assert known["numpy"].least == "2.0" and known["numpy"].extra == ""
    assert known["onnxruntime"].extra == "export" and known["fastapi"].extra == "serve"
    assert "ribcage" not in known


@pytest.mark.parametrize(
    ("error", "says"), [(ImportError("undefined symbol: x"), "undefined symbol"), (AttributeError("a\nb"), "a b")]
)
def test_a_broken_package_is_reported_and_stops_nothing(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def broken(name: str, *more: Any) -> Any:
        if name == "rich":
            raise error
        return real(name, *more)

    monkeypatch.setattr(importlib, "import_module", broken)
    found = checkup.check_package("packages", checkup.Requirement("rich", "13", ""), needed=True)
    assert found.broken and says in found.result and "\n" not in found.result
    assert found.fix == 'pip install --force-reinstall "rich>=13"'


def test_a_missing_and_an_old_package_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = checkup.check_package("packages", checkup.Requirement("no-such-thing-at-all", "1", ""), needed=True)
    assert (gone.result, gone.broken, gone.fix) == ("missing", True, 'pip install "no-such-thing-at-all>=1"')
    old = checkup.check_package("packages", checkup.Requirement("rich", "999.1", ""), needed=True)
    assert old.broken and "older than 999.1" in old.result
    assert checkup._numbers("2.15.0+cu132") == (2, 15, 0) > checkup._numbers("2.9")


def test_an_optional_part_that_is_missing_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [checkup.Requirement("no-such-thing", "1", "export"), checkup.Requirement("nor-this", "", "export")]
    monkeypatch.setattr(checkup, "requirements", lambda: asked)
    found = {one.name: one for one in checkup.extras()}
    assert not found["export"].good and not found["export"].broken
    assert found["export"].fix == 'pip install "no-such-thing>=1" nor-this'


def test_without_an_installed_package_that_is_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", unknown)
    (_, own) = checkup.packages()
    assert own.broken and own.fix == "pip install -e ."


def test_without_torch_the_rest_is_still_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def broken(name: str, *more: Any) -> Any:
        if name == "torch":
            raise ImportError("libtorch.so: cannot open shared object file")
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", broken)
    found = list(checkup._reported("machine", checkup.machine))
    assert found[0].name == "cores" and "libtorch.so" in found[-1].result and found[-1].broken


# ---- the machine, folders, terminal


def test_memory_is_that_which_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {
        "/proc/meminfo": "MemTotal: 16000000 kB MemAvailable: 8000000 kB",
        "/sys/fs/cgroup/memory.max": "4000000000",
        "/sys/fs/cgroup/memory.current": "3000000000",
    }
    monkeypatch.setattr(checkup, "_words", lambda file: said[file].split())
    assert checkup.available_memory() == (1e9, 4e9)


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    folder = tmp_path / "数 据"
    folder.mkdir()
    monkeypatch.chdir(folder)
    real = tempfile.TemporaryFile

    def read_only(dir: Path, **more: Any) -> Any:
        if dir == folder:
            raise PermissionError(13, "Permission denied")
        return real(dir=dir, **more)

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    found = {one.name: one for one in checkup.folders()}
    assert not found["current folder"].good and "Permission denied" in found["current folder"].result
    assert found["temporary files"].result.endswith("free") and not any(one.broken for one in found.values())


def test_a_full_disk_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "_free", lambda folder: 1e6)
    assert not any(one.good for one in checkup.folders())


def test_a_terminal_of_few_letters_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    found = {one.name: one for one in checkup.terminal()}["encoding of the terminal"]
    assert not found.good and not found.broken and found.fix == "export PYTHONUTF8=1"


# ---- the command

FINE = InstallationCheck("packages", "numpy", "2.0")
MISSING = InstallationCheck("optional", "export", "onnx: missing", good=False, needed=False, fix="pip install onnx")
BROKEN = InstallationCheck("packages", "numba", "0.6, broken", good=False, fix="pip install numba")


def test_all_that_is_needed_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkup, "checks", lambda: iter([FINE, MISSING]))
    file = tmp_path / "检 查.json"
    assert cli.main(["doctor", "--json", str(file)]) == 0
    said = capsys.readouterr().out
    assert "! export" in said and "pip install onnx" in said
    assert json.loads(file.read_text(encoding="utf-8"))["ok"] is True
    assert ribcage.doctor()["checks"][0]["name"] == "numpy"


def test_what_is_needed_and_broken_ends_with_1_and_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkup, "checks", lambda: iter([FINE, BROKEN, MISSING]))
    assert cli.main(["doctor", "--json", str(tmp_path / "d.json")]) == 1
    said = capsys.readouterr()
    assert (
        said.err.count("\n") == 1 and "numba" in said.err and "pip install numba" in said.err and "✗ numba" in said.out
    )
    assert json.loads((tmp_path / "d.json").read_text(encoding="utf-8"))["ok"] is False


@pytest.mark.slow
def test_here_everything_needed_is_good() -> None:
    found = list(checkup.checks())
    assert {one.group for one in found} == {"packages", "optional", "machine", "DICOM", "folders", "terminal"}
    assert not [one for one in found if one.broken]
