"""Places: the options of the commands that take remote addresses, and how an address is used.

A command lists them in `PLACES`: option → Place. For all other options, an address is an error. docs/remote.md has a
table that is made from these lists.
"""

import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import ModuleType

from ribcage.runtime.remote import addresses
from ribcage.runtime.remote.addresses import address_text

WITHIN = re.compile(r"(\w+[=:])?([A-Za-z][A-Za-z0-9+.:-]*://.*)", re.DOTALL)
"""A value that is or contains an address as typed: s3://…, train=s3://… or nih:s3://…."""


class Place(Enum):
    """What an option names, and what happens if it is at a remote address."""

    DATASET = "dataset folder", "Tables are copied to the cache when the folder is opened, images when they are needed."
    MODEL = "bundle, or run with a bundle", "The bundle is copied to the cache."
    WEIGHTS = (
        "bundle, run with a bundle, weights file, or model in the Hugging Face Hub",
        "The bundle or the file is copied to the cache; a model in the Hub (`hf:OWNER/NAME`), to the cache of the Hub.",
    )
    RESULTS = "run, evaluation folder or table of predictions", "The results are copied to the cache."
    PREDICTOR = "bundle, run with a bundle, or table of predictions", "The bundle or the table is copied to the cache."
    RUNS = "folder with runs", "The files with options, states and results are copied to the cache."
    SOURCE = "downloaded dataset", "Tables are copied to a temporary folder. Images are read at the address."
    IMAGES = "image files, folders or patterns", "The images are read at the address."
    FILE = "file to read", "The file is copied to the cache."
    EVALUATION = "evaluation folder to write", "The results are written to a local folder and copied at the end."
    FOLDER_OUT = (
        "folder to write",
        "The results are written to a local folder. Changes are copied every 30 seconds and at the end.",
    )
    FILE_OUT = "file to write", "The file is written locally and copied at the end."
    OUT = "file or folder to write", "A file is copied at the end, a folder every 30 seconds and at the end."
    STEPS = "run folder to write", "Each step of the recipe writes to this address or to one that begins with it."

    @property
    def what(self) -> str:
        """What the option names."""
        return self.value[0]

    @property
    def handling(self) -> str:
        """What happens at a remote address."""
        return self.value[1]

    @property
    def written_by_copy(self) -> bool:
        """Whether the command writes to a local path, which is then copied to the address."""
        return self in (Place.FOLDER_OUT, Place.FILE_OUT, Place.OUT)


FILES = (
    ".csv", ".parquet", ".json", ".html", ".svg", ".onnx", ".ts", ".xml", ".pth", ".pt", ".tar", ".npz", ".bin",
    ".safetensors", ".pdparams",
)  # fmt: skip
"""Endings by which a file is told from a folder where an option takes either."""


def remote_places(module: ModuleType) -> Mapping[str, Place]:
    """The options of a command that take addresses."""
    found: Mapping[str, Place] = getattr(module, "PLACES", {})
    return found


def settled(module: ModuleType, values: Mapping[str, object]) -> tuple[dict[str, object], list[str]]:
    """The values of options with checked addresses, and what is wrong with those in other options."""
    placed, places = getattr(module, "POSITIONAL", ()), remote_places(module)
    found, wrong = dict(values), list[str]()
    for name, value in values.items():
        option = name.upper() if name in placed else f"--{name.replace('_', '-')}"
        every = value if isinstance(value, tuple) else (value,)
        try:
            checked = tuple(_checked(one) for one in every)
        except ValueError as error:
            wrong.append(f"{option}: {str(error).rstrip('.')}")
            continue
        if name in places:
            found[name] = checked if isinstance(value, tuple) else checked[0]
            continue
        wrong += [
            f"{option} must be a local path, not {address_text(one)}" if isinstance(one, Path)
            else f"{option} does not accept a remote address, as in {one}"
            for one in checked if _is_address(one)
        ]  # fmt: skip
    return found, wrong


def _checked(value: object) -> object:
    """A value whose address, if it is or has one, was checked; file:// addresses become local paths."""
    if isinstance(value, Path):
        return addresses.parse_place(str(value))
    if not isinstance(value, str):
        return value
    found = WITHIN.fullmatch(value)
    if found is None:
        return address_text(value) if addresses.is_remote(value) else value
    before, typed = found[1] or "", found[2]
    return before + address_text(addresses.parse_place(typed))


def _is_address(value: object) -> bool:
    """Whether a checked value is or contains a remote address."""
    if isinstance(value, Path):
        return addresses.is_remote(value)
    return isinstance(value, str) and (WITHIN.fullmatch(value) is not None or addresses.is_remote(value))


def remote_outputs(module: ModuleType, options: object) -> dict[str, Place]:
    """The options with remote addresses to which the command writes by way of a local path, and whether each is a file
    (FILE_OUT) or a folder (FOLDER_OUT)."""
    found = {}
    for name, place in remote_places(module).items():
        value = getattr(options, name, None)
        if place.written_by_copy and isinstance(value, Path) and addresses.is_remote(value):
            either = Place.FILE_OUT if value.suffix.lower() in FILES else Place.FOLDER_OUT
            found[name] = either if place is Place.OUT else place
    return found
