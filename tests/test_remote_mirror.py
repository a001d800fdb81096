"""Runs at remote addresses: a local folder that is mirrored, on a real S3 server on loopback."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from refusals import has_facts
from remote_servers import FaultProxy
from trainings import stopped, words

from ribcage import cli
from ribcage.bundle.io import load_bundle
from ribcage.runtime import launcher
from ribcage.runtime.remote import addresses, mirror, objects
from ribcage.runtime.remote.mirror import Mirror
from ribcage.runtime.remote.places import Place
from ribcage.runtime.remote.run_command import run_command

RUN = "s3://xray/runs/small"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "data"
    line = ["import", "phantom", "--out", str(folder), "--size", "32", "--images", "200", "--threads", "1"]
    assert cli.main(line) == 0
    return folder


# ---- runs


def test_a_run_is_stopped_on_one_machine_and_resumed_on_another(
    s3: FaultProxy, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mirror, "EVERY", 0.02)
    assert cli.main(words(data, tmp_path / "whole")) == 0
    monkeypatch.setenv("RIBCAGE_CACHE", str(tmp_path / "first"))
    out = Mirror(RUN).folder
    line = words(data, RUN)  # type: ignore[arg-type]
    assert stopped(line, out, 3) == 75
    assert has_facts(capsys.readouterr().err, "To resume", RUN)
    assert json.loads(objects.read_bytes(f"{RUN}/state.json"))["name"] == "stopped"
    monkeypatch.setenv("RIBCAGE_CACHE", str(tmp_path / "second"))
    assert cli.main(line) == 2
    assert has_facts(capsys.readouterr().err, "--resume")
    assert cli.main([*line, "--resume"]) == 0
    for name in ("bundle/model.safetensors", "checkpoint.pt"):
        found = objects.read_bytes(f"{RUN}/{name}")
        assert found == (Mirror(RUN).folder / name).read_bytes()
    assert (
        objects.read_bytes(f"{RUN}/bundle/model.safetensors")
        == (tmp_path / "whole" / "bundle" / "model.safetensors").read_bytes()
    )
    names = set(objects.list_files(RUN))
    assert {"options.json", "metrics.jsonl", "bundle/model.json", "checkpoint.pt"} <= names
    assert not any(name.endswith(("writer.json", ".part", "previous.pt", ".lock")) for name in names)
    assert load_bundle(RUN).spec.training.images == 153


def test_credentials_that_expire_during_a_run_lose_nothing(
    s3: FaultProxy, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = words(data, RUN, "--epochs", "1")  # type: ignore[arg-type]
    s3.fault("expired", where="metrics.jsonl", times=1000)
    assert cli.main(line) == 1
    folder = Mirror(RUN).folder
    assert has_facts(capsys.readouterr().err, "expired", str(folder))
    assert not objects.exists(f"{RUN}/bundle/model.json")
    s3.heal()
    assert cli.main([*line, "--resume"]) == 0
    assert objects.read_bytes(f"{RUN}/bundle/model.json") == (folder / "bundle" / "model.json").read_bytes()


@pytest.mark.parametrize("more", [["--shard"], []])
def test_a_run_of_several_machines_needs_a_shared_folder(
    s3: FaultProxy, data: Path, more: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not more:
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", "0")
    assert cli.main(words(data, RUN, *more)) == 2  # type: ignore[arg-type]
    assert has_facts(capsys.readouterr().err, "--out", "local")


def test_the_processes_of_a_machine_write_to_the_local_folder(
    s3: FaultProxy, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(launcher, "launch", lambda devices, line: started.append(line) or 0)
    assert cli.main([*words(data, RUN), "--devices", "2"]) == 0  # type: ignore[arg-type]
    (line,) = started
    assert line[line.index("--out") + 1] == str(Mirror(RUN).folder)


@dataclass(frozen=True)
class OutOptions:
    out: Path


def test_a_batch_script_without_srun_is_one_process(s3: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "16")
    command = ModuleType("command")
    command.PLACES = {"out": Place.FOLDER_OUT}  # type: ignore[attr-defined]
    command.run = lambda options: write(options.out, notes_txt="1")  # type: ignore[attr-defined]
    run_command(command, OutOptions(addresses.parse_place(RUN)))
    assert there() == {"notes.txt": "1"}


# ---- the mirror


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        file = folder / name.replace("__", "/").replace("_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.part")
        part.write_text(text)
        part.replace(file)


def there() -> dict[str, str]:
    return {name: objects.read_bytes(one.address).decode() for name, one in objects.list_files(RUN).items()}


def test_only_changes_are_copied_and_manifests_come_last(s3: FaultProxy) -> None:
    own = Mirror(RUN)
    with own.running():
        write(own.folder, bundle__model_json="1", bundle__weights="1", log_jsonl="1", checkpoint_pt="1", x_part="")
        own.copy_changes()
        s3.heal()
        own.copy_changes()
        assert not s3.requests
        write(own.folder, bundle__weights="2")
        own.copy_changes()
        changed = [line for line in s3.requests if line.startswith(("PUT", "DELETE"))]
        assert [line.split("/")[-1].partition("?")[0] for line in changed] == ["model.json", "weights", "model.json"]
        assert changed[0].startswith("DELETE")
        (own.folder / "checkpoint.pt").unlink()
    assert there() == {"bundle/model.json": "1", "bundle/weights": "2", "log.jsonl": "1"}


def test_an_interrupted_copy_leaves_no_bundle_of_two_versions(s3: FaultProxy) -> None:
    own = Mirror(RUN)
    with own.running():
        write(own.folder, bundle__model_json="1", bundle__a="1", bundle__b="1")
        own.copy_changes()
        write(own.folder, bundle__model_json="2", bundle__a="2", bundle__b="2")
        s3.fault("drop", where="PUT /xray/runs/small/bundle/b", times=1000)
        with pytest.raises(ConnectionError):
            own.copy_changes()
        s3.heal()
        assert there().keys() >= {"bundle/a", "bundle/b"} and "bundle/model.json" not in there()
        own.copy_changes()
        assert there()["bundle/model.json"] == there()["bundle/b"] == "2"


def test_a_second_writer_stops_the_first(s3: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Mirror(RUN)
    with pytest.raises(OSError, match=str(first.folder)), first.running():
        monkeypatch.setenv("RIBCAGE_CACHE", str(tmp_path / "other"))
        second = Mirror(RUN)
        with second.running():
            write(second.folder, log_jsonl="second")
        write(first.folder, log_jsonl="first")
        with pytest.raises(OSError, match="Another process"):
            first.copy_changes()
    assert there() == {"log.jsonl": "second"}


def test_a_local_folder_that_is_ahead_is_kept_and_one_that_is_behind_is_replaced(
    s3: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Mirror(RUN)
    with first.running():
        write(first.folder, log_jsonl="1", old="1")
    write(first.folder, log_jsonl="12")
    with Mirror(RUN).running():
        assert (first.folder / "log.jsonl").read_text() == "12"
    monkeypatch.setenv("RIBCAGE_CACHE", str(tmp_path / "other"))
    second = Mirror(RUN)
    with second.running():
        assert (second.folder / "log.jsonl").read_text() == "12"
        write(second.folder, log_jsonl="123")
        (second.folder / "old").unlink()
    monkeypatch.setenv("RIBCAGE_CACHE", str(tmp_path / "cache"))
    with Mirror(RUN).running():
        assert (first.folder / "log.jsonl").read_text() == "123" and not (first.folder / "old").exists()


def test_a_file_that_is_replaced_during_a_snapshot_is_taken_as_of_one_moment(
    s3: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, copy, times = Mirror(RUN), mirror._link_or_copy, []

    def replaced(file: Path, target: Path, size: int) -> None:
        copy(file, target, size)
        if file.name == "a" and not times:
            times.append(time.monotonic())
            write(own.folder, a="2", b="2")

    monkeypatch.setattr(mirror, "_link_or_copy", replaced)
    with own.running():
        write(own.folder, a="1", b="1")
        own.copy_changes()
        assert there()["a"] == there()["b"] == "2" and times


def test_a_hostile_name_at_the_address_does_not_leave_the_folder(s3: FaultProxy, tmp_path: Path) -> None:
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "x").write_text("evil")
    s3.store(tmp_path / "evil", "s3://xray/runs/small/../../../../escaped")
    assert "../escaped/x" in s3.listing("xray")
    own = Mirror(RUN)
    with own.running():
        assert not list(own.folder.iterdir())
