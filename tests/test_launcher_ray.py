"""cluster/ray_train.py on a real Ray, without a network: Ray's ports are open on all interfaces."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import processes
import pytest
from safetensors.torch import load_file
from trainings import equal, words

from ribcage import cli

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent
SPACES = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
if importlib.util.find_spec("ray") is None and not os.environ.get("CI"):
    pytest.skip("Ray is not installed: pip install 'ribcage[ray]'", allow_module_level=True)
if not shutil.which("ip") or subprocess.run([*SPACES, "true"], capture_output=True, check=False).returncode:
    pytest.skip("Ray is tested in a network namespace, which cannot be made here", allow_module_level=True)


def workers(out: Path) -> list[int]:
    """The processes that train."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = ((process / name).read_bytes() for name in ("cmdline", "environ"))
        except OSError:
            continue  # it has ended meanwhile
        if b"RayTrainWorker" in command and str(out).encode() in environment:
            found.append(int(process.name))
    return found


def steps(out: Path) -> int:
    """The number of steps in the log of a run."""
    log = out / "metrics.jsonl"
    return log.read_text(encoding="utf-8").count("\n") if log.exists() else 0


def test_a_worker_is_lost_and_the_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    data, whole, out = tmp_path / "phantom", tmp_path / "whole", tmp_path / "run"
    assert cli.main(["import", "phantom", "--out", str(data), "--images", "120", "--size", "32"]) == 0
    long = ("--epochs", "8", "--save-minutes", "0")  # not complete before the worker is killed
    processes.together(processes.command, words(data, whole, *long), said=tmp_path / "said")
    command = words(data, Path("run"), *long, "--resume", "auto")
    script = [sys.executable, str(ROOT / "cluster" / "ray_train.py"), "2", *command]
    with tempfile.TemporaryDirectory(prefix="ray-") as short:  # for sockets, whose names must be short
        env = {
            **os.environ,
            "RAY_TMPDIR": short,
            "RAY_USAGE_STATS_ENABLED": "0",
            "HOME": str(tmp_path),
            "OF_THIS_TEST": str(out),
        }
        with (tmp_path / "ray.txt").open("w") as said:
            inside = [*SPACES, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *script]
            started = subprocess.Popen(inside, cwd=tmp_path, env=env, stdout=said, stderr=said, start_new_session=True)
        try:
            last = time.monotonic() + processes.LONG
            while steps(out) < 4:
                assert started.poll() is None and time.monotonic() < last, (tmp_path / "ray.txt").read_text()
                time.sleep(0.005)
            os.kill(workers(out)[-1], signal.SIGKILL)
            assert steps(out) < steps(whole)
            code = started.wait(processes.LONG)
        finally:
            started.kill()
            started.wait()
    assert code == 0, (tmp_path / "ray.txt").read_text()
    assert steps(out) == steps(whole)
    assert equal(*(load_file(run / "bundle" / "model.safetensors") for run in (out, whole)))
