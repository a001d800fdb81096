"""Teachers: whom a student learns from – finished models that see what it sees, or a table of what one has said."""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – everybody's name for it

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
        exclusive: bool = False,
    ) -> None:
        self.method = opened.method.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        self.model, self.weight, self.view, self.scale = opened.model, weight, view, scale
        self.dim = opened.method.backbone.dim
        self.places = [findings.index(name) for name in opened.model.findings if name in findings]
        self.own = [place for place, name in enumerate(opened.model.findings) if name in findings]
        self.count, self.exclusive = len(findings), exclusive

    def __call__(self, batch: Batch, views: list[Tensor], inside: bool) -> Answer:
        """What it says after its temperature; features and maps if they are asked for."""
        model, backbone = self.model, self.method.backbone
        shown = (views[self.view][:, :1] * self.scale[1] + self.scale[0] - model.mean) / model.std
        with torch.no_grad():
            shown = shown.expand(-1, model.channels, -1, -1).contiguous(memory_format=torch.channels_last)
            hidden = backbone.hidden(shown)
            features = backbone.pool(hidden)
            said = calibrated(self.method.head(features).float(), model, self.exclusive)
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


def calibrated(logits: Tensor, model: bundle.Model, exclusive: bool = False) -> Tensor:
    """(N, F) what a model says, after its temperature: log(p / (1 - p)), or log p for a student whose findings exclude
    each other."""
    if model.temperature:
        logits = logits / logits.new_tensor(model.temperature)
    if model.loss != evaluation.EXCLUSIVE:
        return F.logsigmoid(logits) if exclusive else logits
    if exclusive:
        return logits.log_softmax(1)
    others = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    return logits - logits[:, None].masked_fill(others, -torch.inf).logsumexp(2)


# ---- opening them


def is_table(name: str) -> bool:
    """Whether a teacher is named by a table of predictions and not by a folder."""
    return Path(name).suffix in (".csv", ".parquet", ".gz", ".tsv", ".txt") and not Path(name).is_dir()


def seen(name: str) -> Provenance:
    """What a teacher has seen: who learns from it has seen it too. Of a table that 'ribcage evaluate' wrote it is said
    in the run that it lies in."""
    file = Path(name).absolute()
    run = file.parents[2] if len(file.parts) > 3 else file
    inside = is_table(name) and file.parents[1].name == "evaluation" and (run / "bundle" / "model.json").is_file()
    return bundle.seen(str(run) if inside else name)


def told(
    opened: Bundle,
    stores: Sequence[Store],
    rows: np.ndarray,
    findings: Sequence[str],
    *,
    exclusive: bool = False,
    **how: object,
) -> np.ndarray:
    """(all rows, F) what a model says of plain pictures, asked once; NaN elsewhere. All ranks must call it."""
    said = inference.predict(opened.method, stores, rows, model=opened.model, label="teach", **how)  # type: ignore[arg-type]
    model = opened.model
    answers = np.full((sum(map(len, stores)), len(findings)), np.nan, np.float32)
    for place, name in enumerate(model.findings):
        if name in findings and len(said.rows):
            logits = calibrated(torch.from_numpy(said.logits), model, exclusive)
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
    """Paths of pictures by the names of their sets, and log-odds of findings: a table of ours, or of anybody's."""
    rows = _opened(file)
    header = list(rows)
    roles, chosen = columns.roles(header, {}), _answers(header)
    if "path" not in roles or not chosen:
        lacks = "a column with the names of pictures" if "path" not in roles else "a column named after a finding"
        raise ValueError(f"{file} is no table of predictions: it lacks {lacks}. {columns.among(header)}")
    said = pd.DataFrame({name: pd.to_numeric(rows[name], errors="coerce") for name in chosen}, dtype=np.float64)
    lowest, highest = said.min().min(), said.max().max()
    if not (lowest >= 0 and highest <= 1):
        holds = f"{lowest:g} to {highest:g}" if lowest == lowest else "no number at all"
        raise ValueError(f"{file} must hold probabilities from 0 to 1; it holds {holds} in {', '.join(chosen)}.")
    p = said.clip(SUREST, 1 - SUREST).to_numpy()
    odds = pd.DataFrame(np.log(p) - np.log1p(-p), columns=list(chosen.values()))
    sets = rows["set"] if "set" in header else np.full(len(rows), "")
    paths = pd.Series(rows[roles["path"]].to_numpy(), index=pd.Index(sets, dtype="str"), dtype="str")
    return paths.fillna(""), odds.T.groupby(level=0, sort=False).mean().T


def _opened(file: Path) -> pd.DataFrame:
    """All columns of a table, or one line that says what is wrong with the file."""
    import pyarrow as pa

    if file.suffix == ".parquet":
        try:
            rows = pd.read_parquet(file)
        except (pa.ArrowException, ValueError, UnicodeError) as error:
            raise ValueError(f"{file} cannot be read as a table of predictions ({type(error).__name__}).") from None
    else:
        try:
            rows = tables.sniffed(file)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{file} is damaged: {error}.") from None
    texts = [name for name, kind in rows.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    return rows.reset_index(drop=True).astype(dict.fromkeys(texts, "str")).rename(columns=str)


def _answers(header: Sequence[str]) -> dict[str, str]:
    """Column → finding: ours by their labels beside them; of anybody's those called probabilities, if any are."""
    if ours := [name for name in header if f"{name}{inference.LABEL}" in header]:
        return {name: name for name in ours}
    named = {name: finding for name in header if (finding := meant(name))}
    return {name: finding for name, finding in named.items() if not vocabulary.known(name)} or named


def meant(name: str) -> str:
    """The finding a column of predictions is about, or ""."""
    for affix in ("", *AFFIXES):
        word = name.removesuffix(affix) if affix.startswith("_") else name.removeprefix(affix)
        if vocabulary.known(word):
            return vocabulary.canonical(word)
    return ""


def read(file: Path, stores: Sequence[Store], findings: Sequence[str], *, exclusive: bool = False) -> np.ndarray:
    """(all rows, F) what a table says of the pictures of these sets, as `calibrated` has it; NaN where it says nothing.

    A picture is known by its set and path, else by its path, else by its file's name, else by that without its ending;
    by each only where one line of the table and one picture of the data have it: who says what must not be guessed."""
    paths, odds = table(file)
    names = pd.DataFrame({"set": paths.index, "path": paths.to_numpy()})
    own = pd.concat([_pictures(store) for store in stores], ignore_index=True)
    place = np.full(len(names), -1)
    for keys in (_placed, _path, _name, _stem):
        theirs, known = keys(names), keys(own)
        rows = pd.Series(known.index, index=known)[~known.duplicated(keep=False).to_numpy()]
        found = theirs.mask(theirs.duplicated(keep=False)).map(rows).fillna(-1).to_numpy(np.int64)
        place = np.where(place >= 0, place, found)
    hit = place >= 0
    if not hit.any():
        raise ValueError(
            f"{file} speaks of none of these pictures: it has {paths.iloc[0]!r} …, the data {own['path'].iloc[0]!r} …"
        )
    answers = np.full((len(own), len(findings)), np.nan, np.float32)
    for column, name in enumerate(findings):
        if name in odds:
            said = odds[name].to_numpy()[hit]
            answers[place[hit], column] = -np.logaddexp(0, -said) if exclusive else said
    return answers


def spoken(answers: np.ndarray, rows: np.ndarray) -> int:
    """Of how many of these rows somebody says something."""
    return int((~np.isnan(answers[rows])).any(axis=1).sum())


def _pictures(store: Store) -> pd.DataFrame:
    """Set and path of its pictures."""
    return pd.DataFrame({"set": store.index.name, "path": store.index.table["path"].astype("str")})


def _placed(names: pd.DataFrame) -> pd.Series:
    return names["set"] + "\0" + names["path"]


def _path(names: pd.DataFrame) -> pd.Series:
    return names["path"]


def _name(names: pd.DataFrame) -> pd.Series:
    return names["path"].str.replace("\\", "/", regex=False).str.rpartition("/")[2]


def _stem(names: pd.DataFrame) -> pd.Series:
    return _name(names).str.replace(tables.SUFFIX, "", regex=True)
