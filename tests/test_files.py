"""Files are written atomically, by one process at a time, and never through a link."""

import ast
import contextlib
import errno
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ribcage
from ribcage.bundle import history
from ribcage.data import dataset_facts
from ribcage.data.provenance import Provenance
from ribcage.runtime import digest, files
from ribcage.training import checkpoint, run_folder, runs

fcntl = pytest.importorskip("fcntl")
PACKAGE = Path(ribcage.__file__).parent


@pytest.fixture
def theirs(tmp_path: Path) -> Iterator[Path]:
    """A file of the user's, which must not change."""
    file = tmp_path / "home" / "thesis.tex"
    file.parent.mkdir()
    file.write_text("three years")
    yield file
    assert file.read_text() == "three years"


def atomic(file: Path) -> None:
    with files.atomic(file) as part:
        part.write_text("new")


def append(file: Path) -> None:
    with files.open_regular(file, "a") as stream:
        stream.write("new")


def lock(file: Path) -> None:
    with files.only_writer(file.parent):
        pass


WAYS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "part": ("x.json.part", lambda file: atomic(file.with_suffix(""))),
    "target": ("x.json", atomic),
    "text": ("x.json", lambda file: files.write_text(file, "new")),
    "log": ("metrics.jsonl", append),
    "lock": (files.LOCK, lock),
}


@pytest.mark.parametrize(("name", "write"), WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("missing", [False, True])
def test_nothing_is_written_through_a_link(
    tmp_path: Path, theirs: Path, name: str, write: Callable[[Path], None], missing: bool
) -> None:
    folder = tmp_path / "strangers run"
    folder.mkdir()
    target = theirs.with_name("absent") if missing else theirs
    (folder / name).symlink_to(target)
    with contextlib.suppress(OSError):
        write(folder / name)
    assert not theirs.with_name("absent").exists()


def test_a_link_where_a_log_should_be_is_one_line(tmp_path: Path, theirs: Path) -> None:
    (tmp_path / "log").symlink_to(theirs)
    with pytest.raises(OSError, match="log is a symbolic link"):
        append(tmp_path / "log")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / files.LOCK)
    with pytest.raises(OSError, match=files.LOCK):
        lock(tmp_path / files.LOCK)
    assert files.is_written(tmp_path) is False


def test_a_folder_behind_a_link_is_refused(tmp_path: Path) -> None:
    real, run = tmp_path / "real", tmp_path / "run"
    (real / "inside").mkdir(parents=True)
    run.mkdir()
    (run / "evaluation").symlink_to(real)
    (tmp_path / "latest").symlink_to(run)
    with pytest.raises(OSError, match="evaluation is a symbolic link"):
        files.refuse_links(run, run / "evaluation" / "test")
    (run / "evaluation").unlink()
    files.refuse_links(run, run / "evaluation" / "test")
    files.refuse_links(tmp_path / "latest", tmp_path / "latest" / "evaluation")  # the user's own link to the run
    files.refuse_links(run, tmp_path / "elsewhere")  # and what the user named, whatever it is


def test_a_write_that_fails_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a.txt", "old")
    with (
        pytest.raises(OSError, match=re.escape(str(tmp_path))),
        files.explained(tmp_path, ""),
        files.atomic(tmp_path / "a.txt") as part,
    ):
        part.write_text("half of the n")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_lock_file_that_its_last_owner_removed_locks_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our opening of the file and our lock on it: who comes next makes a new one."""
    flock, left = fcntl.flock, [(tmp_path / files.LOCK)]

    def late(handle: Any, how: int) -> None:
        if left:
            left.pop().unlink()
        flock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with files.only_writer(tmp_path):
        with pytest.raises(OSError, match=re.escape(str(tmp_path))), files.only_writer(tmp_path):
            pass
        assert files.is_written(tmp_path)
    assert files.is_written(tmp_path) is False and not (tmp_path / files.LOCK).exists()


# ---- all writers

WRITERS = ("write_text", "write_bytes", "to_csv", "to_parquet", "write_table", "savez", "save", "truncate")


def by_itself(call: ast.Call) -> bool:
    """Whether a call writes to a path of its own choice, and not to the part that `files.atomic` made for it."""
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    whose = call.func.value.id if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name) else ""
    modes = [one.value for one in call.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    opens = called == "open" and any(set(mode) & set("wax+") for mode in modes if len(mode) < 4)
    saves = called in WRITERS and (called not in ("save", "truncate") or whose in ("torch", "np", "os"))
    saves = saves and whose not in ("objects", "writer")  # objects at an address appear whole
    names = {node.id for node in ast.walk(call) if isinstance(node, ast.Name)}
    return (opens or (saves and whose != "files" and bool(call.args))) and not names & {
        "part",
        "parts",
        "sums",
        "stream",
    }


def test_all_that_write_do_it_by_files() -> None:
    texts = {file.name: file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py") if file.name != "files.py"}
    found = [
        f"{name}:{call.lineno} {ast.unparse(call)}"[:110]
        for name, text in texts.items()
        if any(f"{word}(" in text for word in (*WRITERS, "open"))
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call) and by_itself(call)
    ]
    assert found == []


@pytest.mark.parametrize(
    "put", [os.mkfifo, lambda file: file.symlink_to("/dev/zero"), lambda file: file.write_text("[" * 200_000)]
)
def test_a_file_that_never_ends_is_no_file(tmp_path: Path, put: Callable[[Path], object]) -> None:
    """A pipe is not waited for, a device not read for ever, and nested lists are no fault of ours."""
    (tmp_path / "run").mkdir()
    put(tmp_path / "run" / "options.json")
    put(tmp_path / "run" / "state.json")
    (row,) = runs.run_rows(tmp_path)
    assert row.state == run_folder.RunState(run_folder.STOPPED, None, "state.json cannot be read.")
    for name, read in (
        ("dataset.json", dataset_facts.Facts.load),
        ("tests.json", lambda file: history.load_tests(file.parent)),
    ):
        put(tmp_path / name)
        with pytest.raises((ValueError, OSError), match=name):
            read(tmp_path / name)


@pytest.mark.skipif(os.name != "posix", reason="a pipe and devices")
def test_pipes_beside_a_model_and_in_a_run_are_refused(tmp_path: Path) -> None:
    for name, read in ((digest.SUMS, digest.recorded_digests), (checkpoint.FILE, checkpoint.newest)):
        os.mkfifo(tmp_path / name)
        with pytest.raises(OSError, match=name):
            read(tmp_path)
    os.mkfifo(tmp_path / "provenance.npz")
    with pytest.raises(ValueError, match="provenance"):
        Provenance.load(tmp_path / "provenance.npz")


def test_what_grows_when_unpacked_is_refused(tmp_path: Path) -> None:
    seen = Provenance.nothing()
    with files.atomic(tmp_path / "sound.npz") as part:
        seen.save(part)
    Provenance.load(tmp_path / "sound.npz")
    values = {item.name: getattr(seen, item.name) for item in fields(seen)}
    np.savez_compressed(tmp_path / "bomb.npz", **values | {"patients": np.zeros(100_000, np.uint64)})
    with pytest.raises(ValueError, match="bomb"):
        Provenance.load(tmp_path / "bomb.npz")
    with zipfile.ZipFile(tmp_path / "c.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("c/data.pkl", b"\0" * 100_000)
    digest.append_digest(tmp_path / "c.pt")
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.load_checkpoint(tmp_path / "c.pt")


def test_numbers_of_a_stranger_s_run_are_numbers(tmp_path: Path) -> None:
    (tmp_path / "run" / "evaluation" / "x").mkdir(parents=True)
    (tmp_path / "run" / "options.json").write_text("{}")
    place = {"epoch": "\x1b[31m", "epochs": 2, "step": 3, "steps": 4}
    (tmp_path / "run" / "state.json").write_text(json.dumps({"name": "finished", "place": place, "why": ""}))
    found = {"protocol": "honest", "split": "test", "macro": {"auroc": {"value": 0.5, "low": 0.4, "high": "9" * 99}}}
    (tmp_path / "run" / "evaluation" / "x" / "metrics.json").write_text(json.dumps(found))
    (row,) = runs.run_rows(tmp_path)
    assert row.state.place is None and row.number == runs.Number("auroc", 0.5, None, None, "x")


@pytest.mark.skipif(os.name != "posix", reason="a shell")
def test_a_closed_stream_is_no_fault(tmp_path: Path) -> None:
    command = f"cd {tmp_path} && exec {sys.executable} -m ribcage --version >&- 2>{tmp_path}/said"
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 0
    assert (tmp_path / "said").read_text() == ""
