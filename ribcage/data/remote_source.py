"""Remote source: the index of a dataset whose tables and images lie at a remote address.

The files that read the datasets expect a local folder. They get a temporary one with the layout of the remote folder:
its tables are copied, and its images are empty files of the same names. The images themselves are read from the address
when they are imported, without copies on disk.
"""

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ribcage.runtime import files
from ribcage.runtime.remote import addresses, objects

if TYPE_CHECKING:
    from ribcage.data.index import Index

IMAGES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".tif", ".tiff", ".bmp", ".npy", ".tar", ".nii", ".mha")
"""Endings of files that are not copied."""
HEAD = 4096
"""Bytes that are copied of files without an ending, to recognise DICOM files."""
LARGEST = 1 << 30
"""Limit on the bytes of a table."""
THREADS = 16


def remote_index(root: Path, read: Callable[[Path], "Index"]) -> "Index":
    """The index that `read` makes of a folder, of a remote folder or of a table in it."""
    address = addresses.address(root)
    folder, table = (str(PurePosixPath(address).parent), root.name) if _is_file(root) else (address, "")
    folder = addresses.address(folder)
    listed = objects.list_files(folder)
    objects.remember(listed.values())
    with tempfile.TemporaryDirectory(prefix="ribcage-tables-") as made:
        local = Path(made).joinpath(*folder.partition("://")[2].split("/"))
        with files.explained(local, "Free some space, or set TMPDIR."), ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(lambda name: _copied(listed[name], local, name), listed):
                pass
        try:
            found = read(local / table)
        except (ValueError, OSError) as error:
            raise type(error)(str(error).replace(str(local), folder)) from None
        return replace(found, root=Path(folder) / found.root.relative_to(local))


def _is_file(root: Path) -> bool:
    return bool(PurePosixPath(root.name).suffix) and objects.exists(root)


def _copied(found: objects.RemoteFile, local: Path, name: str) -> None:
    """A table, the beginning of a file without an ending, or an empty file."""
    steps = name.split("/")
    file = local.joinpath(*steps)
    file.parent.mkdir(parents=True, exist_ok=True)
    lower = name.lower()
    content = b""
    if "." not in steps[-1]:
        content = objects.read_head(found, HEAD)
    elif not (lower.endswith(IMAGES) or found.size > LARGEST or steps[-1].startswith(".")):
        content = objects.read_file(found)
    with files.open_regular(file, "xb") as stream:
        stream.write(content)
