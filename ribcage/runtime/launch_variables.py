"""Launch variables: the environment variables with which torchrun, srun or `launcher.launch` start several processes.

No torch is imported: a process that is stopped while torch is imported must not import it again.
"""

import os
import re
from collections.abc import Mapping

NAMES = {"RANK": "SLURM_PROCID", "LOCAL_RANK": "SLURM_LOCALID", "WORLD_SIZE": "SLURM_STEP_NUM_TASKS"}
"""Variables of torchrun → those of srun."""
RENDEZVOUS = "RIBCAGE_RENDEZVOUS"
"""The file through which the processes of `launcher.launch` find each other. Only the user can read it; no
port is opened for it."""
_REMEDY = "Start the command with torchrun or srun, or unset the variables of the launcher."


def process_variables() -> dict[str, str]:
    """RANK, LOCAL_RANK and WORLD_SIZE from torchrun, else from srun, else those of a single process."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return _numbers({name: name for name in NAMES if name in os.environ or name != "LOCAL_RANK"})
    if _whole("SLURM_STEP_NUM_TASKS", 1) > 1:  # set by srun; a batch script without srun is one process
        if "MASTER_ADDR" not in os.environ or "MASTER_PORT" not in os.environ:
            tasks = os.environ["SLURM_STEP_NUM_TASKS"]
            raise ValueError(f"srun started {tasks} tasks, but MASTER_ADDR or MASTER_PORT is not set. Set both.")
        return _numbers(NAMES)
    return {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}


def launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return int(process_variables()["WORLD_SIZE"]) > 1


def launched_here() -> bool:
    """Whether `launcher.launch` started this process."""
    return RENDEZVOUS in os.environ


def number_of_processes(devices: int) -> int:
    """The number of processes of a run with --devices: those of the launcher, if one started this process."""
    return int(process_variables()["WORLD_SIZE"]) if launched() else devices


def rank_before_start() -> int:
    """The rank that the launcher has given to this process, which need not have joined the others yet."""
    return int(process_variables()["RANK"])


def require_address() -> None:
    """ValueError unless the address at which the processes find each other is set."""
    if not os.environ.get("MASTER_ADDR"):
        raise ValueError(f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but MASTER_ADDR is not set. {_REMEDY}")
    _whole("MASTER_PORT")


def _numbers(variables: Mapping[str, str]) -> dict[str, str]:
    """RANK, LOCAL_RANK and WORLD_SIZE from these environment variables; ValueError if they are invalid."""
    found = {name: _whole(variable) for name, variable in variables.items()}
    rank, world = variables["RANK"], variables["WORLD_SIZE"]
    if found["RANK"] >= found["WORLD_SIZE"]:
        raise ValueError(f"{rank}={found['RANK']} must be less than {world}={found['WORLD_SIZE']}. {_REMEDY}")
    return {"LOCAL_RANK": "0", **{name: str(number) for name, number in found.items()}}


def _whole(variable: str, default: int | None = None) -> int:
    """The number in an environment variable."""
    text = os.environ.get(variable, "" if default is None else str(default))
    if not re.fullmatch("[0-9]{1,9}", text):
        now = f"is {text!r}" if variable in os.environ else "is not set"
        raise ValueError(f"The environment variable {variable} must be a whole number, but it {now}. {_REMEDY}")
    return int(text)
