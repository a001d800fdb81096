"""A planned test: which images of which folders, the label policy, the options, and the folder of the results. Tests
with other options, or of other data with the same name, have folders of their own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ribcage.bundle import history
from ribcage.bundle.io import Bundle, find_bundle
from ribcage.bundle.spec import DEFAULT_RULE, ModelSpec
from ribcage.data import dataset_folder, selection
from ribcage.data.collection import Datasets
from ribcage.data.label_policy import Policy
from ribcage.evaluation import leakage
from ribcage.metrics.evaluation import Protocol
from ribcage.metrics.evaluation_context import EvaluatedData, EvaluatedModel, EvaluationContext, LeakageCheck, LeftOut
from ribcage.metrics.evaluation_file import METRICS_FILE
from ribcage.runtime import files
from ribcage.runtime.remote import cache
from ribcage.runtime.remote.addresses import address_text


@dataclass(frozen=True)
class Rules:
    """Options of a test, as `evaluate` takes them."""

    run: Path
    split: str = "test"
    frontal: bool = False
    out: Path | None = None
    ten_crop: bool = False
    protocol: Protocol = "honest"
    policy: str = ""
    rule: str = DEFAULT_RULE
    drop_shared: tuple[str, ...] = ()
    allow_leak: bool = False

    def changed(self, named: str, default: str) -> list[str]:
        """[named] if the value differs from the default, else []."""
        return [named] if named != default else []

    @property
    def words(self) -> list[str]:
        """Values that differ from the defaults, for the name of the results folder."""
        return [
            *self.changed(self.protocol, "honest"),
            *["frontal"] * self.frontal,
            *["unseen"] * bool(self.drop_shared),
            *["ten-crop"] * self.ten_crop,
            *["leak"] * self.allow_leak,
            *self.changed(self.rule, DEFAULT_RULE),
            *self.changed(self.policy, ""),
        ]


@dataclass(frozen=True)
class PlannedTest:
    """The images of a test, the label policy, and the folder of the results."""

    rules: Rules
    spec: ModelSpec
    datasets: Datasets
    rows: np.ndarray
    """Row numbers over all folders."""
    policy: Policy
    left: LeftOut = field(default_factory=LeftOut)
    """Images left out because the model was trained or selected on them."""

    @classmethod
    def of(cls, rules: Rules, spec: ModelSpec, folders: Sequence[str | Path]) -> "PlannedTest":
        """The test of a split of these folders. The label policy is that of `rules`, else that of the model's
        validation."""
        datasets = Datasets.open(folders)
        selection.distinct(datasets)
        rows = split_rows(datasets, rules.split, rules.frontal)
        known = [*spec.findings, *(name for each in datasets for name in each.index.findings)]
        policy = Policy.parse(
            rules.policy or validation_policy(spec) or "ignore", known, datasets.names if rules.policy else None
        )
        return cls(rules, spec, datasets, rows, replace(policy, readers=policy.settled.readers))

    def unseen(self, model: Bundle) -> "PlannedTest":
        """The test without images and patients of the model's training data, if --drop-shared was passed here or in
        training."""
        rules = self.rules
        if strange := [name for name in rules.drop_shared if name != rules.split]:
            raise ValueError(
                f"--drop-shared must name the tested split, {rules.split}, not {strange[0]}. Pass --drop-shared "
                f"{rules.split}."
            )
        in_training = self.spec.training.option("drop_shared")
        dropped = in_training if isinstance(in_training, list) else []
        if not rules.drop_shared and (rules.allow_leak or rules.split not in dropped):
            return self
        rows, left = leakage.unseen(model.provenance, self.datasets, self.rows)
        return replace(self, rows=rows, left=left)

    def leakage(self, model: Bundle) -> LeakageCheck:
        """The leakage check of these images; LeakError on overlap that is not allowed."""
        return leakage.check_leakage(
            model.provenance,
            self.datasets,
            self.rows,
            allow=self.rules.allow_leak,
            selected=self.rules.protocol == "peers",
        )

    @property
    def name(self) -> str:
        """Names of the datasets."""
        return " + ".join(dict.fromkeys(dataset.index.name for dataset in self.datasets))

    @cached_property
    def key(self) -> str:
        """Key of the test: equal for tests of the same images with the same options."""
        rules = self.rules
        decide = {"protocol": rules.protocol, "ten_crop": rules.ten_crop, "rule": rules.rule}
        return leakage.key_of(self.datasets, self.rows, rules.split, {**decide, "policy": str(self.policy)})

    def folder(self) -> Path:
        """Folder of the results; results of another test are never overwritten."""
        rules, key = self.rules, self.key
        history.load_tests(find_bundle(rules.run))  # reports a damaged history before the evaluation runs
        if rules.out is not None:
            if key_in(rules.out) not in ("", key):
                raise ValueError(
                    f"{address_text(rules.out)} contains the results of another test, with other data or options. Pass "
                    f"another --out."
                )
            return rules.out
        words = [self.name.replace(" + ", "+"), rules.split, *rules.words]
        called = re.sub(r"[^\w.+-]+", "-", "-".join(words)).strip(".-")
        folder = (
            rules.run / "evaluation" / called.encode()[:200].decode(errors="ignore")
        )  # file systems allow 255 bytes
        return folder if key_in(folder) in ("", key) else folder.with_name(f"{folder.name}-{key[:6]}")

    def baseline_rows(self) -> tuple[str, np.ndarray]:
        """Description and rows of the images that baselines are fitted to: training images of the same folders, else
        validation images; "" and no rows if there are neither."""
        for split in ("train", "val"):
            if self.rules.split not in (split, "all") and split in self.datasets.splits:
                rows = self.datasets.rows_of(split)
                return f"{len(rows):,} {split} images of the same folders", rows
        return "", np.empty(0, np.int64)

    def lateral(self) -> int:
        """Number of images that are not known to be frontal, if the model was trained on frontal images only."""
        if self.rules.frontal or not self.spec.training.option("frontal"):
            return 0
        return int((~self.datasets.frontal[split_rows(self.datasets, self.rules.split, False)]).sum())

    def context(self, findings: Sequence[str], command: str) -> EvaluationContext:
        """What was tested, on which data, and the command to repeat it. findings: those with labels."""
        spec = self.spec
        named = ("name", "findings", "size", "stored", "fit", "channels", "loss", "data", "temperature")
        facts = ("name", "source", "licence", "contents", "size", "fit", "linked")
        return EvaluationContext(
            run=address_text(self.rules.run),
            model=EvaluatedModel(
                **{name: getattr(spec, name) for name in named},
                leak=spec.training.leak or "",
                splits=tuple(training_splits(spec)),
            ),
            data=tuple(
                EvaluatedData(folder=address_text(one.folder), **{name: getattr(one.facts, name) for name in facts})
                for one in self.datasets
            ),
            split=self.rules.split,
            ten_crop=self.rules.ten_crop,
            policy=str(self.policy),
            model_policy=validation_policy(spec),
            not_tested=tuple(name for name in spec.findings if name not in findings),
            others=self.lateral(),
            left=self.left,
            command=command,
            versions=dataset_folder.versions(),
        )


def split_rows(datasets: Datasets, split: str, frontal: bool) -> np.ndarray:
    """The rows of a split over all folders; ValueError lists the splits that exist."""
    rows = np.arange(datasets.total) if split == "all" else np.flatnonzero(datasets.column("split") == split)
    if not len(rows):
        there = ", ".join(f"{name or 'no split'} {count:,}" for name, count in datasets.splits.items())
        raise ValueError(f"The data have no images in split {split!r}. Available splits (number of images): {there}.")
    frontals = rows[datasets.frontal[rows]]
    if frontal and not len(frontals):
        raise ValueError(
            f"--frontal leaves no image to test, because no image of split {split!r} is known to be frontal. Leave out "
            f"--frontal."
        )
    return frontals if frontal else rows


def validation_policy(spec: ModelSpec) -> str:
    """The label policy of the model's validation; "" if unknown."""
    return spec.training.policy or ""


def training_splits(spec: ModelSpec) -> list[str]:
    """The model's training and validation splits."""
    return [str(spec.training.option(name, name)) for name in ("train", "val")]


def key_in(folder: Path) -> str:
    """The key of the test whose results are in a folder; "" if there are none, "?" if the key cannot be read."""
    try:
        file = cache.local_file(folder, METRICS_FILE)
    except FileNotFoundError:
        return ""
    if not file.exists():
        return ""
    try:
        return str(files.read_json(file)["test"]["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return "?"
