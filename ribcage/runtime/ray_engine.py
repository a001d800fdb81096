"""Ray: the tasks of a job on all machines of a Ray cluster, with Ray Data (https://docs.ray.io/en/latest/data).

The tasks are the rows of a Ray dataset, usually one row per block, and `map_batches` computes them in several actors,
each of which has called `prepare` once. If an actor or a machine is lost, Ray starts another actor and repeats the lost
tasks; the results come in the order of the tasks. The address of the cluster is in the environment variable
RAY_ADDRESS; without it, Ray uses the cluster that runs on this machine, or else starts one.
"""

import contextlib
import importlib.metadata
import logging
import os
import pickle
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import pyarrow as pa

from ribcage import __version__
from ribcage.runtime.spelling import count_phrase

if TYPE_CHECKING:
    from ray import ObjectRef
    from ray.actor import ActorHandle

Task = TypeVar("Task")
Result = TypeVar("Result")
BLOCKS = 2000
"""Largest number of blocks: each takes Ray Data some milliseconds. If there are more tasks, a block has several, which
are repeated together."""
ATTEMPTS = 20
"""Limit on how often a task is begun. Without it, Ray would repeat a task that always kills its process, for example
because it needs too much memory, for ever."""
PATIENCE = 10.0
"""Seconds in which the cluster must accept a connection."""
LIBRARIES = ("numpy", "torch", "torchvision", "timm", "opencv-python-headless", "pydicom", "pyjpegls",
             "pylibjpeg-openjpeg")  # fmt: skip
"""Their versions must be the same on all machines, because the results depend on them."""


@dataclass(frozen=True)
class RayCluster:
    """The machines of a Ray cluster."""

    gpus: bool = False
    """Whether every actor uses a GPU, if the cluster has any; else every actor uses a CPU."""
    attempts: int = ATTEMPTS
    """How often a task is begun."""

    def map(self, prepare: Callable[[], Callable[[Task], Result]], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield the result of every task, in the order of the tasks."""
        if not tasks:
            return
        import ray

        with _connected():
            begun = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Attempts).remote(self.attempts)
            job = ray.put(Job(prepare, tuple(tasks), begun))
            try:
                yield from map(_result, self._answers(job, len(tasks)))
            except ray.exceptions.RayError as error:
                raise RuntimeError(_explained(error)) from None

    def _answers(self, job: "ObjectRef", count: int) -> Iterator[bytes]:
        """The pickled answer of every task."""
        import ray

        gpus = int(ray.cluster_resources().get("GPU", 0)) if self.gpus else 0
        actors = max(1, min(count, gpus or int(ray.cluster_resources().get("CPU", 1))))
        machines = count_phrase(sum(node["Alive"] for node in ray.nodes()), "machine")
        print(f"Ray cluster of {machines}: up to {count_phrase(actors, 'process', 'processes')}.", file=sys.stderr)
        answers = ray.data.from_items(list(range(count)), override_num_blocks=min(count, BLOCKS)).map_batches(
            TaskActor,
            fn_constructor_args=([job],),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
            **({"num_gpus": 1} if gpus else {"num_cpus": 1}),
        )
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        answers.context.enable_progress_bars = False
        answers.context.execution_options.preserve_order = True
        for table in answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from table["answer"].to_pylist()


@dataclass(frozen=True)
class Job(Generic[Task, Result]):
    """What an actor needs, sent to every machine once."""

    prepare: Callable[[], Callable[[Task], Result]]
    tasks: tuple[Task, ...]
    attempts: "ActorHandle"
    """The actor that counts attempts."""
    folder: str = field(default_factory=os.getcwd)
    """The current folder of the command."""
    versions: dict[str, str] = field(default_factory=lambda: versions())


class Attempts:
    """An actor: how often each task was begun."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.counts: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        """How many processes have ended in this task, if that is the limit; else 0, and another attempt is counted."""
        if self.counts[number] >= self.limit:
            return self.limit
        self.counts[number] += 1
        return 0


class TaskActor(Generic[Task, Result]):
    """An actor: it computes the tasks whose numbers it receives."""

    def __init__(self, job: "Sequence[ObjectRef]") -> None:
        import ray

        self.job: Job[Task, Result] = ray.get(job[0])
        self.compute: Callable[[Task], Result] | None = None
        self.machine = ray.util.get_node_ip_address()

    def __call__(self, block: dict[str, np.ndarray]) -> pa.Table:
        """The answer of one task: its result, or the error that it raised, which Ray would wrap in its own errors."""
        (number,) = block["item"].tolist()
        try:
            if self.compute is None:
                self.compute = self._prepared()
            answer = pickle.dumps((True, self._result(self.compute, number)), protocol=5)
        except Exception as error:
            answer = pickle.dumps((False, _portable(error)), protocol=5)
        return pa.table({"answer": pa.array([answer], pa.large_binary())})

    def _result(self, compute: Callable[[Task], Result], number: int) -> Result:
        """The result of a task."""
        import ray

        task = self.job.tasks[number]
        if lost := ray.get(self.job.attempts.begin.remote(number)):
            raise RuntimeError(
                f"{count_phrase(lost, 'process', 'processes')} ended during the same task ({str(task)[:80]}). "
                "A possible cause is a lack of memory."
            )
        return compute(task)

    def _prepared(self) -> Callable[[Task], Result]:
        """The function that computes a task, if this machine is like that of the command."""
        found = versions()
        if other := sorted(name for name, version in self.job.versions.items() if found.get(name) != version):
            listed = ", ".join(f"{name} {found.get(name, 'none')}, not {self.job.versions[name]}" for name in other)
            raise ValueError(
                f"The package versions on the machine {self.machine} of the Ray cluster differ from those on this one: "
                f"{listed}."
            )
        try:
            os.chdir(self.job.folder)
        except OSError:
            raise ValueError(
                f"The machine {self.machine} of the Ray cluster cannot open {self.job.folder}. Start the command in a "
                "folder on a file system that all machines share."
            ) from None
        return self.job.prepare()


def versions() -> dict[str, str]:
    """Versions of Ribcage and of the libraries that determine the results."""
    found = {"ribcage": __version__}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _portable(error: Exception) -> Exception:
    """The error, if it can be pickled; else a RuntimeError with the same message."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _result(answer: bytes) -> Any:
    """The result in an answer; raises the error that is in its place."""
    done, value = pickle.loads(answer)  # made by our own actor
    if not done:
        raise value
    return value


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """Connect to the cluster; end the connection afterwards, if there was none before."""
    import ray
    import ray.data

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith("ray://"):
        raise ValueError(
            f"RAY_ADDRESS is {address}, but Ray Data needs a process in the cluster. Start the command on a machine of "
            "the cluster, for example with 'ray job submit'."
        )
    check_reachable(address)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # of this process; lost actors and machines are still shown
    try:
        with _own_signals():
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())[:200].rstrip(".")
        raise ConnectionError(f"The Ray cluster at {address or 'this machine'} cannot be reached: {said}.") from None
    try:
        yield
    finally:
        ray.shutdown()


def check_reachable(address: str) -> None:
    """ConnectionError if nothing listens at HOST:PORT. Ray itself would try to connect for several minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        said = " ".join(str(error).split())[:200].rstrip(".")
        raise ConnectionError(
            f"The Ray cluster at {address} cannot be reached: {said}. Check the environment variable RAY_ADDRESS."
        ) from None


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Restore the signal handlers of the command, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _explained(error: Exception) -> str:
    """An error of Ray in one line."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return (
        f"Ray could not compute all results ({type(error).__name__}: {said[:300].rstrip('.')}). Run the command again."
    )
