"""An import in parts and its merge give the same bytes as a single import, and whatever is missing or differs is named."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from image_folders import facts, images, imported
from test_writer import digest

from ribcage.commands import import_, merge
from ribcage.data.importer import parts, writer
from ribcage.data.importer.parts import Part
from ribcage.data.index import Index, box_frame


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """150 images, of which two cannot be read, with ages, boxes and a column of another source."""
    made = images(tmp_path / "in 片", 150)
    for row in (5, 149):
        made.file(row).write_bytes(b"not an image")
    boxes = pd.DataFrame({"row": [3, 70], "finding": "Mass", "x": 1.0, "y": 2.0, "width": 9.0, "height": 8.5})
    table = made.table.assign(age=[float(row) for row in range(150)], site=["a", "乙"] * 75)
    return replace(made, table=table, boxes=box_frame(boxes), box_frame=(48, 48))


def part_of(index: Index, out: Path, text: str, **changes: object) -> Path:
    with parts.PartWriter(index, facts(index.root, **changes), out, Part.parse(text)) as work:
        for _ in work.run():
            pass
    return work.folder


def merged(out: Path) -> dict[str, str]:
    with parts.Merger(out) as work:
        for _ in work.run():
            pass
    return digest(out)


def in_parts(index: Index, out: Path, count: int) -> Path:
    for number in range(count, 0, -1):
        part_of(index, out, f"{number}/{count}")
    return out


@pytest.mark.parametrize("count", [1, 2, 5])
def test_parts_in_any_order_give_the_bytes_of_a_single_import(index: Index, tmp_path: Path, count: int) -> None:
    imported(index, tmp_path / "single")
    assert merged(in_parts(index, tmp_path / "out 目录", count)) == digest(tmp_path / "single")


def test_parts_are_whole_chunks_that_cover_every_row_once() -> None:
    for total in (0, 1, 64, 65, 1000):
        for count in (1, 3, 7, 40):
            rows = [Part(count, number).rows(total) for number in range(1, count + 1)]
            assert [row for each in rows for row in each] == list(range(total))
            assert all(each.start % writer.CHUNK == 0 for each in rows if each)


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "1/0", "-1/4", "1/4/4", "１/４", "1/99999"])
def test_a_part_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--part"):
        Part.parse(text)


def test_missing_parts_are_named(index: Index, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--part"):
        parts.Merger(tmp_path / "nothing")
    for text in ("1/4", "3/4"):
        part_of(index, tmp_path / "out", text)
    with pytest.raises(ValueError, match=r"2 of 4 .*2/4, 4/4"):
        parts.Merger(tmp_path / "out")
    part_of(index, tmp_path / "out", "1/2")
    with pytest.raises(ValueError, match=r"\b2\b.*\b4\b"):
        parts.Merger(tmp_path / "out")


def test_an_unfinished_part_is_named_and_continues(index: Index, tmp_path: Path) -> None:
    imported(index, tmp_path / "single")
    out = in_parts(index, tmp_path / "out", 2)
    journal = Part(2, 2).folder(out) / "journal.part"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]) + lines[-1][:20])
    with pytest.raises(ValueError, match=r"2/2"):
        parts.Merger(out)
    part_of(index, out, "2/2")
    assert merged(out) == digest(tmp_path / "single")


def test_parts_of_different_imports_are_not_merged(index: Index, tmp_path: Path) -> None:
    out = tmp_path / "out"
    part_of(index, out, "1/2")
    part_of(index, out, "2/2", fit="crop")
    with pytest.raises(ValueError, match=r"2/2.*\bfit\b"):
        parts.Merger(out)
    file = Part(2, 2).folder(out) / parts.FACTS
    file.write_text(
        json.dumps(json.loads((Part(2, 1).folder(out) / parts.FACTS).read_text()) | {"versions": {"cv": "0"}})
    )
    with pytest.raises(ValueError, match=r"2/2.*versions.*\bcv\b"):
        parts.Merger(out)


@pytest.mark.parametrize("change", ["flip", "cut"])
def test_damaged_images_of_a_part_are_not_merged(index: Index, tmp_path: Path, change: str) -> None:
    out = in_parts(index, tmp_path / "out", 2)
    file = Part(2, 2).folder(out) / "images.npy.part"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content if change == "flip" else content[:-1])
    with pytest.raises(ValueError, match=r"--part 2/2"):
        merged(out)
    assert not (out / "dataset.json").exists()


def test_a_merge_that_was_stopped_goes_on(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported(index, tmp_path / "single")
    out = in_parts(index, tmp_path / "out", 3)
    monkeypatch.setattr(writer, "SYNC_SECONDS", 0.0)
    with parts.Merger(out) as work:
        steps = work.run()
        next(steps)
        steps.close()
    shutil.rmtree(index.root)  # the files may be on other machines
    with parts.Merger(out) as work:
        assert work.done == writer.CHUNK
        for _ in work.run():
            pass
    assert digest(out) == digest(tmp_path / "single")


def test_the_commands_import_parts_and_merge_them(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def importing(out: str, **options: object) -> None:
        wanted = import_.Options("phantom", out=tmp_path / out, size=32, member={"images": 70}, **options)  # type: ignore[arg-type]
        assert import_.exit_code(wanted, import_.run(wanted)) == 0

    importing("single")
    for text in ("2/2", "1/2", "1/2"):
        importing("out", part=text)
    assert merge.run(merge.Options(tmp_path / "out")).facts.images == 70
    assert digest(tmp_path / "out") == digest(tmp_path / "single")
    importing("out", part="1/2")
    importing("out")
    assert merge.run(merge.Options(tmp_path / "out")).facts.images == 70
    assert capsys.readouterr().out.count("complete already") == 3


def test_a_part_can_be_imported_again(index: Index, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = part_of(index, out, "1/2")
    parts.clear_part(out, Part(2, 1))
    assert list(first.iterdir()) == []
    with pytest.raises(ValueError, match=r"--part.*--link"):
        import_.check(import_.Options("phantom", out=out, part="1/2", link=True))
    with pytest.raises(ValueError, match="--part"):
        import_.check(import_.Options("phantom", out=out, part="3/2"))


def test_files_of_others_among_the_parts_stay(index: Index, tmp_path: Path) -> None:
    out = in_parts(index, tmp_path / "out", 2)
    for name in ("notes.txt", "2-of-2/notes.txt"):
        (out / writer.PLACE / name).write_text("mine")
    with parts.Merger(out) as work:
        for _ in work.run():
            pass
    left = sorted(file.relative_to(out / writer.PLACE).as_posix() for file in (out / writer.PLACE).rglob("*"))
    assert left == ["2-of-2", "2-of-2/notes.txt", "notes.txt"]


def test_a_link_among_the_parts_is_not_followed(index: Index, tmp_path: Path) -> None:
    out = in_parts(index, tmp_path / "out", 1)
    (out / writer.PLACE).rename(tmp_path / "elsewhere")
    (out / writer.PLACE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="link"):
        parts.Merger(out)
    parts.remove_parts(out)
    assert (tmp_path / "elsewhere").is_dir()


def test_a_damaged_table_of_a_part_is_named(index: Index, tmp_path: Path) -> None:
    out = in_parts(index, tmp_path / "out", 2)
    (Part(2, 2).folder(out) / parts.TABLE).write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"2-of-2.*source\.parquet"):
        parts.Merger(out)
