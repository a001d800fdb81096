"""File systems beside S3: the Hugging Face Hub, Google Cloud Storage, local files, and any other that fsspec knows."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from refusals import has_facts
from remote_servers import CloudStub, HubStub

from ribcage import cli
from ribcage.runtime.remote import addresses, cache, errors, objects
from ribcage.runtime.remote.mirror import Mirror

MISSING = (
    ("gs", "gcsfs", "ribcage[gs]"), ("abfs", "adlfs", "adlfs"),
    ("sftp", "paramiko", "paramiko"), ("oss", "ossfs", "ossfs"),
)  # fmt: skip
"""Scheme, the module that it needs, and what is installed to have it."""
DATA = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RIBCAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(objects, "PAUSES", (0.01, 0.01))
    objects.forget_connections()
    yield
    objects.forget_connections()


def files_are_written_listed_read_and_removed(folder: str, tmp_path: Path) -> None:
    """What every file system has to do."""
    (tmp_path / "a.bin").write_bytes(DATA)
    objects.upload(tmp_path / "a.bin", f"{folder}/nih/a b.bin")
    objects.write_bytes(b"old", f"{folder}/nih/deep/b")
    assert list(objects.list_files(f"{folder}/nih")) == ["a b.bin", "deep/b"]
    assert cache.local_copy(f"{folder}/nih/a b.bin").read_bytes() == objects.read_bytes(f"{folder}/nih/a b.bin") == DATA
    assert objects.read_head(objects.describe(f"{folder}/nih/a b.bin"), 10) == DATA[:10]
    before = objects.describe(f"{folder}/nih/deep/b")
    assert cache.local_copy(before.address).read_bytes() == b"old"
    objects.write_bytes(b"new", before.address)
    assert objects.describe(before.address).version != before.version
    assert objects.list_files(f"{folder}/nih")["deep/b"] == objects.describe(before.address)
    assert cache.local_copy(before.address).read_bytes() == b"new"
    objects.remove(before.address)
    assert (
        not objects.exists(before.address) and objects.is_there(f"{folder}/nih") and not objects.is_there(f"{folder}/x")
    )
    for ask in (objects.describe, objects.read_bytes, objects.list_files, cache.local_copy):
        with pytest.raises(FileNotFoundError, match=f"{folder}/nih/deep"):
            ask(before.address)  # type: ignore[operator]
    mirror = Mirror(f"{folder}/run")
    with mirror.running():
        (mirror.folder / "bundle").mkdir()
        (mirror.folder / "bundle" / "model.json").write_text("1")
    assert list(objects.list_files(f"{folder}/run")) == ["bundle/model.json"]


# ---- any file system of fsspec


class Store(MemoryFileSystem):
    """A file system of another package, with a host in its addresses."""

    protocol, store, pseudo_dirs = "xraystore", {}, [""]  # type: ignore[var-annotated]

    def __init__(self, host: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.host = host

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.partition("://")[2].partition("/")[2].strip("/") if "://" in path else "/" + path.strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        return {"host": path.partition("://")[2].partition("/")[0]}


def test_a_file_system_that_another_package_registers_works(tmp_path: Path) -> None:
    assert not addresses.is_remote("xraystore://host/a")
    fsspec.register_implementation("xraystore", Store, clobber=True)
    try:
        assert addresses.is_remote("xraystore://host/a") and addresses.is_remote(Path("xraystore://host/a"))
        files_are_written_listed_read_and_removed("xraystore://host/xray", tmp_path)
        assert objects._filesystem("xraystore://host/a").host == "host"
    finally:
        del import_module("fsspec.registry")._registry["xraystore"]


@pytest.mark.parametrize(("scheme", "module", "package"), MISSING)
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    scheme: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError) as error:
        objects.describe(f"{scheme}://host/data")
    assert has_facts(str(error.value), f"{scheme}://", f"pip install '{package}'")


def test_a_file_address_is_a_local_path_in_every_option(
    nih_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["inspect", f"FILE://{nih_run}/data", "--json", f"file://localhost{tmp_path}/audit.json"]) == 0
    assert (tmp_path / "audit.json").exists()
    assert cli.main(["profile", f"file://{tmp_path}/none", "--no-latency"]) in (1, 2)
    assert has_facts(capsys.readouterr().err, str(tmp_path / "none"))


# ---- the Hugging Face Hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubStub]:
    """A hub with the empty repository datasets/lung/xray."""
    stub = HubStub()
    monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": stub.url, "token": "hf_SECRET"})
    yield stub
    stub.stop()


REPOSITORY = "hf://datasets/lung/xray"


def test_a_repository_of_the_hugging_face_hub_works(hub: HubStub, tmp_path: Path) -> None:
    files_are_written_listed_read_and_removed(REPOSITORY, tmp_path)
    assert set(hub.files) == {"nih/a b.bin", "run/bundle/model.json"}
    assert list(objects.list_files(f"{REPOSITORY}@main/nih")) == ["a b.bin"]
    assert objects.read_bytes(f"{REPOSITORY}@main/nih/a b.bin") == DATA


def test_faults_of_the_hub_are_one_line_without_the_token(
    hub: HubStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.files["data/dataset.json"] = DATA
    with pytest.raises(FileNotFoundError, match="hf://datasets/lung/none does not exist"):
        objects.describe("hf://datasets/lung/none/a")
    assert errors.bucket_of("hf://user/model/a/b") == "hf://user/model"
    hub.fault, hub.requests = "cut", []
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(ConnectionError) as error:
        cache.local_copy(f"{REPOSITORY}/data/dataset.json")
    assert cache.used_bytes() == 0 and "SECRET" not in str(error.value)
    assert sum("/resolve/" in one for one in hub.requests) == 6
    hub.fault, hub.token = "", "hf_renewed"
    assert cli.main(["inspect", f"{REPOSITORY}/data"]) in (1, 2)
    said = capsys.readouterr().err
    assert (
        has_facts(said, f"{REPOSITORY}/data")
        and "credentials" in said
        and "SECRET" not in said
        and said.count("\n") == 1
    )


# ---- Google Cloud Storage


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudStub]:
    """A server with the empty bucket xray; without gcsfs, which `make test-integration` installs, tests are skipped."""
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # it asks another service for the kind of bucket
    pytest.importorskip("gcsfs")
    stub = CloudStub()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", stub.url)
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
    yield stub
    objects.forget_connections()
    stub.stop()


@pytest.mark.integration
@pytest.mark.filterwarnings("default")
def test_a_bucket_of_google_cloud_storage_works(
    cloud: CloudStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files_are_written_listed_read_and_removed("gs://xray", tmp_path)
    assert set(cloud.files) == {"nih/a b.bin", "run/bundle/model.json"}
    with pytest.raises(FileNotFoundError, match="gs://nowhere"):
        objects.list_files("gs://nowhere/a")
    cloud.fault = "cut"  # gcsfs repeats the request until the time limit
    monkeypatch.setenv(objects.VARIABLE, "1.5")
    with pytest.raises(TimeoutError, match=objects.VARIABLE):
        objects.read_bytes("gs://xray/nih/a b.bin")
    cloud.fault, cloud.token = "", "another"
    with pytest.raises(PermissionError, match=r"gs://xray/nih/a b\.bin$|gs://xray/nih/a b\.bin\.$"):
        objects.read_bytes("gs://xray/nih/a b.bin")
