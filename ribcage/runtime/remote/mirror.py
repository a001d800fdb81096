"""Mirror: a command whose --out is a remote address works in a local folder, which is copied to the address.

At the start, the local folder becomes a copy of the remote one. During the run, a thread copies changes as a snapshot
of one moment: the files are linked or copied into a separate folder, which is used only if none of the files was
replaced meanwhile. Within a folder, the manifest (such as model.json) is removed first and written last. At the end,
all remaining changes are copied. A snapshot is a state that the run folder had at one moment, so the run can be resumed
from it on any machine.

Only one process may write to an address: each puts its name into the file WRITER there, and stops copying when it finds
the name of another.
"""

import contextlib
import dataclasses
import fnmatch
import hashlib
import json
import os
import secrets
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ribcage.runtime import files, resuming, typed_json
from ribcage.runtime.messages import Message
from ribcage.runtime.remote import addresses, cache, objects

WRITER = "writer.json"
"""The file at the address that names the process which writes there."""
KNOWN = "copied.json"
"""The file beside the local folder that lists what has been copied, with the versions at the address."""
EVERY = 30.0
"""Seconds between two looks for changes."""
LEFT_OUT = (".*", "*.part", "*.previous", "*.previous.pt", "*.damaged", "*.damaged.pt", "features", WRITER)
"""Files and folders that are not copied: unfinished files, older checkpoints, and caches."""
MANIFESTS = ("SHA256SUMS", "model.json", "dataset.json")
"""Files that complete a folder, in the order in which they are written."""
LOGS = "*.jsonl"
"""Files to which lines are appended. A log may be longer than a checkpoint says, but not shorter."""
LINKED = 64 << 20
"""Bytes of a file from which on it is linked into a snapshot instead of copied."""
ATTEMPTS = 20


@dataclass(frozen=True)
class FileState:
    """A file as it was at one moment."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, file: Path) -> "FileState":
        """The state of a file now."""
        status = file.stat()
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)

    def continued_by(self, later: "FileState") -> bool:
        """Whether the file was not replaced until then; it may have grown."""
        return later == self or (later.inode == self.inode and later.size > self.size)


@dataclass(frozen=True)
class Copied:
    """A file that was copied."""

    version: str
    """At the address."""
    state: FileState
    """Here."""


class Mirror:
    """A local folder and the remote one that follows it."""

    def __init__(self, place: Path | str) -> None:
        self.address = addresses.address(place)
        key = hashlib.sha256(self.address.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self.folder = cache.cache_folder() / "runs" / key / self.address.rpartition("/")[2]
        self.name = secrets.token_hex(8)
        self.copied: dict[str, Copied] = {}
        self._warned = False

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Within the block, changes of the local folder are copied; an error of the last copy is raised, unless the
        block ends with another error."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with files.only_writer(self.folder.parent):
            for left in self.folder.parent.glob("snapshot-*"):
                shutil.rmtree(left)
            self.fetch()
            objects.write_bytes(json.dumps({"writer": self.name}).encode(), self._at(WRITER))
            ended = threading.Event()
            thread = threading.Thread(target=self._follow, args=(ended,), name="mirror", daemon=True)
            thread.start()
            try:
                yield
            except BaseException as error:
                ended.set()
                thread.join()
                with self._only_warned():
                    self.finish()
                if note := resuming.resume_note(error):
                    error.add_note(note.replace(str(self.folder), self.address))
                raise
            ended.set()
            thread.join()
            try:
                self.finish()
            except OSError as error:
                raise OSError(f"{error} The results are in {self.folder} and were not copied completely.") from error

    def fetch(self) -> None:
        """Make the local folder a copy of the remote one, unless it is ahead of it."""
        try:
            there = objects.list_files(self.address)
        except FileNotFoundError:
            there = {}
        there = {name: found for name, found in there.items() if _is_wanted(name)}
        known = _read_known(self.folder.parent / KNOWN)
        if known is not None and {name: one.version for name, one in known.items()} == {
            name: found.version for name, found in there.items()
        }:
            self.copied = known  # what is here and not there could not be copied by an earlier run
            return
        for file in self.folder.iterdir():
            _remove(file)
        for name, found in there.items():
            file = self.folder.joinpath(*name.split("/"))
            file.parent.mkdir(parents=True, exist_ok=True)
            with files.explained(file, "Free some."), files.atomic(file) as part:
                objects.download(found, part)
            self.copied[name] = Copied(found.version, FileState.of(file))
        self._save_known()

    def copy_changes(self) -> None:
        """Copy a snapshot of the local folder to the address; nothing where the folder changes too fast."""
        with tempfile.TemporaryDirectory(dir=self.folder.parent, prefix="snapshot-") as made:
            taken = self._snapshot(Path(made))
            if taken is None:
                return
            known = {name: one.state for name, one in self.copied.items()}
            changed = [name for name, state in taken.items() if known.get(name) != state]
            gone = [name for name in self.copied if name not in taken]
            if not changed and not gone:
                return
            self._require_own()
            for manifest in _manifests_of([*changed, *gone], self.copied):
                objects.remove(self._at(manifest))
                del self.copied[manifest]
                changed += [manifest] if manifest in taken and manifest not in changed else []
            for name in gone:
                objects.remove(self._at(name))
                self.copied.pop(name, None)
            for name in sorted(changed, key=_order):
                found = objects.upload(Path(made) / name, self._at(name))
                self.copied[name] = Copied(found.version, taken[name])
            self._save_known()

    def finish(self) -> None:
        """Copy what is left, and give the address free."""
        self.copy_changes()
        self._require_own()
        objects.remove(self._at(WRITER))

    def _follow(self, ended: threading.Event) -> None:
        while not ended.wait(EVERY):
            with self._only_warned():
                self.copy_changes()

    @contextlib.contextmanager
    def _only_warned(self) -> Iterator[None]:
        """Print an error once instead of raising it; the next copy tries again."""
        try:
            yield
        except (OSError, ValueError) as error:
            if not self._warned:
                text = f"{self.folder} was not copied: {error}"
                print(Message(text, warning=True), file=sys.stderr, flush=True)
            self._warned = True

    def _snapshot(self, into: Path) -> dict[str, FileState] | None:
        """Links to or copies of all files as they were at one moment, and their states; None if there was none."""
        for _ in range(ATTEMPTS):
            shutil.rmtree(into)
            into.mkdir()
            before = _states(self.folder)
            with contextlib.suppress(FileNotFoundError):  # a file was replaced meanwhile
                for name in sorted(before, key=lambda name: fnmatch.fnmatch(name, LOGS)):
                    target = into / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _link_or_copy(self.folder / name, target, before[name].size)
                after = _states(self.folder)
                if before.keys() == after.keys() and all(before[name].continued_by(after[name]) for name in before):
                    # a log may have grown before it was copied
                    return {name: replace(before[name], size=(into / name).stat().st_size) for name in before}
        return None

    def _require_own(self) -> None:
        """Raise if another process has begun to write to the address."""
        try:
            owner = json.loads(objects.read_bytes(self._at(WRITER), limit=1000))
        except (FileNotFoundError, ValueError):
            owner = {}
        if owner != {"writer": self.name}:
            raise OSError(f"Another process is writing to {self.address}, so this process stops copying to it.")

    def _save_known(self) -> None:
        text = json.dumps({name: dataclasses.asdict(one) for name, one in self.copied.items()})
        files.write_text(self.folder.parent / KNOWN, text + "\n")

    def _at(self, name: str) -> str:
        return addresses.child(self.address, name)


def _is_wanted(name: str) -> bool:
    return not any(fnmatch.fnmatch(step, pattern) for step in name.split("/") for pattern in LEFT_OUT)


def _states(folder: Path) -> dict[str, FileState]:
    """The files below a folder that are copied, and their states."""
    found = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if _is_wanted(name) and not file.is_symlink() and file.is_file():
            found[name] = FileState.of(file)
    return found


def _link_or_copy(file: Path, target: Path, size: int) -> None:
    """A large file is linked, since it is replaced and never changed; others are copied."""
    if size >= LINKED:
        with contextlib.suppress(OSError):
            os.link(file, target)
            return
    shutil.copyfile(file, target)


def _manifests_of(names: list[str], known: dict[str, Copied]) -> list[str]:
    """The manifests at the address of the folders in which something changes."""
    folders = {str(PurePosixPath(name).parent) for name in names}
    return [
        name for name in known if PurePosixPath(name).name in MANIFESTS and str(PurePosixPath(name).parent) in folders
    ]


def _order(name: str) -> tuple[int, int, str]:
    """Logs first, since a log must not be shorter than the checkpoint says; then bundles, with their manifests last;
    then the checkpoint and all other files of the folder itself, so that a checkpoint is never without its bundle."""
    last = PurePosixPath(name).name
    part = 0 if fnmatch.fnmatch(last, LOGS) else 1 if "/" in name else 2
    return part, MANIFESTS.index(last) + 1 if last in MANIFESTS else 0, name


def _read_known(file: Path) -> dict[str, Copied] | None:
    """What an earlier run copied; None if there was none, or if it was killed while it began."""
    try:
        return {name: typed_json.from_json(Copied, one) for name, one in files.read_json(file).items()}
    except (OSError, ValueError, AttributeError):
        return None


def _remove(file: Path) -> None:
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    elif file.name != files.LOCK:
        file.unlink()
