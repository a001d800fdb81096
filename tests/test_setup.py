"""Accumulation steps follow from batch size and processes."""

from pathlib import Path

import pytest

from ribcage.commands import finetune
from ribcage.runtime import distributed
from ribcage.training import setup


def options(**more: object) -> finetune.Options:
    return finetune.Options(data=("set",), out=Path("run"), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("batch", "world", "micro", "parts"),
    [(2048, 1, 256, 8), (2048, 8, 256, 1), (2048, 2, 256, 4), (2048, 1, 0, 1), (100, 1, 64, 2), (64, 1, 1024, 1)],
)
def test_parts_follow_from_batch_processes_and_the_largest_micro_batch(
    batch: int, world: int, micro: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: world)
    asked = options(batch=batch, micro_batch=micro)
    assert setup.accumulation_steps(asked, batch) == parts
    assert (f"{parts} accumulation steps" in setup.batch_summary(asked, batch)) == (parts > 1)
