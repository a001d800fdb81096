"""Run command: the result of a command whose outputs may be remote addresses."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from ribcage.runtime.remote import addresses, places
from ribcage.runtime.remote.places import Place

SHARED = ("shard", "part")
"""Options with which several processes write to a folder."""


def run_command(module: ModuleType, options: object) -> object:
    """The result of `module.run(options)`. What it writes to addresses is written to local paths, which are copied."""
    remote = places.remote_outputs(module, options)
    if not remote:
        return module.run(options)
    from ribcage.runtime import launch_variables

    option = f"--{next(iter(remote))}"
    if launch_variables.launched():
        raise ValueError(
            f"{option} must be a local path if several processes are started by torchrun or srun. Use --devices, or a "
            "shared folder."
        )
    if others := [name for name in SHARED if getattr(options, name, None)]:
        raise ValueError(f"{option} must be a local path with --{others[0]}, because several processes write to it.")
    with contextlib.ExitStack() as stack:
        local = {name: stack.enter_context(_copied(kind, getattr(options, name))) for name, kind in remote.items()}
        with _explained():
            result = module.run(dataclasses.replace(cast(Any, options), **local))
    return result


@contextlib.contextmanager
def _copied(kind: Place, place: Path) -> Iterator[Path]:
    """A local path, of which the address becomes a copy."""
    from ribcage.runtime.remote.mirror import Mirror
    from ribcage.runtime.remote.uploading import uploaded_file

    if kind is Place.FILE_OUT:
        with uploaded_file(place) as file:
            yield file
        return
    mirror = Mirror(place)
    with mirror.running():
        addresses.stands_for(mirror.folder, mirror.address)
        try:
            yield mirror.folder
        finally:
            addresses.stands_alone(mirror.folder)
    print(f"Copied {mirror.folder} to {mirror.address}.")


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Write addresses instead of local copies into the text of an error."""
    try:
        yield
    except (ValueError, OSError) as error:
        error.args = tuple(addresses.with_addresses(one) if isinstance(one, str) else one for one in error.args)
        raise
