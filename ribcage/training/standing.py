"""Standing: the state of the selection of the best epoch, which is saved in checkpoints."""

import math
from dataclasses import dataclass


@dataclass
class Standing:
    """The best validation so far, and how long ago it was."""

    best: float = -math.inf
    best_loss: float = math.inf
    """The validation loss of the best epoch: of equal scores the lower loss is better."""
    best_step: int = 0
    waiting: int = 0
    """Validations since the best one."""
    validated: int = 0
    """The step of the last validation."""

    @classmethod
    def of(cls, values: dict[str, float]) -> "Standing":
        """From a checkpoint; TypeError for a value that is not a number."""
        if invalid := [name for name, value in values.items() if not isinstance(value, int | float)]:
            raise TypeError(f"the value of {invalid[0]} is not a number")
        return cls(**values)  # type: ignore[arg-type]

    def take(self, step: int, score: float, loss: float, *, last: bool) -> bool:
        """Whether a validation after this step is the best so far, which is then recorded. If all scores are undefined,
        that is the first one.

        last: the last validation is always the best.
        """
        better = score > self.best or (score == self.best and loss < self.best_loss)
        if not (better or not self.best_step or last):
            self.waiting += 1
            return False
        self.best, self.best_loss, self.best_step, self.waiting = score, loss, step, 0
        return True
