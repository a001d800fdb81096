"""ribcage import: exit codes, windows of DICOM files, splits that share patients."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from image_folders import images, imported
from refusals import has_facts

import ribcage
from ribcage import cli
from ribcage.data import dataset_facts
from ribcage.data.importer import tables, writer

# ---- what the command says of it


@pytest.mark.parametrize(("allowed", "code"), [("50%", 3), ("1", 3), ("2", 0), ("all", 0)])
def test_an_import_that_rejects_most_images_ends_with_a_code_of_its_own(
    tmp_path: Path, allowed: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    images(tmp_path / "in", 1)
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).write_bytes(b"broken")
    words = ["import", "folder", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--size", "32"]
    assert cli.main([*words, "--allow-rejected", allowed]) == code
    assert has_facts(capsys.readouterr().out, "exit code", 3) == (code == 3)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_an_interrupted_import_ends_with_the_code_of_the_signal_and_continues(
    tmp_path: Path, number: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images(tmp_path / "in", 65)
    words = ["import", "folder", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--size", "32"]
    run = writer.Writer.run

    def stopped(work: writer.Writer) -> Iterator[int]:
        for done in run(work):
            os.kill(os.getpid(), number)
            yield done

    with monkeypatch.context() as patch:
        patch.setattr(writer.Writer, "run", stopped)
        before = signal.signal(
            signal.SIGINT, signal.default_int_handler
        )  # a shell ignores it for jobs in the background
        try:
            assert cli.main(words) == code
        finally:
            signal.signal(signal.SIGINT, before)
    assert "Traceback" not in capsys.readouterr().err
    assert cli.main(words) == 0 and has_facts(capsys.readouterr().out, "65 images")


def test_the_window_of_an_import_is_kept_in_the_folder(tmp_path: Path) -> None:
    from dicoms import chest, dataset, written

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.dcm").write_bytes(written(dataset(chest() // 16, WindowCenter="2048", WindowWidth="4096")))
    opened = ribcage.import_("folder", tmp_path / "in", out=tmp_path / "out", size=32, window="130,120")
    assert opened.facts.window == "130,120" and has_facts(next(iter(opened.facts.notes)), "window 130/120")
    old = json.loads((tmp_path / "out" / "dataset.json").read_text())
    del old["window"]
    old["format"] = 1
    (tmp_path / "out" / "dataset.json").write_text(json.dumps(old))
    assert dataset_facts.Facts.load(tmp_path / "out" / "dataset.json").window == ""


def test_splits_that_share_patients_or_copies_give_way_at_import(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 6)  # two images of each patient
    (tmp_path / "in" / "0005.png").write_bytes((tmp_path / "in" / "0000.png").read_bytes())
    split = ["train", "train", "train", "test", "test", "test"]
    index = replace(index, table=index.table.assign(split=split))
    found = imported(index, tmp_path / "out", drop_shared=("test",))
    assert found.index.table["split"].tolist() == ["train", "train", "train", "", "test", ""]
    assert found.facts.drop_shared == ("test",)
    with pytest.raises(ValueError, match="--drop-shared test"):
        imported(index.take(range(4)), tmp_path / "none", drop_shared=("test",))


def test_dicom_slices_are_left_out_and_other_kinds_are_noted(tmp_path: Path) -> None:
    from dicoms import dataset, written

    (tmp_path / "in").mkdir()
    kinds = {"chest": {"Modality": "DX"}, "knee": {"BodyPartExamined": "KNEE"}, "slice": {"Modality": "CT"}}
    for name, elements in kinds.items():
        (tmp_path / "in" / f"{name}.dcm").write_bytes(written(dataset(PatientID=name, **elements)))
    found, kept = (
        ribcage.import_("folder", tmp_path / "in", out=tmp_path / slices, size=32, slices=slices)
        for slices in ("drop", "keep")
    )
    assert found.index.table["path"].tolist() == ["chest.dcm", "knee.dcm"]
    assert "CT slice" in (tmp_path / "drop" / "rejected.csv").read_text()
    assert [has_facts(note, "KNEE") for note in found.index.table["notes"]] == [False, True]
    assert len(kept) == 3 and has_facts(kept.index.table["notes"][2], "CT")


def test_patients_and_views_that_contradict_the_dicom_headers_are_reported(tmp_path: Path) -> None:
    tags = [{"patient": "A", "view": "LATERAL"}, {"patient": "A"}, {"patient": "0b", "sex": "F"}, {}]
    table = pd.DataFrame(
        {
            "patient": ["p1", "p2", "p3", "p4"],
            "split": ["train", "test", "train", "test"],
            "view": ["PA", "PA", "PA", ""],
            "sex": ["", "", "F", "M"],
        }
    )
    view, patient = tables.contradictions(table, tags)
    assert has_facts(view, "view", 1)
    assert has_facts(patient, 1, 2, "--patient-column none") and "A" not in patient.split()
    assert tables.contradictions(table.assign(split="train", view=""), tags) == []
    assert tables.contradictions(table.assign(patient=["p1", "p1", "p3", "p4"], view=""), tags) == []
    assert tables.contradictions(table.assign(view=""), [{"patient": "ANON"}] * 4) == []
