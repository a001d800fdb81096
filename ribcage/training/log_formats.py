"""Log lines in the formats of other programs, for tools that parse their output.

MoCo's, as in PyTorch's ImageNet example:
    Epoch: [218][ 860/1745] Time 0.379 (0.415) Data 0.000 (0.025) Loss 4.5344e-01 (4.5096e-01) Acc@1 100.00 (95.36) …
Paddle's hapi, as printed by the Paddle-CheXNet project:
    step  10/614 - loss: 0.1637 - AUROC_Atelectasis: 0.5881 - … - AUROC_avg: 0.5908 - 3s/step
"""

from typing import Any

import numpy as np

from ribcage import metrics
from ribcage.runtime import distributed
from ribcage.training.step_log import StepLog
from ribcage.training.trainer import Trainer

NAMES = {"acc1": "Acc@1", "acc5": "Acc@5"}


class MoCoLines:
    """One line every ten steps: the current value of each number and, in parentheses, its mean over the epoch so
    far."""

    def __init__(self) -> None:
        self.logs: list[StepLog] = []

    def show(self, log: StepLog) -> None:
        """Record a step, and print a line if due."""
        if log.step_in_epoch == 1:
            self.logs.clear()
        self.logs.append(log)
        if (log.step_in_epoch - 1) % 10 == 0:
            _print(self.line())

    def line(self) -> str:
        """The line for the last step."""
        now = self.logs[-1]
        width = len(str(now.steps_in_epoch))
        parts = [f"Epoch: [{now.epoch}][{now.step_in_epoch - 1:{width}}/{now.steps_in_epoch}]"]
        parts.append(_meter("Time", [log.seconds for log in self.logs], "6.3f"))
        parts.append(_meter("Data", [log.waited for log in self.logs], "6.3f"))
        parts.append(_meter("Loss", [log.loss for log in self.logs], ".4e"))
        rest = [_meter(NAMES.get(name, name), [log.values[name] for log in self.logs], "6.2f") for name in now.values]
        return "\t".join([*parts, *rest])


class PaddleLines:
    """One line every ten steps, with the AUROC of each finding over the training images of the epoch so far."""

    def __init__(self, trainer: Trainer[Any]) -> None:
        self.trainer = trainer
        self.method: Any = trainer.method
        self.outputs: list[tuple[np.ndarray, np.ndarray]] = []

    def show(self, log: StepLog) -> None:
        """Record a step, and print a line if due."""
        if log.step_in_epoch == 1:
            self.outputs.clear()
            _print(f"Epoch {log.epoch + 1}/{self.trainer.epochs}")
        own = [(logits.cpu().numpy(), labels.cpu().numpy()) for logits, labels in self.method.outputs]
        for outputs in distributed.gathered(own):
            self.outputs += outputs
        self.method.outputs.clear()
        if log.step_in_epoch % 10 == 0 or log.epoch_done:
            _print(self.line(log))

    def line(self, log: StepLog) -> str:
        """The line for the last step."""
        width = len(str(log.steps_in_epoch))
        parts = [f"step {log.step_in_epoch:>{width}}/{log.steps_in_epoch}", f"loss: {log.loss:.4f}"]
        if self.outputs:
            logits, labels = (np.concatenate(arrays) for arrays in zip(*self.outputs, strict=True))
            clear = np.where((labels == 0) | (labels == 1), labels, np.nan)
            scores = metrics.auroc(logits, clear)
            names = self.trainer.loader.findings
            parts += [f"AUROC_{name}: {score:.4f}" for name, score in zip(names, scores, strict=True)]
            parts.append(f"AUROC_avg: {float(metrics.macro_mean(scores).mean):.4f}")
        pace = f"{log.seconds:.0f}s/step" if log.seconds >= 1 else f"{1e3 * log.seconds:.0f}ms/step"
        return " - ".join([*parts, pace])


def _print(line: str) -> None:
    if distributed.rank() == 0:
        print(line, flush=True)


def _meter(name: str, values: list[float], form: str) -> str:
    """The last value and the mean."""
    return f"{name} {values[-1]:{form}} ({sum(values) / len(values):{form}})"
