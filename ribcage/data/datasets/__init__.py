"""Datasets: one file each. A file here reads a dataset's own tables and returns an Index; it never opens images.

A file has a docstring whose first line describes the set, SOURCE and LICENCE (PUBLISHED_PATIENTS = False where its
patients' numbers are not published with it), and `index(root, *, options) -> Index`.
When the images are not one file each it also has `images(index, *, size, depth, …)`: row -> image.
"""

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from ribcage.runtime.spelling import did_you_mean, nearest_word

if typing.TYPE_CHECKING:  # names and help must come without loading pandas
    from ribcage.data.index import Index


def dataset_names() -> tuple[str, ...]:
    """The datasets: the files of this folder."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load_dataset(name: str) -> ModuleType:
    """The file that reads this dataset."""
    if name not in dataset_names():
        own = " Files of your own are of the dataset 'folder': ribcage import folder ROOT." * Path(name).exists()
        hint = own or did_you_mean(name, dataset_names())
        raise ValueError(f"Unknown dataset {name!r}.{hint} Datasets: {', '.join(dataset_names())}.")
    return importlib.import_module(f"{__name__}.{name}")


def needs_root(name: str) -> bool:
    """Whether a dataset is read from a folder; if not, it is generated."""
    return inspect.signature(load_dataset(name).index).parameters["root"].default is inspect.Parameter.empty


def index(name: str, root: Path | str | None = None, **options: Any) -> "Index":
    """Read the tables of a dataset below root (synthetic sets need none); all wrong options are named at once."""
    module = load_dataset(name)
    wrong = [_wrong(module.index, name, value) for name, value in options.items()]
    if any(wrong):
        raise ValueError(f"The dataset {name!r} has {'; '.join(filter(None, wrong))}.")
    if not needs_root(name):
        if root is not None:
            raise ValueError(f"The dataset {name!r} is generated, not read from a folder: leave out {str(root)!r}.")
        return module.index(**options)
    return module.index(Path(root or "").expanduser(), **options)


def images(name: str, index: "Index", **options: Any) -> Callable[[int], Any] | None:
    """What gives the image of a row; None when each row is a file of its own (`index.file(row)`).

    Of the options it takes what it knows, since those of `index` are handed over too.
    """
    module = load_dataset(name)
    if not hasattr(module, "images"):
        return None
    known = inspect.signature(module.images).parameters
    return module.images(index, **{key: value for key, value in options.items() if key in known})


def published_patients(name: str, options: dict[str, Any]) -> bool:
    """Whether the patients' numbers of a dataset are published, or said to be: then they need no secret."""
    published = name in dataset_names() and getattr(load_dataset(name), "PUBLISHED_PATIENTS", True)
    return bool(published or options.get("published_patients"))


def description(name: str) -> str:
    """What a dataset is, in a sentence."""
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
    """What is wrong with one option, or nothing."""
    known = _keywords(function)
    if option not in known:
        near = nearest_word(option, known)
        return f"no option {option!r}" + (f" (did you mean {near!r}?)" if near else f" (it has {', '.join(known)})")
    kind = typing.get_type_hints(function)[option]
    if typing.get_origin(kind) is Literal and value not in typing.get_args(kind):
        return f"no {option} {value!r}, only {', '.join(map(repr, typing.get_args(kind)))}"
    return ""
