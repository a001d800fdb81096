"""--engine ray on a real Ray cluster of two machines, without a network: Ray's ports are open on all interfaces."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import processes
import pytest
from image_folders import images
from test_export import made
from test_writer import digest

from ribcage import cli
from ribcage.bundle.spec import DetectorSpec
from ribcage.inference.detections import DETECTIONS_FILE

pytestmark = pytest.mark.integration

ROWS = ("--data", "data", "--split", "all", "--batch", "8", "--resamples", "20")
SPACES = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
if importlib.util.find_spec("ray") is None and not os.environ.get("CI"):
    pytest.skip("Ray is not installed: pip install 'ribcage[ray]'", allow_module_level=True)
if not shutil.which("ip") or subprocess.run([*SPACES, "true"], capture_output=True, check=False).returncode:
    pytest.skip("Ray is tested in a network namespace, which cannot be made here", allow_module_level=True)


def single(folder: Path) -> None:
    """Image files, dataset folders, a classifier and a detector, and the results of single processes."""
    images(folder / "in", 600)
    (folder / "in" / "0005.png").write_bytes(b"not an image")
    made(folder / "classifier", stored=32)
    made(folder / "detector", stored=32, detector=DetectorSpec("cam"), thresholds={})
    commands = [
        ["import", "folder", "in", "--out", "single", "--size", "32"],
        ["import", "phantom", "--out", "data", "--images", "96", "--size", "32"],
        ["predict", "classifier", "in", "--out", "single.csv", "--batch", "4", "--allow-unread", "1"],
        ["evaluate", "detector", *ROWS, "--out", "detector-single"],
    ]
    assert [cli.main(words) for words in commands] == [0] * 4


def test_a_cluster_that_loses_actors_and_machines_gives_the_results_of_a_single_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    single(tmp_path)
    script = [sys.executable, str(Path(__file__).parent / "ray_commands.py"), *ROWS]
    with tempfile.TemporaryDirectory(prefix="ray-") as short:  # for sockets, whose names must be short
        env = {**os.environ, "RAY_TMPDIR": short, "RAY_USAGE_STATS_ENABLED": "0", "HOME": str(tmp_path)}
        inside = [*SPACES, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *script]
        said = tmp_path / "ray.txt"
        with said.open("w") as stream:
            ended = subprocess.run(inside, env=env, stdout=stream, stderr=stream, timeout=processes.LONG, check=False)
    assert ended.returncode == 0, said.read_text()
    assert digest(tmp_path / "ray") == digest(tmp_path / "single")
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "single.csv").read_bytes()
    one, other = (tmp_path / f"detector-{engine}" / DETECTIONS_FILE for engine in ("single", "ray"))
    assert one.read_bytes() == other.read_bytes()
