"""Commands of Ribcage on a Ray cluster of two machines, which lose actors and machines on the way.

    python tests/ray_commands.py --data data …

Ray listens on all interfaces, so `test_ray_engine.py` runs this script in a network namespace. The current folder has
image files (`in`), and models (`classifier`, `detector`), the detector is evaluated with the options of this script. Every
command runs in this process; what happens on the way depends only on the number of results that have arrived.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from ribcage import cli
from ribcage.runtime import ray_engine

QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}
"""A lost machine is noticed within seconds."""
cluster = Cluster(
    initialize_head=True,
    head_node_args={
        "num_cpus": 1,
        "object_store_memory": 100 << 20,
        "include_dashboard": False,
        "_system_config": QUICK,
    },
)
other = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
os.environ["RAY_ADDRESS"] = cluster.address
mapped = ray_engine.RayCluster.map


def actors() -> list[int]:
    """The processes that compute tasks."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        if b"MapWorker" in command:
            found.append(int(process.name))
    return found


def kill_an_actor() -> None:
    """As if the kernel had no memory left."""
    os.kill(actors()[0], signal.SIGKILL)


def remove_a_machine() -> None:
    """Without a warning."""
    cluster.remove_node(other, allow_graceful=False)


def run(*words: str, **events: Callable[[], None]) -> int:
    """The exit code of `ribcage WORDS --engine ray`; events: what happens after so many results, such as after_2."""

    def eventful(
        self: ray_engine.RayCluster, prepare: Callable[[], Callable[[Any], Any]], tasks: Sequence[Any]
    ) -> Iterator[Any]:
        for number, result in enumerate(mapped(self, prepare, tasks), 1):
            if event := events.pop(f"after_{number}", None):
                print(f"After {number} of {len(tasks)} results: {event.__name__}.", flush=True)
                event()
            yield result

    ray_engine.RayCluster.map = eventful  # type: ignore[method-assign]
    code = cli.main([*words, "--engine", "ray"])
    assert not events, f"{words[0]} ended before {', '.join(events)}"
    assert not ray.is_initialized()
    return code


importing = ("import", "folder", "in", "--out", "ray", "--size", "32")
assert run(*importing, after_2=lambda: os.kill(os.getpid(), signal.SIGINT)) == 130
assert run(*importing, after_1=kill_an_actor, after_3=remove_a_machine) == 0
other = cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
assert run("evaluate", "detector", *sys.argv[1:], "--out", "detector-ray") == 0
files = ("in", "--out", "ray.csv", "--batch", "4", "--allow-unread", "1")
assert run("predict", "classifier", *files, after_1=kill_an_actor, after_3=remove_a_machine) == 0


def ending() -> Callable[[int], int]:
    """A function that kills its process, as happens when memory runs out."""
    return lambda task: os._exit(task)


try:
    list(mapped(ray_engine.RayCluster(attempts=2), ending, [9]))
except RuntimeError as error:
    assert "2 processes" in str(error), error
else:
    raise AssertionError
cluster.shutdown()
