"""Run command: the result of a command, whose --out may be a remote address."""

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from ribcage.runtime.remote import addresses

SHARED = ("shard", "part")
"""Options with which several processes write to a folder."""


def run_command(module: ModuleType, options: object) -> object:
    """The result of `module.run(options)`; with a remote --out, of the run in a local folder that is mirrored there."""
    out = getattr(options, "out", None)
    if not (isinstance(out, Path) and addresses.is_remote(out)):
        return module.run(options)
    from ribcage.runtime import launcher

    if launcher.launched():
        raise ValueError(
            "--out must be a local path if several processes are started by torchrun or srun. Use --devices, or a "
            "shared folder."
        )
    if others := [name for name in SHARED if getattr(options, name, None)]:
        raise ValueError(f"--out must be a local path with --{others[0]}, because several processes write to it.")
    from ribcage.runtime.remote.mirror import Mirror

    mirror = Mirror(out)
    with mirror.running():
        result = module.run(dataclasses.replace(cast(Any, options), out=mirror.folder))
    print(f"Copied {mirror.folder} to {mirror.address}.")
    return result
