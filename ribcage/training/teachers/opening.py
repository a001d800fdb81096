"""Opening teachers: bundles and tables, their hashes, and the provenance of their training data."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from ribcage.bundle.init import initial_provenance, initial_spec
from ribcage.bundle.io import Classifier, find_bundle, load_classifier
from ribcage.bundle.spec import ModelSpec
from ribcage.data.collection import Datasets
from ribcage.data.provenance import Provenance
from ribcage.runtime.remote import addresses, objects
from ribcage.runtime.remote.cache import local_place
from ribcage.training.run_folder import warn
from ribcage.training.teachers.tables import TeacherTable, is_table, read_teacher_table, require_file

SPEC_FILE = "model.json"
OpenedTeacher = Classifier | TeacherTable


def open_teachers(names: Sequence[str]) -> dict[str, OpenedTeacher]:
    """The bundle or table of each teacher."""
    return {name: read_teacher_table(local_place(name)) if is_table(name) else load_classifier(name) for name in names}


def report_teachers(teachers: Mapping[str, OpenedTeacher], data: Datasets) -> None:
    """Print what is unusual about the teachers."""
    for name, one in teachers.items():
        if isinstance(one, Classifier):
            fits = [each.facts.fit for each in data if each.facts.fit != one.spec.fit]
            notes = [
                f"it was trained on images with --fit {one.spec.fit}, but the data were imported with --fit {fit}"
                for fit in fits
            ]
        else:
            notes = list(one.notes)
        for note in dict.fromkeys(notes):
            warn(f"{name}: {note}.")


def check_features(losses: Sequence[str], teachers: Mapping[str, OpenedTeacher]) -> None:
    """Raise where losses need the features of a teacher, but all bundles among the teachers are opaque networks."""
    bundles = {name: one.spec for name, one in teachers.items() if isinstance(one, Classifier)}
    if losses and bundles and all(spec.opaque for spec in bundles.values()):
        raise ValueError(
            f"{' and '.join(losses)}: features of a teacher are needed, but of an opaque network such as "
            f"{next(iter(bundles))} only the predictions are available. Leave {' and '.join(losses)} out."
        )


def content_hashes(names: Sequence[str]) -> list[str]:
    """A hash of each teacher's weights or predictions, wherever they lie; ValueError where two are the same."""
    found: dict[str, str] = {}
    for name in names:
        same = found.setdefault(content_hash(name), name)
        if same != name:
            raise ValueError(
                f"--teacher lists the same teacher twice: {same} and {name} have the same content. Leave one of them "
                f"out."
            )
    return list(found)


def content_hash(name: str) -> str:
    """A hash of a teacher's weights or predictions, wherever they lie."""
    there = [local_place(name)] if is_table(name) else _bundle_files(find_bundle(Path(name)))
    digest = hashlib.blake2b(digest_size=16)
    for file in there:
        with require_file(file).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _bundle_files(folder: Path) -> list[Path]:
    """The weights and the spec of a bundle."""
    return [folder / name for name in (ModelSpec.load(folder / SPEC_FILE).weights_file, SPEC_FILE)]


def teacher_provenance(name: str) -> Provenance:
    """The provenance of a teacher, which becomes part of the student's. For a table written by 'ribcage evaluate', it
    is that of the run around it; unknown training data is recorded as unknown."""
    file = Path(name) if addresses.is_remote(name) else Path(name).absolute()
    run = file.parents[2] if len(file.parts) > 3 else file
    inside = is_table(name) and file.parents[1].name == "evaluation" and objects.is_there(run / "bundle" / SPEC_FILE)
    found = initial_provenance(str(run) if inside else name)
    if len(found.pixels) or len(found.patients) or len(found.unknown):
        return found
    spec = None if is_table(name) else initial_spec(name)
    return Provenance.nothing(spec.name if spec else file.name)


def teacher_findings(teacher: OpenedTeacher) -> tuple[str, ...]:
    """The findings a teacher predicts."""
    return teacher.spec.findings if isinstance(teacher, Classifier) else teacher.findings
