"""Folder of a published model: which of its files are read."""

import fnmatch
from collections.abc import Sequence
from pathlib import Path

from ribcage.bundle.formats.reading.sharded import INDEX
from ribcage.runtime.remote.hub import Selection

WEIGHTS = ("model.safetensors", f"model{INDEX}", "open_clip_model.safetensors", "pytorch_model.bin",
           "open_clip_pytorch_model.bin")  # fmt: skip
"""Files of weights, in order of preference: pickles are read only if there is nothing else."""
DESCRIPTIONS = ("config.json", "preprocessor_config.json", "open_clip_config.json")
"""Files beside them that are read."""
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt", ".npz", ".pdparams")
"""Endings of other files of weights."""
BUNDLE = ("model.json", "model.safetensors", "provenance.npz", "ood.npz", "tests.json", "SHA256SUMS")
"""Files of a bundle."""


def weights_in(folder: Path) -> Path | None:
    """The file of weights of a published folder; None for bundles, runs, and all that is not such a folder."""
    if not any((folder / name).is_file() for name in DESCRIPTIONS):
        return None
    if (folder / "model.json").exists() or (folder / "bundle").exists():
        return None
    try:
        return folder / _weights_among({file.name for file in folder.iterdir() if file.is_file()})
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{folder} {error}.") from None


def model_files(path: str, names: Sequence[str]) -> Selection:
    """The files of a repository that are needed for the model at a path in it: a file, a folder or, "", the root."""
    folder, file = path.rpartition("/")[::2] if path in names else (path, "")
    below = folder + "/" * bool(folder)
    here = {name.removeprefix(below) for name in names if name.startswith(below)}
    here = {name for name in here if "/" not in name}
    if not here:
        raise FileNotFoundError(f"has no {path}")
    if "model.json" in here and file in ("", "model.json", "model.safetensors"):
        return Selection(folder, tuple(below + name for name in BUNDLE if name in here))
    file = file or _weights_among(here)
    shards = fnmatch.filter(here, f"{file.removesuffix(INDEX)}-*-of-*.safetensors") if file.endswith(INDEX) else []
    beside = [name for name in DESCRIPTIONS if name in here]
    return Selection(below + file, tuple(below + name for name in (*beside, *sorted(shards), file)))


def _weights_among(names: set[str]) -> str:
    """The file of weights among the files of a folder."""
    if known := next((name for name in WEIGHTS if name in names), ""):
        return known
    others = sorted(name for name in names if name.endswith(SUFFIXES))
    if len(others) == 1:
        return others[0]
    if others:
        raise FileNotFoundError(f"has several files of weights, of which one must be named: {', '.join(others[:5])}")
    raise FileNotFoundError("has no file of weights")
