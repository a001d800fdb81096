"""Imports survive kills, full disks and broken files: nothing is lost, and no incomplete folder opens."""

import csv
import errno
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import processes
import pytest
from image_folders import SIZE, facts, images, imported
from refusals import has_facts

from ribcage.data import dataset_folder
from ribcage.data import index as indexes
from ribcage.data.importer import writer
from ribcage.data.index import Index
from ribcage.imaging import image_file
from ribcage.runtime import files
from ribcage.runtime.engines import Threads


def digest(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def test_every_image_is_stored_in_order_as_it_would_be_read(tmp_path: Path) -> None:
    index = images(tmp_path / "in 片", 150)
    opened = imported(index, tmp_path / "out 目录")
    assert opened.images.shape == (150, SIZE, SIZE)
    for row in (0, 63, 64, 149):
        wanted = image_file.fit(image_file.read_image(index.file(row)).pixels, SIZE, "pad")[0]
        np.testing.assert_array_equal(opened.image(row), wanted)
    assert digest(opened.folder).keys() == {
        "images.npy",
        "index.parquet",
        "fingerprints.parquet",
        "dataset.json",
        "rejected.csv",
    }


def test_the_folder_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 200)
    imported(index, tmp_path / "one", 1)
    imported(index, tmp_path / "four", 4)
    assert digest(tmp_path / "one") == digest(tmp_path / "four")


def test_mean_and_spread_are_those_of_all_pixels(tmp_path: Path) -> None:
    for depth in (8, 16):
        opened = imported(images(tmp_path / "in", 20), tmp_path / f"out{depth}", depth=depth)
        assert opened.images.dtype == f"uint{depth}"
        scaled = np.asarray(opened.images, np.float64) / (2**depth - 1)
        assert opened.mean == pytest.approx(scaled.mean(), abs=1e-6)
        assert opened.std == pytest.approx(scaled.std(), abs=1e-6)


# ---- interruptions


def importing(index: Path, out: Path, limit: int = 0) -> int:
    """Import in a process of its own, which writes its journal often; `limit` to the size of a file."""
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    writer.SYNC_SECONDS, writer.CHUNK = 0.0, 8
    read = Index.load(index)
    with writer.Writer(read, facts(read.root), out, engine=Threads(2)) as work:
        print(work.done, flush=True)
        for _ in work.run():
            pass
    return 0


def test_five_kills_at_random_moments_leave_the_same_bytes(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 400, side=400)
    (tmp_path / "in" / "0100.png").write_bytes(b"not an image")
    index.save(tmp_path / "index")
    moments, progress = random.Random(1), []
    killed = tmp_path / "killed"
    journal = killed / "journal.part"
    while len(progress) < 5:
        said = tmp_path / f"said {len(progress)}.txt"
        with processes.Forked(importing, tmp_path / "index", killed, said=said, env=os.environ) as process:
            processes.until(lambda said=said: said.read_text().endswith("\n"), process)
            progress.append(int(said.read_text()))
            before, more = journal.stat().st_size, moments.randrange(10, 6000)
            while journal.exists() and journal.stat().st_size < before + more and process.poll() is None:
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
        assert not (killed / "dataset.json").exists() or process.poll() == 0
    assert progress == sorted(progress) and progress[-1] > 0, "finished work was done again"
    for out in (killed, tmp_path / "whole"):
        processes.together(importing, tmp_path / "index", out, said=tmp_path / "said", world=1)
    assert digest(killed) == digest(tmp_path / "whole")


@pytest.mark.parametrize("step", range(5))
def test_an_import_killed_while_the_folder_is_completed_can_be_finished(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = images(tmp_path / "in", 70)
    imported(index, tmp_path / "whole")
    saved, calls = writer.files.atomic, iter(range(100))

    def dies(file: Path):  # type: ignore[no-untyped-def]
        if next(calls) == step:
            raise KeyboardInterrupt
        return saved(file)

    monkeypatch.setattr(writer.files, "atomic", dies)
    with pytest.raises(KeyboardInterrupt):
        imported(index, tmp_path / "died")
    monkeypatch.undo()
    assert not (tmp_path / "died" / "dataset.json").exists()
    imported(index, tmp_path / "died")
    assert digest(tmp_path / "died") == digest(tmp_path / "whole")


def test_a_torn_journal_line_does_not_count(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 130)
    imported(index, tmp_path / "whole")
    with writer.Writer(index, facts(index.root), tmp_path / "torn") as work:
        steps = work.run()
        next(steps), next(steps)
        steps.close()
    with (tmp_path / "torn" / "journal.part").open("a") as journal:
        journal.write('{"rows":[128,12')
    imported(index, tmp_path / "torn")
    assert digest(tmp_path / "torn") == digest(tmp_path / "whole")


def test_other_options_do_not_go_on_with_an_unfinished_import(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 10)
    with writer.Writer(index, facts(index.root), tmp_path / "out"):
        pass
    with (
        pytest.raises(ValueError, match="other options"),
        writer.Writer(index, facts(index.root, size=64), tmp_path / "out"),
    ):
        pass


def test_a_folder_with_other_files_in_it_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    index = images(tmp_path.parent / f"{tmp_path.name} in", 3)
    with (
        pytest.raises(ValueError, match=r"thesis\.txt"),
        writer.Writer(index, facts(tmp_path), tmp_path),
    ):
        pass


def test_two_imports_into_one_folder_are_refused(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 200)
    with writer.Writer(index, facts(index.root), tmp_path / "out") as first:
        steps = first.run()
        next(steps)
        with (
            pytest.raises(OSError, match=re.escape(str(tmp_path / "out"))),
            writer.Writer(index, facts(index.root), tmp_path / "out"),
        ):
            pass
        list(steps)
    assert len(dataset_folder.open(tmp_path / "out")) == 200


# ---- bad files and bad disks


def test_unreadable_images_are_listed_with_their_reason_and_leave_no_gap(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 100)
    (tmp_path / "in" / "0007.png").write_bytes(b"")
    (tmp_path / "in" / "0064.png").unlink()
    opened = imported(index, tmp_path / "out")
    with (tmp_path / "out" / "rejected.csv").open(encoding="utf-8", newline="") as file:
        rejected = list(csv.DictReader(file))
    assert [row["path"] for row in rejected] == ["0007.png", "0064.png"] and all(row["reason"] for row in rejected)
    assert opened.facts.rejected == 2 and len(opened) == 98
    row = opened.index.table["path"].tolist().index("0065.png")
    np.testing.assert_array_equal(
        opened.image(row), image_file.fit(image_file.read_image(index.file(65)).pixels, SIZE, "pad")[0]
    )


def test_nothing_readable_is_an_error_and_no_folder(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 3)
    for file in (tmp_path / "in").iterdir():
        file.write_bytes(b"junk")
    with pytest.raises(ValueError, match="3 images"):
        imported(index, tmp_path / "out")
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_a_full_disk_is_one_clear_line_and_the_import_goes_on_later(tmp_path: Path) -> None:
    """A limit on the size of files stands for the end of the disk."""
    index = images(tmp_path / "in", 300)
    imported(index, tmp_path / "whole")
    index.save(tmp_path / "index")
    full = (importing, tmp_path / "index", tmp_path / "full")
    with processes.Forked(*full, 150 * SIZE * SIZE, said=tmp_path / "said.txt", env=os.environ) as failed:
        code, said = failed.end()
    assert code == 1 and "no space" in said.lower()
    processes.together(*full, said=tmp_path / "said", world=1)
    same, other = digest(tmp_path / "full"), digest(tmp_path / "whole")
    assert same == other


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_target_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OSError, match=r"locked.*cannot be written"):
        imported(images(tmp_path / "in", 3), tmp_path / "locked" / "out")


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_target_that_refuses_writes_is_explained(tmp_path: Path, number: int) -> None:
    """Also for root, whom permissions do not stop but a read-only disk does."""
    with pytest.raises(OSError, match=re.escape(str(tmp_path))), files.explained(tmp_path, ""):
        raise OSError(number, os.strerror(number))


def test_a_target_below_a_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError):
        imported(images(tmp_path / "in", 3), tmp_path / "file" / "out")


# ---- geometry and links


def test_boxes_follow_the_image_into_the_square(tmp_path: Path) -> None:
    """A bright block drawn in a 60 × 40 image is where its box says, however the image becomes square."""
    (tmp_path / "in").mkdir()
    pixels = np.zeros((40, 60), np.uint8)
    pixels[10:20, 30:50] = 255
    cv2.imencode(".png", pixels)[1].tofile(tmp_path / "in" / "a.png")
    rows = pd.DataFrame({"path": ["a.png"], "Mass": [1], "split": ["train"]})
    boxes = pd.DataFrame({"row": [0], "finding": ["Mass"], "x": [300], "y": [100], "width": [200], "height": [100]})
    for frame, scale in ((None, 0.1), ((600, 400), 1.0)):
        drawn = boxes.assign(**{name: boxes[name] * scale for name in ("x", "y", "width", "height")})
        index = Index(
            "made", indexes.index_table(rows, ["Mass"]), ("Mass",), indexes.box_frame(drawn), frame, tmp_path / "in"
        )
        for fit in ("pad", "crop", "squash"):
            opened = imported(index, tmp_path / f"{fit}{scale}", size=120, fit=fit)
            bright = np.argwhere(opened.image(0) > 127)
            top, left = bright.min(axis=0)
            bottom, right = bright.max(axis=0) + 1
            box = opened.index.boxes.iloc[0]
            found = [box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]]
            np.testing.assert_allclose(found, [left, top, right, bottom], atol=1.01, err_msg=fit)


def test_a_box_that_the_crop_cuts_away_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    cv2.imencode(".png", np.full((40, 80), 9, np.uint8))[1].tofile(tmp_path / "in" / "a.png")
    rows = pd.DataFrame({"path": ["a.png"], "Mass": [1], "split": ["train"]})
    boxes = pd.DataFrame(
        {"row": [0, 0], "finding": "Mass", "x": [0, 15], "y": [0, 0], "width": [10, 10], "height": [5, 5]}
    )
    index = Index(
        "made", indexes.index_table(rows, ["Mass"]), ("Mass",), indexes.box_frame(boxes), None, tmp_path / "in"
    )
    opened = imported(index, tmp_path / "out", size=40, fit="crop")
    assert opened.index.boxes[["x", "y", "width", "height"]].to_numpy().tolist() == [[0, 0, 5, 5]]


def test_patients_without_a_published_split_are_assigned_whole(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 100)
    blank = replace(index, table=index.table.assign(split=pd.Series("", index.table.index, dtype="str")))
    table = imported(blank, tmp_path / "out").index.table
    assert set(table["split"]) == {"train", "val", "test"}
    assert (table.groupby("patient")["split"].nunique() == 1).all()


def test_what_a_kill_leaves_at_the_very_start_does_not_block(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 5)
    (tmp_path / "out").mkdir()
    for name in ("journal.part.part", ".lock", "images.npy.part"):
        (tmp_path / "out" / name).write_bytes(b"")
    assert len(imported(index, tmp_path / "out")) == 5


def test_images_that_came_later_are_found_by_the_next_try(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 3)
    shutil.move(tmp_path / "in", tmp_path / "away")
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="None of the 3"):
        imported(index, tmp_path / "out")
    shutil.rmtree(tmp_path / "in")
    shutil.move(tmp_path / "away", tmp_path / "in")
    assert len(imported(index, tmp_path / "out")) == 3


def test_stopping_keeps_every_finished_chunk(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 200)
    with pytest.raises(KeyboardInterrupt), writer.Writer(index, facts(index.root), tmp_path / "out") as work:
        for _ in work.run():
            raise KeyboardInterrupt
    with writer.Writer(index, facts(index.root), tmp_path / "out") as work:
        assert work.done >= writer.CHUNK


def test_linking_skips_what_is_not_there(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 400)
    for number in range(390):
        (tmp_path / "in" / f"{number:04d}.png").unlink()
    writer.link(index, facts(index.root), tmp_path / "linked")
    assert dataset_folder.open(tmp_path / "linked").mean > 0


def test_linked_dicom_patients_do_not_cross_the_split(tmp_path: Path) -> None:
    """The table knows no patients, the headers do: linking must read them before it deals out a split."""
    import trees

    from ribcage import cli

    (tmp_path / "in").mkdir()
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 255, (20, 20), np.uint8)
        trees.dicom(tmp_path / "in" / f"{number:02d}.dcm", pixels, patient=f"p{number % 8}")
    for mode in ("--link", "--no-link"):
        out = tmp_path / mode
        assert cli.main(["import", "folder", str(tmp_path / "in"), "--out", str(out), "--size", "16", mode]) == 0
        table = dataset_folder.open(out).index.table
        assert set(table["patient"]) == {f"p{number}" for number in range(8)}
        assert (table.groupby("patient")["split"].nunique() == 1).all()


# ---- what changes between two runs


def interrupted(index: Index, out: Path, **changes: object) -> None:
    """An import that stops after its first chunks."""
    with writer.Writer(index, facts(index.root, **changes), out) as work:
        run = work.run()
        next(run)
        next(run)
        run.close()


def test_files_that_change_between_two_runs_are_read_again_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = images(tmp_path / "in", 3 * writer.CHUNK)
    interrupted(index, tmp_path / "out")
    file = tmp_path / "in" / f"{writer.CHUNK + 3:04d}.png"
    file.write_bytes((tmp_path / "in" / "0001.png").read_bytes() + b"\0")
    again = imported(index, tmp_path / "out")
    assert has_facts(caplog.text, f"row {writer.CHUNK + 3}", f"row {writer.CHUNK}")
    assert (again.image(writer.CHUNK + 3) == again.image(1)).all() and not len(again.damaged())
    caplog.clear()
    interrupted(index, tmp_path / "untouched")
    imported(index, tmp_path / "untouched")
    assert "changed" not in caplog.text


def test_an_unfinished_import_of_another_version_is_begun_anew(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 3 * writer.CHUNK)
    interrupted(index, tmp_path / "out")
    journal = tmp_path / "out" / "journal.part"
    head, *lines = journal.read_text().splitlines(keepends=True)
    journal.write_text(json.dumps({"plan": json.loads(head)["plan"]}) + "\n" + "".join(lines))
    with pytest.raises(ValueError, match=r"another version.*--redo"):
        imported(index, tmp_path / "out")


def test_redo_does_not_take_a_folder_from_another_import(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 4)
    with writer.Writer(index, facts(index.root), tmp_path / "out"):
        with pytest.raises(OSError, match=re.escape(str(tmp_path / "out"))):
            writer.clear(tmp_path / "out")
        assert (tmp_path / "out" / "journal.part").exists()
    writer.clear(tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_no_byte_of_a_file_stands_among_the_reasons(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 4)
    (tmp_path / "in" / "0002.png").write_text("root:x:0:0:secret")
    imported(index, tmp_path / "out")
    said = (tmp_path / "out" / "rejected.csv").read_text()
    assert "0002.png" in said and "root" not in said and "72 6f" not in said
