"""Checkup: what is installed, what this machine has, what can be read here; and what mends what is missing.

Everything is really tried – packages are imported, images decoded, files written – and nothing that fails stops the
rest.
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
from typing import Any

EXTRAS = {"export": "ribcage export", "serve": "ribcage serve", "docs": "building the documentation"}
"""Optional parts, and what they are for."""
MODULES = {
    "opencv-python-headless": "cv2",
    "pylibjpeg-openjpeg": "openjpeg",
    "pyjpegls": "jpeg_ls",
    "python-multipart": "python_multipart",
    "mkdocs-material": "material",
    "prometheus-client": "prometheus_client",
}
"""How packages are imported that are called otherwise."""
ENOUGH = 2e9
"""Free bytes below which a disk is said to be nearly full."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    group: str
    name: str
    says: str
    good: bool = True
    needed: bool = True
    """Whether Ribcage cannot do without it."""
    mend: str = ""
    """What to type when it is not good."""

    @property
    def broken(self) -> bool:
        """Whether it must be mended."""
        return self.needed and not self.good


def checks() -> Iterator[Check]:
    """All of them, one after the other."""
    for group, look in (
        ("packages", packages),
        ("optional", extras),
        ("machine", machine),
        ("DICOM", decoders),
        ("folders", folders),
        ("terminal", terminal),
    ):
        yield from _guarded(group, look)


def _guarded(group: str, look: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    """Its checks; where looking itself fails, that is one, too."""
    try:
        yield from look()
    except Exception as error:
        yield Check(group, "(could not be looked at)", _said(error), good=False, needed=group != "terminal")


def _said(error: BaseException) -> str:
    """An error in one short line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else text[:197] + "…"


# ---- packages


@dataclass(frozen=True)
class Requirement:
    """A package that Ribcage asks for, as its own metadata say."""

    name: str
    least: str
    extra: str

    @property
    def text(self) -> str:
        """As pip wants it."""
        return f'"{self.name}>={self.least}"' if self.least else self.name


def requirements() -> list[Requirement]:
    """What Ribcage asks for; nothing where it runs from a folder that was not installed."""
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


def packages() -> Iterator[Check]:
    """Python, Ribcage, and what it cannot do without."""
    from ribcage import __version__

    python = sys.version_info >= (3, 11)
    where = f"{sys.version.split()[0]} ({sys.executable})"
    yield Check("packages", "python", where, python, mend="" if python else "install Python 3.11 or later")
    needed = [one for one in requirements() if not one.extra]
    installed = "" if needed else ", not installed as a package: what it needs is not known"
    yield Check("packages", "ribcage", __version__ + installed, bool(needed), mend="" if needed else "pip install -e .")
    yield from (package("packages", one, needed=True) for one in needed)


def extras() -> Iterator[Check]:
    """What only some commands need."""
    known = requirements()
    for extra, use in EXTRAS.items():
        tried = [package("optional", one, needed=False) for one in known if one.extra == extra]
        bad = [one for one in tried if not one.good]
        said = "; ".join(f"{one.name}: {one.says}" for one in bad) or ", ".join(
            f"{one.name} {one.says}" for one in tried
        )
        wanted = " ".join(one.mend.removeprefix("pip install ") for one in bad)
        mend = f"pip install {wanted}" if bad else ""
        yield Check("optional", extra, f"for {use}: {said or 'not known'}", not bad, needed=False, mend=mend)


def package(group: str, one: Requirement, *, needed: bool) -> Check:
    """Whether a package can be imported, and is new enough."""
    mend = f"pip install {one.text}"
    try:
        version = metadata.version(one.name)
    except metadata.PackageNotFoundError:
        return Check(group, one.name, "missing", good=False, needed=needed, mend=mend)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(MODULES.get(one.name, one.name.replace("-", "_")))
    except (Exception, SystemExit) as error:
        mend = mend.replace("pip install", "pip install --force-reinstall")
        return Check(group, one.name, f"{version}, broken: {_said(error)}", good=False, needed=needed, mend=mend)
    old = _numbers(version) < _numbers(one.least)
    said = f"{version}, older than {one.least}" if old else version
    return Check(group, one.name, said, not old, needed, mend if old else "")


def _numbers(version: str) -> tuple[int, ...]:
    """1.20.1+cpu → (1, 20, 1)."""
    release = re.match(r"[\d.]*", version)
    return tuple(int(one) for one in re.findall(r"\d+", release[0] if release else ""))


# ---- the machine


def machine() -> Iterator[Check]:
    """Cores, memory, devices, and whether half precision pays."""
    yield Check("machine", "cores", f"{cores():g} of {os.cpu_count()}")
    free, total = memory()
    if total:
        little = free < ENOUGH
        said = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
        yield Check("machine", "memory", said, not little, needed=False, mend="end what else runs" if little else "")
    import torch

    devices = [torch.device("cpu")]
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(number)
        yield Check("machine", f"cuda:{number}", f"{facts.name}, {facts.total_memory / 1e9:.1f} GB")
        devices.append(torch.device("cuda", number))
    if len(devices) == 1:
        yield Check("machine", "GPU", f"none that torch {torch.__version__} sees: everything runs on the processor")
    from ribcage.training.trainer import fast_bf16

    fast = ", ".join(str(device) for device in devices if fast_bf16(device))
    yield Check("machine", "bf16", f"fast on {fast}" if fast else "not fast here: --precision auto takes float32")


def cores() -> float:
    """How many this process may use."""
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota = _words("/sys/fs/cgroup/cpu.max")
    return min(count, int(quota[0]) / int(quota[1])) if len(quota) == 2 and quota[0].isdigit() else count


def memory() -> tuple[float, float]:
    """Free and total bytes that this process may use; zeros where the system does not tell."""
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


def decoders() -> Iterator[Check]:
    """For every transfer syntax that Ribcage reads: a small image, written and read again."""
    from ribcage.imaging.dicom import samples

    for syntax in samples.SYNTAXES:
        try:
            said, good, package = samples.tried(syntax)
        except Exception as error:
            said, good, package = _said(error), False, samples.package(syntax)
        yield Check(
            "DICOM",
            samples.SYNTAXES[syntax],
            f"{said} ({syntax})",
            good,
            mend=f"pip install {package}" if package and not good else "",
        )


# ---- folders and terminal


def folders() -> Iterator[Check]:
    """Whether Ribcage may write where it does, and how much there is room for."""
    import tempfile

    from ribcage.runtime import files

    own = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    for name, folder, needed in (
        ("current folder", Path.cwd(), False),
        ("downloaded weights", own.expanduser(), False),
        ("temporary files", Path(tempfile.gettempdir()), True),
    ):
        there = next((one for one in (folder, *folder.parents) if one.exists()), folder)
        mend = "choose another, or ask who owns it" if name == "current folder" else ""
        mend = mend or f"export {'HF_HOME' if name == 'downloaded weights' else 'TMPDIR'}=FOLDER"
        try:
            with tempfile.TemporaryFile(dir=there) as handle:
                handle.write(b"ribcage")
            free = _free(there)
            good = free > ENOUGH
            said = f"{folder}: can be written, {files.size(int(free))} free"
            yield Check("folders", name, said, good, needed=False, mend="" if good else "free some space")
        except OSError as error:
            said = f"{folder}: cannot be written ({error.strerror or error})"
            yield Check("folders", name, said, good=False, needed=needed, mend=mend)


def _free(folder: Path) -> float:
    import shutil

    return float(shutil.disk_usage(folder).free)


def terminal() -> Iterator[Check]:
    """Whether names and signs of other languages can be shown."""
    import locale

    mend = "export PYTHONUTF8=1"
    spoken = getattr(sys.stdout, "encoding", None) or "unknown"
    yield _letters("encoding of the terminal", spoken, mend)
    yield _letters("encoding of file names", sys.getfilesystemencoding(), mend)
    yield _letters("encoding of files", locale.getpreferredencoding(False), mend)
    yield Check("terminal", "language", ".".join(part or "?" for part in locale.getlocale()), needed=False)


def _letters(name: str, encoding: str, mend: str) -> Check:
    good = encoding.lower().replace("-", "").replace("_", "") == "utf8"
    said = encoding if good else f"{encoding}: letters of other languages may be shown as '?'"
    return Check("terminal", name, said, good, needed=False, mend="" if good else mend)


def facts(found: list[Check]) -> dict[str, Any]:
    """All of it as JSON has it."""
    return {"ok": not any(one.broken for one in found), "checks": [vars(one) for one in found]}
