"""Probing: how much information frozen features have, measured by two simple classifiers trained on fractions of the
labels.

Logistic regression, one per finding:  min_w  mean_n l(w.x_n + b, t_n) + strength / 2 |w|^2,  x standardised. Nearest
neighbours, as in Wu et al. 2018, https://arxiv.org/abs/1805.01978: the k most similar images vote with weight
exp(cosine / 0.07). With query pooling, also attention over patches or cells (`attention_probe.py`). Strength and k are
selected for each finding on validation images, never on test images.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 – the usual name
from torch import Tensor

from ribcage import metrics
from ribcage.data import selection
from ribcage.data.batch import Batch
from ribcage.data.collection import Datasets
from ribcage.data.label_policy import Policy
from ribcage.data.loader import Loader
from ribcage.imaging.augment import plain_view
from ribcage.inference.forward_pass import batch_outputs
from ribcage.models.backbone import Backbone
from ribcage.models.block_features import block_features, refuse_blocks
from ribcage.runtime import files
from ribcage.runtime.devices import autocast
from ribcage.training.attention_probe import attended
from ribcage.training.logistic import logistic

STRENGTHS = (10.0, 1.0, 0.1, 0.01, 0.001, 0.0001)
"""Strongest first; ties are resolved in favour of the first."""
NEIGHBOURS = (200, 100, 50, 20, 10, 5)
TEMPERATURE = 0.07
Scores = tuple[np.ndarray, np.ndarray]
"""Scores (N, F) of the validation and of the test images, with one setting."""
_BLOCK = 1024  # queries per matrix product


@dataclass(frozen=True)
class FeatureTable:
    """Features and labels of the images of one split."""

    features: np.ndarray
    """(N, D) float32."""
    labels: np.ndarray
    """(N, F) 1, 0 and NaN (unknown)."""
    rows: np.ndarray
    """(N,) rows of the `Datasets`."""
    cells: np.ndarray | None = None
    """(N, T, D) float16: the features of each patch or cell, if the backbone has query pooling; `features` is their
    mean."""

    def take(self, places: np.ndarray) -> "FeatureTable":
        """The images at these positions."""
        cells = None if self.cells is None else self.cells[places]
        return FeatureTable(self.features[places], self.labels[places], self.rows[places], cells)


@dataclass(frozen=True)
class Score:
    """Test AUROC of one classifier, trained on one random share of the patients."""

    classifier: str
    share: float
    seed: int
    images: int
    """Number of training images."""
    auroc: tuple[float, ...]
    """Per finding; NaN if a class is missing in training or test."""

    @property
    def mean(self) -> metrics.MacroMean:
        """Mean over the findings for which it is defined."""
        return metrics.macro_mean(np.array(self.auroc))


@dataclass(frozen=True)
class ScoreSummary:
    """Mean AUROC over the findings, summarised over several random draws of a share of the patients."""

    classifier: str
    share: float
    draws: int
    images: float
    """Mean number of training images."""
    mean: float
    sd: float
    """Standard deviation over the draws; NaN for a single one."""
    minimum: float
    maximum: float
    findings: int
    """Number of findings that are defined in every draw; the mean is over these."""


def extract(
    backbone: Backbone,
    loader: Loader,
    device: torch.device,
    label: str = "",
    dtype: torch.dtype = torch.float32,
    blocks: int = 1,
) -> FeatureTable:
    """Features and labels of the images of a loader, from the last blocks; the backbone is not changed."""
    backbone = backbone.to(device).eval()
    refuse_blocks(backbone, blocks)
    if backbone.pools_by_query:
        _refuse_memory(backbone, loader, device, blocks)

    def compute(batch: Batch) -> tuple[np.ndarray, np.ndarray | None]:
        shown = batch.views[0].to(device, memory_format=torch.channels_last)
        with autocast(device, dtype):
            found = block_features(backbone, shown, blocks).float()
        if found.ndim == 2:
            return found.cpu().numpy(), None
        return found.mean(1).cpu().numpy(), found.clamp(-65504, 65504).half().cpu().numpy()

    found = list(batch_outputs(loader, compute, label))
    features = np.concatenate([one for one, _ in found])
    cells = np.concatenate([one for _, one in found if one is not None]) if backbone.pools_by_query else None
    if not np.isfinite(features).all():
        raise ValueError(
            f"The features of {backbone.name} contain NaN or infinity: its weights are damaged, or they were trained "
            f"with a different input normalisation."
        )
    return FeatureTable(features, loader.labels(0, loader.rows), loader.rows, cells)


def _refuse_memory(backbone: Backbone, loader: Loader, device: torch.device, blocks: int) -> None:
    """Raise if the features of all cells do not fit into the free memory."""
    with torch.inference_mode():
        one = block_features(backbone, torch.zeros(1, loader.channels, *loader.views[0].shape, device=device), blocks)
    needed, free = 2 * one.numel() * len(loader.rows), os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if 2 * needed > free:  # twice, while the batches are joined
        raise ValueError(
            f"The features of all cells of {len(loader.rows):,} images need {files.format_bytes(2 * needed)} of "
            f"memory, and {files.format_bytes(free)} are free. Use a smaller --size, fewer --layers or --pool avg."
        )


class LoaderOptions(TypedDict, total=False):
    """Further options of a `Loader`."""

    batch: int
    channels: int
    normalise: tuple[float, float] | None
    threads: int | None
    device: torch.device | str
    policy: Policy


def plain_loader(
    data: Datasets,
    rows: np.ndarray,
    size: tuple[int, int],
    findings: Sequence[str] | None,
    **options: Unpack[LoaderOptions],
) -> Loader:
    """A loader of each image once, without augmentation."""
    return Loader(data, [plain_view(size)], rows=rows, findings=findings, shuffle=False, **options)


def scores(
    data: Datasets, train: FeatureTable, val: FeatureTable, test: FeatureTable, shares: Sequence[float], seeds: int
) -> Iterator[Score]:
    """Test AUROC of both classifiers at every share, for several random draws of patients; one for all patients."""
    for share in shares:
        for seed in range(seeds if share < 1 else 1):
            chosen = selection.share_of_patients(data, train.rows, share, seed)
            part = train.take(np.isin(train.rows, chosen))
            for name, read in classifiers(train).items():
                found = chosen_auroc(read(part, val, test), val.labels, test.labels)
                yield Score(name, share, seed, len(part.rows), tuple(np.where(two_classes(part.labels), found, np.nan)))


def summarise_scores(found: Sequence[Score]) -> list[ScoreSummary]:
    """One summary per share and classifier."""
    keys = dict.fromkeys((score.share, score.classifier) for score in found)
    return [_summary([score for score in found if (score.share, score.classifier) == key]) for key in keys]


def _summary(draws: Sequence[Score]) -> ScoreSummary:
    means = np.array([score.mean.mean for score in draws])
    defined = (~np.isnan([score.auroc for score in draws])).all(axis=0)
    return ScoreSummary(
        classifier=draws[0].classifier,
        share=draws[0].share,
        draws=len(draws),
        images=float(np.mean([score.images for score in draws])),
        mean=float(means.mean()),
        sd=float(means.std(ddof=1)) if len(means) > 1 else float("nan"),
        minimum=float(means.min()),
        maximum=float(means.max()),
        findings=int(defined.sum()),
    )


def chosen_auroc(scores_of_settings: Sequence[Scores], val: np.ndarray, test: np.ndarray) -> np.ndarray:
    """(F,) test AUROC of each finding with the setting that is best on validation images."""
    return metrics.auroc(chosen_scores(scores_of_settings, val), test)


def chosen_scores(scores_of_settings: Sequence[Scores], val: np.ndarray) -> np.ndarray:
    """(N, F) scores of the test images, for each finding with the setting that is best on validation images.

    scores_of_settings: for every setting the scores (N, F) of validation and test images. A finding without both
    classes in validation uses the setting that is best for the others on average.
    """
    validation = np.stack([metrics.auroc(scores, val) for scores, _ in scores_of_settings])  # (settings, F)
    judged = ~np.isnan(validation).any(axis=0)
    if not judged.any():
        raise ValueError(
            "No finding has both positive and negative labels in the validation split, so the regularisation "
            "strength and the number of nearest neighbours cannot be selected. Use another --val."
        )
    common = validation[:, judged].mean(axis=1).argmax()
    best = np.where(judged, np.where(judged, validation, 0).argmax(axis=0), common)
    tested = np.stack([scores for _, scores in scores_of_settings])
    return np.asarray(tested[best, :, np.arange(len(best))].T)


def two_classes(labels: np.ndarray) -> np.ndarray:
    """(F,) bool: whether a finding has positive and negative labels."""
    return (labels == 1).any(axis=0) & (labels == 0).any(axis=0)


# ---- logistic regression


def regressed(
    train: FeatureTable, val: FeatureTable, test: FeatureTable, strengths: Sequence[float] = STRENGTHS
) -> list[Scores]:
    """Scores of logistic regression for every strength."""
    mean, std = train.features.mean(0, dtype=np.float64), train.features.std(0, dtype=np.float64)
    std[std < 1e-12] = 1
    x, first, second = (torch.from_numpy((part.features - mean) / std) for part in (train, val, test))
    fitted = logistic(x, torch.from_numpy(train.labels.astype(np.float64)), strengths)
    return [((first @ w + b).numpy(), (second @ w + b).numpy()) for w, b in fitted]


# ---- nearest neighbours


def neighbours(train: FeatureTable, val: FeatureTable, test: FeatureTable) -> list[Scores]:
    """Scores of nearest neighbours for every number of neighbours."""
    keys, labels = _directions(train.features), torch.from_numpy(train.labels.astype(np.float64))
    first, second = (_votes(_directions(part.features), keys, labels) for part in (val, test))
    return list(zip(first, second, strict=True))


def _directions(features: np.ndarray) -> Tensor:
    return F.normalize(torch.from_numpy(features), dim=1)


def _votes(queries: Tensor, keys: Tensor, labels: Tensor) -> list[np.ndarray]:
    """(N, F) for every number of neighbours: their weighted share of positives, slightly shrunk to the overall
    share."""
    known = (~labels.isnan()).double()
    positive = labels.nan_to_num()
    overall = positive.sum(0) / known.sum(0).clamp(min=1)
    votes: list[list[np.ndarray]] = [[] for _ in NEIGHBOURS]
    for block in queries.split(_BLOCK):
        cosine, place = (block @ keys.T).topk(min(max(NEIGHBOURS), len(keys)), dim=1)
        weight = ((cosine.double() - 1) / TEMPERATURE).exp()[:, :, None]  # (n, k, 1)
        yes, all_of_them = ((weight * values[place]).cumsum(1) for values in (positive, known))
        for number, found in zip(NEIGHBOURS, votes, strict=True):
            last = min(number, len(keys)) - 1
            found.append(((yes[:, last] + 1e-6 * overall) / (all_of_them[:, last] + 1e-6)).numpy())
    return [np.concatenate(found) for found in votes]


CLASSIFIERS: dict[str, Callable[[FeatureTable, FeatureTable, FeatureTable], list[Scores]]] = {
    "logistic": regressed,
    "kNN": neighbours,
}


def attention(train: FeatureTable, val: FeatureTable, test: FeatureTable) -> list[Scores]:
    """Scores of query pooling for every strength."""
    assert train.cells is not None and val.cells is not None and test.cells is not None
    return [(first, second) for first, second in attended(train.cells, train.labels, (val.cells, test.cells))]


def classifiers(train: FeatureTable) -> dict[str, Callable[[FeatureTable, FeatureTable, FeatureTable], list[Scores]]]:
    """The classifiers for these features: attention only where there are cells."""
    return CLASSIFIERS if train.cells is None else {**CLASSIFIERS, "attention": attention}


class ProbeSummary(TypedDict):
    """A `ScoreSummary` as JSON; undefined numbers are null."""

    classifier: str
    share: float
    draws: int
    images: float
    mean: float | None
    sd: float | None
    minimum: float | None
    maximum: float | None
    findings: int


class ProbeScore(TypedDict):
    """A `Score` as JSON."""

    classifier: str
    share: float
    seed: int
    images: int
    mean: float | None
    auroc: dict[str, float | None]
    """Per finding."""


class ProbeScores(TypedDict):
    """All results of a probe."""

    findings: list[str]
    summary: list[ProbeSummary]
    scores: list[ProbeScore]


class ProbeResult(ProbeScores):
    """The content of probe.json."""

    leaks: list[dict[str, object]]
    """Leakage checks of the model's training data against the splits."""
    images: list[int]
    """Number of training, validation and test images."""
    model: str
    weights: str
    data: list[str]
    split: str
    command: str
    versions: dict[str, str]


def probe_scores(found: Sequence[Score], findings: Sequence[str]) -> ProbeScores:
    """All results as JSON; undefined numbers are null."""

    def number(value: float) -> float | None:
        return None if value != value else float(value)

    return {
        "findings": list(findings),
        "summary": [
            {
                "classifier": summary.classifier,
                "share": summary.share,
                "draws": summary.draws,
                "images": summary.images,
                "mean": number(summary.mean),
                "sd": number(summary.sd),
                "minimum": number(summary.minimum),
                "maximum": number(summary.maximum),
                "findings": summary.findings,
            }
            for summary in summarise_scores(found)
        ],
        "scores": [
            {
                "classifier": score.classifier,
                "share": score.share,
                "seed": score.seed,
                "images": score.images,
                "mean": number(score.mean.mean),
                "auroc": {name: number(value) for name, value in zip(findings, score.auroc, strict=True)},
            }
            for score in found
        ],
    }
