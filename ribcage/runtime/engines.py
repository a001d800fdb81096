"""Engines: where a long job is computed, in the threads of this process or on the machines of a Ray cluster.

A job is divided into tasks. `prepare` is called once per thread pool or process and returns the function that computes
a task, so that a model or a table is loaded once. The results are in the order of the tasks, on any engine.
"""

import importlib.util
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, get_args

Task = TypeVar("Task")
Result = TypeVar("Result")
EngineName = Literal["local", "ray"]


class Engine(Protocol):
    """Computes the tasks of a job."""

    def map(self, prepare: Callable[[], Callable[[Task], Result]], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield the result of every task, in the order of the tasks."""


@dataclass(frozen=True)
class Threads:
    """Threads of this process; few tasks are computed ahead, to limit memory."""

    count: int = 1

    def map(self, prepare: Callable[[], Callable[[Task], Result]], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield the result of every task, in the order of the tasks."""
        compute = prepare()
        pool = ThreadPoolExecutor(self.count, thread_name_prefix="ribcage-task")
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                waiting.append(pool.submit(compute, task))
                if len(waiting) > 2 * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


ONE_THREAD = Threads()


def engine(name: str, threads: int = 1, *, gpus: bool = False) -> Engine:
    """The engine of this name.

    threads: of the engine `local`. gpus: whether the processes of the engine `ray` use a GPU each, if there are any.
    """
    if name == "local":
        return Threads(threads)
    if name != "ray":
        raise ValueError(f"--engine must be {' or '.join(get_args(EngineName))}, not {name!r}.")
    if importlib.util.find_spec("ray") is None:
        raise ImportError("--engine ray needs ray: pip install 'ribcage[ray]'")
    from ribcage.runtime.ray_engine import RayCluster

    return RayCluster(gpus)
