"""Engines give the results of a single process, wherever and in whatever order the tasks are computed."""

import importlib.util
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from image_folders import facts, images, imported
from test_export import made
from test_predict import image
from test_writer import digest

from ribcage import cli
from ribcage.bundle.io import Detector, load_classifier
from ribcage.bundle.spec import DetectorSpec
from ribcage.commands import evaluate, import_
from ribcage.data.collection import Datasets
from ribcage.data.importer import parts, writer
from ribcage.data.importer.parts import Part
from ribcage.inference import blocks, cam_detector, detections, image_files, predictions
from ribcage.inference.prediction_table import PREDICTIONS_FILE
from ribcage.runtime import engines, ray_engine
from ribcage.runtime.engines import Result, Task, Threads


class Elsewhere:
    """An engine whose two processes receive everything pickled and compute the tasks in reverse order."""

    def map(self, prepare: Callable[[], Callable[[Task], Result]], tasks: Sequence[Task]) -> Iterator[Result]:
        self.count = len(tasks)
        processes = [pickle.loads(pickle.dumps(prepare))() for _ in range(2)]
        sent = [pickle.dumps(task) for task in tasks]
        found = {
            place: pickle.dumps(processes[place % 2](pickle.loads(sent[place]))) for place in reversed(range(len(sent)))
        }
        for place in range(len(sent)):
            yield pickle.loads(found[place])


def test_threads_yield_the_results_in_order_and_compute_few_ahead() -> None:
    begun: list[int] = []
    found = Threads(2).map(lambda: lambda task: begun.append(task) or task * 2, range(50))
    assert next(found) == 0 and len(begun) <= 6
    assert list(found) == [2 * number for number in range(1, 50)]


def test_blocks_are_whole_batches_that_cover_everything_once() -> None:
    for count, batch in ((0, 4), (1, 4), (4, 4), (9, 4), (1000, 4), (9999, 16)):
        places = [list(range(count))[block] for block in blocks.blocks(count, batch)]
        assert [each for place in places for each in place] == list(range(count))
        assert all(len(place) % batch == 0 for place in places[:-1])
        assert len(places) >= min(blocks.LEAST, -(-count // batch))
        assert max(map(len, places), default=0) <= blocks.MOST * batch


def test_an_import_elsewhere_gives_the_same_bytes_also_if_it_was_begun_here(tmp_path: Path) -> None:
    index = images(tmp_path / "in 片", 140)
    index.file(5).write_bytes(b"not an image")
    imported(index, tmp_path / "one")
    work = writer.Writer(index, facts(index.root), tmp_path / "two")
    with work:
        steps = work.run()
        next(steps)
        steps.close()
    engine = Elsewhere()
    with writer.Writer(index, facts(index.root), tmp_path / "two", engine=engine) as work:
        assert sum(work.run()) == 140 - writer.CHUNK and engine.count == 2
    for number in (1, 2):
        with parts.PartWriter(index, facts(index.root), tmp_path / "three", Part(2, number), engine=engine) as work:
            assert sum(work.run())
    with parts.Merger(tmp_path / "three") as merger:
        assert sum(merger.run()) == 140
    assert digest(tmp_path / "one") == digest(tmp_path / "two") == digest(tmp_path / "three")


def test_a_machine_without_the_images_rejects_none(tmp_path: Path) -> None:
    index = images(tmp_path / "in", 3)

    class Unmounted(Elsewhere):
        def map(self, prepare: Callable[[], Callable[[Task], Result]], tasks: Sequence[Task]) -> Iterator[Result]:
            (tmp_path / "in").rename(tmp_path / "elsewhere")
            yield from super().map(prepare, tasks)

    with (
        writer.Writer(index, facts(index.root), tmp_path / "out", engine=Unmounted()) as work,
        pytest.raises(FileNotFoundError, match="in does not exist"),
    ):
        list(work.run())


@pytest.mark.parametrize("kind", ["classifier", "detector"])
def test_files_are_predicted_elsewhere_as_here(tmp_path: Path, kind: str) -> None:
    opened = load_classifier(made(tmp_path / "m"))
    if kind == "detector":
        spec = replace(opened.spec, detector=DetectorSpec("cam"), thresholds={})
        opened = Detector(opened.folder, spec, opened.method, opened.provenance)
    files = [image(tmp_path / f"{number}.png", number) for number in range(11)]
    files[3].write_bytes(b"not an image")
    files[5].unlink()
    engine = Elsewhere()
    compute = image_files.predictor(opened, batch=2)
    found = blocks.predicted_files(engine, compute, files, batch=2)
    assert engine.count == 6
    wanted = compute(files)
    assert wanted.files == found.files
    pd.testing.assert_frame_equal(found.frame(), wanted.frame(), check_exact=True)


def test_a_file_that_another_machine_lacks_is_an_error(tmp_path: Path) -> None:
    file = image(tmp_path / "0.png")

    class Restored(Elsewhere):
        def map(self, prepare: Callable[[], Callable[[Task], Result]], tasks: Sequence[Task]) -> Iterator[Result]:
            content = file.read_bytes()
            file.unlink()
            found = list(super().map(prepare, tasks))
            file.write_bytes(content)
            yield from found

    compute = image_files.predictor(load_classifier(made(tmp_path / "m")))
    with pytest.raises(FileNotFoundError, match=r"0\.png"):
        blocks.predicted_files(Restored(), compute, [file])


def test_rows_are_predicted_elsewhere_as_here(tmp_path: Path) -> None:
    data = Datasets.of(
        [imported(images(tmp_path / f"in {count}", count), tmp_path / f"片 {count}") for count in (13, 8)]
    )
    opened, rows = load_classifier(made(tmp_path / "m")), np.array([20, 3, 4, 0, 13, 14, 7, 9, 11])
    for ten_crop in (False, True):
        found = blocks.predicted_rows(Elsewhere(), opened, data, rows, batch=2, ten_crop=ten_crop)
        wanted = predictions.predict(
            opened.method, data, rows, model=opened.spec, batch=2, threads=1, ten_crop=ten_crop
        )
        assert (found.rows.tolist(), found.findings) == (wanted.rows.tolist(), wanted.findings)
        assert found.logits.tobytes() == wanted.logits.tobytes() and found.exclusive == wanted.exclusive
    detector = Detector(
        opened.folder, replace(opened.spec, detector=DetectorSpec("cam")), opened.method, opened.provenance
    )
    boxed = blocks.detected_rows(Elsewhere(), detector, data, rows, batch=2)
    with torch.no_grad():
        drawn = detections.detect(
            cam_detector.as_detector(detector), data, rows, model=detector.spec, batch=2, threads=1
        )
    assert len(drawn.boxes)
    pd.testing.assert_frame_equal(boxed.boxes, drawn.boxes, check_exact=True)
    boxed.save(tmp_path / "boxed")
    drawn.save(tmp_path / "drawn")
    assert (tmp_path / "boxed").read_bytes() == (tmp_path / "drawn").read_bytes()


def test_the_commands_write_the_same_files_with_another_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made(Path("m"))
    imported(images(Path("in"), 20), Path("data"))
    tables = []
    for engine in ("local", "ray"):
        if engine == "ray":
            monkeypatch.setattr(engines, "engine", lambda name, *more, **options: Elsewhere())
        rest = ["--engine", engine, "--batch", "4", "--out"]
        assert cli.main(["predict", "m", "in", *rest, f"{engine}.csv"]) == 0
        assert cli.main(["evaluate", "m", "--data", "data", "--split", "all", "--resamples", "9", *rest, engine]) == 0
        tables.append([file.read_bytes() for file in (Path(f"{engine}.csv"), Path(engine) / PREDICTIONS_FILE)])
    assert tables[0] == tables[1]


def test_another_dataset_folder_on_another_machine_is_an_error(tmp_path: Path) -> None:
    data = Datasets.of([imported(images(tmp_path / "in", 4), tmp_path / "here")])
    work = blocks.RowBlocks.of(load_classifier(made(tmp_path / "m")), data, 2)
    with pytest.raises(ValueError, match="here"):
        replace(work, plans=("another",)).classify()


def test_an_unknown_or_missing_engine_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"--engine.*'dask'"):
        engines.engine("dask")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else find(name, *rest))
    folder, model = tmp_path / "in", made(tmp_path / "m")
    image(folder / "0.png")
    for words in (
        ["import", "folder", str(folder), "--out", str(tmp_path / "out")],
        ["predict", str(model), str(folder)],
        ["evaluate", str(model), "--data", str(tmp_path)],
    ):
        assert cli.main([*words, "--engine", "ray"]) == 1
        assert "ribcage[ray]" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_options_of_one_process_do_not_apply_to_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = import_.Options("phantom", out=tmp_path / "out", engine="ray", threads=3, link=True)
    with pytest.raises(ValueError, match=r"--threads.*--engine ray and --link"):
        import_.check(options)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"--engine ray.*torchrun"):
        evaluate.run(evaluate.Options(made(tmp_path / "m"), (str(tmp_path),), engine="ray"))


def test_a_ray_cluster_that_does_not_listen_is_an_error_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        for given in (address, "", "auto", "local"):
            ray_engine.check_reachable(given)
    with pytest.raises(ConnectionError, match=f"{address}.*RAY_ADDRESS"):
        ray_engine.check_reachable(address)
