"""Tables and files are found whatever surrounds them, and faults in them are one line."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import trees

from ribcage.data import datasets, splits
from ribcage.data.readers import table_text, tables


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "病人 数据 set"
    made.mkdir()
    return made


def test_files_are_sorted_hidden_ones_left_out_and_depth_kept(folder: Path) -> None:
    for name in ("b/2.png", "a.png", "b/c/3.png", "b/._2.png", ".git/x.png"):
        trees.text(folder / name, "x")
    assert tables.files_below(folder) == ["a.png", "b/2.png", "b/c/3.png"]
    assert tables.files_below(folder, depth=0) == ["a.png"] and tables.files_below(folder, depth=1) == [
        "a.png",
        "b/2.png",
    ]


def test_pipes_are_no_files_but_a_link_that_leads_nowhere_is_kept_to_be_reported(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    assert tables.files_below(folder) == ["gone.png"]


def test_a_link_to_itself_is_like_one_that_leads_nowhere(folder: Path) -> None:
    for name in ("a.png", "b"):
        (folder / name).symlink_to(folder / name)
    assert tables.files_below(folder) == ["a.png", "b"]


def test_very_deep_folders_and_loops_of_links_come_to_an_end(folder: Path) -> None:
    levels = [folder / "/".join("d" * depth) for depth in range(1, 1011)]
    for level in levels:
        level.mkdir()
    image, loop = levels[-1] / "x.png", levels[0] / "up"
    image.write_bytes(b"x")
    loop.symlink_to(folder, target_is_directory=True)
    found = tables.files_below(folder)
    for path in (image, loop):
        path.unlink()
    for level in reversed(levels):  # what clears temporary folders away would stumble over them
        level.rmdir()
    assert [path[-5:] for path in found] == ["x.png"]


def test_a_file_name_that_is_not_utf_8_is_left_out_and_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in (b"caf\xe9.png", b"b.png"):
        (folder / os.fsdecode(name)).write_bytes(b"x")
    assert tables.files_below(folder) == ["b.png"]
    assert " 1, " in caplog.text and r"b'caf\xe9.png'" in caplog.text


def test_files_are_found_under_another_ending_in_their_own_folder_first() -> None:
    paths = ["a/1.jpg", "b/1.jpg", "c/2.jpg", "c/3.jpg", "d/3.jpg"]
    names = ["b/1.png", "2.png", "3.png", "C:\\x\\a\\1.jpg", "4.png", "2"]
    found, other = tables.matched_files(names, paths)
    assert found == ["b/1.jpg", "c/2.jpg", "3.png", "a/1.jpg", "4.png", "c/2.jpg"] and other == 2


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"path,Mass\n1.png,0\x00\n", "NUL bytes"),
        ("path,Mass\n1.png,0\n".encode("utf-16-le"), "NUL bytes"),
        (b"," * 200_000 + b"\n1", "200,001 columns"),
        (b"path,Mass\n1.png," + b"x" * 200_000 + b"\n", "field larger"),
        (b"1.png,P1\n2.png,P2\n", "no header"),
    ],
)
def test_hostile_tables_are_one_short_line(folder: Path, content: bytes, fact: str) -> None:
    (folder / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=fact) as error:
        tables.sniffed(folder / "a.csv")
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_a_bomb_in_a_gz_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_text, "LARGEST", 1 << 20)
    trees.text(folder / "a.csv.gz", "path", "x" * (2 << 20))
    with pytest.raises(ValueError, match=r"larger than 1 MiB"):
        tables.sniffed(folder / "a.csv.gz")


def test_lists_name_their_images_whatever_stands_beside(folder: Path) -> None:
    file = trees.text(folder / "a.txt", "image", "x/1.png 0 1.0", "2 b.jpg", '"3.dcm",Mass')
    assert tables.bare_list(file) == ["x/1.png", "2 b.jpg", "3.dcm"]


def test_named_files_come_by_name_first_then_by_height() -> None:
    paths = ["x/y/b.csv", "x/b.csv.gz", "A.CSV.zip", "x/a.csv", "x/aa.csv"]
    assert tables.files_named(paths, "a.csv", "b.csv") == ["A.CSV.zip", "x/a.csv", "x/b.csv.gz", "x/y/b.csv"]


@pytest.mark.parametrize("end", ["", ".gz", ".zip"])
def test_a_table_reads_the_same_however_it_is_packed(folder: Path, end: str) -> None:
    file = trees.text(folder / f"表.csv{end}", "\ufeffname,x,odd", "001,1.5,a", "NA,,b")
    rows = tables.read_table(file, ["name", "x"], numbers=["x"], wanted=["nothing"])
    assert rows["name"].tolist() == ["001", "NA"] and list(rows) == ["name", "x"]
    np.testing.assert_array_equal(rows["x"], [1.5, np.nan])


def test_an_image_is_located_by_name_then_stem_and_in_the_preferred_folder_first() -> None:
    names = pd.Series(["1.png", "2.png", "3.png", "1.2.840.99"], dtype="str")
    paths = ["small/1.png", "images/1.png", "small/2.jpg", "x/1.2.840.99.dcm", "3.txt"]
    assert tables.locate(names, paths).tolist()[:2] == ["images/1.png", "small/2.jpg"]
    assert tables.locate(names, paths, prefer=["^small/"]).iloc[0] == "small/1.png"
    assert tables.locate(names, paths, "small/").iloc[0] == "small/1.png"
    assert tables.locate(names, paths).isna().tolist() == [False, False, True, False]
    with pytest.raises(FileNotFoundError, match="folder large"):
        tables.locate(names, paths, "large")


def test_a_mask_is_never_located_in_place_of_its_image() -> None:
    names = pd.Series(["1.png", "2.png"], dtype="str")
    paths = ["masks/1.png", "train/1.png", "masks/2.png"]
    assert tables.locate(names, paths).fillna("").tolist() == ["train/1.png", ""]
    assert tables.locate(names, paths, "masks").fillna("").tolist() == ["masks/1.png", "masks/2.png"]
    assert tables.matched_files(["1.png", "2.jpg", "masks/2.png"], paths) == (
        ["train/1.png", "2.jpg", "masks/2.png"],
        0,
    )


def test_an_encoding_given_is_used_and_a_wrong_one_is_one_line(folder: Path) -> None:
    file = trees.text(folder / "a.csv", "path,患者", "1.png,镕", encoding="gbk")
    assert tables.sniffed(file, "gbk")["患者"].tolist() == ["镕"]
    with pytest.raises(ValueError, match="encoding 'gkb'"):
        tables.sniffed(file, "gkb")
    with pytest.raises(ValueError, match="utf-8"):
        tables.sniffed(file, "utf-8")


def test_rows_with_more_cells_than_the_header_are_refused_not_cut(folder: Path) -> None:
    file = trees.text(folder / "a.csv", "path,Mass", "1.png,0,1", "2.png,0,1")
    with pytest.raises(ValueError, match=r"a\.csv .*3 cells in line 2\b.*\b2\b.*header"):
        tables.sniffed(file)


@pytest.mark.parametrize(("row", "cells"), [("2.png", 1), ('"2.png,0', 1), ("2.png,0,", 3)])
def test_a_row_of_another_width_is_named_by_its_line(folder: Path, row: str, cells: int) -> None:
    file = trees.text(folder / "a.csv", "", "path,Mass", "1.png,0", " ", row)
    with pytest.raises(ValueError, match=rf"a\.csv .*\b{cells} cells? in line [56]\b.*\b2\b.*header"):
        tables.sniffed(file)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(folder: Path, ending: str) -> None:
    (folder / "a.csv").write_bytes(ending.join(["path,Mass", "1.png,0", "2.png,1", ""]).encode())
    assert tables.sniffed(folder / "a.csv")["Mass"].tolist() == ["0", "1"]


def test_a_header_without_rows_is_refused(folder: Path) -> None:
    file = trees.text(folder / "a.csv", "path,Mass")
    for read in (tables.sniffed, lambda file: tables.read_table(file, ["path"])):
        with pytest.raises(ValueError, match=r"a\.csv .*no rows"):
            read(file)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("患者,喆", "gb18030"),
        ("陶喆", "gb18030"),
        ("朱镕基", "gb18030"),
        ("胸片，正常", "gb18030"),
        ("Größe,Müller,Zoé", "latin-1"),
        ("créée", "latin-1"),
        ("Ångström é", "latin-1"),
        ("喆", "utf-8"),
    ],
)
def test_an_encoding_is_told_from_the_letters(folder: Path, text: str, encoding: str) -> None:
    file = trees.text(folder / "a.csv", "path;who", f"1.png;{text}", encoding=encoding)
    assert tables.sniffed(file)["who"].tolist() == [text]


def test_a_pipe_in_place_of_a_list_or_an_archive_does_not_hang(folder: Path) -> None:
    os.mkfifo(folder / "train.txt")
    os.mkfifo(folder / "chestmnist.npz")
    with pytest.raises(OSError, match=r"train\.txt"):
        splits.from_lists([f"train={folder / 'train.txt'}"], pd.Series(["p"]), pd.Series(["a.png"]))
    with pytest.raises(OSError, match=r"chestmnist\.npz"):
        datasets.index("medmnist", folder)


def test_names_in_different_folders_never_match_the_same_file() -> None:
    names = ["b.png", "sub/b.png", "b.png", "d1/c.png", "d2/c.png"]
    found, other = tables.matched_files(names, ["b.png", "c.png", "a.png"])
    assert (found, other) == (names, 0)
    assert tables.matched_files(["d1/c.png", "d1/c.png"], ["c.png"]) == (["c.png", "c.png"], 0)


def test_a_report_in_the_wrong_column_is_not_quoted_in_errors(folder: Path) -> None:
    report = "Mister Canary has an opacity in the left lung."
    trees.text(folder / "numbers.csv", "name,x", "a.png,1", f'b.png,"{report}"')
    with pytest.raises(ValueError, match=f"numbers.csv.* {len(report)} ") as error:
        tables.read_table(folder / "numbers.csv", ["name"], ["x"], ["x"])
    assert "Canary" not in str(error.value)
    trees.text(folder / "no header.csv", f"a1,p1,{report}", f"a2,p2,{report}")
    for wrong in (
        lambda: tables.read_table(folder / "no header.csv", ["path"]),
        lambda: datasets.index("folder", folder, csv="no header.csv"),
    ):
        with pytest.raises(ValueError, match="p1") as error:
            wrong()
        assert "Canary" not in str(error.value)


def test_a_cell_of_several_lines_and_blank_lines_do_not_shift_the_line_in_a_message(folder: Path) -> None:
    trees.text(folder / "a.csv", "path,note,Mass", '1.png,"one', 'two",1', "", "2.png,x,7")
    with pytest.raises(ValueError, match=r"a\.csv.*'7' in line 5"):
        datasets.index("folder", folder)
    trees.text(folder / "a.csv", "path,note,Mass", '1.png,"one', 'two",1')
    trees.text(folder / "boxes.csv", "file,finding,x,y,width,height", "", "1.png,Mass,1,1,0,5")
    with pytest.raises(ValueError, match=r"boxes\.csv.*line 3"):
        datasets.index("folder", folder, csv="a.csv", boxes="boxes.csv")
    for number, lines in enumerate((["1.png,0", "  "], [",", ""])):
        file = trees.text(folder / f"{number}.csv", "path,Mass", *lines, "2.png,7")
        with pytest.raises(ValueError, match=r"\.csv, line 4,.*'7'"):
            tables.read_table(file, ["path", "Mass"], labels=["Mass"])
