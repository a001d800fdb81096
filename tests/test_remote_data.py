"""Dataset folders and sources of images at remote addresses, on a real S3 server on loopback."""

from pathlib import Path

import numpy as np
import pytest
from remote_servers import FaultProxy
from trainings import words

from ribcage import cli
from ribcage.data import dataset_folder
from ribcage.runtime.remote import cache, objects


def uploaded(folder: Path, address: str) -> None:
    names = [file.name for file in folder.iterdir() if not file.name.startswith(".")]
    objects.upload_folder(folder, address, names, "dataset.json")


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same made-up dataset in one file and in shards."""
    root = tmp_path_factory.mktemp("phantom")
    for name, more in (("whole", []), ("shards", ["--images-per-shard", "40"])):
        line = [
            "import",
            "phantom",
            "--out",
            str(root / name),
            "--size",
            "32",
            "--images",
            "200",
            "--threads",
            "1",
            *more,
        ]
        assert cli.main(line) == 0
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


def test_a_shard_that_was_written_in_part_is_refused(s3: FaultProxy, phantom: Path) -> None:
    uploaded(phantom / "shards", "s3://xray/data/shards")
    objects.write_bytes(
        (phantom / "shards" / "images-00001.npy").read_bytes()[:-100], "s3://xray/data/shards/images-00001.npy"
    )
    found = dataset_folder.open("s3://xray/data/shards")
    assert found.image(3).shape == (32, 32)
    with pytest.raises(ValueError, match=r"images-00001\.npy is damaged"):
        found.image(45)
