"""Datasets: one file each. It reads the dataset's own tables and returns an Index, without opening images.

A file has a docstring whose first line describes the dataset, SOURCE and LICENCE (and PUBLISHED_PATIENTS = False if its
patient identifiers are not published), and `index(root, *, options) -> Index`. If images are not one file each, it also
has `images(index, *, size, depth, …)`: row -> image.
"""

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from ribcage.runtime.remote import addresses
from ribcage.runtime.spelling import did_you_mean, nearest_word

if typing.TYPE_CHECKING:  # names and help must not import pandas
    import numpy as np

    from ribcage.data.index import Index
    from ribcage.imaging.gray_image import GrayImage


def dataset_names() -> tuple[str, ...]:
    """The datasets: the files of this folder."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load_dataset(name: str) -> ModuleType:
    """The file that reads this dataset."""
    if name not in dataset_names():
        own = " For your own files use the dataset 'folder': ribcage import folder ROOT." * Path(name).exists()
        hint = own or did_you_mean(name, dataset_names())
        raise ValueError(f"Unknown dataset {name!r}.{hint} Datasets: {', '.join(dataset_names())}.")
    return importlib.import_module(f"{__name__}.{name}")


def needs_root(name: str) -> bool:
    """Whether a dataset is read from a folder; if not, it is generated."""
    return inspect.signature(load_dataset(name).index).parameters["root"].default is inspect.Parameter.empty


def has_option(name: str, option: str) -> bool:
    """Whether a dataset is known and its import has this option."""
    return name in dataset_names() and option in _keywords(load_dataset(name).index)


def index(name: str, root: Path | str | None = None, **options: object) -> "Index":
    """Read the tables of a dataset below root (generated ones need none); all invalid options are reported at once.
    Contradictions between labels are removed or reported (`contradictions.py`)."""
    from ribcage.data.contradictions import checked_index
    from ribcage.data.readers.table_text import named_errors

    module = load_dataset(name)
    wrong = [_wrong(module.index, name, value) for name, value in options.items()]
    if any(wrong):
        raise ValueError(f"The dataset {name!r} has {'; '.join(filter(None, wrong))}.")
    if not needs_root(name):
        if root is not None:
            raise ValueError(
                f"The dataset {name!r} is generated, not read from a folder. Leave out the argument {str(root)!r}."
            )
        return checked_index(module.index(**options))
    place = addresses.parse_place(str(root or "")).expanduser()
    if addresses.is_remote(place):
        from ribcage.data.remote_source import remote_index

        return checked_index(remote_index(place, lambda folder: module.index(folder, **options)))
    with named_errors(place):
        return checked_index(module.index(place, **options))


def images(name: str, index: "Index", **options: object) -> "Callable[[int], np.ndarray | GrayImage] | None":
    """The function that returns the image of a row; None if each row is a file (`index.file(row)`).

    Options that it does not have are ignored, since those of `index` are passed, too.
    """
    module = load_dataset(name)
    if not hasattr(module, "images"):
        return None
    known = inspect.signature(module.images).parameters
    return module.images(index, **{key: value for key, value in options.items() if key in known})


def published_patients(name: str, options: dict[str, object]) -> bool:
    """Whether the patient identifiers of a dataset are published, or declared to be: then they need no key."""
    published = name in dataset_names() and getattr(load_dataset(name), "PUBLISHED_PATIENTS", True)
    return bool(published or options.get("published_patients"))


def description(name: str) -> str:
    """One sentence about a dataset."""
    return (load_dataset(name).__doc__ or "").strip().partition("\n")[0]


def dataset_table() -> str:
    """All datasets as a Markdown table."""
    rows = [
        f"| `{name}` | {description(name)} | {load_dataset(name).SOURCE} | {load_dataset(name).LICENCE} |"
        for name in dataset_names()
    ]
    return "\n".join(["| name | what it is | where to get it | licence |", "|---|---|---|---|", *rows])


def _keywords(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(function).parameters
    return {name: parameter for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}


def _wrong(function: Callable[..., Any], option: str, value: Any) -> str:
    """What is wrong with one option, or ""."""
    known = _keywords(function)
    if option not in known:
        near = nearest_word(option, known)
        return f"no option {option!r}" + (f" (did you mean {near!r}?)" if near else f" (it has {', '.join(known)})")
    kind = typing.get_type_hints(function)[option]
    if typing.get_origin(kind) is Literal and value not in typing.get_args(kind):
        return f"no {option} {value!r}, only {', '.join(map(repr, typing.get_args(kind)))}"
    return ""
