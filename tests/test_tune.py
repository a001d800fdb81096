"""ribcage tune: trials are runs, pruned and resumed ones too; a search continues, alone or shared; no test image is
read."""

import contextlib
import csv
import fcntl
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import torch
import toys
from refusals import has_facts, line
from trainings import stopped

from ribcage import cli
from ribcage.bundle.spec import ModelSpec
from ribcage.commands import finetune, tune
from ribcage.data import batch, collection, dataset_folder
from ribcage.data.collection import Datasets
from ribcage.runtime import files, flags
from ribcage.training import run_folder
from ribcage.training.metrics_log import read_log, validations
from ribcage.training.options import as_json, with_defaults, written_options
from ribcage.training.run import DiscontinuedRun, Plan, Run, observed_validations
from ribcage.training.runs import run_rows
from ribcage.training.search import claims, record, study, trials
from ribcage.training.search.result import SearchResult
from ribcage.training.search.space import FIXED, read_space

SPACE = ("--space", "lr=1e-4..1e-2:log", "augment=gentle,plain")
COUNT = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("数据 set") / "phantom"
    assert cli.main(["import", "phantom", "--out", str(folder), "--images", "120", "--size", "32"]) == 0
    return folder


def words(data: Path, out: Path, *more: str) -> list[str]:
    small = ["--model", "test_resnet", "--size", "32", "--batch", "32", "--epochs", "2", "--threads", "1"]
    plain = ["tune", "finetune", "--data", str(data), "--out", str(out), *small, "--precision", "float32"]
    return [*plain, "--findings", "Infiltration", "Effusion", *SPACE, "--trials", str(COUNT), *more]


def table(out: Path) -> list[dict[str, str]]:
    with (out / "trials.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def results(out: Path) -> list[tuple[str, ...]]:
    """All columns but the time."""
    return [tuple(value for name, value in row.items() if name != "seconds") for row in table(out)]


class Seen:
    """The rows whose pixels or labels were read."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.pixels, self.labels = set[int](), set[int]()
        begin, known, label = batch.BatchInProgress.__init__, Datasets.known_labels, batch.BatchMaker.labels
        image = Datasets.image

        def noted_begin(one: Any, *values: Any) -> None:
            begin(one, *values)
            self.pixels |= {*one.rows.tolist(), *one.others.tolist()}

        def noted_known(one: Datasets, rows: np.ndarray, *more: Any, **how: Any) -> np.ndarray:
            self.labels |= set(np.asarray(rows).tolist())
            return known(one, rows, *more, **how)

        def noted_labels(one: Any, epoch: int, addresses: np.ndarray) -> np.ndarray:
            self.labels |= set(batch.sampling.rows_of_addresses(addresses).tolist())
            return label(one, epoch, addresses)

        def noted_image(one: Datasets, row: int) -> np.ndarray:
            self.pixels.add(int(row))
            return image(one, row)

        patch.setattr(batch.BatchInProgress, "__init__", noted_begin)
        patch.setattr(batch.BatchMaker, "labels", noted_labels)
        patch.setattr(collection.Datasets, "known_labels", noted_known)
        patch.setattr(collection.Datasets, "image", noted_image)


@pytest.fixture(scope="module")
def searched(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Seen]:
    """A search that was not interrupted."""
    out = tmp_path_factory.mktemp("搜索 tune") / "x"
    with pytest.MonkeyPatch.context() as patch:
        seen = Seen(patch)
        assert cli.main(words(data, out)) == 0
    return out, seen


def test_no_image_and_no_label_of_the_test_split_is_read(searched: tuple[Path, Seen], data: Path) -> None:
    opened = Datasets.of([dataset_folder.open(data)])
    chosen, test = set(opened.rows_of("train", "val").tolist()), set(opened.rows_of("test").tolist())
    seen = searched[1]
    assert seen.pixels == chosen and seen.labels and seen.labels <= chosen and test and not test & chosen


def test_every_trial_is_a_run_with_its_own_values(searched: tuple[Path, Seen]) -> None:
    out, _ = searched
    rows, runs = table(out), {row.folder.name: row for row in run_rows(out)}
    assert [row["trial"] for row in rows] == ["1", "2", "3"] and set(runs) == {row["folder"] for row in rows}
    assert len({row["lr"] for row in rows}) == COUNT
    for row in rows:
        asked = written_options(out / row["folder"])
        assert asked["lr"] == float(row["lr"]) and asked["augment"] == row["augment"] and asked["seed"] == 0
        assert row["state"] == runs[row["folder"]].state.name == "finished" and row["epoch"] == "2"
        number = runs[row["folder"]].number
        best = max(found["auroc"] for found in validations(read_log(out / row["folder"] / "metrics.jsonl")))
        assert number and float(row["auroc"]) == pytest.approx(number.value, abs=1e-6) == pytest.approx(best)
        assert "Best validation" in (out / row["folder"] / "output.txt").read_text(encoding="utf-8")
    assert not list(out.glob("*.claim")) + list(out.glob("*.lock")) + list(out.glob("*.part"))


def test_the_recipe_repeats_the_best_trial_and_says_how_it_was_selected(
    searched: tuple[Path, Seen], data: Path
) -> None:
    out, _ = searched
    best = max(table(out), key=lambda row: float(row["auroc"]))
    head = " ".join(part.strip("# ") for part in (out / "best.toml").read_text(encoding="utf-8").splitlines())
    assert has_facts(head, "3 trials", "3 finished") and has_facts(head, f"{float(best['auroc']):.4f}", "optimistic")
    asked = ["--recipe", str(out / "best.toml"), "--data", str(data), "--out", str(out / "best"), "--threads", "1"]
    again = flags.parse("finetune", finetune, flags.read_flags(finetune, asked), asked)
    trial = written_options(out / best["folder"])
    assert {**as_json(with_defaults(again)), "out": trial["out"], "resume": trial["resume"]}.items() <= trial.items()


def test_the_page_has_a_plot_for_each_option_and_a_row_for_each_trial(searched: tuple[Path, Seen]) -> None:
    page = (searched[0] / "trials.html").read_text(encoding="utf-8")
    assert page.count('<svg class="plot"') == 3
    assert all(f'<td class="text">trial-000{number}</td>' in page for number in (1, 2, 3))
    assert "<script" not in page and "optimistic" in page


def test_a_search_with_enough_trials_trains_nothing(
    searched: tuple[Path, Seen], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _ = searched
    before = results(out)
    monkeypatch.setattr(finetune, "run", None)
    assert cli.main(words(data, out)) == 0 and results(out) == before


def test_a_trial_whose_folder_was_deleted_is_not_recommended(
    searched: tuple[Path, Seen], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x"
    shutil.copytree(searched[0], out)
    first, second, third = sorted(table(out), key=lambda row: -float(row["auroc"]))
    shutil.rmtree(out / first["folder"])
    assert cli.main(words(data, out)) == 0
    said = [text for text in capsys.readouterr().out.splitlines() if first["folder"] in text]
    assert len(said) == 1 and f"{first['folder']} ({float(first['auroc']):.4f})" in said[0]
    recipe, page = ((out / name).read_text(encoding="utf-8") for name in ("best.toml", "trials.html"))
    assert f"lr = {float(second['lr'])}" in recipe and str(out / second["folder"]) in recipe
    assert first["folder"] in recipe
    assert "deleted" in page
    for row in (second, third):
        shutil.rmtree(out / row["folder"])
    assert cli.main(words(data, out)) == 0
    said_now = capsys.readouterr().out
    assert "ribcage evaluate" not in said_now and has_facts(
        said_now, "deleted", *(one["folder"] for one in (first, second))
    )


def test_other_options_are_refused(searched: tuple[Path, Seen], data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = searched
    assert has_facts(line(words(data, out, "--epochs", "3"), capsys), "--epochs 2", "--epochs 3")
    assert has_facts(line(words(data, out, "--seed", "1"), capsys), "--seed 0", "--seed 1")
    assert has_facts(line(words(data, out, "--space", "dropout=0..0.5"), capsys), "--space", "dropout=0..0.5")
    assert has_facts(line(words(data, out / "trial-0001"), capsys), "run folder", "--out")


def test_all_errors_are_found_before_a_trial_starts(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--space", "dropout=0..1.5", "mixup=-1..0", "--train", "test", "--trials", "0")
    said = line(words(data, tmp_path / "x", *more), capsys)
    assert has_facts(said, "dropout=0..1.5", "--dropout 1.5") and has_facts(said, "mixup=-1..0", "--mixup -1")
    assert has_facts(said, "--train test") and has_facts(said, "--trials 0")
    assert has_facts(line(["tune", "pretrain", "--data", str(data)], capsys), "pretrain", "finetune")
    assert not (tmp_path / "x").exists()


def test_after_an_error_in_its_first_trial_a_search_may_begin_again_with_other_options(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x"
    assert has_facts(line(words(data, out, "--drop-shared", "trian"), capsys), "trian", "train")
    assert [row["state"] for row in table(out)] == ["interrupted"]
    monkeypatch.setattr(study.SharedStudy, "next_trial", lambda *_: contextlib.nullcontext())
    assert cli.main(words(data, out)) == 0 and table(out) == []
    (out / "trial-0001" / "metrics.jsonl").write_text('{"step": 1}\n', encoding="utf-8")
    assert has_facts(line(words(data, out, "--seed", "1"), capsys), "--seed 0", "--seed 1")


# ---- interruptions


def test_a_search_that_was_stopped_continues_as_if_it_had_not_been(
    searched: tuple[Path, Seen], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x"
    capsys.readouterr()
    assert stopped(words(data, out), out / "trial-0002", after=2) == 75
    assert "ribcage tune finetune" in capsys.readouterr().err
    assert [row["state"] for row in table(out)] == ["finished", "interrupted"]
    assert cli.main(words(data, out)) == 0
    assert results(out) == results(searched[0])


def test_a_killed_search_continues_as_if_it_had_not_been(
    searched: tuple[Path, Seen], data: Path, tmp_path: Path
) -> None:
    out, log = tmp_path / "x", tmp_path / "x" / "trial-0002" / "metrics.jsonl"
    with processes.ribcage(words(data, out), tmp_path / "said.txt") as killed:
        processes.until(lambda: log.exists() and "validation" in log.read_text(encoding="utf-8"), killed)
        killed.send_signal(signal.SIGKILL)
        killed.end()
    with (out / "journal.log").open("ab") as journal:
        journal.write(b'{"op_code":7,"tri')  # the process was killed while it wrote
    assert (out / "trial-0002.claim").exists()
    assert cli.main(words(data, out)) == 0
    assert results(out) == results(searched[0])


def test_two_processes_share_a_search(searched: tuple[Path, Seen], data: Path, tmp_path: Path) -> None:
    out = tmp_path / "x"
    with (
        processes.ribcage(words(data, out), tmp_path / "one.txt") as one,
        processes.ribcage(words(data, out), tmp_path / "other.txt") as other,
    ):
        ends = [one.end(), other.end()]
    assert [code for code, _ in ends] == [0, 0], ends
    assert [sum(f"trial {number} of" in text for _, text in ends) for number in (1, 2, 3)] == [1, 1, 1]
    assert all("trial " in text for _, text in ends)
    assert results(out) == results(searched[0])


# ---- pruning, on the smallest run


def toy_run(folder: Path, scores: list[float], resume: bool = False) -> None:
    """A run of an epoch per score, which has this score at its validation."""
    folder.mkdir(exist_ok=True)
    made = toys.run([(0.1, 0.2)], epochs=len(scores))
    best: list[float] = []

    def validated() -> dict[str, float]:
        best.append(scores[made.step - 1])
        return {"auroc": best[-1], "loss": 1.0}

    def keep() -> None:
        (folder / "bundle").mkdir(exist_ok=True)
        spec = ModelSpec("m", ("Mass",), (1, 1), 1, "pad", 0.0, 1.0, metrics={"validation": {"auroc": best[-1]}})
        spec.save(folder / "bundle" / "model.json")

    work = Run(made, folder, Plan(), validated, keep)
    if resume:
        work.resume()
    for _ in work.steps():
        pass


class Options:
    """The options of a run that a trial looks at."""

    def __init__(self, out: Path) -> None:
        self.out = out


def shared(folder: Path) -> study.SharedStudy:
    folder.mkdir(exist_ok=True)
    return study.SharedStudy(folder, read_space(["lr=0.1..1"], tune.training_flags("finetune")), seed=0, prune=True)


def tried(search: study.SharedStudy, train: Callable[[Path], object], **how: Any) -> int:
    """The number of a trial that is run."""
    with search.next_trial(100) as trial:
        assert trial is not None
        out = search.folder / study.trial_name(trial.number)
        trials.run_trial(trial, Options(out), lambda: train(out), "auroc", warned=set(), **how)  # type: ignore[arg-type]
        return trial.number


def test_a_trial_below_the_median_is_pruned_and_can_be_resumed(tmp_path: Path) -> None:
    search = shared(tmp_path / "x")
    for place in range(study.FIRST):
        tried(search, lambda out, place=place: toy_run(out, [0.6, 0.5 + 0.1 * place, 0.95]))  # type: ignore[misc]
    tried(search, lambda out: toy_run(out, [0.1, 0.69, 0.97]))
    tried(search, lambda out: toy_run(out, [0.1, 0.71, 0.96]))
    records = search.records()
    assert [one.state for one in records[study.FIRST :]] == ["pruned", "finished"]
    assert (records[-2].epoch, records[-2].score) == (2, 0.69) and (records[-1].epoch, records[-1].score) == (3, 0.96)
    folder = search.folder / records[-2].folder
    state = run_folder.read_state(folder)
    assert state.name == "stopped" and state.why == records[-2].why and state.place and state.place.epoch == 2
    toy_run(folder, [0.1, 0.69, 0.97], resume=True)
    assert run_folder.read_state(folder).name == "finished"
    assert study.best_trial(records) == records[-1]


def test_a_run_that_nobody_observes_is_not_ended(tmp_path: Path) -> None:
    toy_run(tmp_path / "a", [0.5, 0.5])
    with pytest.raises(DiscontinuedRun, match="why"), observed_validations(lambda epoch, found: "why"):
        toy_run(tmp_path / "b", [0.5, 0.5])
    with observed_validations(lambda epoch, found: "why" * (epoch == 2)):  # nothing is left to save
        toy_run(tmp_path / "c", [0.5, 0.5])
    names = [run_folder.read_state(tmp_path / name).name for name in "abc"]
    assert names == ["finished", "stopped", "finished"]


@pytest.mark.parametrize("error", [ValueError("The loss is not finite"), torch.OutOfMemoryError("of memory")])
def test_a_trial_that_diverges_or_needs_too_much_memory_fails_and_the_search_goes_on(
    tmp_path: Path, error: Exception
) -> None:
    search = shared(tmp_path / "x")

    def fail(out: Path) -> None:
        toy_run(out, [0.5])
        raise error

    tried(search, fail, first=True)
    tried(search, lambda out: toy_run(out, [0.6]))
    first, second = search.records()
    assert (first.state, first.score, second.state) == ("failed", None, "finished") and first.why == str(error)
    assert study.best_trial([first, second]) == second and study.best_trial([first]) is None


@pytest.mark.parametrize("error", [OSError("No space left"), KeyboardInterrupt(), RuntimeError("a bug")])
def test_any_other_error_ends_the_search_and_the_trial_is_resumed(tmp_path: Path, error: BaseException) -> None:
    search = shared(tmp_path / "x")

    def end(out: Path) -> None:
        toy_run(out, [0.5])
        raise error

    with pytest.raises(type(error)):
        tried(search, end)
    assert [one.state for one in search.records()] == ["interrupted"] and search.records()[0].seconds > 0
    assert tried(search, lambda out: None) == 1
    assert [one.state for one in search.records()] == ["finished"]


def test_an_error_before_the_first_step_ends_a_search_only_in_its_first_trial(tmp_path: Path) -> None:
    search = shared(tmp_path / "x")

    def refuse(out: Path) -> None:
        raise ValueError("--batch 1")

    with pytest.raises(ValueError, match="--batch 1"):
        tried(search, refuse, first=True)
    assert [one.state for one in search.records()] == ["interrupted"]
    assert tried(search, lambda out: toy_run(out, [0.5])) == 1  # the same trial again
    tried(search, refuse)
    assert [one.state for one in search.records()] == ["finished", "failed"]


def test_validations_that_a_killed_process_did_not_record_are_recorded_once(tmp_path: Path) -> None:
    search = shared(tmp_path / "x")

    def killed(out: Path) -> None:
        with observed_validations(lambda epoch, found: ""):
            toy_run(out, [0.5, 0.7])
        raise SystemExit

    with pytest.raises(SystemExit):
        tried(search, killed)
    assert search.records()[0].epoch == 0
    assert tried(search, lambda out: toy_run(out, [0.5, 0.7], resume=True)) == 1
    (one,) = search.records()
    assert (one.state, one.epoch, one.score) == ("finished", 2, 0.7)
    assert search.study.trials[0].intermediate_values == {1: 0.5, 2: 0.7}


def test_a_run_without_validation_ends_the_search(tmp_path: Path) -> None:
    search = shared(tmp_path / "x")
    with pytest.raises(trials.NoValidationError, match="map"), search.next_trial(1) as trial:
        assert trial is not None
        out = search.folder / "trial-0001"
        trials.run_trial(trial, Options(out), lambda: toy_run(out, [0.5]), "map", warned=set())  # type: ignore[arg-type]


def test_values_depend_on_the_seed_and_the_number_of_a_trial_only(tmp_path: Path) -> None:
    one, other = shared(tmp_path / "one"), shared(tmp_path / "other")
    for _ in range(3):
        tried(one, lambda out: toy_run(out, [0.5]))
    tried(other, lambda out: toy_run(out, [0.5]))
    again = shared(tmp_path / "other")
    for _ in range(2):
        tried(again, lambda out: toy_run(out, [0.5]))
    values = [[record.values["lr"] for record in search.records()] for search in (one, again)]
    assert values[0] == values[1] and len(set(values[0])) == 3


@pytest.mark.parametrize("text", ["{}\n", "[1]\n", "no json\n", '{"op_code": 99, "worker_id": "a"}\n', "{}\n{\n{}\n"])
def test_a_damaged_journal_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "journal.log").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"journal\.log is damaged"):
        shared(tmp_path)


def test_no_trial_is_written_through_a_link(tmp_path: Path) -> None:
    search = shared(tmp_path / "x")
    (tmp_path / "elsewhere").mkdir()
    (search.folder / "trial-0001").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        tried(search, lambda out: None)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("command", tune.METRICS)
def test_every_command_that_validates_passes_its_options_on(command: str) -> None:
    needed = {"distil": ["--teacher", "runs/a"]}.get(command, [])
    asked = [command, "--data", "a", "--out", "x", "--space", "lr=0.1..1", "--epochs", "3", "--seed", "4", *needed]
    options = flags.parse("tune", tune, flags.read_flags(tune, asked), asked)
    space, training = tune.checked(options, tune.training_module(command))
    assert (training.epochs, training.seed, training.data, len(space)) == (3, 4, ("a",), 1)
    assert type(training) is tune.training_module(command).Options


def test_without_optuna_the_line_that_installs_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'ribcage\[tune\]'"):
        tune.require_optuna()


def test_options_that_cannot_be_varied_exist() -> None:
    assert set(FIXED) <= {one.name for command in tune.METRICS for one in flags.read_flags(cli.command(command), [])}


# ---- claims


def test_a_claim_is_of_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = tmp_path / "trial-0001.claim"
    assert claims.is_abandoned(claim)
    with claims.held(claim):
        assert not claims.is_abandoned(claim)
        with pytest.raises(OSError, match="trial-0001"), claims.held(claim):
            pass
        monkeypatch.setattr(claims, "machine", lambda: "another")
        assert not claims.is_abandoned(claim)
    assert claims.is_abandoned(claim) and not claim.exists()


def test_a_claim_can_be_taken_while_another_process_looks_at_it(tmp_path: Path) -> None:
    claim = tmp_path / "trial-0001.claim"
    with claim.open("a") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        later = threading.Timer(0.06, fcntl.flock, (looking.fileno(), fcntl.LOCK_UN))
        later.start()
        with claims.held(claim):
            assert not claims.is_abandoned(claim)
        later.join()


def test_the_claim_of_another_machine_is_abandoned_when_it_is_not_touched(tmp_path: Path) -> None:
    claim = tmp_path / "trial-0001.claim"
    claim.write_text("another machine\n", encoding="utf-8")
    assert not claims.is_abandoned(claim)
    old = claim.stat().st_mtime - claims.SILENT - 10
    os.utime(claim, (old, old))
    assert claims.is_abandoned(claim)
    assert [file.name for file in tmp_path.iterdir()] == [claim.name]


def test_without_locks_a_claim_is_abandoned_when_it_is_not_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = tmp_path / "trial-0001.claim"
    monkeypatch.setattr(files, "try_lock", lambda handle, **how: None)
    with claims.held(claim):
        assert not claims.is_abandoned(claim)
        old = claim.stat().st_mtime - claims.SILENT - 10
        os.utime(claim, (old, old))
        assert claims.is_abandoned(claim)


def test_from_python_the_trials_are_returned(searched: tuple[Path, Seen], data: Path) -> None:
    import ribcage

    out, _ = searched
    found = ribcage.tune(
        "finetune", data=data, out=out, space=SPACE[1:], trials=COUNT, model="test_resnet", size=32, batch=32, epochs=2,
        threads=1, precision="float32", findings=("Infiltration", "Effusion"),
    )  # fmt: skip
    assert isinstance(found, SearchResult) and len(found.trials) == COUNT
    assert found.best and found.best.score == max(one.score or 0 for one in found.trials)
    recorded = json.loads((out / "tune.json").read_text(encoding="utf-8"))
    assert recorded["space"] == ["lr=0.0001..0.01:log", "augment=gentle,plain"]


def test_a_process_that_begins_the_same_search_leaves_the_journal_of_the_other(tmp_path: Path) -> None:
    asked = {"command": "finetune", "seed": 1}
    record.begin_or_continue(tmp_path, asked)
    (tmp_path / "journal.log").write_text("{}\n")
    record.begin_or_continue(tmp_path, asked)
    assert (tmp_path / "journal.log").exists()
    record.begin_or_continue(tmp_path, {**asked, "seed": 2})
    assert not (tmp_path / "journal.log").exists()
