"""Weights divided among processes: the run of one process, also when resumed by another number of them."""

import json
import signal
from pathlib import Path
from typing import Any

import processes
import pytest
import stages
import torch
from refusals import has_facts
from safetensors.torch import load_file

from ribcage import cli
from ribcage.runtime import distributed, launcher
from ribcage.training import checkpoint
from ribcage.training.trainer import DivergedError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = str(tmp_path_factory.mktemp("data") / "phantom")
    assert cli.main(["import", "phantom", "--out", made, "--images", "120", "--size", "32"]) == 0
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("supervised", {"accumulate": 2, "recompute": True}),
        ("supervised", {"adapt": "lora", "accumulate": 2, "recompute": True}),
        ("mae", {"accumulate": 2}),
        ("moco", {"accumulate": 2, "kind": "sgd", "recompute": True}),
        ("simclr", {"kind": "lars"}),
        ("supcon", {"accumulate": 2, "kind": "sgd"}),
        ("byol", {"kind": "lars", "recompute": True}),
        ("swav", {"kind": "lars"}),
        ("dino", {}),
        ("dinov2", {}),
        ("distil", {}),
    ],
)
def test_a_sharded_run_is_the_run_of_one_process(folder: str, tmp_path: Path, name: str, how: dict[str, Any]) -> None:
    """With clipped gradients, accumulation and averaged weights; two processes, then one that has all, then two."""
    stages.compare(folder, tmp_path, name, "test_vit", shard=True, **how)


class Poisoned(stages.DoubleLoader):
    """The third batch of rank 1 is infinite."""

    def epoch(self, epoch: int, start: int = 0):  # type: ignore[no-untyped-def]
        for step, one in enumerate(super().epoch(epoch, start), start):
            if step == 2 and distributed.rank() == 1:
                one.views[0].fill_(torch.inf)
            yield one


@stages.doubled()
def diverging(folder: str) -> None:
    """A batch that is infinite on one rank; then a weight of which one rank has a broken part."""
    with launcher.started():
        for lag in (0, 2):
            run = stages.six_steps(folder, "supervised", "test_vit", shard=True)
            run.loader.__class__, run.lag = Poisoned, lag
            with pytest.raises(DivergedError, match="step 2"):
                list(run.fit())
            assert all(distributed.own_part(weight).isfinite().all() for weight in run.method.parameters())
        run = stages.six_steps(folder, "supervised", "test_vit", shard=True)
        run.check()
        if distributed.rank() == 1:
            distributed.own_part(run.method.head.weight).detach().fill_(torch.nan)
        with pytest.raises(DivergedError, match="weights or optimizer"):
            run.check()


@pytest.mark.slow
def test_a_divergence_in_the_part_of_one_process_stops_all(folder: str, tmp_path: Path) -> None:
    processes.together(diverging, folder, said=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("command", [["finetune", "--ema", "0.9"], ["pretrain", "mae", "--decoder", "dec128d2b"]])
def test_the_bundle_of_a_sharded_run_is_that_of_one_process(folder: str, tmp_path: Path, command: list[str]) -> None:
    plain = ["--data", folder, "--model", "test_vit", "--size", "32", "--batch", "16", "--epochs", "1", "--warmup", "0"]
    asked = [*command, *plain, "--threads", "1", "--precision", "float32", "--shard", "--out"]
    with processes.ranks(processes.command, [*asked, str(tmp_path / "two")], said=tmp_path / "said") as started:
        assert cli.main([*asked, str(tmp_path / "one")]) == 0
        ends = [process.end() for process in started]
    assert [code for code, _ in ends] == [0, 0], ends
    one, two = (load_file(tmp_path / name / "bundle" / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=2e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.slow
def test_a_sharded_run_that_was_stopped_is_resumed_by_one_process(folder: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    plain = [
        "--data",
        folder,
        "--model",
        "test_vit",
        "--size",
        "32",
        "--batch",
        "16",
        "--epochs",
        "3",
        "--threads",
        "1",
    ]
    asked = ["finetune", *plain, "--save-minutes", "0", "--precision", "float32", "--out", str(out)]
    with processes.ranks(processes.command, [*asked, "--shard"], said=tmp_path / "said") as started:
        processes.until((out / checkpoint.OLDER_FOLDER).exists, *started)
        started[1].send_signal(signal.SIGTERM)
        ends = [process.end() for process in started]
    assert {code for code, _ in ends} == {75}, ends
    place, damaged = checkpoint.newest(out)
    assert place == out / checkpoint.FOLDER and not damaged
    assert has_facts(ends[0][1], f"step {checkpoint.load_checkpoint(place)['run']['step']}")
    assert cli.main([*asked, "--resume"]) == 0
    logged = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line["step"] for line in logged if "lr" in line]
    assert steps == list(range(1, len(steps) + 1)) and (out / checkpoint.FILE).exists()


@pytest.mark.parametrize(
    ("more", "fact"),
    [
        (["pretrain", "byol", "--model", "test_resnet"], "test_resnet"),
        (["pretrain", "mae_unet", "--model", "test_resnet"], "MAEUNet"),
        (["finetune", "--model", "test_resnet"], "test_resnet"),
        (["finetune", "--model", "test_vit", "--compile"], "--compile"),
    ],
)
def test_what_cannot_be_sharded_is_refused(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], fact: str
) -> None:
    asked = [*more, "--data", folder, "--out", str(tmp_path / "run"), "--size", "32", "--batch", "16", "--shard"]
    assert cli.main(asked) != 0
    assert has_facts(capsys.readouterr().err, "--shard", fact)
