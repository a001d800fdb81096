"""Uploading: what a command writes at the end, at remote addresses."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ribcage.runtime.remote import addresses, cache, objects

FOLDER = "outputs"
"""Folder of the cache for files that are being written."""


@contextlib.contextmanager
def uploaded_file(place: Path | str) -> Iterator[Path]:
    """A local file to write, which is copied to an address when the block ends without error, after the files that were
    written beside it. If it cannot be copied, it is kept, and the error names it."""
    address = addresses.address(place)
    folder, name = addresses.split_address(address)
    objects.exists(address)  # an invalid address or expired credentials raise now, and not after hours
    with _made_folder(folder) as made:
        yield made / name

        def upload() -> None:
            for file in sorted(made.iterdir(), key=lambda file: file.name == name):
                if file.is_file():
                    objects.upload(file, addresses.child(folder, file.name))

        _kept_on_error(made, upload)


@contextlib.contextmanager
def local_folder(place: Path, last: str) -> Iterator[Path]:
    """A local folder itself; of a remote one, a new local folder, which is copied to the address when the block ends
    without error. The file `last`, without which the folder cannot be opened, is copied last."""
    if not addresses.is_remote(place):
        yield place
        return
    address = addresses.address(place)
    with _made_folder(address) as made:
        yield made
        names = sorted(file.name for file in made.iterdir() if file.is_file())
        _kept_on_error(made, lambda: objects.upload_folder(made, address, names, last))


@contextlib.contextmanager
def _made_folder(address: str) -> Iterator[Path]:
    """A new local folder, which stands for the folder at this address, and is removed at the end."""
    above = cache.cache_folder() / FOLDER
    above.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = Path(tempfile.mkdtemp(dir=above))
    addresses.stands_for(made, address)
    try:
        yield made
    except NotCopiedError:
        raise
    except BaseException:
        shutil.rmtree(made)
        raise
    else:
        shutil.rmtree(made)
    finally:
        addresses.stands_alone(made)


class NotCopiedError(OSError):
    """Results could not be copied to an address; they are in a local folder."""


def _kept_on_error(made: Path, upload: Callable[[], None]) -> None:
    try:
        upload()
    except OSError as error:
        raise NotCopiedError(f"{error} The results are in {made} and were not copied.") from error
