"""Models in the Hugging Face Hub: `hf:OWNER/NAME` wherever weights may be named."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from refusals import has_facts
from remote_servers import ModelHubStub
from safetensors.torch import save

from ribcage import cli
from ribcage.bundle.formats.reading.published_folder import model_files
from ribcage.bundle.init import file_source, initial_bundle, initial_provenance, initial_spec, weights_file
from ribcage.bundle.io import load_bundle, local_model
from ribcage.runtime.remote import addresses, hub

ADDRESS = "hf:lung/rad-dino"
COMMIT = f"hf://lung/rad-dino@{ModelHubStub.COMMIT}"
CONFIG = {
    "architecture": "test_vit",
    "pretrained_cfg": {"input_size": [3, 160, 160], "mean": [0.5] * 3, "std": [0.25] * 3},
}


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHubStub]:
    """A repository with code and a pickle, which are not to be downloaded."""
    server = ModelHubStub()
    torch.manual_seed(0)
    server.files = {
        "config.json": json.dumps(CONFIG).encode(),
        "preprocessor_config.json": b"{}",
        "model.safetensors": save(timm.create_model("test_vit", num_classes=0).state_dict()),
        "pytorch_model.bin": pickle.dumps(print),
        "modeling.py": b"raise SystemExit",
        "a/deep/config.json": b"{}",
    }
    use(monkeypatch, server.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(addresses, "_copies", {})
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.local_model.cache_clear()
    yield server
    hub.local_model.cache_clear()
    server.stop()


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """As with HF_ENDPOINT, which huggingface_hub reads when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def downloads(stub: ModelHubStub) -> list[str]:
    """The files whose content was requested."""
    return sorted(line.rpartition("/")[2] for line in stub.requests if line.startswith("GET") and "/resolve/" in line)


def refusal(line: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The error of a command, which is one line."""
    hub.local_model.cache_clear()
    assert cli.main(line) in (1, 2)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "SECRET" not in said
    return said


# ---- addresses


@pytest.mark.parametrize(
    "typed", ["hf:lung/rad-dino", "hf:/lung/rad-dino", "hf://lung/rad-dino", "HF://lung/rad-dino/"]
)
def test_an_address_may_be_written_without_slashes(typed: str) -> None:
    assert addresses.parse_place(typed) == Path("hf://lung/rad-dino") and hub.is_model(addresses.parse_place(typed))


def test_the_parts_of_an_address() -> None:
    assert hub.model_address("hf:a/b@refs/pr/3/c/d.pt") == hub.ModelAddress("a/b", "refs/pr/3", "c/d.pt")
    assert hub.model_address("hf://models/a/b@v1") == hub.ModelAddress("a/b", "v1", "")
    assert str(hub.model_address("hf:a/b@v1/c")) == "hf://a/b@v1/c"
    assert not hub.is_model("hf://datasets/a/b") and not hub.is_model("s3://a/b") and not hub.is_model("a/b")
    for wrong in ("hf:a", "hf:a/", "hf:a/b@"):
        with pytest.raises(ValueError, match="hf:OWNER/NAME"):
            hub.model_address(wrong)


# ---- downloads


def test_a_model_of_the_hub_is_converted_and_its_commit_is_recorded(
    stub: ModelHubStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["convert", ADDRESS, "--out", str(tmp_path / "out")]) == 0
    assert downloads(stub) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert f"{COMMIT}/model.safetensors: huggingface" in capsys.readouterr().out
    opened = load_bundle(tmp_path / "out")
    assert [one.source for one in opened.spec.data] == [COMMIT] and opened.provenance.unknown.tolist() == [COMMIT]
    assert COMMIT in (tmp_path / "out" / "README.md").read_text()


def test_initial_weights_come_from_the_hub_with_one_lookup(stub: ModelHubStub) -> None:
    at = f"{ADDRESS}@v1"
    file = weights_file(at)
    assert file and file.read_bytes() == stub.files["model.safetensors"]
    assert initial_bundle(at) is None and initial_spec(at) is None
    source = f"hf://lung/rad-dino@{stub.OTHER}"
    assert initial_provenance(at).unknown.tolist() == [source] and [one.source for one in file_source(at)] == [source]
    assert sum("/api/models/lung/rad-dino/revision/v1" in line for line in stub.requests) <= 2


def test_a_bundle_of_the_hub_is_opened_whole(stub: ModelHubStub, nih_run: Path) -> None:
    made = nih_run / "run" / "bundle"
    stub.files = {f"best/{file.name}": file.read_bytes() for file in made.iterdir()} | {"best/notes.py": b""}
    folder = initial_bundle(f"{ADDRESS}/best")
    assert folder and not (folder / "notes.py").exists()
    assert load_bundle(folder).spec == load_bundle(made).spec == initial_spec(f"{ADDRESS}/best")


def test_another_architecture_than_that_of_the_model_is_refused(
    stub: ModelHubStub, nih_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["finetune", "--data", str(nih_run / "data"), "--init", ADDRESS, "--model", "test_resnet"]
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 2
    assert has_facts(capsys.readouterr().err, "hf://lung/rad-dino", "test_resnet", "--model test_vit")


@pytest.mark.parametrize(
    ("names", "path", "place", "files"),
    [
        ("a.pt a.py", "", "a.pt", "a.pt"),
        ("x/w.pth x/config.json config.json w.pth", "x/w.pth", "x/w.pth", "x/config.json x/w.pth"),
        ("pytorch_model.bin config.json", "", "pytorch_model.bin", "config.json pytorch_model.bin"),
        (
            "model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json b.safetensors",
            "", "model.safetensors.index.json",
            "model-00001-of-00002.safetensors model-00002-of-00002.safetensors model.safetensors.index.json",
        ),
        ("x/model.json x/model.safetensors x/a.py", "x", "x", "x/model.json x/model.safetensors"),
        ("x/model.json x/model.safetensors", "x/model.safetensors", "x", "x/model.json x/model.safetensors"),
    ],
)  # fmt: skip
def test_only_the_files_of_the_model_are_selected(names: str, path: str, place: str, files: str) -> None:
    found = model_files(path, names.split())
    assert (found.place, found.files) == (place, tuple(files.split()))


@pytest.mark.parametrize(("names", "path", "facts"), [
    ("a.pt b.pt", "", "a.pt b.pt"), ("readme.md", "", "weights"), ("a.pt", "b.pt", "b.pt"),
])  # fmt: skip
def test_a_repository_without_a_single_model_is_refused(names: str, path: str, facts: str) -> None:
    with pytest.raises(FileNotFoundError) as error:
        model_files(path, names.split())
    assert has_facts(str(error.value), *facts.split())


# ---- without a network


def test_without_a_network_the_cache_is_used(
    stub: ModelHubStub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = local_model(Path(ADDRESS))
    for offline, status in ((False, 503), (True, 200)):
        hub.local_model.cache_clear()
        stub.down, stub.requests = status * (not offline), []
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        assert local_model(Path(ADDRESS)) == first and not downloads(stub)
        assert has_facts(capsys.readouterr().err, "hf://lung/rad-dino", "cache", stub.COMMIT)


def test_a_model_that_is_not_in_the_cache_needs_a_network(
    stub: ModelHubStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["convert", ADDRESS, "--out", str(tmp_path / "out")]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert has_facts(refusal(line, capsys), "hf://lung/rad-dino", str(tmp_path / "hub"), "HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    use(monkeypatch, "http://127.0.0.1:9")  # nothing listens there
    assert has_facts(refusal(line, capsys), "http://127.0.0.1:9", "hf://lung/rad-dino", "HTTPS_PROXY", "HF_ENDPOINT")
    assert not (tmp_path / "out").exists()


# ---- refusals


@pytest.mark.parametrize(("address", "facts"), [
    ("hf:lung/none", "hf://lung/none HF_TOKEN"), (f"{ADDRESS}@v7", "hf://lung/rad-dino v7"),
    (f"{ADDRESS}/b.pt", "hf://lung/rad-dino b.pt"), ("hf:lung", "hf://lung hf:OWNER/NAME"),
    ("hf:lung/a..b", "hf://lung/a..b hf:OWNER/NAME"),
])  # fmt: skip
def test_what_is_not_in_the_hub_is_named(
    stub: ModelHubStub, tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str, facts: str
) -> None:
    assert has_facts(refusal(["convert", address, "--out", str(tmp_path / "out")], capsys), *facts.split())


def test_a_gated_model_needs_a_token(
    stub: ModelHubStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["convert", ADDRESS, "--out", str(tmp_path / "out")]
    stub.gated, stub.token = True, "hf_SECRET"
    assert has_facts(refusal(line, capsys), "hf://lung/rad-dino", "terms", "HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "hf_SECRET")
    assert cli.main(line) == 0 and "SECRET" not in "".join(capsys.readouterr())
