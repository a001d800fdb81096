"""Tests compute on one thread, as the processes that they start: with another number of threads the last bits differ."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from remote_servers import FaultProxy

os.environ["OMP_NUM_THREADS"] = "1"
SLOW = Path(__file__).with_name("slow.txt")
"""Tests that take half a second or more, as durations.py wrote them; the marker `slow` is theirs."""


gc.disable()  # while torch and the tests are imported there is nothing to free, and each pass takes a second


def pytest_collection_finish() -> None:
    """Objects that live as long as the tests are not searched for garbage again."""
    gc.enable()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Or libraries report at the end of the process what was frozen as leaks."""
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is listed as slow is marked so."""
    listed = set(SLOW.read_text(encoding="utf-8").split())
    for item in items:
        if f"{item.path.stem}::{item.name.partition('[')[0]}" in listed:
            item.add_marker(pytest.mark.slow)


os.environ["RIBCAGE_SITE_KEY"] = "tests"  # hashes of private patients; nothing is kept in the user's folders


@pytest.fixture(autouse=True, scope="session")
def _no_ood_check() -> Iterator[None]:
    """Trainings fit no out-of-distribution check, which takes a second each; tests of test_ood.py do."""
    from ribcage.bundle.ood import fitting

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitting, "FEWEST", 1 << 30)
        yield


@pytest.fixture
def real() -> Path:
    """The folder of real images, labels and boxes."""
    folder = os.environ.get("RIBCAGE_REAL_DATA")
    if not folder:
        pytest.skip("RIBCAGE_REAL_DATA does not name a folder of real data")
    return Path(folder)


@pytest.fixture(scope="session")
def nih_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a download of ChestX-ray14 (download), its dataset folder (data) and a run trained on it (run), which
    no test changes."""
    import models
    import trees

    from ribcage import cli
    from ribcage.data import dataset_folder

    folder = tmp_path_factory.mktemp("nih")
    line = ["import", "nih", str(trees.nih(folder / "download")), "--out", str(folder / "data"), "--size", "32"]
    assert cli.main(line) == 0
    models.trained(folder / "run", dataset_folder.open(folder / "data"))
    return folder


@pytest.fixture(scope="session")
def _s3_server() -> Iterator["FaultProxy"]:
    from remote_servers import running_s3

    with running_s3() as proxy:
        yield proxy


@pytest.fixture
def s3(_s3_server: "FaultProxy", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "FaultProxy":
    """An S3 server on loopback with an empty bucket `xray`, and an empty cache."""
    from remote_servers import connect

    connect(_s3_server, monkeypatch, tmp_path / "cache")
    return _s3_server
