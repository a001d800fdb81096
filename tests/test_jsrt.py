"""JSRT: nodules from the names of the images, their centres from the table, masks by folder, and raw files."""

from pathlib import Path

import numpy as np
import pytest
import trees
from image_folders import facts
from test_gif import gif

from ribcage.data import dataset_folder, datasets
from ribcage.data.importer import writer


def test_names_tables_and_folders_give_labels_points_and_masks(tmp_path: Path) -> None:
    found = datasets.index("jsrt", trees.jsrt(tmp_path / "片 子"))
    assert found.labels[:, 0].tolist() == [1.0] * 10 + [0.0] * 10
    assert found.points[["row", "x", "y"]].to_numpy().tolist() == [[n, 1000 + 10 * n, 700 + n] for n in range(10)]
    assert found.box_frame == (2048, 2048) and set(found.table["view"]) == {"PA"}
    assert np.isnan(found.table["age"][0]) and found.table["age"][1] == 41 and found.table["age"][12] == 54
    assert found.table["sex"][:3].tolist() == ["M", "F", "M"]
    assert found.table["nodule"][2] == "malignant, 12 mm, subtlety 3: l.upper lobe lung cancer"
    assert found.masks.groupby("structure").size().to_dict() == {"Heart": 20, "Left_Lung": 20}


def test_images_without_a_table_have_labels_alone(tmp_path: Path) -> None:
    trees.images(tmp_path, ["JPCLN001.png", "JPCNN001.png"])
    found = datasets.index("jsrt", tmp_path)
    assert found.labels[:, 0].tolist() == [1, 0] and not len(found.points) and not len(found.masks)


def test_of_several_files_of_an_image_one_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("BSE/png/JPCLN001.png", "JSRT/JPCLN001.png", "JSRT/JPCNN001.png", "a/b/c/jpcnn001.img"):
        trees.text(tmp_path / name)
    assert datasets.index("jsrt", tmp_path).table["path"].tolist() == ["JSRT/JPCLN001.png", "a/b/c/jpcnn001.img"]
    assert "2 of 2 " in caplog.text and "a/b/c/jpcnn001.img and JSRT/JPCNN001.png" in caplog.text


def test_a_raw_image_is_upright_gray_and_its_gif_mask_lies_on_it(tmp_path: Path) -> None:
    stored = np.full((2048, 2048), 4095, ">u2")
    stored[512:1024, 1024:1536] = 0
    (tmp_path / "JPCLN001.IMG").write_bytes(stored.tobytes())
    mask = tmp_path / "masks" / "left lung" / "JPCLN001.gif"
    mask.parent.mkdir(parents=True)
    drawn = np.zeros((32, 32), int)
    drawn[8:16, 16:24] = 3
    mask.write_bytes(gif(drawn, 2))
    index = datasets.index("jsrt", tmp_path)
    image = datasets.images("jsrt", index, depth=16)(0)
    assert (image.width, image.height) == (2048, 2048) and set(np.unique(image.pixels)) == {0, 65535}
    with writer.Writer(index, facts(tmp_path, dataset="jsrt", findings=("Nodule",)), tmp_path / "out") as work:
        assert sum(work.run()) == 1
    opened = dataset_folder.open(tmp_path / "out")
    row = opened.masks.iloc[0]
    assert row[["x", "y", "width", "height"]].tolist() == [16, 8, 8, 8]
    assert (np.asarray(opened.image(0))[8:16, 16:24] == 255).all()


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\x20\0" * 2048 * 2048])
def test_a_raw_file_of_another_kind_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "JPCNN007.IMG").write_bytes(content)
    with pytest.raises(ValueError, match=r"JPCNN007\.IMG") as error:
        datasets.images("jsrt", datasets.index("jsrt", tmp_path))(0)
    assert "\n" not in str(error.value)
