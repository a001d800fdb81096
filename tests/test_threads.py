"""Idle threads sleep, and a busy machine is reported before a long job."""

import os
from pathlib import Path

import pytest

from ribcage.runtime import threads


def test_threads_sleep_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    threads.calm()
    assert os.environ["GOMP_SPINCOUNT"] == "0"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    threads.calm()
    assert os.environ["GOMP_SPINCOUNT"] == "7"


@pytest.mark.parametrize(("ticks", "said"), [(0.0, False), (3.0, True)])
def test_a_busy_machine_is_pointed_out(
    ticks: float, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ticks`: cores that compute while the machine is watched."""
    per_second = os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr(threads, "STAT", tmp_path / "stat")
    threads.STAT.write_text("cpu  1000 0 0 9 9\n")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    clock = iter([0.0, 0.25])

    def sleep(seconds: float) -> None:
        threads.STAT.write_text(f"cpu  {1000 + round(ticks * per_second * 0.25)} 0 0 9 9\n")

    monkeypatch.setattr(threads.time, "sleep", sleep)
    monkeypatch.setattr(threads.time, "monotonic", lambda: next(clock))
    advice = threads.advice()
    assert ["3.0 of 4" in advice, "OMP_NUM_THREADS=1 " in advice, "--threads 1;" in advice] == [said] * 3


def test_without_information_from_the_system_there_is_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "STAT", Path("no where"))
    monkeypatch.setattr(threads.time, "sleep", lambda _: None)
    assert threads.busy_cores() == 0.0 and threads.advice() == ""


@pytest.mark.parametrize(
    ("quota", "share", "cores"),
    [("50000 100000", 0.5, 1), ("150000 100000", 1.5, 2), ("900000 100000", 4, 4), ("max 100000", 4, 4), ("", 4, 4)],
)
def test_cores_are_those_of_the_affinity_within_the_quota_of_a_container(
    quota: str, share: float, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "QUOTA", tmp_path / "cpu.max")
    if quota:
        threads.QUOTA.write_text(quota + "\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 4, 5}, raising=False)
    assert (threads.core_share(), threads.available_cores()) == (share, cores)
