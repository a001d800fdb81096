"""Commands whose inputs and outputs are at remote addresses give the results of local ones."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from refusals import has_facts
from remote_servers import FaultProxy

import ribcage
from ribcage import cli
from ribcage.bundle.init import initial_backbone, initial_provenance, weights_file
from ribcage.bundle.io import load_bundle
from ribcage.data import dataset_folder
from ribcage.evaluation import comparison_entries
from ribcage.inference import input_files
from ribcage.runtime.remote import cache, objects
from ribcage.training.teachers import opening

SITE = "memory://site"


@pytest.fixture
def site(nih_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """All files of `nih_run` at memory://site, and an empty cache and current folder."""
    monkeypatch.setenv("RIBCAGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    memory = fsspec.filesystem("memory")
    for file in nih_run.rglob("*"):
        if file.is_file() and not file.name.startswith("."):
            memory.pipe_file(f"/site/{file.relative_to(nih_run).as_posix()}", file.read_bytes())
    yield nih_run
    assert not [file.name for file in (tmp_path / "here").iterdir() if ":" in file.name]
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def read(name: str) -> bytes:
    return objects.read_bytes(f"{SITE}/{name}")


def text(name: str) -> str:
    return read(name).decode()


def test_predictions_of_images_at_an_address(site: Path) -> None:
    for which in (
        "download",
        "download/images_001/images",
        "download/*/images",
        "download/*/images/*.png",
        "download/**/*.png",
    ):
        local, remote = (input_files.input_files([place / which]).images for place in (site, Path(SITE)))
        assert [file.relative_to(site) for file in local] == [file.relative_to(SITE) for file in remote] and len(
            local
        ) > 5
    local, remote = (
        ribcage.predict(f"{place}/run", f"{place}/download", out=f"{SITE}/found.csv") for place in (site, SITE)
    )
    assert remote["path"].tolist() == [path.replace(str(site), SITE) for path in local["path"]]
    assert remote.drop(columns="path").equals(local.drop(columns="path"))
    assert text("found.csv").count(SITE) == len(local) and not list((cache.cache_folder() / "outputs").iterdir())


def test_images_at_an_address_are_told_from_other_files(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    memory, image = fsspec.filesystem("memory"), next((site / "download").rglob("*.png"))
    data = image.read_bytes()
    files = {
        "a": data,
        "1.2.840.1": data,
        "b": b"no image",
        "c.txt": b"",
        ".d.png": b"",
        "DICOMDIR": b"",
        "maps/e.png": data,
    }
    for name, data in files.items():
        memory.pipe_file(f"/site/inbox/{name}", data)
    found = ribcage.predict(
        site / "run", [f"{SITE}/inbox", f"{SITE}/none.png"], allow_unread="all", maps=f"{SITE}/inbox/maps"
    )
    assert found["path"].tolist() == [f"{SITE}/inbox/1.2.840.1", f"{SITE}/inbox/a", f"{SITE}/none.png"]
    assert found["error"].tolist() == ["", "", f"{SITE}/none.png does not exist."]
    assert [name.rpartition(".")[2] for name in objects.list_files(f"{SITE}/inbox/maps")] == ["png"] * 3


def test_results_of_an_evaluation_stay_with_the_remote_run(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", f"{SITE}/data", "--resamples", "5"]
    shutil.copytree(site / "run", tmp_path / "run")
    assert cli.main(["evaluate", str(tmp_path / "run"), "--data", str(site / "data"), "--resamples", "5"]) == 0
    assert cli.main(["evaluate", f"{SITE}/run", *words]) == 0
    assert cli.main(["evaluate", f"{SITE}/run", *words, "--out", f"{SITE}/judged"]) == 0
    name = f"run/evaluation/{next(iter(objects.list_files(f'{SITE}/run/evaluation'))).partition('/')[0]}"
    assert read(f"{name}/predictions.parquet") == (tmp_path / name / "predictions.parquet").read_bytes()
    numbers = json.loads(read(f"{name}/metrics.json"))
    assert numbers["run"] == f"{SITE}/run" and f"{SITE}/data" in numbers["command"] and "memory:/s" not in str(numbers)
    assert numbers["test"]["use"] == 1 and len(json.loads(read("run/bundle/tests.json"))["tests"]) == 2
    assert f"--out {SITE}/judged" in json.loads(read("judged/metrics.json"))["command"]

    capsys.readouterr()
    places = [f"{SITE}/run", str(tmp_path / "run"), f"{SITE}/{name}", f"{SITE}/{name}/predictions.parquet"]
    entries = comparison_entries.entries(places)
    assert [one.name for one in entries] == places
    assert len({one.table.probabilities.tobytes() for one in entries}) == 1
    assert [one.bundle is not None for one in entries] == [True] * 4
    assert cli.main(["compare", *places[:2], "--resamples", "10", "--json", f"{SITE}/compared.json"]) == 0
    assert [one["name"] for one in json.loads(read("compared.json"))["models"]] == places[:2]
    assert (
        not list((cache.cache_folder() / "trees").glob("*/site"))
        and f"Wrote {SITE}/compared.json" in capsys.readouterr().out
    )

    teachers = [f"{SITE}/run", f"{SITE}/{name}/predictions.parquet"]
    assert len(set(opening.content_hashes(teachers))) == 2
    assert opening.content_hashes(teachers)[1] == opening.content_hash(str(tmp_path / name / "predictions.parquet"))
    assert opening.open_teachers(teachers)[teachers[1]].findings == opening.teacher_findings(load_bundle(site / "run"))  # type: ignore[arg-type]
    assert np.array_equal(opening.teacher_provenance(teachers[1]).pixels, load_bundle(site / "run").provenance.pixels)


def test_runs_at_an_address_are_listed(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"command": "finetune", "model": "resnet18", "data": [f"{SITE}/data"], "history": []}
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/site/run/options.json", json.dumps(options).encode())
    judged = {"protocol": "honest", "split": "test", "macro": {"auroc": {"value": 0.8}}}
    memory.pipe_file("/site/run/evaluation/nih-test/metrics.json", json.dumps(judged).encode())
    memory.pipe_file("/site/run/state.json", json.dumps({"name": "running", "why": "", "place": None}).encode())
    for writer, state in ((True, "running"), (False, "stopped")):
        if writer:
            memory.pipe_file("/site/run/writer.json", b"{}")
        else:
            memory.rm_file("/site/run/writer.json")
        assert cli.main(["runs", SITE, "--json", f"{SITE}/runs.json"]) == 0
        (one,) = json.loads(read("runs.json"))
        assert (one["folder"], one["state"], one["number"]["on"]) == (f"{SITE}/run", state, "nih-test")
        assert one["changed"] > "2020"


def test_a_weights_file_at_an_address_gives_initial_weights(site: Path) -> None:
    file, spec = f"{SITE}/run/bundle/model.safetensors", load_bundle(site / "run").spec
    backbones = [initial_backbone(spec, init, 0.0) for init in (file, f"{SITE}/run", str(site / "run"))]
    states = [{name: value.numpy().tobytes() for name, value in one.state_dict().items()} for one in backbones]
    assert states[0] == states[1] == states[2]
    fsspec.filesystem("memory").pipe_file(
        "/site/alone.safetensors", (site / "run/bundle/model.safetensors").read_bytes()
    )
    assert initial_provenance(file).pixels.size and initial_provenance(f"{SITE}/alone.safetensors").unknown
    assert (
        weights_file(f"{SITE}/alone.safetensors") and not weights_file(f"{SITE}/run") and not weights_file("imagenet")
    )


def test_tables_beside_the_data_are_read_from_an_address(site: Path, tmp_path: Path) -> None:
    image = next((site / "download").rglob("*.png")).name
    coco = {"categories": [{"id": 1, "name": "heart"}], "images": [{"id": 1, "file_name": image, "width": 32, "height": 32}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[2, 2, 20, 2, 20, 20]]}]}  # fmt: skip
    fsspec.filesystem("memory").pipe_file("/site/masks.json", json.dumps(coco).encode())
    line = ["import", "nih", f"{SITE}/download", "--size", "32", "--masks", f"{SITE}/masks.json", "--split-list"]
    lists = [f"train={SITE}/download/train_val_list.txt", f"test={SITE}/download/test_list.txt"]
    assert cli.main([*line, *lists, "--out", str(tmp_path / "data")]) == 0
    opened = dataset_folder.open(tmp_path / "data")
    assert len(opened.masks) == 1 and set(opened.index.table["split"]) == {"train", "val", "test"}
    assert cli.main(["inspect", f"nih:{SITE}/download", "--split-list", *lists, "--json", f"{SITE}/audit.json"]) == 0
    assert json.loads(read("audit.json"))["sets"][0]["label"] == f"nih:{SITE}/download"


def test_dataset_folders_are_curated_and_resharded_at_addresses(site: Path, tmp_path: Path) -> None:
    words = ["--share", "0.5", "--out"]
    assert (
        cli.main(["curate", str(site / "data"), "--features", str(site / "run"), *words, str(tmp_path / "half")]) == 0
    )
    assert cli.main(["curate", f"{SITE}/data", "--features", f"{SITE}/run", *words, f"{SITE}/half"]) == 0
    assert cli.main(["reshard", f"{SITE}/half", "--images-per-shard", "8", "--out", f"{SITE}/shards"]) == 0
    local, remote = dataset_folder.open(tmp_path / "half"), dataset_folder.open(f"{SITE}/half")
    assert remote.index.table.equals(local.index.table) and np.array_equal(remote.images[:], local.images[:])
    assert np.array_equal(dataset_folder.open(f"{SITE}/shards").images[:], local.images[:])
    assert cli.main(["curate", f"{SITE}/data", "--features", f"{SITE}/run", *words, f"{SITE}/half"]) == 2


def test_bundles_are_written_to_addresses(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["convert", f"{SITE}/run", "--to", "huggingface", "--out", f"{SITE}/published"]) == 0
    (config,) = [name for name in objects.list_files(f"{SITE}/published") if name.endswith("config.json")]
    published = f"{SITE}/published/{config}".removesuffix("/config.json")
    assert cli.main(["convert", published, "--out", f"{SITE}/back"]) == 0
    assert load_bundle(f"{SITE}/back").spec.name == "test_resnet" and objects.exists(f"{SITE}/back/account.csv")
    assert cli.main(["convert", f"{SITE}/run", "--data", f"{SITE}/data", "--out", f"{SITE}/calibrated"]) == 0
    found = load_bundle(f"{SITE}/calibrated")
    assert found.spec.training.fitted == 6 and objects.exists(f"{SITE}/calibrated/provenance.npz")
    assert cli.main(["convert", f"{SITE}/run", "--data", f"{SITE}/data", "--out", f"{SITE}/calibrated"]) == 2
    assert has_facts(capsys.readouterr().err, "--out", f"{SITE}/calibrated")


def test_a_probe_and_a_profile_at_addresses_name_them(site: Path) -> None:
    assert (
        cli.main(
            [
                "probe",
                f"{SITE}/run",
                "--data",
                f"{SITE}/data",
                "--labels",
                "1",
                "--seeds",
                "1",
                "--out",
                f"{SITE}/probe",
            ]
        )
        == 0
    )
    found = json.loads(read("probe/probe.json"))
    assert found["model"] == f"{SITE}/run" and f"--out {SITE}/probe" in found["command"]
    assert cli.main(["profile", f"{SITE}/run", "--no-latency", "--json", f"{SITE}/cost.json"]) == 0
    assert json.loads(read("cost.json"))["models"][0]["model"] == f"{SITE}/run"


def test_a_recipe_runs_on_addresses(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "small-moco", "--data", f"{SITE}/data", "--out", f"{SITE}/moco", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"--data {SITE}/data" in said and f"--out {SITE}/moco" in said and f"probe {SITE}/moco" in said
    assert "memory:/s" not in said


# ---- faults


RUN, DATA = "s3://xray/run", "s3://xray/data"


@pytest.fixture
def stored(s3: FaultProxy, nih_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """The run and its data on an S3 server. Its keys are in no file, wherever it was written."""
    monkeypatch.chdir(tmp_path)
    s3.store(nih_run / "run", RUN)
    s3.store(nih_run / "data", DATA)
    s3.heal()
    yield s3
    s3.heal()
    there = [objects.read_bytes(one.address) for one in objects.list_files("s3://xray/run").values()]
    for data in [*there, *(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())]:
        assert b"KEYOFTHETEST" not in data and b"SECRETOFTHETEST" not in data
    assert not Path("s3:").exists()


def test_images_whose_server_fails_are_not_taken_for_unreadable_ones(
    stored: FaultProxy, nih_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    s3, folder = stored, sorted((nih_run / "download").rglob("images"))[0]
    s3.store(folder, "s3://xray/inbox")
    line = [
        "predict",
        str(nih_run / "run"),
        "s3://xray/inbox",
        "--allow-unread",
        "all",
        "--out",
        "s3://xray/run/found.csv",
    ]
    for kind, code in (("cut", 0), ("expired", 1)):
        s3.heal()
        objects.remove("s3://xray/run/found.csv")
        s3.fault(kind, where="GET /xray/inbox/", times=2 if code == 0 else 1000)
        assert cli.main(line) == code
        said = capsys.readouterr()
        assert "not found" not in said.out and said.err.count("ribcage: ") == code
        assert not code or has_facts(said.err, "s3://xray/inbox/")
        s3.heal()
        assert objects.exists("s3://xray/run/found.csv") == (code == 0)
    listed = objects.list_files

    def changed(place: str) -> dict[str, objects.RemoteFile]:
        found = listed(place)
        objects.remove(next(iter(found.values())).address)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "list_files", changed)
        found = ribcage.predict(nih_run / "run", "s3://xray/inbox", allow_unread="all")
    assert (found["error"] != "").tolist() == [True, *[False] * (len(found) - 1)]
    assert found["error"][0] == f"{found['path'][0]} does not exist."


def test_an_evaluation_that_was_written_in_part_is_not_taken_for_whole(
    stored: FaultProxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored.fault("expired", where="PUT /xray/run/evaluation/", times=1)
    assert cli.main(["evaluate", RUN, "--data", DATA, "--resamples", "2"]) == 1
    said = capsys.readouterr().err
    kept = Path(next(word for word in said.split() if word.startswith(str(tmp_path))))
    names = sorted(file.name for file in kept.iterdir())
    assert has_facts(said, "expired") and names == ["index.html", "metrics.json", "predictions.parquet"]
    assert not objects.is_there(f"{RUN}/evaluation")
    at = f"{RUN}/evaluation/nih-test"
    objects.write_bytes(b"before", f"{at}/metrics.json")
    stored.fault("expired", where="PUT /xray/run/evaluation/nih-test/predictions", times=1)
    with pytest.raises(PermissionError):
        objects.upload_folder(kept, at, names, "metrics.json")
    assert objects.exists(f"{at}/index.html") and not objects.exists(f"{at}/metrics.json")
    with pytest.raises(FileNotFoundError, match=RUN):
        comparison_entries.entries([RUN, RUN])
    objects.upload_folder(kept, at, names, "metrics.json")
    assert len(comparison_entries.entries([RUN, RUN])) == 2
    whole = objects.read_bytes(f"{at}/predictions.parquet")
    objects.write_bytes(whole[: len(whole) // 2], f"{at}/predictions.parquet")
    assert cli.main(["compare", RUN, RUN]) in (1, 2)
    assert has_facts(capsys.readouterr().err, f"{at}/predictions.parquet")


@pytest.mark.parametrize("kind", ["drop", "busy", "expired"])
def test_a_file_that_cannot_be_written_is_kept(
    stored: FaultProxy, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objects.write_bytes(b"before", f"{RUN}/list.json")
    stored.fault(kind, where="PUT", times=1000)
    assert cli.main(["recipes", "--json", f"{RUN}/list.json"]) == 1
    kept = next(word for word in capsys.readouterr().err.split() if word.startswith(str(tmp_path)))
    assert json.loads((Path(kept) / "list.json").read_text(encoding="utf-8"))
    stored.heal()
    assert objects.read_bytes(f"{RUN}/list.json") == b"before"


def test_expired_credentials_end_a_command_before_its_work(
    stored: FaultProxy, capsys: pytest.CaptureFixture[str]
) -> None:
    stored.fault("expired", where="", times=1000)
    for line in (["doctor", "--json", f"{RUN}/a.json"], ["probe", RUN, "--data", DATA], ["runs", "s3://xray"]):
        assert cli.main(line) in (1, 2)
        said = capsys.readouterr()
        assert has_facts(said.err, "s3://xray") and "expired" in said.err and said.err.count("\n") == 1 and not said.out


def test_half_a_weights_file_gives_no_initial_weights(stored: FaultProxy, nih_run: Path) -> None:
    spec, file = load_bundle(nih_run / "run").spec, (nih_run / "run/bundle/model.safetensors").read_bytes()
    objects.write_bytes(file[:-1000], "s3://xray/half.safetensors")
    with pytest.raises(ValueError, match="half"):
        initial_backbone(spec, "s3://xray/half.safetensors", 0.0)
    objects.write_bytes(file, "s3://xray/half.safetensors")
    stored.fault("cut", times=1)
    assert initial_backbone(spec, "s3://xray/half.safetensors", 0.0).pretrained
