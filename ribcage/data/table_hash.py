"""Table hash: hashes of the Parquet files of a dataset folder, which dataset.json records."""

import hashlib
from pathlib import Path

from ribcage.data.dataset_facts import Facts


def table_hash(file: Path) -> str:
    """The hash of a file, as in dataset.json."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def require_table(file: Path, facts: Facts) -> None:
    """Raise unless this is the table that was written with the folder."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing. Import the dataset again.")
    if facts.tables.get(file.name) != table_hash(file):
        raise ValueError(f"{file} is not the table that was imported with these images. Import the dataset again.")
