"""Runs a training command with Ray Train, here with four workers:

    python cluster/ray_train.py 4 finetune --data data/nih --out runs/chexnet --resume auto

All machines of the Ray cluster need the current folder, so it must be on a shared file system. If a worker is lost, Ray
restarts all workers, and --resume auto continues from the last checkpoint.
"""

import os
import sys
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer


def train(job: dict[str, Any]) -> None:
    """One worker: the command, in the process group that Ray has set up."""
    from ribcage import cli

    os.chdir(job["folder"])
    if code := cli.main(job["command"]):
        raise RuntimeError(f"ribcage exited with code {code}.")


def main(workers: int, command: list[str]) -> None:
    """Start the workers, one GPU each where there are GPUs, and wait for their end."""
    ray.init()
    gpus = "GPU" in ray.cluster_resources()
    TorchTrainer(
        train,
        train_loop_config={"folder": str(Path.cwd()), "command": command},
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=RunConfig(
            storage_path=str(Path("runs/ray").resolve()), failure_config=FailureConfig(max_failures=3)
        ),
    ).fit()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
