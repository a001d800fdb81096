"""Teachers: whom a student learns from – finished models that see what it sees, or a table of what one has said."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ribcage import bundle, columns, distributed, evaluation, inference, metrics, tables
from ribcage import findings as vocabulary
from ribcage.bundle import Bundle
from ribcage.loader import Batch
from ribcage.methods.distil import Answer
from ribcage.provenance import Provenance
from ribcage.store import Store
from ribcage.validation import known_labels

Weigh = Literal["mean", "auroc"]
SUREST = 1e-6
"""A probability nearer to 0 or 1 than this counts as this."""
AFFIXES = ("prob_", "p_", "pred_", "_prob", "_pred", "_probability", "_score")


class Live:
    """A finished model that sees the same augmented picture as the student, at its own size and by its own scale."""

    def __init__(
        self,
        opened: Bundle,
        findings: Sequence[str],
        weight: Tensor,
        *,
        view: int,
        scale: tuple[float, float],
        device: torch.device,
    ) -> None:
        self.method = opened.method.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        self.model, self.weight, self.view, self.scale = opened.model, weight, view, scale
        self.dim = opened.method.backbone.dim
        self.places = [findings.index(name) for name in opened.model.findings if name in findings]
        self.own = [place for place, name in enumerate(opened.model.findings) if name in findings]
        self.count = len(findings)

    def __call__(self, batch: Batch, views: list[Tensor], inside: bool) -> Answer:
        """Logits after its temperature; features and maps if they are asked for."""
        model, backbone = self.model, self.method.backbone
        shown = (views[self.view][:, :1] * self.scale[1] + self.scale[0] - model.mean) / model.std
        with torch.no_grad():
            shown = shown.expand(-1, model.channels, -1, -1).contiguous(memory_format=torch.channels_last)
            hidden = backbone.hidden(shown)
            features = backbone.pool(hidden)
            said = calibrated(self.method.head(features).float(), model, len(self.own) == self.count)
            logits = said.new_full((len(said), self.count), torch.nan)
            logits[:, self.places] = said[:, self.own]
            maps = backbone.grid(hidden, (shown.shape[2], shown.shape[3])) if inside else None
        return Answer(logits, features if inside else None, maps)


class Stored:
    """What somebody has said of pictures, by their rows."""

    dim = 0

    def __init__(self, logits: np.ndarray, weight: Tensor) -> None:
        self.logits, self.weight = torch.from_numpy(logits), weight

    def __call__(self, batch: Batch, views: list[Tensor], inside: bool) -> Answer:
        """The stored logits."""
        return Answer(self.logits[batch.rows.cpu()].to(batch.labels.device))


def calibrated(logits: Tensor, model: bundle.Model, whole: bool = False) -> Tensor:
    """(N, F) log-odds after temperature. Of findings that exclude each other they stay as the softmax wants them if the
    student learns them all."""
    if model.temperature:
        logits = logits / logits.new_tensor(model.temperature)
    if model.loss != evaluation.EXCLUSIVE or whole:
        return logits
    others = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    return logits - logits[:, None].masked_fill(others, -torch.inf).logsumexp(2)


# ---- opening them


def is_table(name: str) -> bool:
    """Whether a teacher is named by a table of predictions and not by a folder."""
    return Path(name).suffix in (".csv", ".parquet", ".gz", ".tsv", ".txt") and not Path(name).is_dir()


def seen(names: Sequence[str]) -> Provenance:
    """What teachers have seen: who learns from them has seen it too."""
    found = Provenance.nothing()
    for name in names:
        found = found | bundle.seen(name)
    return found


def told(
    opened: Bundle, stores: Sequence[Store], rows: np.ndarray, findings: Sequence[str], **how: object
) -> np.ndarray:
    """(all rows, F) what a model says of plain pictures, asked once; NaN elsewhere. All ranks must call it."""
    said = inference.predict(opened.method, stores, rows, model=opened.model, label="teach", **how)  # type: ignore[arg-type]
    model, whole = opened.model, set(opened.model.findings) == set(findings)
    answers = np.full((sum(map(len, stores)), len(findings)), np.nan, np.float32)
    for place, name in enumerate(model.findings):
        if name in findings and len(said.rows):
            logits = calibrated(torch.from_numpy(said.logits), model, whole)
            answers[said.rows, list(findings).index(name)] = logits[:, place].numpy()
    return np.asarray(distributed.from_first(answers))


def validated(model: bundle.Model, findings: Sequence[str]) -> np.ndarray:
    """(F,) the AUROC that a model reached in its validation; NaN where it has none."""
    scores = model.metrics.get("validation", {})
    return np.array([scores.get(f"auroc_{name}", np.nan) for name in findings], np.float64)


def scored(answers: np.ndarray, stores: Sequence[Store], rows: np.ndarray, findings: Sequence[str]) -> np.ndarray:
    """(F,) the AUROC that stored answers reach on these rows."""
    there = rows[~np.isnan(answers[rows]).all(axis=1)]
    if not len(there):
        return np.full(len(findings), np.nan)
    labels = np.where(np.isnan(answers[there]), np.nan, known_labels(stores, there, findings))
    return np.asarray(metrics.auroc(np.nan_to_num(answers[there]), labels), np.float64)


def weights(aurocs: Sequence[np.ndarray], weigh: Weigh) -> list[Tensor]:
    """(F,) for each teacher: 1, or how far it was above chance in validation; where nobody was, all count alike."""
    above = np.clip(np.nan_to_num(np.stack(aurocs), nan=0.5) - 0.5, 0, None)  # (K, F)
    above[:, above.sum(axis=0) == 0] = 1.0
    chosen = above if weigh == "auroc" else np.ones_like(above)
    return [torch.from_numpy(one.astype(np.float32)) for one in chosen]


# ---- tables


def table(file: Path) -> tuple[pd.Series, pd.DataFrame]:
    """Names of pictures, and log-odds of findings, from a table of predictions: ours or anybody's."""
    rows = pd.read_parquet(file) if file.suffix == ".parquet" else tables.sniffed(file)
    roles = columns.roles([str(name) for name in rows], {})
    ours = {name: f"{name}{inference.LABEL}" in rows for name in map(str, rows)}
    named = {str(name): meant(str(name)) for name in rows if ours[str(name)] or not any(ours.values())}
    chosen = {name: finding for name, finding in named.items() if finding}
    if "path" not in roles or not chosen:
        lacks = "a column with the names of pictures" if "path" not in roles else "a column named after a finding"
        raise ValueError(f"{file} is no table of predictions: it lacks {lacks}. {columns.among(list(map(str, rows)))}")
    said = rows[list(chosen)].apply(lambda column: pd.to_numeric(column.replace("", np.nan), errors="coerce"))
    lowest, highest = said.min().min(), said.max().max()
    if not (lowest >= 0 and highest <= 1):
        raise ValueError(f"{file} must hold probabilities from 0 to 1; it holds {lowest:g} to {highest:g}.")
    p = said.clip(SUREST, 1 - SUREST).to_numpy(np.float64)
    odds = pd.DataFrame(np.log(p) - np.log1p(-p), columns=list(chosen.values()), index=rows.index)
    return rows[roles["path"]].astype("str"), odds.T.groupby(level=0, sort=False).mean().T


def meant(name: str) -> str:
    """The finding a column of predictions is about, or ""."""
    for affix in ("", *AFFIXES):
        word = name.removesuffix(affix) if affix.startswith("_") else name.removeprefix(affix)
        if vocabulary.known(word):
            return vocabulary.canonical(word)
    return ""


def read(file: Path, stores: Sequence[Store], findings: Sequence[str]) -> np.ndarray:
    """(all rows, F) the log-odds that a table has for the pictures of these sets, NaN where it says nothing.

    A picture is known by its path, else by its file's name if no two have it, with or without its ending."""
    names, odds = table(file)
    paths = pd.concat([store.index.table["path"].astype("str") for store in stores], ignore_index=True)
    place = pd.Series(-1, index=names.index)
    for part in (lambda path: path, _name, _stem):
        keys, wanted = paths.map(part), names.map(part)
        once = ~keys.duplicated(keep=False)
        rows = pd.Series(np.flatnonzero(once), index=keys[once])
        place = place.where(place >= 0, wanted.map(rows).fillna(-1).astype(int))
    hit = place.to_numpy() >= 0
    if not hit.any():
        raise ValueError(
            f"{file} speaks of none of these pictures: it has {names.iloc[0]!r} …, the data {paths.iloc[0]!r} …"
        )
    answers = np.full((len(paths), len(findings)), np.nan, np.float32)
    for column, name in enumerate(findings):
        if name in odds:
            answers[place.to_numpy()[hit], column] = odds[name].to_numpy(np.float32)[hit]
    return answers


def spoken(answers: np.ndarray, rows: np.ndarray) -> int:
    """Of how many of these rows somebody says something."""
    return int((~np.isnan(answers[rows])).any(axis=1).sum())


def _name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _stem(path: str) -> str:
    return tables.SUFFIX.sub("", _name(path))
