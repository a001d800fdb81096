"""Descriptions of jobs in cluster/: valid for Kubeflow Trainer and SkyPilot, with commands that Ribcage understands."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import processes
import pytest
import yaml
from safetensors.torch import load_file
from trainings import equal, words

from ribcage import cli
from ribcage.runtime import flags

ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "cluster"
SKYPILOT = ROOT / ".venv" / "skypilot" / "bin" / "python"


def understood(command: list[str]) -> None:
    """Whether Ribcage accepts the options of a command."""
    name, *rest = command
    module = cli.command(name)
    flags.parse(name, module, flags.read_flags(module, rest), rest)
    assert rest[-2:] == ["--resume", "auto"]


def kubernetes() -> tuple[dict[str, Any], dict[str, Any]]:
    """The runtime and the job."""
    runtime, job = yaml.safe_load_all((CLUSTER / "kubernetes.yaml").read_text(encoding="utf-8"))
    return runtime, job


@pytest.mark.slow
def test_the_training_on_kubernetes_is_valid_for_kubeflow_trainer() -> None:
    """The models of the API ignore unknown names, so what they have read must be all that there is."""
    from kubeflow_trainer_api import models

    runtime, job = kubernetes()
    for found, model in ((runtime, models.TrainerV1alpha1TrainingRuntime), (job, models.TrainerV1alpha1TrainJob)):
        read = model.from_dict(found)
        assert read is not None and read.to_dict() == found
        changed = {**found, "spec": {**found["spec"], "misspelt": 1}}
        assert model.from_dict(changed).to_dict() != changed


def test_the_training_on_kubernetes_resumes_and_restarts_as_a_whole() -> None:
    runtime, job = kubernetes()
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    assert job["spec"]["trainer"]["command"] == ["torchrun", "-m", "ribcage"]
    understood(job["spec"]["trainer"]["args"])
    (replicated,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    pods = replicated["template"]["spec"]["template"]["spec"]
    (container,) = pods["containers"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pods["volumes"]}
    rules = replicated["template"]["spec"]["podFailurePolicy"]["rules"]
    codes = [rule["onExitCodes"] for rule in rules if "onExitCodes" in rule]
    assert [(code["containerName"], code["values"]) for code in codes] == [(container["name"], [75])]
    assert pods["restartPolicy"] == "Never", "Kubernetes requires it for a podFailurePolicy"


@pytest.mark.integration
def test_the_command_on_kubernetes_trains_on_two_nodes(tmp_path: Path) -> None:
    """Two processes in place of two pods, with the variables that Kubeflow Trainer sets for torchrun."""
    data, whole, out = tmp_path / "phantom", tmp_path / "whole", tmp_path / "run"
    assert cli.main(["import", "phantom", "--out", str(data), "--images", "120", "--size", "32"]) == 0
    processes.together(processes.command, words(data, whole), said=tmp_path)
    _, job = kubernetes()
    program, *rest = job["spec"]["trainer"]["command"]
    command = [str(Path(sys.executable).parent / program), *rest, *words(data, out, "--resume", "auto")]
    told = {"PET_NNODES": "2", "PET_NPROC_PER_NODE": "1", "PET_MASTER_ADDR": "127.0.0.1"}
    told |= {"PET_MASTER_PORT": str(processes.free_port()), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    pods = [
        subprocess.Popen(command, env={**os.environ, **told, "PET_NODE_RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    try:
        said = [pod.communicate(timeout=processes.LONG)[1] for pod in pods]
    finally:
        for pod in pods:
            pod.kill()
    assert [pod.returncode for pod in pods] == [0, 0], said
    assert equal(*(load_file(run / "bundle" / "model.safetensors") for run in (out, whole)))


def test_the_job_of_skypilot_resumes() -> None:
    job = yaml.safe_load((CLUSTER / "skypilot.yaml").read_text(encoding="utf-8"))
    assert job["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    run = job["run"].replace("\\\n", " ").replace('"$SKYPILOT_NUM_GPUS_PER_NODE"', "8").split()
    understood(run[1:])
    folders = [run[run.index(option) + 1] for option in ("--data", "--out")]
    assert all(any(folder.startswith(mount) for mount in job["file_mounts"]) for folder in folders)


@pytest.mark.integration
def test_the_job_of_skypilot_is_valid_for_skypilot(tmp_path: Path) -> None:
    if not SKYPILOT.exists() and not os.environ.get("CI"):
        pytest.skip("SkyPilot is not installed: make .venv/skypilot/installed")
    env = {**os.environ, "HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    code = "import sys, sky; task = sky.Task.from_yaml(sys.argv[1]); print([*task.storage_mounts, *task.file_mounts])"
    wrong = tmp_path / "wrong.yaml"
    text = (CLUSTER / "skypilot.yaml").read_text(encoding="utf-8")
    wrong.write_text(text.replace("file_mounts:", "file_mount:"), encoding="utf-8")
    read, refused = (
        subprocess.run([SKYPILOT, "-c", code, file], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
        for file in (CLUSTER / "skypilot.yaml", wrong)
    )
    assert read.returncode == 0 and "['/runs', '/data/nih']" in read.stdout, read.stderr
    assert refused.returncode != 0 and "file_mount" in refused.stderr
