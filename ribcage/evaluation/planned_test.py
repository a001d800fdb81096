"""A test before it runs: which images of which folders, under which label policy, by which rules, and the folder of its
results. Tests by other rules, and of other data under the same name, have folders of their own."""

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
from ribcage.data.findings import Policy
from ribcage.evaluation import leakage
from ribcage.metrics.evaluation import Protocol
from ribcage.metrics.evaluation_context import EvaluatedData, EvaluatedModel, EvaluationContext, LeakageCheck, LeftOut
from ribcage.metrics.evaluation_file import METRICS_FILE
from ribcage.runtime import files


@dataclass(frozen=True)
class Rules:
    """How a test is made, as the options of `evaluate` say."""

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

    def changed(self, named: str, usual: str) -> list[str]:
        """The option, where it differs from the usual one."""
        return [named] if named != usual else []

    @property
    def words(self) -> list[str]:
        """What differs from the defaults, as words of a folder's name."""
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
    """The images of a test, what their labels count as, and where its results go."""

    rules: Rules
    spec: ModelSpec
    datasets: Datasets
    rows: np.ndarray
    """Of all folders, counted through."""
    policy: Policy
    left: LeftOut = field(default_factory=LeftOut)
    """Images left out because the model has seen them."""

    @classmethod
    def of(cls, rules: Rules, spec: ModelSpec, folders: Sequence[str | Path]) -> "PlannedTest":
        """The split of these folders, under the policy that was asked for, else that of the model's validation."""
        datasets = Datasets.open(folders)
        selection.distinct(datasets)
        rows = split_rows(datasets, rules.split, rules.frontal)
        known = [*spec.findings, *(name for each in datasets for name in each.index.findings)]
        policy = Policy.parse(rules.policy or validation_policy(spec) or "ignore", known)
        return cls(rules, spec, datasets, rows, policy)

    def unseen(self, model: Bundle) -> "PlannedTest":
        """The same without what the model was trained on, where --drop-shared says so here or did in training."""
        rules = self.rules
        if strange := [name for name in rules.drop_shared if name != rules.split]:
            raise ValueError(f"--drop-shared {strange[0]} is not the tested split: pass --drop-shared {rules.split}.")
        in_training = self.spec.training.option("drop_shared")
        dropped = in_training if isinstance(in_training, list) else []
        if not rules.drop_shared and (rules.allow_leak or rules.split not in dropped):
            return self
        rows, left = leakage.unseen(model.provenance, self.datasets, self.rows)
        return replace(self, rows=rows, left=left)

    def leakage(self, model: Bundle) -> LeakageCheck:
        """What the model has seen of these images; LeakError where that is not allowed."""
        return leakage.check_leakage(
            model.provenance,
            self.datasets,
            self.rows,
            allow=self.rules.allow_leak,
            selected=self.rules.protocol == "peers",
        )

    @property
    def name(self) -> str:
        """Of the datasets."""
        return " + ".join(dict.fromkeys(dataset.index.name for dataset in self.datasets))

    @cached_property
    def key(self) -> str:
        """The same for tests of the same images by the same rules."""
        rules = self.rules
        decide = {"protocol": rules.protocol, "ten_crop": rules.ten_crop, "rule": rules.rule}
        return leakage.key_of(self.datasets, self.rows, rules.split, {**decide, "policy": str(self.policy)})

    def folder(self) -> Path:
        """Where the results go; a test of other data is not overwritten."""
        rules, key = self.rules, self.key
        history.load_tests(find_bundle(rules.run))  # a damaged one is reported before the work
        if rules.out is not None:
            if key_in(rules.out) not in ("", key):
                raise ValueError(f"{rules.out} holds a test of other data or by other rules: pass another --out.")
            return rules.out
        words = [self.name.replace(" + ", "+"), rules.split, *rules.words]
        called = re.sub(r"[^\w.+-]+", "-", "-".join(words)).strip(".-")
        folder = rules.run / "evaluation" / called.encode()[:200].decode(errors="ignore")  # systems allow 255 bytes
        return folder if key_in(folder) in ("", key) else folder.with_name(f"{folder.name}-{key[:6]}")

    def baseline_rows(self) -> tuple[str, np.ndarray]:
        """Images to fit baselines to, described, and their rows: training ones of the same folders, else validation
        ones; "" and none where there are none."""
        for split in ("train", "val"):
            if self.rules.split not in (split, "all") and split in self.datasets.splits:
                rows = self.datasets.rows_of(split)
                return f"{len(rows):,} {split} images of the same folders", rows
        return "", np.empty(0, np.int64)

    def lateral(self) -> int:
        """How many images are not known to be frontal, where the model was trained on frontal ones alone."""
        if self.rules.frontal or not self.spec.training.option("frontal"):
            return 0
        return int((~self.datasets.frontal[split_rows(self.datasets, self.rules.split, False)]).sum())

    def context(self, findings: Sequence[str], command: str) -> EvaluationContext:
        """What was tested, on what, and how to repeat it. findings: those with labels."""
        spec = self.spec
        named = ("name", "findings", "size", "stored", "fit", "channels", "loss", "data", "temperature")
        facts = ("name", "source", "licence", "contents", "size", "fit", "linked")
        return EvaluationContext(
            run=str(self.rules.run),
            model=EvaluatedModel(
                **{name: getattr(spec, name) for name in named},
                leak=spec.training.leak or "",
                splits=tuple(training_splits(spec)),
            ),
            data=tuple(
                EvaluatedData(folder=str(one.folder), **{name: getattr(one.facts, name) for name in facts})
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
    """The rows of the split, counted through; ValueError names the splits that there are."""
    rows = np.arange(datasets.total) if split == "all" else np.flatnonzero(datasets.column("split") == split)
    if not len(rows):
        there = ", ".join(f"{name or 'no split'} {count:,}" for name, count in datasets.splits.items())
        raise ValueError(f"--split {split}: no images. Splits of the data: {there}.")
    frontals = rows[datasets.frontal[rows]]
    if frontal and not len(frontals):
        raise ValueError(f"--frontal: no image of split {split!r} is known to be frontal. Leave out --frontal.")
    return frontals if frontal else rows


def validation_policy(spec: ModelSpec) -> str:
    """The label policy of the model's validation; "" where it is not known."""
    return spec.training.policy or ""


def training_splits(spec: ModelSpec) -> list[str]:
    """The model's training and validation splits."""
    return [str(spec.training.option(name, name)) for name in ("train", "val")]


def key_in(folder: Path) -> str:
    """The key of the test whose results are in a folder; "" where there are none, "?" where it is not known."""
    file = folder / METRICS_FILE
    if not file.exists():
        return ""
    try:
        return str(files.read_json(file)["test"]["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return "?"
