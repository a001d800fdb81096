"""Remote addresses, objects and their faults, on a real S3 server on loopback."""

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from remote_servers import FaultProxy

from ribcage.runtime import digest
from ribcage.runtime.remote import addresses, cache, objects

DATA = bytes(range(256)) * 40
AT = "s3://xray/nih/images.npy"


# ---- addresses


@pytest.mark.parametrize("text", ["s3://xray/a/b", "gs://xray", "hf://datasets/user/name@main/a b.png", "memory://x"])
def test_an_address_survives_being_a_path(text: str) -> None:
    assert addresses.is_remote(text) and addresses.is_remote(Path(text))
    assert addresses.address(addresses.parse_place(text)) == addresses.address(text) == text


@pytest.mark.parametrize("text", ["data/nih", "/data/s3:/x", "C:/data", "s3:", "s3", "file.txt", "x:/y"])
def test_a_local_path_is_no_address(text: str) -> None:
    assert not addresses.is_remote(text) and not addresses.is_remote(Path(text))
    assert addresses.parse_place(text) == Path(text)


def test_a_file_address_is_a_local_path() -> None:
    assert addresses.parse_place("file:///data/nih") == addresses.parse_place("file://localhost/data/nih")
    assert addresses.parse_place("file:///data/nih") == Path("/data/nih")


@pytest.mark.parametrize(
    "text", ["s3://", "s3://a/../b", "s3://a//b", "s3://a/\n", "zip://a/b", "https://a/b", "nowhere://a/b"]
)
def test_an_invalid_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        addresses.parse_place(text)


def test_credentials_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError) as error:
        addresses.parse_place("s3://KEY:SECRET@xray/nih")
    assert "KEY" not in str(error.value) and "SECRET" not in str(error.value)


# ---- objects


def test_objects_are_written_listed_read_and_removed(s3: FaultProxy, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(DATA)
    objects.upload(tmp_path / "a.bin", "s3://xray/one/a b.bin")
    objects.write_bytes(b"", Path("s3://xray/one/two/empty"))
    found = objects.list_files("s3://xray/one")
    assert {name: one.size for name, one in found.items()} == {"a b.bin": len(DATA), "two/empty": 0}
    assert found["a b.bin"] == objects.describe("s3://xray/one/a b.bin")
    assert objects.read_bytes("s3://xray/one/a b.bin") == DATA and objects.read_bytes("s3://xray/one/two/empty") == b""
    objects.remove("s3://xray/one/a b.bin")
    objects.remove("s3://xray/one/a b.bin")
    assert not objects.exists("s3://xray/one/a b.bin")
    with pytest.raises(ValueError):
        objects.describe("s3://xray/../one")


def test_a_folder_of_several_objects_is_finished_by_its_last_file(s3: FaultProxy, tmp_path: Path) -> None:
    for name in ("dataset.json", "images.npy"):
        (tmp_path / name).write_text(name)
    objects.write_bytes(b"old", "s3://xray/nih/dataset.json")
    s3.fault("expired", where="PUT")
    with pytest.raises(PermissionError):
        objects.upload_folder(tmp_path, "s3://xray/nih", ["dataset.json", "images.npy"], "dataset.json")
    assert not objects.exists("s3://xray/nih/dataset.json")
    objects.upload_folder(tmp_path, "s3://xray/nih", ["dataset.json", "images.npy"], "dataset.json")
    assert sorted(objects.list_files("s3://xray/nih")) == ["dataset.json", "images.npy"]


def test_a_missing_object_and_a_missing_bucket_are_told_apart(s3: FaultProxy) -> None:
    with pytest.raises(FileNotFoundError, match="s3://xray/none does not exist"):
        objects.describe("s3://xray/none")
    for ask in (objects.describe, objects.read_bytes, objects.list_files, cache.local_copy):
        with pytest.raises(FileNotFoundError, match="s3://nowhere does not exist"):
            ask("s3://nowhere/nih/images.npy")  # type: ignore[operator]


def test_without_the_package_of_a_scheme_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    objects.forget_connections()
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ImportError, match=r"pip install 'ribcage\[remote\]'"):
        objects.describe("s3://xray/a")
    objects.forget_connections()


def test_without_credentials_the_error_says_so(s3: FaultProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    objects.forget_connections()
    with pytest.raises(PermissionError, match="No credentials were found"):
        objects.describe("s3://xray/a")
    objects.forget_connections()


def test_other_file_systems_of_fsspec_work_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIBCAGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a").write_bytes(DATA)
    objects.upload(tmp_path / "a", "memory://xray/nih/a")
    objects.write_bytes(b"b", "memory://xray/nih/deep/b")
    assert list(objects.list_files("memory://xray/nih")) == ["a", "deep/b"]
    assert cache.local_copy("memory://xray/nih/a").read_bytes() == objects.read_bytes("memory://xray/nih/a") == DATA
    objects.write_bytes(b"new", "memory://xray/nih/a")
    assert cache.local_copy("memory://xray/nih/a").read_bytes() == b"new"
    objects.remove("memory://xray/nih/a")
    with pytest.raises(FileNotFoundError, match="memory://xray/nih/a"):
        cache.local_copy("memory://xray/nih/a")


def test_a_large_object_is_read_in_blocks_at_the_same_time(s3: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "BLOCK", 1000)
    objects.write_bytes(DATA, AT)
    s3.fault("cut", times=3)
    assert cache.local_copy(AT, sha256=hashlib.sha256(DATA).hexdigest()).read_bytes() == DATA
    assert sum(line.startswith("GET") for line in s3.requests) == 10 + 3


# ---- faults


@pytest.fixture
def stored(s3: FaultProxy) -> FaultProxy:
    """The server has an object."""
    objects.write_bytes(DATA, AT)
    s3.heal()
    return s3


@pytest.mark.parametrize("kind", ["cut", "drop", "short", "busy"])
def test_a_fault_that_passes_is_not_noticed(stored: FaultProxy, kind: str) -> None:
    stored.fault(kind, times=2)
    assert objects.read_bytes(AT) == DATA
    assert cache.local_copy(AT).read_bytes() == DATA
    assert sum(line.startswith("GET") for line in stored.requests) == 4  # 2 that failed, and one each


@pytest.mark.parametrize("kind", ["cut", "drop", "short", "busy"])
def test_a_fault_that_stays_is_one_clear_error(stored: FaultProxy, kind: str) -> None:
    stored.fault(kind, times=1000)
    for ask in (objects.read_bytes, cache.local_copy):
        with pytest.raises(ConnectionError) as error:
            ask(AT)  # type: ignore[operator]
        assert AT in str(error.value) and "\n" not in str(error.value)
    assert cache.used_bytes() == 0
    stored.heal()
    assert cache.local_copy(AT).read_bytes() == DATA


def test_a_read_that_is_too_slow_is_given_up_and_repeated(stored: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(objects.VARIABLE, "0.15")
    stored.fault("slow", times=1)
    assert objects.read_bytes(AT) == DATA
    stored.fault("slow", times=1000)
    with pytest.raises(TimeoutError, match=objects.VARIABLE):
        objects.read_bytes(AT)


def test_expired_credentials_are_reported_at_once_and_work_after_renewal(
    stored: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored.fault("expired", where="", times=1000)
    for ask in (objects.describe, objects.list_files, cache.local_copy, lambda at: objects.write_bytes(b"new", at)):
        with pytest.raises(PermissionError, match="have expired") as error:
            ask(AT)
        assert not any(secret in str(error.value) for secret in ("KEYOFTHETEST", "SECRETOFTHETEST"))
    assert len(stored.requests) <= 12  # not repeated
    stored.heal()
    assert objects.read_bytes(AT) == DATA


@pytest.mark.parametrize("kind", ["drop", "busy", "expired"])
def test_a_failed_upload_leaves_what_was_there(stored: FaultProxy, tmp_path: Path, kind: str) -> None:
    (tmp_path / "new").write_bytes(DATA * 2)
    stored.fault(kind, where="PUT", times=1000)
    with pytest.raises(PermissionError if kind == "expired" else ConnectionError):
        objects.upload(tmp_path / "new", AT)
    stored.heal()
    assert objects.read_bytes(AT) == DATA


def test_an_object_that_was_written_in_part_is_refused(stored: FaultProxy) -> None:
    whole = hashlib.sha256(DATA).hexdigest()
    assert cache.local_copy(AT, size=len(DATA), sha256=whole).read_bytes() == DATA
    objects.write_bytes(DATA[:-5], AT)
    with pytest.raises(digest.DamagedError, match=f"{len(DATA) - 5:,} bytes"):
        cache.local_copy(AT, size=len(DATA))
    objects.write_bytes(DATA[::-1], AT)  # of the same length
    other = hashlib.sha256(DATA[1:]).hexdigest()
    with pytest.raises(digest.DamagedError, match="SHA-256"):
        cache.local_copy(AT, size=len(DATA), sha256=other)


# ---- cache


def test_a_copy_is_read_from_the_cache_and_replaced_with_its_object(stored: FaultProxy) -> None:
    first = cache.local_copy(AT)
    assert (first.name, first.parent.name) == ("images.npy", "nih") and oct(first.stat().st_mode)[-3:] == "600"
    cache.local_copy(AT)
    assert sum(line.startswith("GET") for line in stored.requests) == 1
    mapped = np.memmap(first, mode="r")
    objects.write_bytes(DATA[::-1], AT)
    assert cache.local_copy(AT).read_bytes() == DATA[::-1]
    assert bytes(mapped) == DATA  # a memory map of the older version stays as it was


def test_a_copy_whose_hash_is_known_needs_no_server(stored: FaultProxy) -> None:
    whole = hashlib.sha256(DATA).hexdigest()
    cache.local_copy(AT, sha256=whole)
    stored.heal()
    assert cache.local_copy(AT, sha256=whole).read_bytes() == DATA
    assert not stored.requests


def test_a_copy_that_was_changed_is_downloaded_again(stored: FaultProxy) -> None:
    copy = cache.local_copy(AT)
    copy.write_bytes(b"x" * len(DATA))
    assert cache.local_copy(AT).read_bytes() == DATA


def test_the_cache_stays_below_its_limit_and_keeps_what_is_used(
    s3: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.SIZE_VARIABLE, "3.5KB")
    places = [f"s3://xray/shards/{number}" for number in range(6)]
    for number, place in enumerate(places):
        objects.write_bytes(bytes([number]) * 1000, place)
    in_use = cache.open_copy(places[0])
    for place in places[1:]:
        with cache.open_copy(place) as copy:
            assert copy.path.stat().st_size == 1000
        assert cache.used_bytes() <= 3500
    assert in_use.path.read_bytes() == bytes(1000)
    assert [path.name for path in sorted(in_use.path.parent.iterdir())] == ["0", "4", "5"]  # used last, or in use
    in_use.close()
    held = [cache.open_copy(place) for place in places[:3]]
    with pytest.raises(OSError, match=cache.SIZE_VARIABLE):
        cache.open_copy(places[3])
    held[0].close()
    with cache.open_copy(places[3]):
        pass
    objects.write_bytes(bytes(4000), places[5])
    with pytest.raises(OSError, match=cache.SIZE_VARIABLE):
        cache.open_copy(places[5])


def test_threads_that_want_the_same_object_download_it_once(stored: FaultProxy) -> None:
    with ThreadPoolExecutor(8) as pool:
        copies = list(pool.map(lambda _: cache.local_copy(AT), range(16)))
    assert {copy.read_bytes() for copy in copies} == {DATA}
    assert sum(line.startswith("GET") for line in stored.requests) == 1


PROCESS = """
import sys
from ribcage.runtime.remote import cache
for number in range(40):
    with cache.open_copy(f"s3://xray/shards/{(number * int(sys.argv[1])) % 6}") as copy:
        assert len(set(copy.path.read_bytes())) == 1 and cache.used_bytes() <= 3500
"""


def test_processes_share_a_cache(s3: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.SIZE_VARIABLE, "3.5KB")
    for number in range(6):
        objects.write_bytes(bytes([number]) * 1000, f"s3://xray/shards/{number}")
    other = subprocess.Popen([sys.executable, "-c", PROCESS, "1"], env=os.environ)
    turns = 0
    while other.poll() is None:
        with cache.open_copy(f"s3://xray/shards/{turns * 5 % 6}") as copy:
            assert len(set(copy.path.read_bytes())) == 1
        turns += 1
    assert other.returncode == 0 and turns > 20


def test_what_a_killed_download_left_is_removed(s3: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.SIZE_VARIABLE, "1.5KB")
    left = cache.cache_folder() / "parts" / "left"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(1000))
    objects.write_bytes(bytes(1000), AT)
    cache.local_copy(AT)
    assert not left.exists()


@pytest.mark.parametrize("text", ["much", "5 PB", "-1", "1e3"])
def test_an_invalid_limit_is_refused_even_if_nothing_is_downloaded(
    text: str, stored: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.local_copy(AT)
    monkeypatch.setenv(cache.SIZE_VARIABLE, text)
    with pytest.raises(ValueError, match=cache.SIZE_VARIABLE):
        cache.local_copy(AT, sha256=hashlib.sha256(DATA).hexdigest())


# ---- another server


@pytest.fixture
def s3rver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An S3 server of another kind, which `make test-integration` installs."""
    program = Path(__file__).parents[1] / ".venv" / "s3rver" / "node_modules" / ".bin" / "s3rver"
    if not program.exists():
        pytest.skip("s3rver is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-a", "127.0.0.1", "-p", str(port), "-d", str(tmp_path / "s3rver"), "--configure-bucket", "xray"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen([str(program), *words], **quiet)  # type: ignore[call-overload]
    try:
        values = {"ENDPOINT_URL": f"http://127.0.0.1:{port}", "ACCESS_KEY_ID": "S3RVER", "SECRET_ACCESS_KEY": "S3RVER"}
        for name, value in {**values, "DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("RIBCAGE_CACHE", str(tmp_path / "cache"))
        objects.forget_connections()
        yield
    finally:
        server.kill()
        server.wait()
        objects.forget_connections()


@pytest.mark.integration
def test_another_s3_server_works_as_well(s3rver: None, tmp_path: Path) -> None:
    objects.write_bytes(DATA, AT)
    assert cache.local_copy(AT, sha256=hashlib.sha256(DATA).hexdigest()).read_bytes() == DATA
    (tmp_path / "large").write_bytes(os.urandom(101 << 20))  # is uploaded in several parts
    objects.upload(tmp_path / "large", "s3://xray/nih/large ü")
    assert cache.local_copy("s3://xray/nih/large ü").read_bytes() == (tmp_path / "large").read_bytes()
    assert list(objects.list_files("s3://xray/nih")) == ["images.npy", "large ü"]
    objects.remove(AT)
    for place in (AT, "s3://nowhere/x"):
        with pytest.raises(FileNotFoundError):
            objects.describe(place)
