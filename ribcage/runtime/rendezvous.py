"""Rendezvous: the store through which the processes started by torchrun find each other, also after a restart.

torchrun keeps one store for all restarts. Recent versions of torch (2.15) do not separate the entries of a restart from
those of the attempt before it: processes then connect to addresses that no longer exist, and fail or hang. The number
of restarts cannot separate them, because the agents of several machines count differently.
"""

import os
import time
import uuid
from datetime import timedelta

import torch.distributed as dist

PATIENCE = 600.0
"""Seconds after which a process stops waiting for the others."""


def from_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def own_store() -> tuple[dist.Store, int, int]:
    """A store for the processes of this attempt only; rank and number of processes."""
    store, rank, world = next(iter(dist.rendezvous("env://", timeout=timedelta(seconds=PATIENCE))))
    return dist.PrefixStore(agreed_prefix(store, rank, world, PATIENCE), store), rank, world


def agreed_prefix(store: dist.Store, rank: int, world: int, patience: float) -> str:
    """A new prefix that rank 0 draws. Rank 0 lists who has answered to it; a process that is not listed has answered to
    the prefix of an earlier attempt, and waits for a newer one. TimeoutError after `patience` seconds."""
    name, last = uuid.uuid4().hex, time.monotonic() + patience
    if rank == 0:
        answers = [f"{name}/{other}" for other in range(1, world)]
        store.set("prefix", name)
        if answers:
            store.wait(answers, timedelta(seconds=patience))
        store.set(f"{name}/all", " ".join(store.get(answer).decode() for answer in answers))
        return name
    answered = ""
    while time.monotonic() < last:
        prefix = store.get("prefix").decode()
        if prefix != answered:
            store.set(f"{prefix}/{rank}", name)
            answered = prefix
        if store.check([f"{prefix}/all"]) and name in store.get(f"{prefix}/all").decode().split():
            return prefix
        time.sleep(0.02)
    raise TimeoutError(
        f"Rank {rank} waited {patience:g} s for the other processes, which did not respond. "
        "Check that all processes were started."
    )
