"""Label policy: turns uncertain and blank labels into training targets, when a batch is made.

A policy has a treatment for all findings, exceptions for single findings, and the same again for single datasets. What
is more specific takes precedence: a dataset's finding, a dataset, a finding, all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ribcage.data.findings import closest_finding, vocabulary_finding
from ribcage.runtime.spelling import nearest_word

# Target range of an uncertain label, from which it is drawn. The smoothed ranges are those of Pham et al. 2021
# (https://arxiv.org/abs/1911.06475): U-Ones+LSR and U-Zeros+LSR.
TREATMENTS = {
    "ones": (1.0, 1.0),
    "zeros": (0.0, 0.0),
    "ignore": (np.nan, np.nan),
    "ones+lsr": (0.55, 0.85),
    "zeros+lsr": (0.0, 0.3),
}
BLANKS = ("ignore", "zeros")
READERS = ("majority", "any", "each")
"""How the labels and boxes of several readers of an image are combined (`reader_policy`)."""


@dataclass(frozen=True)
class Policy:
    """Targets for labels of -1 (uncertain), blank ones (not mentioned) and those of several readers, applied when a
    batch is made.

    As text: `ones`, `zeros+lsr,blank=zeros`, `ignore,Edema=ones`, `ignore,readers=any`, `ones,chexpert:Edema=zeros`, or
    a preset such as `competition`.
    """

    uncertain: str = "ignore"
    blank: str = "ignore"
    """`zeros` is the CheXpert convention: findings that a report does not mention are absent."""
    exceptions: tuple[tuple[str, str], ...] = ()
    """(finding, treatment) where it differs from `uncertain`."""
    readers: str = "majority"
    """One of READERS."""
    datasets: tuple[tuple[str, str, str], ...] = ()
    """(dataset, what, treatment), where `what` is a finding, `blank`, or "" for uncertain labels of all findings."""

    def __post_init__(self) -> None:
        problems = [f"treatment {each!r}" for each in self._treatments() if each not in TREATMENTS]
        blanks = [self.blank, *(treatment for _, what, treatment in self.datasets if what == "blank")]
        problems += [f"blank={each!r}" for each in blanks if each not in BLANKS]
        problems += [] if self.readers in READERS else [f"readers={self.readers!r}"]
        if problems:
            raise ValueError(
                f"The label policy contains invalid values: {', '.join(problems)}. Valid values are "
                f"{', '.join(TREATMENTS)} for uncertain labels, {' and '.join(BLANKS)} for blank labels, and "
                f"{', '.join(READERS)} for labels from several readers."
            )

    def __str__(self) -> str:
        parts = [self.uncertain, *(f"{finding}={treatment}" for finding, treatment in self.exceptions)]
        parts += [f"blank={self.blank}"] if self.blank != "ignore" else []
        parts += [f"readers={self.readers}"] if self.readers != "majority" else []
        return ",".join(
            parts + [f"{dataset}:{what}{'=' * bool(what)}{treatment}" for dataset, what, treatment in self.datasets]
        )

    @classmethod
    def parse(cls, text: str, own: Sequence[str] = (), datasets: Sequence[str] | None = None) -> "Policy":
        """Parse the text form; `own` are findings of a dataset outside the vocabulary. With `datasets`, the policy may
        name no others."""
        parts = [part.strip() for part in PRESETS.get(text.strip(), text).split(",")]
        of_one = [part for part in parts if ":" in part and part.partition("=")[0].strip() not in own]
        of_all = cls._of_all(text, [part for part in parts if part not in of_one] or ["ignore"], own)
        entries: dict[tuple[str, str], str] = {}
        problems: list[str] = []
        for part in of_one:
            name, _, rest = (piece.strip() for piece in part.partition(":"))
            rest = PRESETS.get(rest, rest)
            one = cls._of_all(text, rest.split(","), own)
            said = [("", one.uncertain)] * (rest.split(",")[0].strip() in TREATMENTS)
            said += [("blank", one.blank)] * ("blank" in rest) + [*one.exceptions]
            if datasets is not None and name not in datasets:
                near = nearest_word(name, datasets)
                hint = f"; did you mean {near!r}?" if near else ""
                problems.append(f"{part!r} (no dataset has this name{hint})")
            elif not name or not said or any((name, what) in entries for what, _ in said):
                problems.append(repr(part))
            entries |= {(name, what): treatment for what, treatment in said}
        if problems:
            known = f" Datasets: {', '.join(datasets)}." if datasets else ""
            raise ValueError(
                f"The label policy {text!r} has invalid parts: {', '.join(problems)}. A part for one dataset has the "
                f"form DATASET:TREATMENT, DATASET:FINDING=TREATMENT or DATASET:blank=zeros, each at most once.{known}"
            )
        return replace(of_all, datasets=tuple((*key, treatment) for key, treatment in entries.items()))

    @classmethod
    def _of_all(cls, text: str, parts: Sequence[str], own: Sequence[str]) -> "Policy":
        """The policy in the parts for all datasets; `text` is the whole policy, for the message."""
        uncertain, blank, readers = "", "", ""
        exceptions: dict[str, str] = {}
        problems: list[str] = []
        for part in (part.strip() for part in parts):
            name, equals, treatment = (piece.strip() for piece in part.partition("="))
            if equals and name == "blank" and not blank and treatment in BLANKS:
                blank = treatment
            elif equals and name == "readers" and not readers and treatment in READERS:
                readers = treatment
            elif equals and treatment in TREATMENTS and (finding := _finding(name, own)) not in ("", *exceptions):
                exceptions[finding] = treatment
            elif not equals and name in TREATMENTS and not uncertain:
                uncertain = name
            else:
                problems.append(_unclear(part))
        if problems:
            raise ValueError(
                f"The label policy {text!r} has invalid parts: {', '.join(problems)}. A policy is "
                f"{' or '.join(PRESETS)}, or one of {', '.join(TREATMENTS)}. It may be followed by exceptions of the "
                f"form FINDING=TREATMENT, by blank={'|'.join(BLANKS)} and by readers={'|'.join(READERS)}, each at most "
                f"once."
            )
        return cls(uncertain or "ignore", blank or "ignore", tuple(exceptions.items()), readers or "majority")

    def of_dataset(self, dataset: str) -> "Policy":
        """The policy for the labels of one dataset."""
        said = {what: treatment for name, what, treatment in self.datasets if name == dataset}
        exceptions = {} if "" in said else dict(self.exceptions)
        exceptions |= {what: treatment for what, treatment in said.items() if what not in ("", "blank")}
        uncertain, blank = said.get("", self.uncertain), said.get("blank", self.blank)
        return Policy(uncertain, blank, tuple(exceptions.items()), self.readers)

    def treatment(self, finding: str) -> str:
        """Treatment of an uncertain label of this finding."""
        return dict(self.exceptions).get(finding, self.uncertain)

    @property
    def draws(self) -> bool:
        """Whether `apply` needs random numbers."""
        return any(low != high for low, high in (TREATMENTS[each] for each in self._treatments() if each != "ignore"))

    @property
    def settled(self) -> "Policy":
        """The policy of validation and testing, without random numbers: ones+lsr becomes ones, and readers=each becomes
        readers=majority."""
        plain = tuple((finding, treatment.removesuffix("+lsr")) for finding, treatment in self.exceptions)
        readers = "majority" if self.readers == "each" else self.readers
        datasets = tuple((name, what, treatment.removesuffix("+lsr")) for name, what, treatment in self.datasets)
        return Policy(self.uncertain.removesuffix("+lsr"), self.blank, plain, readers, datasets)

    def apply(self, labels: np.ndarray, findings: Sequence[str], draws: np.ndarray | None = None) -> np.ndarray:
        """Targets (N, F) float32, NaN = unknown, from labels 1, 0, -1, NaN and uniform draws of the same shape; the
        parts for single datasets are not applied (`of_dataset`)."""
        if draws is None and self.draws:
            raise ValueError(
                f"The label policy {str(self)!r} draws the targets of uncertain labels at random and needs `draws`, "
                f"one number in [0, 1) per label."
            )
        low, high = np.array([TREATMENTS[self.treatment(finding)] for finding in findings], np.float32).reshape(-1, 2).T
        spread = 0 if draws is None else np.asarray(draws, np.float32) * (high - low)  # (N, F)
        targets = np.where(labels == -1, low + spread, labels).astype(np.float32)
        return np.where(np.isnan(labels), np.float32(0), targets) if self.blank == "zeros" else targets

    def apply_by_dataset(
        self,
        labels: np.ndarray,
        findings: Sequence[str],
        sources: np.ndarray,
        names: Sequence[str],
        draws: np.ndarray | None = None,
    ) -> np.ndarray:
        """`apply` with the policy for each label's dataset, whose place in `names` is in `sources` (N,)."""
        if not self.datasets:
            return self.apply(labels, findings, draws)
        targets = np.empty(labels.shape, np.float32)
        for place, name in enumerate(names):
            own = sources == place
            targets[own] = self.of_dataset(name).apply(labels[own], findings, None if draws is None else draws[own])
        return targets

    def _treatments(self) -> list[str]:
        of_datasets = [treatment for _, what, treatment in self.datasets if what != "blank"]
        return [self.uncertain, *(treatment for _, treatment in self.exceptions), *of_datasets]


IGNORE = Policy()
"""Uncertain and blank labels are unknown."""

# The usual policy for the five findings of the CheXpert competition.
PRESETS = {
    "competition": "ignore,Atelectasis=ones,Edema=ones,"
    "Cardiomegaly=zeros,Consolidation=zeros,Effusion=zeros,blank=zeros"
}


def _finding(name: str, own: Sequence[str]) -> str:
    """The finding that is meant, or "" if unknown."""
    return name if name in own else vocabulary_finding(name)


def _unclear(part: str) -> str:
    """An invalid item of a policy, with the finding or treatment most similar to it."""
    name, _, treatment = (piece.strip() for piece in part.partition("="))
    guess = (
        closest_finding(name) if treatment in TREATMENTS else nearest_word(treatment or name, [*TREATMENTS, *PRESETS])
    )
    return repr(part) + (f" (did you mean {guess}?)" if guess and guess not in (name, treatment) else "")
