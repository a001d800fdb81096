"""Dataset folders and sources of images at remote addresses, on a real S3 server on loopback."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trees
from refusals import has_facts
from remote_servers import FaultProxy
from trainings import words

from ribcage import cli
from ribcage.data import dataset_folder, datasets
from ribcage.runtime.remote import cache, objects


def uploaded(folder: Path, address: str) -> None:
    names = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
    objects.upload_folder(folder, address, names, "dataset.json")


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same made-up dataset in one file and in shards."""
    root = tmp_path_factory.mktemp("phantom")
    whole, shards = str(root / "whole"), str(root / "shards")
    words = ["--size", "32", "--images", "200", "--threads", "1"]
    assert cli.main(["import", "phantom", "--out", whole, *words]) == 0
    assert cli.main(["reshard", whole, "--out", shards, "--images-per-shard", "40"]) == 0
    return root


def test_a_remote_folder_has_the_tables_and_images_of_the_local_one(s3: FaultProxy, phantom: Path) -> None:
    local = dataset_folder.open(phantom / "whole")
    for name in ("whole", "shards"):
        uploaded(phantom / name, f"s3://xray/data/{name}")
        found = dataset_folder.open(f"s3://xray/data/{name}")
        assert found.index.table.equals(local.index.table) and found.facts.contents == local.facts.contents
        assert np.array_equal(found.images[:], local.images[:]) and not len(found.damaged())
        assert str(found.folder).startswith("s3:/")


def test_shards_are_read_through_a_cache_that_holds_only_some(
    s3: FaultProxy, phantom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded(phantom / "shards", "s3://xray/data/shards")
    found = dataset_folder.open("s3://xray/data/shards")
    tables = cache.used_bytes()
    monkeypatch.setenv(cache.SIZE_VARIABLE, f"{tables + 2 * (40 * 32 * 32 + 128) + 100}")
    images = dataset_folder.open(phantom / "whole").images[:]
    for row in range(0, 200, 3):
        assert np.array_equal(found.image(row), images[row])
        assert len(found.images.read([row, (row + 100) % 200])) == 2
        assert cache.used_bytes() <= cache.cache_limit()


def test_training_on_a_remote_folder_equals_training_on_the_local_one_bit_for_bit(
    s3: FaultProxy, phantom: Path, tmp_path: Path
) -> None:
    for name in ("whole", "shards"):
        uploaded(phantom / name, f"s3://xray/data/{name}")
    places = {"local": str(phantom / "whole"), "whole": "s3://xray/data/whole", "shards": "s3://xray/data/shards"}
    for name, place in places.items():
        s3.fault("cut", times=1)
        assert cli.main(words(place, tmp_path / name, "--epochs", "1")) == 0
    weights = {name: (tmp_path / name / "bundle" / "model.safetensors").read_bytes() for name in places}
    assert weights["local"] == weights["whole"] == weights["shards"]
    assert "s3://xray/data/whole" in (tmp_path / "whole" / "options.json").read_text(encoding="utf-8")


def test_a_remote_folder_without_its_last_file_is_not_opened(s3: FaultProxy, phantom: Path) -> None:
    uploaded(phantom / "whole", "s3://xray/data/whole")
    objects.remove("s3://xray/data/whole/dataset.json")
    with pytest.raises(FileNotFoundError, match=r"s3://xray/data/whole/dataset\.json"):
        dataset_folder.open("s3://xray/data/whole")


def test_an_array_that_was_written_in_part_is_refused(s3: FaultProxy, phantom: Path) -> None:
    uploaded(phantom / "whole", "s3://xray/data/whole")
    objects.write_bytes((phantom / "whole" / "images.npy").read_bytes()[:-100], "s3://xray/data/whole/images.npy")
    with pytest.raises(ValueError, match=r"images\.npy is damaged"):
        dataset_folder.open("s3://xray/data/whole")
    uploaded(phantom / "whole", "s3://xray/data/whole")
    assert dataset_folder.open("s3://xray/data/whole").images.shape == (200, 32, 32)


def test_inspect_reads_remote_folders(s3: FaultProxy, phantom: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uploaded(phantom / "whole", "s3://xray/data/whole")
    assert cli.main(["inspect", "s3://xray/data/whole"]) == 0
    assert "200" in capsys.readouterr().out


def test_a_shard_that_was_written_in_part_is_refused(s3: FaultProxy, phantom: Path) -> None:
    uploaded(phantom / "shards", "s3://xray/data/shards")
    objects.write_bytes(
        (phantom / "shards" / "images-00001.npy").read_bytes()[:-100], "s3://xray/data/shards/images-00001.npy"
    )
    found = dataset_folder.open("s3://xray/data/shards")
    assert found.image(3).shape == (32, 32)
    with pytest.raises(ValueError, match=r"images-00001\.npy has .* bytes"):
        found.image(45)


# ---- sources of an import


LAYOUTS = [(name, build) for name in datasets.dataset_names() if name != "phantom" and (build := trees.builder(name))]


@pytest.mark.parametrize(("name", "build"), LAYOUTS, ids=[name for name, _ in LAYOUTS])
def test_the_index_of_a_remote_dataset_is_that_of_the_local_one(
    name: str, build: Callable[[Path], Path], s3: FaultProxy, tmp_path: Path
) -> None:
    root = build(tmp_path / "病人 data")
    inside = root.relative_to(tmp_path / "病人 data").as_posix().removeprefix(".")
    s3.store(tmp_path / "病人 data", "s3://xray/source/病人 data")
    local, remote = datasets.index(name, root), datasets.index(name, f"s3://xray/source/病人 data/{inside}")
    assert remote.table.equals(local.table) and remote.boxes.equals(local.boxes)
    assert (remote.name, remote.findings) == (local.name, local.findings)
    assert str(remote.root).startswith("s3:/xray/source/病人 data")


@pytest.mark.parametrize("name", ["nih", "folder"])
def test_an_import_from_an_address_equals_that_of_the_local_files(name: str, s3: FaultProxy, tmp_path: Path) -> None:
    root = trees.nih(tmp_path / "nih") if name == "nih" else trees.class_folders(tmp_path / "ours")
    broken = next(file for file in sorted(root.rglob("*")) if file.suffix in (".png", ".jpg", ".jpeg"))
    broken.write_bytes(broken.read_bytes()[:40])
    s3.store(root, f"s3://xray/source/{root.name}")
    s3.heal()
    s3.fault("cut", where=broken.suffix, times=2)
    for out, place in (("local", str(root)), ("remote", f"s3://xray/source/{root.name}")):
        assert cli.main(["import", name, place, "--out", str(tmp_path / out), "--size", "32"]) == 0
    for file in ("images.npy", "fingerprints.parquet", "rejected.csv"):
        assert (tmp_path / "remote" / file).read_bytes() == (tmp_path / "local" / file).read_bytes()
    local, remote = dataset_folder.open(tmp_path / "local"), dataset_folder.open(tmp_path / "remote")
    assert remote.index.table.equals(local.index.table) and remote.index.boxes.equals(local.index.boxes)
    assert replace(remote.facts, root="", plan="", tables={}) == replace(local.facts, root="", plan="", tables={})
    assert remote.facts.root == f"s3://xray/source/{root.name}" and remote.facts.rejected == 1
    assert sum("list-type=2" in line for line in s3.requests) == 1 and cache.used_bytes() == 0
    images = sum(line.startswith("GET") and broken.suffix in line for line in s3.requests)
    assert images == remote.facts.images + 1 + 2  # each once, and those that were cut again


def test_an_import_stops_where_the_connection_fails_and_resumes(s3: FaultProxy, tmp_path: Path) -> None:
    root = trees.nih(tmp_path / "nih")
    s3.store(root, "s3://xray/source/nih")
    line = ["import", "nih", "s3://xray/source/nih", "--out", str(tmp_path / "out"), "--size", "32"]
    s3.fault("expired", where=".png", times=1000)
    assert cli.main(line) == 1
    assert not (tmp_path / "out" / "dataset.json").exists()
    s3.heal()
    assert cli.main(line) == 0
    assert dataset_folder.open(tmp_path / "out").facts.rejected == 0


def test_a_dataset_folder_is_written_to_an_address(
    s3: FaultProxy, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["import", "nih", str(trees.nih(tmp_path / "nih")), "--size", "32", "--images-per-shard", "16", "--out"]
    assert cli.main([*line, str(tmp_path / "local")]) == 0
    s3.heal()
    for _ in range(2):  # the second import finds that the folder is complete
        assert cli.main([*line, "s3://xray/data/nih"]) == 0
    written = [one.split("/")[-1].partition("?")[0] for one in s3.requests if one.startswith("PUT")]
    assert written.index("dataset.json") == max(written.index(name) for name in written if name != "writer.json")
    assert written.count("dataset.json") == 1
    found = objects.list_files("s3://xray/data/nih")
    local = {file.name: file for file in (tmp_path / "local").iterdir() if not file.name.startswith(".")}
    assert found.keys() == local.keys() and "images-00001.npy" in found
    assert all(objects.read_file(found[name]) == local[name].read_bytes() for name in local)
    assert cli.main([*line, "s3://xray/data/nih", "--part", "1/2"]) == 2
    assert has_facts(capsys.readouterr().err, "--out", "--part")
