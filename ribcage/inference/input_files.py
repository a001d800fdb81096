"""Input files: which files a command predicts, from names of files, patterns, folders and remote addresses."""

import glob
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from ribcage.imaging import dicom, headers
from ribcage.runtime.remote import addresses, objects
from ribcage.runtime.remote.addresses import address_text
from ribcage.runtime.remote.objects import RemoteFile

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", ".ima")
"""Files in a folder with these suffixes are predicted; others only if their first bytes are those of an image."""
DICOMDIR = "DICOMDIR"
"""Name of the index file on a DICOM disk."""
HEAD = 132
"""Bytes read to recognise the format of a file."""
THREADS = 16
"""Remote files of which the first bytes are read at the same time."""


@dataclass(frozen=True)
class InputFiles:
    """The files to predict."""

    images: tuple[Path, ...]
    others: int = 0
    """Number of files in the folders that were skipped, because they are no images."""
    endings: tuple[tuple[str, int], ...] = ()
    """Suffixes of the skipped files with their counts, most frequent first."""


def input_files(paths: Sequence[Path], without: Sequence[Path] = ()) -> InputFiles:
    """The files named in `paths`, the matches of patterns such as 'inbox/*.dcm' or 'inbox/**', and all images in the
    folders among `paths`, sorted by name.

    without: folders to skip, such as the one that maps are written to.
    """
    found: dict[Path, None] = {}
    others: Counter[str] = Counter()
    listed: list[RemoteFile] = []
    for path in itertools.chain.from_iterable(map(_fitting, paths)):
        if addresses.is_remote(path):
            chosen, left = _remote_images(path, without, listed)
        elif path.is_dir():
            inside = list(_inside(path, without))
            chosen = [one for one in inside if _may_be_image(one)]
            left = sorted(set(inside) - set(chosen))
        else:
            chosen, left = [path], []
        found |= dict.fromkeys(chosen)
        others.update(one.suffix.lower() or "no ending" for one in left)
    objects.remember(listed)
    if not found:
        more = f" ({others.total():,} other files)" if others else ""
        made = next((path for path in paths if (path / "dataset.json").is_file()), None)
        hint = f" {made} is a dataset folder: use 'ribcage evaluate' for the images in it." if made else ""
        raise ValueError(
            f"No images were found in {', '.join(map(address_text, paths)) or 'an empty list'}{more}.{hint}"
        )
    most = sorted(others.items(), key=lambda pair: (-pair[1], pair[0]))
    return InputFiles(tuple(found), others.total(), tuple(most))


def _fitting(path: Path) -> Iterable[Path]:
    """The matches of a glob pattern, which shells pass on unexpanded if it is quoted; a path that exists is returned as
    it is."""
    if addresses.is_remote(path) or not glob.has_magic(str(path)) or path.exists():
        return [path]
    fit = [Path(one) for one in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 – may be absolute
    several = [one for one in fit if not one.is_dir()] if "**" in path.parts else fit  # ** matches files in folders
    return several or [path]


def _inside(folder: Path, without: Sequence[Path]) -> Iterator[Path]:
    """All files below a folder except hidden ones and DICOMDIR. Links to folders are not followed."""
    left = [each.resolve() for each in without if folder.resolve() in each.resolve().parents]
    for one in sorted(folder.rglob("*")):
        if left and any(each in one.resolve().parents for each in left):
            continue
        hidden = any(part.startswith(".") for part in one.relative_to(folder).parts)
        named = one.suffix.lower() in ENDINGS and not one.is_dir()  # also broken links and pipes: they get an error
        if not hidden and one.name.upper() != DICOMDIR and (one.is_file() or named):
            yield one


def _may_be_image(file: Path) -> bool:
    """Judge by the suffix or, as DICOM files often have none, by the first bytes."""
    if file.suffix.lower() in ENDINGS:
        return True
    try:
        with file.open("rb") as stream:
            head = stream.read(HEAD)
    except OSError:
        return False
    return _is_image(head)


def _is_image(head: bytes) -> bool:
    """Whether the first bytes of a file are those of an image."""
    return headers.is_raster(head) or dicom.is_dicom(head)


# ---- remote files


def _remote_images(path: Path, without: Sequence[Path], listed: list[RemoteFile]) -> tuple[list[Path], list[Path]]:
    """The images at an address, which may be that of a file or folder or a pattern, and the other files; what was
    listed at the address is added to `listed`."""
    whole = address_text(path)
    pattern = glob.has_magic(whole)
    if (not pattern and path.suffix.lower() in ENDINGS) or objects.exists(whole):
        return [path], []
    steps = whole.split("/")
    first = next((at for at, step in enumerate(steps) if glob.has_magic(step)), len(steps))
    wanted, folder = steps[first:], "/".join(steps[:first])
    left = tuple(f"{each}/" for each in map(address_text, without) if each.startswith(f"{folder}/"))
    there = {
        name: one
        for name, one in objects.list_files(folder).items()
        if not _is_hidden(name) and not one.address.startswith(left)
    }
    listed.extend(there.values())
    named = [one for name, one in there.items() if pattern and _fits(name.split("/"), wanted)]
    inside = [one for name, one in there.items() if not pattern or ("**" not in wanted and _is_inside(name, wanted))]
    with ThreadPoolExecutor(THREADS) as pool:
        judged = list(zip(inside, pool.map(_is_remote_image, inside), strict=True))
    images = [*named, *(one for one, is_image in judged if is_image)]
    return [Path(one.address) for one in images], [Path(one.address) for one, is_image in judged if not is_image]


def _fits(steps: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether the steps of a path fit those of a pattern; ** stands for any number of folders."""
    if not wanted or not steps:
        return not steps and all(one == "**" for one in wanted)
    if wanted[0] == "**" and (_fits(steps, wanted[1:]) or _fits(steps[1:], wanted)):
        return True
    return fnmatchcase(steps[0], wanted[0]) and _fits(steps[1:], wanted[1:])


def _is_inside(name: str, wanted: Sequence[str]) -> bool:
    """Whether a file is in a folder that fits a pattern."""
    steps = name.split("/")
    return any(_fits(steps[:depth], wanted) for depth in range(1, len(steps)))


def _is_hidden(name: str) -> bool:
    *_, last = steps = name.split("/")
    return last.upper() == DICOMDIR or any(step.startswith(".") for step in steps)


def _is_remote_image(found: RemoteFile) -> bool:
    """Judge by the suffix or, without one, by the first bytes; the end of a UID such as 1.2.840.10008 is no suffix."""
    suffix = PurePosixPath(found.address).suffix.lower()
    named = bool(suffix) and not suffix[1:].isdecimal()
    return suffix in ENDINGS or (not named and _is_image(objects.read_head(found, HEAD)))
