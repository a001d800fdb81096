"""Signals: a command that can be resumed is stopped with 75 at any time, and nothing is half written."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import processes
import pytest
from refusals import has_facts

from ribcage import cli
from ribcage.commands import finetune, import_, pretrain
from ribcage.data.collection import Datasets
from ribcage.runtime import launcher, signals

NUMBERS = [signal.SIGTERM, signal.SIGUSR1]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize(
    ("module", "words"),
    [
        (finetune, ["finetune", "--data", "set", "--out", "run"]),
        (pretrain, ["pretrain", "mae", "--data", "set", "--out", "run"]),
        (import_, ["import", "phantom", "--out", "set"]),
    ],
    ids=["finetune", "pretrain", "import"],
)
def test_a_signal_before_the_work_has_begun_stops_with_75(
    number: int,
    module: ModuleType,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "run", lambda options: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    assert cli.main(words) == 75
    assert signal.getsignal(number) is before and not list(tmp_path.iterdir())
    assert has_facts(capsys.readouterr().err, "stopped", signal.Signals(number).name)


def test_a_signal_while_data_are_opened_stops_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Datasets, "open", lambda folders: os.kill(os.getpid(), signal.SIGUSR1))
    assert cli.main(["finetune", "--data", "set", "--out", str(tmp_path / "run")]) == 75
    assert not list(tmp_path.iterdir())


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with signals.stoppable():
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def swallowed() -> Iterator[None]:
    """A signal whose exception is lost, as in a destructor."""
    with signals.stoppable():
        with pytest.raises(signals.Interruption):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        yield


def test_a_signal_whose_exception_was_caught_is_received_later(swallowed: None) -> None:
    received: list[int] = []
    with signals.deferred(received.append):
        os.kill(os.getpid(), signal.SIGUSR1)
    assert received == [signal.SIGTERM, signal.SIGUSR1]


def joining() -> int:
    """Wait for a process that never starts."""
    signals.DELAY = 0.1
    with contextlib.suppress(signals.Interruption), signals.stoppable():
        print("joining", flush=True)
        with launcher.started():
            return 0
    return 1


def test_a_process_that_waits_for_others_ends_with_75(tmp_path: Path) -> None:
    """torch waits for them without calling any handler of Python."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(processes.free_port()), "WORLD_SIZE": "2", "RANK": "1"}
    said = tmp_path / "said.txt"
    with processes.Forked(joining, said=said, env={**os.environ, **shared}) as process:
        processes.until(lambda: "joining" in said.read_text(), process)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.end()[0] == 75


def test_a_process_that_was_killed_before_it_handled_signals_is_started_again() -> None:
    class Killed:
        def poll(self) -> int:
            return -signal.SIGTERM

    assert launcher._outcome([Killed(), Killed()], [time.monotonic()]) == 75
    assert launcher._outcome([Killed(), Killed()]) == 128 + signal.SIGTERM


def test_the_message_of_a_process_that_is_stopped_while_torch_is_imported_needs_no_torch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch cannot be imported again after its import was stopped."""

    def dispatch(words: list[str]) -> int:
        monkeypatch.setitem(sys.modules, "torch", None)
        monkeypatch.delitem(sys.modules, "ribcage.runtime.launcher", raising=False)
        raise signals.Interruption("Received SIGTERM.")

    monkeypatch.setattr(cli, "dispatch", dispatch)
    for rank, printed in (("0", 1), ("1", 0)):
        for name, value in {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
            monkeypatch.setenv(name, value)
        assert cli.main(["finetune"]) == 75
        assert capsys.readouterr().err.count("SIGTERM") == printed


def exiting() -> int:
    sys.argv, cli.dispatch = ["ribcage", "finetune"], lambda words: 0
    code = cli.main()
    os.kill(os.getpid(), signal.SIGTERM)
    return code


def test_a_signal_at_the_exit_of_a_process_does_not_change_its_exit_code(tmp_path: Path) -> None:
    with processes.Forked(exiting, said=tmp_path / "said.txt", env=dict(os.environ)) as process:
        assert process.end()[0] == 0
