"""Teachers: whom a student learns from – finished models that see what it sees, or a table of what one has said."""

import gzip
import hashlib
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – everybody's name for it

from ribcage import metrics
from ribcage.bundle.init import initial_provenance, initial_spec
from ribcage.bundle.io import WEIGHTS_FILE, Classifier, find_bundle
from ribcage.bundle.spec import EXCLUSIVE, ModelSpec
from ribcage.data import findings as vocabulary
from ribcage.data.batch import Batch
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.findings import IGNORE, Policy
from ribcage.data.provenance import Provenance
from ribcage.data.readers import columns, tables
from ribcage.inference import predictions
from ribcage.methods.distil import Answer
from ribcage.runtime import distributed, parquet, spreadsheet

Weigh = Literal["mean", "auroc"]
SUREST = 1e-6
"""A probability nearer to 0 or 1 than this counts as this."""
GENERIC = re.compile(r"(view\d+|image|img|picture|x-?ray|cxr|chest|scan|frontal|lateral|pa|ap|[\W_])+", re.IGNORECASE)
"""Names that anybody may give to a file, without its ending: it takes a folder to tell which."""
FACTS = "model.json"
OURS = (predictions.LOGIT, predictions.LABEL)
AFFIXES = ("prob_", "p_", "pred_", "_prob", "_pred", "_probability", "_score")


class Live:
    """A finished model that sees the same augmented image as the student, at its own size and by its own scale."""

    def __init__(
        self,
        opened: Classifier,
        findings: Sequence[str],
        weight: Tensor,
        *,
        view: int,
        scale: tuple[float, float],
        device: torch.device,
        exclusive: bool = False,
    ) -> None:
        self.name, self.strange = str(opened.folder), torch.zeros((), dtype=torch.bool, device=device)
        self.method = opened.method.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        self.model, self.weight, self.view, self.scale = opened.spec, weight, view, scale
        self.dim = opened.method.backbone.dim
        self.places = [findings.index(name) for name in opened.spec.findings if name in findings]
        self.own = [place for place, name in enumerate(opened.spec.findings) if name in findings]
        self.count, self.exclusive = len(findings), exclusive

    def __call__(self, batch: Batch, views: list[Tensor], inside: bool) -> Answer:
        """What it says after its temperature; features and maps if they are asked for. What is no number stops the
        run by its loss, without asking the device at each step; `strange` then tells whose it was."""
        model, backbone = self.model, self.method.backbone
        shown = (views[self.view][:, :1] * self.scale[1] + self.scale[0] - model.mean) / model.std
        with torch.no_grad():
            shown = shown.expand(-1, model.channels, -1, -1).contiguous(memory_format=torch.channels_last)
            hidden = backbone.hidden(shown)
            features = backbone.pool(hidden)
            said = calibrated(self.method.head(features).float(), model, self.exclusive)
            own = said[:, self.own]
            self.strange |= ~own.isfinite().all()
            logits = said.new_full((len(said), self.count), torch.nan)
            logits[:, self.places] = own.nan_to_num(torch.inf, torch.inf, -torch.inf)  # NaN says: not asked
            maps = backbone.grid(hidden, (shown.shape[2], shown.shape[3])) if inside else None
        return Answer(logits, features if inside else None, maps)


class Stored:
    """What somebody has said of images, by their rows."""

    dim = 0

    def __init__(self, logits: np.ndarray, weight: Tensor) -> None:
        self.logits, self.weight = torch.from_numpy(logits), weight

    def __call__(self, batch: Batch, views: list[Tensor], inside: bool) -> Answer:
        """The stored logits."""
        return Answer(self.logits[batch.rows.cpu()].to(batch.labels.device))


def calibrated(logits: Tensor, model: ModelSpec, exclusive: bool = False) -> Tensor:
    """(N, F) what a model says, after its temperature: log(p / (1 - p)), or log p for a student whose findings exclude
    each other."""
    if model.temperature:
        logits = logits / logits.new_tensor(model.temperature)
    if model.loss != EXCLUSIVE:
        return F.logsigmoid(logits) if exclusive else logits
    if exclusive:
        return logits.log_softmax(1)
    others = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    return logits - logits[:, None].masked_fill(others, -torch.inf).logsumexp(2)


# ---- opening them


def is_table(name: str) -> bool:
    """Whether a teacher is named by a table of predictions and not by a folder."""
    return Path(name).suffix.lower() in (".csv", ".parquet", ".gz", ".tsv", ".txt") and not Path(name).is_dir()


def content(name: str) -> str:
    """A hash of what a teacher answers by, wherever it lies."""
    there = [Path(name)] if is_table(name) else [find_bundle(Path(name)) / part for part in (WEIGHTS_FILE, FACTS)]
    digest = hashlib.blake2b(digest_size=16)
    for file in there:
        with _there(file).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _there(file: Path) -> Path:
    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist.")
    return file


def seen(name: str) -> Provenance:
    """What a teacher has seen: who learns from it has seen it too. Of a table that 'ribcage evaluate' wrote it is said
    in the run that it lies in. Of whom nothing is known, that is known."""
    file = Path(name).absolute()
    run = file.parents[2] if len(file.parts) > 3 else file
    inside = is_table(name) and file.parents[1].name == "evaluation" and (run / "bundle" / "model.json").is_file()
    found = initial_provenance(str(run) if inside else name)
    if len(found.pixels) or len(found.patients) or len(found.unknown):
        return found
    facts = None if is_table(name) else initial_spec(name)
    return Provenance.nothing(facts.name if facts else file.name)


def told(
    opened: Classifier,
    data: Datasets,
    rows: np.ndarray,
    findings: Sequence[str],
    *,
    exclusive: bool = False,
    **how: object,
) -> np.ndarray:
    """(all rows, F) what a model says of plain images, asked once; NaN elsewhere. All ranks must call it."""
    said = predictions.predict(opened.method, data, rows, model=opened.spec, label="teach", **how)  # type: ignore[arg-type]
    model = opened.spec
    own = [place for place, name in enumerate(model.findings) if name in findings]
    if not np.isfinite(said.logits[:, own]).all():
        raise ValueError(
            f"{opened.folder} predicts values that are not finite: its weights are damaged, or it has diverged."
        )
    answers = np.full((sum(map(len, data)), len(findings)), np.nan, np.float32)
    for place, name in enumerate(model.findings):
        if name in findings and len(said.rows):
            logits = calibrated(torch.from_numpy(said.logits), model, exclusive)
            answers[said.rows, list(findings).index(name)] = logits[:, place].numpy()
    return np.asarray(distributed.broadcast_from_first(answers))


def validated(model: ModelSpec, findings: Sequence[str]) -> np.ndarray:
    """(F,) the AUROC that a model reached in its validation; NaN where it has none."""
    scores = model.metrics.get("validation", {})
    return np.array([scores.get(f"auroc_{name}", np.nan) for name in findings], np.float64)


def scored(
    answers: np.ndarray, data: Datasets, rows: np.ndarray, findings: Sequence[str], policy: Policy = IGNORE
) -> np.ndarray:
    """(F,) the AUROC that stored answers reach on these rows."""
    there = rows[~np.isnan(answers[rows]).all(axis=1)]
    if not len(there):
        return np.full(len(findings), np.nan)
    labels = np.where(np.isnan(answers[there]), np.nan, data.known_labels(there, findings, policy))
    return np.asarray(metrics.auroc(np.nan_to_num(answers[there]), labels), np.float64)


def weights(aurocs: Sequence[np.ndarray], weigh: Weigh) -> list[Tensor]:
    """(F,) for each teacher: 1, or how far it was above chance in validation. Whose score is not known counts as the
    mean of the others'; where nobody was above chance, all count alike."""
    scores = np.stack(aurocs)  # (K, F)
    known = ~np.isnan(scores)
    above = np.clip(np.nan_to_num(scores, nan=0.5) - 0.5, 0, None)
    above = np.where(known, above, above.sum(axis=0) / known.sum(axis=0).clip(min=1))
    above[:, above.sum(axis=0) == 0] = 1.0
    chosen = above if weigh == "auroc" else np.ones_like(above)
    return [torch.from_numpy(one.astype(np.float32)) for one in chosen]


# ---- tables


@dataclass(frozen=True)
class Table:
    """What somebody has said of images, in a file: a table of ours, or of anybody's."""

    file: Path
    images: pd.DataFrame
    """Of each line the set of images it is about ("" where it does not say) and the path of one."""
    odds: pd.DataFrame
    """The log-odds of findings; NaN where nothing is said."""
    notes: tuple[str, ...]
    """What was not understood, or may have been meant otherwise."""

    @property
    def findings(self) -> tuple[str, ...]:
        """What it speaks of."""
        return tuple(self.odds.columns)


def table(file: Path) -> Table:
    """Read a table of predictions, or say why it is none."""
    rows = _opened(file)
    header = list(rows)
    roles, chosen = columns.roles(header, {}), _answers(header)
    if "path" not in roles or not chosen:
        lacks = "a column with the names of images" if "path" not in roles else "a column named after a finding"
        raise ValueError(f"{file} is not a table of predictions: it lacks {lacks}. {columns.among(header)}")
    for finding in dict.fromkeys(chosen.values()):
        if len(both := [name for name in chosen if chosen[name] == finding]) > 1:
            raise ValueError(f"{file}: the columns {' and '.join(both)} all mean {finding}. Keep one of them.")
    said = pd.DataFrame({name: pd.to_numeric(rows[name], errors="coerce") for name in chosen}, dtype=np.float64)
    lowest, highest = said.min().min(), said.max().max()
    if not (lowest >= 0 and highest <= 1):
        holds = f"{lowest:g} to {highest:g}" if lowest == lowest else "no number at all"
        raise ValueError(f"{file} must hold probabilities from 0 to 1; it holds {holds} in {', '.join(chosen)}.")
    p = said.clip(SUREST, 1 - SUREST).to_numpy()
    odds = pd.DataFrame(np.log(p) - np.log1p(-p), columns=list(chosen.values()))
    sets = rows["set"].astype("str").fillna("") if "set" in header else pd.Series("", rows.index)
    if sets.str.lower().isin(["", *columns.SPLIT_WORDS]).all():  # train and test are no names of sets
        sets = pd.Series("", rows.index)
    images = pd.DataFrame({"set": sets, "path": rows[roles["path"]].astype("str").fillna("")})
    others = [name for name in header if name not in (*roles.values(), *chosen) and not name.endswith(OURS)]
    return Table(file, images, odds, (*_unread(rows, said), *_labels(said), *_twice(images), *_near(others)))


def _unread(rows: pd.DataFrame, said: pd.DataFrame) -> list[str]:
    """Of cells that are neither numbers nor blank."""
    blank = [word for word, value in columns.LABEL_WORDS.items() if value != value]
    notes = []
    for name in said:
        cells = rows[name].astype("str").fillna("")
        strange = cells[said[name].isna() & ~cells.str.strip().str.lower().isin(blank)]
        if len(strange):
            notes.append(f"{len(strange):,} cells of {name} are not numbers and count as blank ({strange.iloc[0]!r} …)")
    return notes


def _labels(said: pd.DataFrame) -> list[str]:
    """Of numbers that are no probabilities."""
    sure = said.isin([0.0, 1.0]) | said.isna()
    return ["all its numbers are 0 or 1: it looks like labels, not like answers"] * bool(sure.all(axis=None))


def _twice(images: pd.DataFrame) -> list[str]:
    """Of lines whose image another line names, too."""
    count = int(images.duplicated(keep=False).sum())
    return [f"{count:,} lines name an image that another line names, too: none of these is heard"] * bool(count)


def _near(names: Sequence[str]) -> list[str]:
    """Of columns that nearly are findings."""
    meant = {name: finding for name in names for word in _words(name) if (finding := vocabulary.meant(word))}
    return [f"the column {name} is not heard; did it mean {finding}?" for name, finding in meant.items()]


def _opened(file: Path) -> pd.DataFrame:
    """All columns of a table, or one line that says what is wrong with the file."""
    if _there(file).suffix.lower() == ".parquet":
        try:
            rows = parquet.frame(parquet.read_parquet(file))
        except parquet.NoTableError as error:
            raise ValueError(f"{file} cannot be read as a table of predictions ({error}).") from None
    else:
        try:
            rows = spreadsheet.unescaped_table(tables.sniffed(file))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{file} is damaged: {error}.") from None
    texts = [name for name, kind in rows.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)]
    return rows.reset_index(drop=True).astype(dict.fromkeys(texts, "str")).rename(columns=str)


def _answers(header: Sequence[str]) -> dict[str, str]:
    """Column → finding: ours by their labels beside them; of anybody's those called probabilities, if any are."""
    if ours := [name for name in header if f"{name}{predictions.LABEL}" in header]:
        return {name: name for name in ours}
    named = {name: finding for name in header if (finding := meant(name))}
    return {name: finding for name, finding in named.items() if not vocabulary.known(name)} or named


def meant(name: str) -> str:
    """The finding a column of predictions is about, or ""."""
    return next((vocabulary.canonical(word) for word in _words(name) if vocabulary.known(word)), "")


def _words(name: str) -> list[str]:
    """A column's name, and what it is without what marks a column of predictions."""
    cut = [name.removesuffix(affix) if affix.startswith("_") else name.removeprefix(affix) for affix in AFFIXES]
    return list(dict.fromkeys([name, *cut]))


def read(said: Table, data: Datasets, findings: Sequence[str], *, exclusive: bool = False) -> np.ndarray:
    """(all rows, F) what a table says of the images of these sets, as `calibrated` has it; NaN where it says nothing.

    Who says what must not be guessed: see `matched`."""
    own = pd.concat([_images(dataset) for dataset in data], ignore_index=True)
    place = matched(said.images, own)
    hit = place >= 0
    if not hit.any():
        theirs, ours = said.images.iloc[0], own.iloc[0]
        raise ValueError(
            f"{said.file} contains none of these images: it has {_shown(theirs)} …, the data {_shown(ours)} …"
        )
    answers = np.full((len(own), len(findings)), np.nan, np.float32)
    for column, name in enumerate(findings):
        if name in said.odds:
            odds = said.odds[name].to_numpy()[hit]
            answers[place[hit], column] = -np.logaddexp(0, -odds) if exclusive else odds
    return answers


def matched(theirs: pd.DataFrame, own: pd.DataFrame) -> np.ndarray:
    """(lines,) the image that each line of a table is about, -1 where that is not sure.

    Sets agree where both name one; paths, from their ends, as far as both go, but for the ending of the file's name;
    no other image and no other line fits as well; a name that anybody may give ('frontal.png') is not enough."""
    place, named = np.full(len(theirs), -1), (theirs["set"] != "").to_numpy()
    for with_set in (True, False):
        lines = np.flatnonzero(named == with_set)
        for whole in (True, False):
            found = _fitting(_keys(theirs.iloc[lines], with_set, whole), _keys(own, with_set, whole))
            new = (place[lines] < 0) & (found >= 0) & ~np.isin(found, place)
            place[lines[new]] = found[new]
    return place


def _keys(images: pd.DataFrame, with_set: bool, whole: bool) -> list[list[str]]:
    """Of each image the parts of its path from the end, the first with the set; whole: with the file's ending."""
    sets = images["set"].str.casefold() if with_set else [""] * len(images)
    keys = []
    for name, path in zip(sets, images["path"], strict=True):
        parts = [part for part in re.split(r"^[A-Za-z]:|[/\\]", path) if part not in ("", ".", "..")][::-1] or [""]
        file = parts[0] if whole else tables.SUFFIX.sub("", parts[0])
        keys.append([f"{name}\0{file}", *parts[1:]])
    return keys


def _fitting(theirs: list[list[str]], own: list[list[str]]) -> np.ndarray:
    """(lines,) the only image whose parts are a line's as far as both go, if the line is its only one; else -1.
    More common parts come first."""
    place, lengths = np.full(len(theirs), -1), [np.array([len(one) for one in keys], int) for keys in (theirs, own)]
    for depth in range(min(lengths[0].max(initial=0), lengths[1].max(initial=0)), 0, -1):
        lines, images = (_common(keys, depth) for keys in (theirs, own))
        bare = lengths[0][lines.index] == depth, lengths[1][images.index] == depth
        to_image = pd.Series(np.where(bare[0], _only(lines, images), _only(lines, images[bare[1]])), lines.index)
        to_line = pd.Series(np.where(bare[1], _only(images, lines), _only(images, lines[bare[0]])), images.index)
        for line, image in to_image[to_image >= 0].items():
            sure = depth > 1 or lengths[0][line] == lengths[1][image] or not GENERIC.fullmatch(_stem(theirs[line]))
            if place[line] < 0 and to_line[image] == line and sure:
                place[line] = image
    return place


def _common(keys: list[list[str]], depth: int) -> pd.Series:
    """So many parts of each, of those that have so many."""
    long = [place for place, parts in enumerate(keys) if len(parts) >= depth]
    return pd.Series(["/".join(keys[place][:depth]) for place in long], pd.Index(long, dtype="int64"), dtype="str")


def _only(keys: pd.Series, among: pd.Series) -> np.ndarray:
    """For each key the place of the only one that has it; -1 for none or several."""
    once = among[~among.duplicated(keep=False)]
    return keys.map(pd.Series(once.index, once)).fillna(-1).to_numpy(np.int64)


def _stem(parts: list[str]) -> str:
    """A file's name without set and ending."""
    return tables.SUFFIX.sub("", parts[0].partition("\0")[2])


def _shown(image: pd.Series) -> str:
    """An image, with its set where one is known."""
    return f"{image['path']!r}" + (f" of the set {image['set']!r}" if image["set"] else "")


def spoken(answers: np.ndarray, rows: np.ndarray) -> int:
    """Of how many of these rows somebody says something."""
    return int((~np.isnan(answers[rows])).any(axis=1).sum())


def _images(dataset: DatasetFolder) -> pd.DataFrame:
    """Set and path of its images."""
    return pd.DataFrame({"set": dataset.index.name, "path": dataset.index.table["path"].astype("str")})
