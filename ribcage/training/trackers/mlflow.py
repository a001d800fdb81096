"""MLflow: the SQLite file `mlflow.db` in the run folder, or the server at the address MLFLOW_TRACKING_URI.

A tag with the id of the run identifies it when it is resumed. The client is used directly, because MLflow's `start_run`
would also send the user name and the path of the program.
"""

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ribcage.training.metrics_log import TrackedNumbers
from ribcage.training.trackers.base import PROJECT, TrackedImage, TrackedRun, Tracker

if TYPE_CHECKING:
    from mlflow.entities import Run

TAG = "ribcage.run"
ADDRESS, EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
STATES = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
LARGEST = 1000
"""Numbers that MLflow takes in one call."""
MOST_OPTIONS = 100
"""Options that MLflow takes in one call."""
REFUSED = re.compile(r"[^\w\-. /]")
"""Characters that MLflow refuses in names."""


class MLflow(Tracker):
    """A run of an `MlflowClient`."""

    packages = ("mlflow", "sqlalchemy", "alembic", "sqlparse")

    @classmethod
    def is_local(cls) -> bool:
        """Whether no server is named."""
        return os.environ.get(ADDRESS, "sqlite:").startswith(("sqlite:", "file:"))

    def __init__(self, run: TrackedRun) -> None:
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        from mlflow import MlflowClient
        from mlflow.entities import RunStatus

        own = None if os.environ.get(ADDRESS) else run.folder.absolute()
        self.client = MlflowClient(tracking_uri=f"sqlite:///{own / 'mlflow.db'}" if own else os.environ[ADDRESS])
        name = os.environ.get(EXPERIMENT, PROJECT)
        known = self.client.get_experiment_by_name(name)
        images = (own / "mlflow-artifacts").as_uri() if own else None
        experiment = known.experiment_id if known else self.client.create_experiment(name, artifact_location=images)
        found = self.client.search_runs([experiment], f"tags.`{TAG}` = '{run.id}'", max_results=1)
        begun = found[0] if found else self.client.create_run(experiment, tags={TAG: run.id}, run_name=run.name)
        self.run = begun.info.run_id
        self.client.update_run(self.run, status=RunStatus.to_string(RunStatus.RUNNING))
        self._log_options(begun, run)

    def _log_options(self, begun: "Run", run: TrackedRun) -> None:
        """Log options as parameters; MLflow does not change those, so changes on resuming are tags."""
        from mlflow.entities import Param

        given, there = {name: str(value) for name, value in run.options.items()}, begun.data.params
        params = [Param(name, value) for name, value in given.items() if name not in there]
        for start in range(0, len(params), MOST_OPTIONS):
            self.client.log_batch(self.run, params=params[start : start + MOST_OPTIONS])
        for name, value in given.items():
            if there.get(name, value) != value:
                self.client.set_tag(self.run, f"{name} from step {run.step}", value)

    def log(self, lines: Sequence[TrackedNumbers]) -> None:
        """One metric for each number."""
        from mlflow.entities import Metric

        metrics = [
            Metric(REFUSED.sub("_", name), value, int(1000 * line.time), line.step)
            for line in lines
            for name, value in line.numbers.items()
        ]
        for start in range(0, len(metrics), LARGEST):
            self.client.log_batch(self.run, metrics[start : start + LARGEST])

    def show(self, name: str, images: Sequence[TrackedImage], step: int) -> None:
        """One image for each key, and a text file with all captions, as images have none."""
        for number, image in enumerate(images):
            self.client.log_image(self.run, image.pixels, key=f"{name}/{number:02}", step=step)
        captions = "\n".join(f"{number}. {image.caption}" for number, image in enumerate(images))
        self.client.log_text(self.run, captions, f"captions/{name}.txt")

    def close(self, state: str) -> None:
        """Set the status of the run."""
        self.client.set_terminated(self.run, STATES[state])
