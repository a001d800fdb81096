"""TensorBoard: event files in the folder `tensorboard` of the run.

A resumed run adds a file there; TensorBoard then hides what earlier files hold about repeated steps (`purge_step`).
"""

from collections.abc import Sequence

from ribcage.training.metrics_log import TrackedNumbers
from ribcage.training.trackers.base import TrackedImage, TrackedRun, Tracker


class TensorBoard(Tracker):
    """A `SummaryWriter`."""

    packages = ("tensorboard",)

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.step + 1)
        rows = [f"| {name} | {value} |" for name, value in run.options.items()]
        self.writer.add_text("options", "\n".join(["| option | value |", "|---|---|", *rows]), run.step)

    def log(self, lines: Sequence[TrackedNumbers]) -> None:
        """One scalar for each number."""
        for line in lines:
            for name, value in line.numbers.items():
                self.writer.add_scalar(name, value, line.step, walltime=line.time)
        self.writer.flush()

    def show(self, name: str, images: Sequence[TrackedImage], step: int) -> None:
        """One tag for each image, and a text with all captions, as images have none."""
        for number, image in enumerate(images):
            kind = "HW" if image.pixels.ndim == 2 else "HWC"
            self.writer.add_image(f"{name}/{number:02}", image.pixels, step, dataformats=kind)
        captions = "\n".join(f"{number}. {image.caption}" for number, image in enumerate(images))
        self.writer.add_text(f"{name}/captions", captions, step)

    def close(self, state: str) -> None:
        """Write what is not written yet."""
        self.writer.close()
