"""Hub: models in the Hugging Face Hub, hf:OWNER/NAME[@REVISION][/FILE], copied by huggingface_hub to its own cache.

Of a repository, only the files that the caller selects are downloaded. HF_ENDPOINT names a mirror, HF_TOKEN or a login
gives access to gated and private models, and HF_HUB_OFFLINE=1 uses the cache alone, as does a network that is down. A
model is looked up once in a process, so that all its files are of one commit. Datasets and the other kinds of
repositories are read as any remote folder (`objects`).
"""

import contextlib
import functools
import glob
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ribcage.runtime import distributed
from ribcage.runtime.remote import addresses, errors

OTHER_KINDS = ("datasets", "spaces", "buckets", "kernels")
"""First steps of the addresses of repositories that are no models."""
FORM = re.compile(r"hf://(?:models/)?([^/@]+/[^/@]+)(?:@(refs/(?:pr/\d+|convert/[\w.-]+)|[^/]+))?(?:/(.+))?")
EXAMPLE = "hf:OWNER/NAME, as in hf:microsoft/rad-dino"
UNREACHABLE = frozenset(
    ("OfflineModeIsEnabled", "ConnectError", "TimeoutException", "ConnectionError", "Timeout", "NetworkError", "500",
     "502", "503", "504")
)  # fmt: skip
"""Marks of errors after which a copy in the cache is used."""


@dataclass(frozen=True)
class Selection:
    """The files of a repository that a model consists of."""

    place: str
    """The file of weights, or "" or the folder of a bundle."""
    files: tuple[str, ...]


Select = Callable[[str, Sequence[str]], Selection]
"""(path in the repository, all files in it) → the files of the model; FileNotFoundError, whose text continues a
sentence about the repository, if there is none."""


@dataclass(frozen=True)
class ModelAddress:
    """A model in the Hub."""

    name: str
    """OWNER/NAME."""
    revision: str = ""
    """Branch, tag or commit; "": main."""
    path: str = ""
    """File or folder in the repository; "" for the repository."""

    def __str__(self) -> str:
        return f"hf://{self.name}{'@' * bool(self.revision)}{self.revision}{'/' * bool(self.path)}{self.path}"


def is_model(place: Path | str) -> bool:
    """Whether this is the address of a model in the Hub, or of a file in one."""
    steps = addresses.address(place).split("/") if addresses.is_remote(place) else []
    return bool(steps) and steps[0] == "hf:" and steps[2] not in OTHER_KINDS


def model_address(place: Path | str) -> ModelAddress:
    """The parts of an address; ValueError if it is not complete."""
    found = FORM.fullmatch(addresses.address(place))
    if not found:
        raise ValueError(f"{addresses.address(place)} does not name a model: write it as {EXAMPLE}.")
    return ModelAddress(found[1], found[2] or "", found[3] or "")


@functools.cache
def local_model(address: str, select: Select) -> Path:
    """A local copy of the selected files of a model: the place that was selected. The commit is known to `origin`."""
    wanted = model_address(address)
    with _explained(wanted):
        names = _list_files(wanted)
    if names is None:
        folder = _cached_folder(wanted)
        names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
        with _explained_as_missing(wanted):
            chosen = select(wanted.path, names)
        if not distributed.rank():
            print(f"The Hugging Face Hub cannot be reached: {wanted} is read from the cache, commit {folder.name}.",
                  file=sys.stderr)  # fmt: skip
    else:
        chosen = _selected(wanted, select, names)
        with _explained(wanted):
            folder = _snapshot(wanted, allow_patterns=[glob.escape(name) for name in chosen.files])
    addresses.stands_for(folder, f"hf://{wanted.name}@{folder.name}")
    return folder / chosen.place


def origin(file: Path) -> str:
    """The repository and the commit of a file that `local_model` returned, as an address; "" for other files."""
    known = addresses.address_text(file)
    return str(replace(model_address(known), path="")) if is_model(known) else ""


def _selected(wanted: ModelAddress, select: Select, names: Sequence[str]) -> Selection:
    try:
        return select(wanted.path, [name for name in names if addresses.is_plain(name)])
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{replace(wanted, path='')} {error}.") from None


# ---- requests


def _list_files(wanted: ModelAddress) -> list[str] | None:
    """The files in a repository; None if the Hub cannot be reached."""
    import huggingface_hub

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        huggingface_hub.utils.disable_progress_bars()
    try:
        facts = huggingface_hub.HfApi().model_info(wanted.name, revision=wanted.revision or None)
    except Exception as error:
        if UNREACHABLE & set(errors.error_marks(error)):
            return None
        raise
    return [one.rfilename for one in facts.siblings or ()]


def _cached_folder(wanted: ModelAddress) -> Path:
    """The copy in the cache, of which some files may be missing."""
    with _explained_as_missing(wanted):
        return _snapshot(wanted, allow_patterns=[], local_files_only=True)


def _snapshot(wanted: ModelAddress, **options: Any) -> Path:
    import huggingface_hub

    return Path(huggingface_hub.snapshot_download(wanted.name, revision=wanted.revision or None, **options))


# ---- errors


@contextlib.contextmanager
def _explained(wanted: ModelAddress) -> Iterator[None]:
    """Errors of huggingface_hub as one line without the server's text."""
    try:
        yield
    except Exception as error:
        raise _in_one_line(error, wanted) from error


def _in_one_line(error: Exception, wanted: ModelAddress) -> Exception:
    marks, repository = set(errors.error_marks(error)), f"hf://{wanted.name}"
    if "GatedRepoError" in marks:
        return PermissionError(
            f"{repository} is gated: accept its terms at {_endpoint()}/{wanted.name}, and set HF_TOKEN to a token of "
            f"that account."
        )
    if "RevisionNotFoundError" in marks:
        return FileNotFoundError(f"{repository} has no revision {wanted.revision}: pass a branch, a tag or a commit.")
    if "RepositoryNotFoundError" in marks:
        return FileNotFoundError(
            f"{repository} does not exist at {_endpoint()}, or is private: check the name, or set HF_TOKEN to a token "
            f"that may read it."
        )
    if "LocalEntryNotFoundError" in marks:  # a file could not be downloaded
        return ConnectionError(f"{wanted}: the download failed. Run the same command again, which continues it.")
    if "HFValidationError" in marks:
        return ValueError(f"{repository} is not a valid name: write it as {EXAMPLE}.")
    return errors.explained(error, str(wanted))


@contextlib.contextmanager
def _explained_as_missing(wanted: ModelAddress) -> Iterator[None]:
    """What is missing in the cache while the Hub cannot be reached."""
    from huggingface_hub import constants

    try:
        yield
    except Exception:
        cache = f"{wanted} is not in the cache ({constants.HF_HUB_CACHE})"
        if constants.HF_HUB_OFFLINE:
            raise FileNotFoundError(
                f"{cache}, and HF_HUB_OFFLINE is set: unset it to download the model, or pass a local folder."
            ) from None
        raise ConnectionError(
            f"{_endpoint()} cannot be reached, and {cache}: check the network, set HTTPS_PROXY or HF_ENDPOINT (a "
            f"mirror), or pass a local folder."
        ) from None


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT
