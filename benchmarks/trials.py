"""Trials: models trained by Ribcage commands, reused if present; tested with intervals over patients and seeds."""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ribcage import metrics
from ribcage.bundle.io import load_classifier
from ribcage.data.collection import Datasets
from ribcage.inference import predictions
from ribcage.metrics.intervals import Paired
from ribcage.metrics.resampling import Resampled

Tested = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Scores and labels (N, F) and patients (N,) of the tested images."""


def trained(words: Sequence[str]) -> Path:
    """The run folder after `ribcage WORDS`; what is there, from the same words, is kept, what was begun goes on."""
    out, asked = Path(words[words.index("--out") + 1]), "\n".join([*words, recipe(words)])
    note = out / "words.txt"
    if (out / "seconds").exists() and note.read_text(encoding="utf-8") == asked:
        return out
    resume = ["--resume"] if (out / "options.json").exists() else []
    began = time.perf_counter()
    command = [sys.executable, "-m", "ribcage", *words, *resume]
    result = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if result.returncode:
        raise SystemExit(f"ribcage {' '.join(words)}\n{result.stderr}")
    note.write_text(asked, encoding="utf-8")
    (out / "seconds").write_text(str(time.perf_counter() - began))
    print(f"{out.parent.name}/{out.name}: {words[0]}, {time.perf_counter() - began:.0f} s", flush=True)
    return out


def recipe(words: Sequence[str]) -> str:
    """What stands in the recipe that a command names."""
    return Path(words[words.index("--recipe") + 1]).read_text(encoding="utf-8") if "--recipe" in words else ""


def minutes(out: Path) -> float:
    """How long it was trained."""
    return float((out / "seconds").read_text()) / 60


def tested(folder: Path, data: Datasets, names: Sequence[str], rows: np.ndarray | None = None) -> Tested:
    """A model on the test part, or on these rows."""
    opened, rows = load_classifier(folder), data.rows_of("test") if rows is None else rows
    said = predictions.predict(opened.method, data, rows, model=opened.spec, batch=64, threads=1)
    order = np.argsort(said.rows)
    labels = data.known_labels(said.rows[order], names)
    places = [opened.spec.findings.index(name) for name in names]
    return said.logits[order][:, places], labels, data.table["patient"].to_numpy()[said.rows[order]]


def over_seeds(tests: Sequence[Tested]) -> Resampled:
    """The mean AUROC over findings, averaged over seeds; a resample draws patients, and as many of the seeds."""
    return joined([metrics.bootstrap(*each)["auroc"].macro() for each in tests])


def joined(found: Sequence[Resampled]) -> Resampled:
    """The mean over seeds of one number; a resample draws patients, and as many of the seeds."""
    every = np.stack([one.resampled for one in found])  # (seeds, R, 1)
    drawn = np.random.default_rng(0).integers(0, len(found), (len(found), every.shape[1]))
    resampled = np.take_along_axis(every, drawn[:, :, None], axis=0).mean(0)
    value = np.mean([one.value for one in found], axis=0)
    effective_n = value * (1 - value) / np.nanvar(resampled, axis=0, ddof=1)  # of hundreds of patients
    return dataclasses.replace(found[0], value=value, effective_n=effective_n, vectors=resampled, kind="mean")


def shown(found: Resampled | Paired, sign: str = "") -> str:
    """A number with its interval."""
    interval = found.interval()
    value, low, high = (float(np.ravel(each)[0]) for each in (interval.value, interval.low, interval.high))
    return f"{value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def spread(tests: Sequence[Tested]) -> float:
    """Standard deviation over seeds."""
    means = [metrics.macro_mean(metrics.auroc(scores, labels)).mean for scores, labels, _ in tests]
    return float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")


def common(data: Datasets, rows: np.ndarray, least: int) -> tuple[str, ...]:
    """Findings that enough of the images show and do not show."""
    names = tuple(dict.fromkeys(name for one in data for name in one.index.findings))
    labels = data.known_labels(rows, names)
    enough = np.minimum((labels == 1).sum(0), (labels == 0).sum(0)) >= least
    return tuple(name for name, keep in zip(names, enough, strict=True) if keep)
