"""Log lines in the form of PyTorch's ImageNet example, as MoCo prints them while it trains.

Epoch: [218][ 860/1745] Time 0.379 (0.415) Data 0.000 (0.025) Loss 4.5344e-01 (4.5096e-01) Acc@1 100.00 (95.36) …
"""

from ribcage import distributed
from ribcage.loop import Log

NAMES = {"acc1": "Acc@1", "acc5": "Acc@5"}


class Lines:
    """A line every ten steps: each number as it is now and, in brackets, its mean over the epoch so far."""

    def __init__(self) -> None:
        self.logs: list[Log] = []

    def show(self, log: Log) -> None:
        """Take note of a step; print when it is time."""
        if log.step_in_epoch == 1:
            self.logs.clear()
        self.logs.append(log)
        if distributed.rank() == 0 and (log.step_in_epoch - 1) % 10 == 0:
            print(self.line(), flush=True)

    def line(self) -> str:
        """What is printed after a step."""
        now = self.logs[-1]
        width = len(str(now.steps_in_epoch))
        parts = [f"Epoch: [{now.epoch}][{now.step_in_epoch - 1:{width}}/{now.steps_in_epoch}]"]
        parts.append(_meter("Time", [log.seconds for log in self.logs], "6.3f"))
        parts.append(_meter("Data", [log.waited for log in self.logs], "6.3f"))
        parts.append(_meter("Loss", [log.loss for log in self.logs], ".4e"))
        rest = [_meter(NAMES.get(name, name), [log.values[name] for log in self.logs], "6.2f") for name in now.values]
        return "\t".join([*parts, *rest])


def _meter(name: str, values: list[float], form: str) -> str:
    """The last number and the mean."""
    return f"{name} {values[-1]:{form}} ({sum(values) / len(values):{form}})"
