"""Log lines in the form of Paddle's hapi, as the Paddle-CheXNet project prints them while it trains.

step  10/614 - loss: 0.1637 - AUROC_Atelectasis: 0.5881 - … - AUROC_avg: 0.5908 - 3s/step
"""

from typing import Any

import numpy as np

from ribcage import distributed, metrics
from ribcage.loop import Log, Run


class Lines:
    """A line every ten steps, with each finding's AUROC over the epoch's training pictures so far."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.method: Any = run.method
        self.answers: list[tuple[np.ndarray, np.ndarray]] = []

    def show(self, log: Log) -> None:
        """Take note of a step; print when it is time."""
        if log.step_in_epoch == 1:
            self.answers.clear()
            _print(f"Epoch {log.epoch + 1}/{self.run.epochs}")
        own = [(logits.cpu().numpy(), labels.cpu().numpy()) for logits, labels in self.method.answers]
        for answers in distributed.gathered(own):
            self.answers += answers
        self.method.answers.clear()
        if log.step_in_epoch % 10 == 0 or log.epoch_done:
            _print(self.line(log))

    def line(self, log: Log) -> str:
        """What is printed after a step."""
        width = len(str(log.steps_in_epoch))
        parts = [f"step {log.step_in_epoch:>{width}}/{log.steps_in_epoch}", f"loss: {log.loss:.4f}"]
        if self.answers:
            logits, labels = (np.concatenate(arrays) for arrays in zip(*self.answers, strict=True))
            scores = metrics.auroc(
                logits, np.where((labels == 0) | (labels == 1), labels, np.nan)
            )  # none but clear ones
            names = self.run.loader.findings
            parts += [f"AUROC_{name}: {score:.4f}" for name, score in zip(names, scores, strict=True)]
            parts.append(f"AUROC_avg: {float(metrics.macro(scores).mean):.4f}")
        pace = f"{log.seconds:.0f}s/step" if log.seconds >= 1 else f"{1e3 * log.seconds:.0f}ms/step"
        return " - ".join([*parts, pace])


def _print(line: str) -> None:
    if distributed.rank() == 0:
        print(line, flush=True)
