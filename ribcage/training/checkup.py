"""Checks of the installation: packages, the machine, DICOM decoders, folders, terminal; and fixes for what fails.

Everything is tried: packages are imported, images decoded, files written. A failed check does not stop the others.
"""

import importlib
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TypedDict

from ribcage.runtime import threads

EXTRAS = {
    "export": "ribcage export",
    "serve": "ribcage serve",
    "docs": "building the documentation",
    "tensorboard": "--track tensorboard",
    "mlflow": "--track mlflow",
    "wandb": "--track wandb",
}
"""Optional dependencies and what they are for."""
MODULES = {
    "opencv-python-headless": "cv2",
    "pylibjpeg-openjpeg": "openjpeg",
    "pyjpegls": "jpeg_ls",
    "python-multipart": "python_multipart",
    "mkdocs-material": "material",
    "prometheus-client": "prometheus_client",
    "Jinja2": "jinja2",
    "MarkupSafe": "markupsafe",
}
"""Packages whose module has a different name."""
ENOUGH = 2e9
"""Bytes below which free memory or disk space is reported as low."""


@dataclass(frozen=True)
class InstallationCheck:
    """The result of one check."""

    group: str
    name: str
    result: str
    good: bool = True
    needed: bool = True
    """Whether Ribcage does not work without it."""
    fix: str = ""
    """Command or action that fixes a failed check."""

    @property
    def broken(self) -> bool:
        """Whether it failed and is needed."""
        return self.needed and not self.good


def checks() -> Iterator[InstallationCheck]:
    """Run all checks."""
    for group, check in (
        ("packages", packages),
        ("optional", extras),
        ("machine", machine),
        ("DICOM", decoders),
        ("folders", folders),
        ("terminal", terminal),
    ):
        yield from _reported(group, check)


def _reported(group: str, check: Callable[[], Iterator[InstallationCheck]]) -> Iterator[InstallationCheck]:
    """The checks of a group; an exception becomes a failed check."""
    try:
        yield from check()
    except Exception as error:
        yield InstallationCheck(group, "(check failed)", _short(error), good=False, needed=group != "terminal")


def _short(error: BaseException) -> str:
    """An error in one short line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else text[:197] + "…"


# ---- packages


@dataclass(frozen=True)
class Requirement:
    """A package that Ribcage requires, from its metadata."""

    name: str
    least: str
    extra: str

    @property
    def text(self) -> str:
        """The requirement as pip takes it."""
        return f'"{self.name}>={self.least}"' if self.least else self.name


def requirements() -> list[Requirement]:
    """Requirements of Ribcage; none if it is not installed as a package."""
    try:
        lines = metadata.requires("ribcage") or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for line in lines:
        part, _, condition = line.partition(";")
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)", condition)
        named = re.match(r"\s*([A-Za-z0-9._-]+)", part)
        least = re.search(r">=\s*([\w.]+)", part)
        if named and named[1].lower() != "ribcage":  # ribcage[export] inside another extra
            found.append(Requirement(named[1], least[1] if least else "", extra[1] if extra else ""))
    return found


def packages() -> Iterator[InstallationCheck]:
    """Python, Ribcage, and required packages."""
    from ribcage import __version__

    python = sys.version_info >= (3, 11)
    where = f"{sys.version.split()[0]} ({sys.executable})"
    yield InstallationCheck("packages", "python", where, python, fix="" if python else "install Python 3.11 or later")
    needed = [one for one in requirements() if not one.extra]
    installed = "" if needed else ", not installed as a package: its requirements are unknown"
    yield InstallationCheck(
        "packages", "ribcage", __version__ + installed, bool(needed), fix="" if needed else "pip install -e ."
    )
    yield from (check_package("packages", one, needed=True) for one in needed)


def extras() -> Iterator[InstallationCheck]:
    """Packages that only some commands need."""
    known = requirements()
    for extra, use in EXTRAS.items():
        tried = [check_package("optional", one, needed=False) for one in known if one.extra == extra]
        bad = [one for one in tried if not one.good]
        text = "; ".join(f"{one.name}: {one.result}" for one in bad) or ", ".join(
            f"{one.name} {one.result}" for one in tried
        )
        wanted = " ".join(one.fix.removeprefix("pip install ") for one in bad)
        fix = f"pip install {wanted}" if bad else ""
        yield InstallationCheck("optional", extra, f"for {use}: {text or 'not known'}", not bad, needed=False, fix=fix)


def check_package(group: str, one: Requirement, *, needed: bool) -> InstallationCheck:
    """Whether a package can be imported and is recent enough."""
    fix = f"pip install {one.text}"
    try:
        version = metadata.version(one.name)
    except metadata.PackageNotFoundError:
        return InstallationCheck(group, one.name, "missing", good=False, needed=needed, fix=fix)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(MODULES.get(one.name, one.name.replace("-", "_")))
    except (Exception, SystemExit) as error:
        fix = fix.replace("pip install", "pip install --force-reinstall")
        return InstallationCheck(
            group, one.name, f"{version}, broken: {_short(error)}", good=False, needed=needed, fix=fix
        )
    old = _numbers(version) < _numbers(one.least)
    text = f"{version}, older than {one.least}" if old else version
    return InstallationCheck(group, one.name, text, not old, needed, fix if old else "")


def _numbers(version: str) -> tuple[int, ...]:
    """1.20.1+cpu → (1, 20, 1)."""
    release = re.match(r"[\d.]*", version)
    return tuple(int(one) for one in re.findall(r"\d+", release[0] if release else ""))


# ---- the machine


def machine() -> Iterator[InstallationCheck]:
    """Cores, memory, devices, and whether bfloat16 is fast."""
    yield InstallationCheck("machine", "cores", f"{threads.core_share():g} of {os.cpu_count()}")
    free, total = available_memory()
    if total:
        little = free < ENOUGH
        text = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
        yield InstallationCheck(
            "machine", "memory", text, not little, needed=False, fix="stop other programs" if little else ""
        )
    import torch

    devices = [torch.device("cpu")]
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(number)
        yield InstallationCheck("machine", f"cuda:{number}", f"{facts.name}, {facts.total_memory / 1e9:.1f} GB")
        devices.append(torch.device("cuda", number))
    if len(devices) == 1:
        yield InstallationCheck("machine", "GPU", f"none found by torch {torch.__version__}; Ribcage runs on the CPU")
    from ribcage.runtime.devices import fast_bf16

    fast = ", ".join(str(device) for device in devices if fast_bf16(device))
    yield InstallationCheck(
        "machine", "bf16", f"fast on {fast}" if fast else "slow on this machine; --precision auto uses float32"
    )


def available_memory() -> tuple[float, float]:
    """Free and total bytes that this process may use; zeros if the system does not report them."""
    words = _words("/proc/meminfo")
    if "MemTotal:" not in words:
        return 0.0, 0.0
    total, free = (1024.0 * int(words[words.index(name) + 1]) for name in ("MemTotal:", "MemAvailable:"))
    most, used = (_words(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
    if most and used and most[0].isdigit():
        total, free = min(total, float(most[0])), min(free, float(most[0]) - float(used[0]))
    return max(free, 0.0), total


def _words(file: str) -> list[str]:
    try:
        return Path(file).read_text().split()
    except OSError:
        return []


# ---- DICOM


def decoders() -> Iterator[InstallationCheck]:
    """Write and read a small image in every transfer syntax that Ribcage supports."""
    from ribcage.imaging.dicom import samples

    for syntax in samples.SYNTAXES:
        try:
            text, good, package = samples.try_syntax(syntax)
        except Exception as error:
            text, good, package = _short(error), False, samples.required_package(syntax)
        yield InstallationCheck(
            "DICOM",
            samples.SYNTAXES[syntax],
            f"{text} ({syntax})",
            good,
            fix=f"pip install {package}" if package and not good else "",
        )


# ---- folders and terminal


def folders() -> Iterator[InstallationCheck]:
    """Whether folders are writable, and their free space."""
    import tempfile

    from ribcage.runtime import files

    own = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    for name, folder, needed in (
        ("current folder", Path.cwd(), False),
        ("downloaded weights", own.expanduser(), False),
        ("temporary files", Path(tempfile.gettempdir()), True),
    ):
        there = next((one for one in (folder, *folder.parents) if one.exists()), folder)
        fix = "use another folder, or change its permissions" if name == "current folder" else ""
        fix = fix or f"export {'HF_HOME' if name == 'downloaded weights' else 'TMPDIR'}=FOLDER"
        try:
            with tempfile.TemporaryFile(dir=there) as handle:
                handle.write(b"ribcage")
            free = _free(there)
            good = free > ENOUGH
            text = f"{folder}: writable, {files.format_bytes(int(free))} free"
            yield InstallationCheck("folders", name, text, good, needed=False, fix="" if good else "free some space")
        except OSError as error:
            text = f"{folder}: not writable ({error.strerror or error})"
            yield InstallationCheck("folders", name, text, good=False, needed=needed, fix=fix)


def _free(folder: Path) -> float:
    import shutil

    return float(shutil.disk_usage(folder).free)


def terminal() -> Iterator[InstallationCheck]:
    """Whether text in all languages can be printed."""
    import locale

    fix = "export PYTHONUTF8=1"
    encoding = getattr(sys.stdout, "encoding", None) or "unknown"
    yield _letters("encoding of the terminal", encoding, fix)
    yield _letters("encoding of file names", sys.getfilesystemencoding(), fix)
    yield _letters("encoding of files", locale.getpreferredencoding(False), fix)
    yield InstallationCheck("terminal", "language", ".".join(part or "?" for part in locale.getlocale()), needed=False)


def _letters(name: str, encoding: str, fix: str) -> InstallationCheck:
    good = encoding.lower().replace("-", "").replace("_", "") == "utf8"
    text = encoding if good else f"{encoding}: letters of other languages may be printed as '?'"
    return InstallationCheck("terminal", name, text, good, needed=False, fix="" if good else fix)


class Report(TypedDict):
    """Results as JSON."""

    ok: bool
    checks: list[dict[str, str | bool]]


def checkup_facts(found: list[InstallationCheck]) -> Report:
    """Results as JSON."""
    return {"ok": not any(one.broken for one in found), "checks": [vars(one) for one in found]}
