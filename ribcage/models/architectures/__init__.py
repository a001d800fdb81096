"""Architectures that timm lacks, one file each; importing this folder registers them with timm."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
