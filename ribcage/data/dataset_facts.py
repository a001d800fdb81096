"""Facts: the content of `dataset.json`, which describes the images of a dataset folder and where they came from."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from ribcage.runtime import files, format_1, typed_json

FORMAT = 2
Fit = Literal["pad", "crop", "squash"]
KINDS: dict[str, Any] = dict.fromkeys(
    ("name", "dataset", "source", "licence", "fit", "root", "contents", "plan", "window"), str
)
KINDS |= dict.fromkeys(("images", "rejected", "size", "depth", "images_per_shard"), int)
KINDS |= dict.fromkeys(("options", "notes", "versions", "tables"), dict)
KINDS |= {
    "mean": (int, float),
    "std": (int, float),
    "findings": list,
    "linked": bool,
    "drop_shared": list,
    "shards": list,
}
KINDS_INSIDE: dict[str, type] = {"notes": int, "tables": str, "findings": str, "drop_shared": str}
"""Types of the values in some of the lists and objects."""
WITHOUT_SHARDS: dict[str, Any] = {"images_per_shard": 0, "shards": []}
"""Values of the keys that folders from before the shards lack."""


@dataclass(frozen=True)
class Shard:
    """One file of a dataset folder whose images are divided among several."""

    images: int
    sha256: str
    """SHA-256 of the file."""


@dataclass(frozen=True)
class Facts:
    """Content of dataset.json."""

    name: str
    dataset: str
    """The file in `datasets/` that read the tables."""
    source: str
    licence: str
    images: int
    rejected: int
    size: int
    fit: Fit
    depth: Literal[8, 16]
    mean: float
    """Mean of all pixels, scaled to 0 … 1."""
    std: float
    """Standard deviation of all pixels, scaled to 0 … 1."""
    findings: tuple[str, ...]
    root: str
    """Where the images came from."""
    linked: bool = False
    contents: str = ""
    """Hash of all stored images, in order."""
    options: dict[str, object] = field(default_factory=dict)
    """Options of the dataset."""
    notes: dict[str, int] = field(default_factory=dict)
    """What was done to images while reading them, and to how many."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries that read the images: other decoders may give other pixels."""
    tables: dict[str, str] = field(default_factory=dict)
    """Hashes of the Parquet files, since another table would put labels on the wrong images."""
    window: str = ""
    """Window of DICOM files, if not their own."""
    drop_shared: tuple[str, ...] = ()
    """Splits from which images were removed that share patients or are duplicates of other splits."""
    plan: str = ""
    """Hash of everything that determines the content of the folder."""
    images_per_shard: int = 0
    """Number of images in every shard but the last; 0: all images are in one file."""
    shards: tuple[Shard, ...] = ()
    format: int = FORMAT

    def save(self, part: Path) -> None:
        """Write as JSON into a temporary file."""
        part.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> "Facts":
        """Read what `save` wrote; ValueError if it is invalid."""
        try:
            values = files.read_json(file)
        except ValueError as error:
            raise ValueError(f"{file} is not valid JSON ({error}). Import the dataset again.") from None
        values = format_1.current(values, "dataset.json", FORMAT)
        values = {**WITHOUT_SHARDS, **values} if isinstance(values, dict) else values
        known = {item.name for item in fields(cls)}
        if not isinstance(values, dict) or values.get("format") != FORMAT or known != set(values):
            raise ValueError(f"{file} was written by another version of Ribcage. Import the dataset again.")
        strange = [name for name, kinds in KINDS.items() if not isinstance(values[name], kinds)]
        strange = strange or [name for name, kind in KINDS_INSIDE.items() if not _all_are(kind, values[name])]
        shards: list[Shard] = []
        try:
            shards = [typed_json.from_json(Shard, one) for one in (values["shards"] if not strange else [])]
        except ValueError:
            strange = ["shards"]
        if not strange:
            fits = {
                "depth": values["depth"] in (8, 16),
                "size": values["size"] > 0,
                "fit": values["fit"] in get_args(Fit),
            }
            strange = [name for name, valid in fits.items() if not valid]
        if strange:
            raise ValueError(f"{file} is damaged: its {strange[0]} is invalid. Import the dataset again.")
        lists = {name: tuple(values[name]) for name in ("findings", "drop_shared")}
        return cls(**{**values, **lists, "shards": tuple(shards)})


def why_not_opened(folder: Path) -> str:
    """Why a folder without dataset.json cannot be opened, and what to do."""
    if (folder / "journal.part").exists():
        return f"{folder} has an unfinished import. Run the same 'ribcage import' again to resume it."
    if folder.is_dir():
        return f"{folder} is not a dataset folder: it has no dataset.json. Create one with 'ribcage import'."
    if folder.exists():
        return (
            f"{folder} is a file, not a dataset folder. Create a dataset folder with 'ribcage import' and pass "
            "the folder."
        )
    return f"{folder} does not exist. Create a dataset folder with 'ribcage import'."


def _all_are(kind: type, values: list[Any] | dict[str, Any]) -> bool:
    """Whether all values are of this type."""
    return all(type(one) is kind for one in (values.values() if isinstance(values, dict) else values))
