"""Accumulation steps follow from batch size and processes."""

from pathlib import Path

import pytest
from refusals import has_facts

from ribcage.commands import finetune
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.models.recomputation import blocks
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


@pytest.mark.parametrize(
    ("size", "stored", "facts"),
    [
        ((224, 224), [28], ["28 px", "224 × 224", "--size 32 ", " 49 "]),
        ((512, 256), [80, 96], ["96 px", "512 × 256", "--size 96 ", " 14 "]),
        ((224, 224), [28, 256], []),
        ((224, 224), [113], []),
        ((32, 32), [16], ["16 px"]),
    ],
)
def test_images_enlarged_to_twice_their_size_are_worth_a_warning(
    size: tuple[int, int], stored: list[int], facts: list[str]
) -> None:
    warning = setup.enlargement_warning(size, stored)
    assert bool(warning) == bool(facts) and all(fact in warning for fact in facts)
    assert ("--size" in warning) == any("--size" in fact for fact in facts)


def test_blocks_are_recomputed_where_asked_and_not_together_with_compile() -> None:
    method = Supervised(Backbone("test_resnet"), ("a",))
    setup.save_memory(options(checkpoint_activations=True), method)
    assert all("forward" in vars(block) for block in blocks(method.backbone.model))
    with pytest.raises(ValueError) as error:
        setup.save_memory(options(checkpoint_activations=True, compile=True), method)
    assert has_facts(str(error.value), "--checkpoint-activations", "--compile")
