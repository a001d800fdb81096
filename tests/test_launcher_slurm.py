"""cluster/slurm.sbatch on a real SLURM: two nodes on this machine."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
import slurm_cluster
from image_folders import images
from safetensors.torch import load_file
from trainings import equal, words

from ribcage import cli
from ribcage.data import dataset_folder

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent
SCRIPT = str(ROOT / "cluster" / "slurm.sbatch")
if why := slurm_cluster.missing():
    pytest.skip(f"SLURM cannot run: {why}", allow_module_level=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm_cluster.SlurmCluster]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    folder = tmp_path_factory.mktemp("slurm") / "cluster"
    with slurm_cluster.slurm_cluster(folder, PATH=path, OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo") as started:
        yield started


def requeued(cluster: slurm_cluster.SlurmCluster, identity: str) -> bool:
    """Whether a job waits to be started again, and its first attempt has ended."""
    (job,) = cluster.jobs(identity)
    name = f"slurmstepd: [{job['JobId']}.".encode()
    ended = not any(name in command for command in commands())
    return ended and (job["JobState"], job["Restarts"]) == ("PENDING", "1")


def start_again(cluster: slurm_cluster.SlurmCluster, identity: str, *more: str) -> None:
    """Start a requeued job now; SLURM would wait for two minutes."""
    cluster.until(lambda: requeued(cluster, identity))
    time.sleep(2)  # a node refuses a credential of the second in which it revoked those of the first attempt
    cluster.call("scontrol", "update", f"JobId={identity}", "StartTime=now", *more)


def commands() -> Iterator[bytes]:
    """The command lines of all processes."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            yield (process / "cmdline").read_bytes()


def logged(out: Path) -> list[int]:
    """The steps in the log of a run."""
    log = out / "metrics.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
    return [json.loads(line)["step"] for line in lines if line.endswith("\n")]


def test_a_training_on_two_nodes_is_requeued_at_its_time_limit_and_ends_with_the_same_weights(
    cluster: slurm_cluster.SlurmCluster, tmp_path: Path
) -> None:
    data, whole, out = tmp_path / "phantom", tmp_path / "whole", tmp_path / "run"
    assert cli.main(["import", "phantom", "--out", str(data), "--images", "120", "--size", "32"]) == 0
    long = ("--epochs", "12")  # not complete before the job is stopped
    processes.together(processes.command, words(data, whole, *long), said=tmp_path / "said")
    options = ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", "--gpus-per-node=1", "--output=training.out"]
    job = cluster.submit(*options, SCRIPT, *words(data, out, *long, "--resume", "auto"))
    cluster.until(lambda: len(logged(out)) >= 4)
    cluster.call("scancel", "--signal=STOP", job)  # so that it is not complete before SLURM sends it SIGUSR1
    assert len(logged(out)) < len(logged(whole))
    cluster.call("scontrol", "update", f"JobId={job}", "TimeLimit=3")
    start_again(cluster, job, "TimeLimit=60")
    cluster.until(lambda: cluster.jobs(job)[0]["JobState"] == "COMPLETED")
    said = (cluster.folder / "training.out").read_text(encoding="utf-8")
    assert "SIGUSR1: saved at step" in said and said.count("(2 processes)") == 2
    assert logged(out) == logged(whole)
    weights = [load_file(run / "bundle" / "model.safetensors") for run in (out, whole)]
    assert equal(*weights)


def test_tasks_of_a_job_array_have_their_own_words_and_only_an_interrupted_one_is_requeued(
    cluster: slurm_cluster.SlurmCluster, tmp_path: Path
) -> None:
    """The program in place of `ribcage` writes down what it was given; where the index is 2, it ends with 75 once."""
    program = tmp_path / "ribcage"
    program.write_text(f"""#!/bin/sh
echo "$SLURM_PROCID $MASTER_ADDR $*" >> '{tmp_path}/calls'
[ "$2" = 2 ] && [ "$SLURM_RESTART_COUNT" != 1 ] && exit 75
exit 0
""")
    program.chmod(0o755)
    options = ["--array=1-2", "--ntasks-per-node=1", "--gpus-per-node=1", "--output=array.out"]
    path = f"--export=PATH={tmp_path}:{cluster.env['PATH']}"
    job = cluster.submit(*options, path, SCRIPT, "finetune", "%a", "--out", "runs of/seed-%a")
    cluster.until(lambda: "COMPLETED" in {task["JobState"] for task in cluster.jobs(job)})
    start_again(cluster, f"{job}_2")
    cluster.until(lambda: {task["JobState"] for task in cluster.jobs(job)} == {"COMPLETED"})
    assert {task["ArrayTaskId"]: task["Restarts"] for task in cluster.jobs(job)} == {"1": "0", "2": "1"}
    calls = sorted((tmp_path / "calls").read_text().splitlines())
    assert len(calls) == 3 and sorted(call.split()[-1] for call in calls) == ["of/seed-1", "of/seed-2", "of/seed-2"]


def test_an_import_is_divided_among_the_tasks_of_a_job_array(
    cluster: slurm_cluster.SlurmCluster, tmp_path: Path
) -> None:
    images(tmp_path / "in", 8)
    out = tmp_path / "out"
    options = ["--array=1-2", "--ntasks-per-node=1", "--gpus-per-node=0", "--output=import.out"]
    words = ["import", "folder", str(tmp_path / "in"), "--out", str(out), "--size", "32", "--part", "%a/2"]
    job = cluster.submit(*options, SCRIPT, *words)
    cluster.until(lambda: {task["JobState"] for task in cluster.jobs(job)} == {"COMPLETED"})
    assert cli.main(["merge", str(out)]) == 0
    assert len(dataset_folder.open(out)) == 8
