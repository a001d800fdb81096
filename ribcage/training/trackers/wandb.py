"""Weights & Biases: an offline run in the folder `wandb` of the run, unless WANDB_MODE selects another mode.

`wandb sync` uploads offline runs; a resumed run has the same id and adds a folder. All that W&B would collect by itself
is switched off: host and user names, the program and its path, the git repository, code, console and hardware.
"""

import os
from collections.abc import Sequence

from ribcage.training.metrics_log import TrackedNumbers
from ribcage.training.trackers.base import PROJECT, TrackedImage, TrackedRun, Tracker

MODE, NAMED = "WANDB_MODE", "WANDB_PROJECT"
LOCAL = ("offline", "dryrun", "disabled")
"""Modes that send nothing."""
NO_ANSWER = 10.0
"""Seconds after which W&B does without a key that it asks for."""


class WeightsAndBiases(Tracker):
    """A run of `wandb.init`."""

    packages = ("wandb",)

    @classmethod
    def is_local(cls) -> bool:
        """Whether W&B is in an offline mode."""
        return os.environ.get(MODE, "offline") in LOCAL

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        settings = wandb.Settings(
            console="off",
            silent=True,
            symlink=False,
            disable_git=True,
            disable_code=True,
            save_code=False,
            host="",
            username="",
            email="",
            program="ribcage",
            program_relpath="",
            program_abspath="",
            login_timeout=NO_ANSWER,
            x_executable="",
            x_save_requirements=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
        )
        self.run = wandb.init(
            project=os.environ.get(NAMED, PROJECT),
            id=run.id,
            name=run.name,
            dir=run.folder,
            mode=None if os.environ.get(MODE) else "offline",
            config=dict(run.options),
            allow_val_change=True,
            resume="allow",
            reinit="create_new",
            settings=settings,
        )

    def log(self, lines: Sequence[TrackedNumbers]) -> None:
        """The numbers of a step; W&B keeps the first values of a step that is repeated after resuming."""
        for line in lines:
            self.run.log(dict(line.numbers), step=line.step)

    def show(self, name: str, images: Sequence[TrackedImage], step: int) -> None:
        """A panel of images with captions."""
        import wandb

        self.run.log({name: [wandb.Image(image.pixels, caption=image.caption) for image in images]}, step=step)

    def close(self, state: str) -> None:
        """Finish the run; W&B knows only success and failure."""
        self.run.finish(exit_code=int(state != "finished"))
