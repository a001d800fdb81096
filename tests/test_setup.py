"""Accumulation steps follow from batch size and processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import has_facts

from ribcage.commands import finetune
from ribcage.methods.mae import MAE
from ribcage.methods.moco import MoCo
from ribcage.methods.simclr import SimCLR
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.models.recomputation import blocks
from ribcage.runtime import distributed
from ribcage.runtime.devices import choose_kernels
from ribcage.training import micro_batches, setup


def options(**more: object) -> finetune.Options:
    return finetune.Options(data=("set",), out=Path("run"), **more)  # type: ignore[arg-type]


def test_a_training_leaves_the_settings_of_its_process_alone(tmp_path: Path) -> None:
    def train(given: finetune.Options, device: torch.device) -> Path:
        torch.manual_seed(7)
        choose_kernels(torch.device("cuda"), "auto")
        return given.out

    before = torch.get_rng_state(), torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    asked = finetune.Options(data=("set",), out=tmp_path / "run")
    assert setup.run_processes("finetune", finetune, asked, train) == asked.out
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark) == before[1:]


@pytest.mark.parametrize(
    ("batch", "world", "micro", "parts"),
    [(2048, 1, 256, 8), (2048, 8, 256, 1), (2048, 2, 256, 4), (2048, 1, 0, 1), (100, 1, 64, 2), (64, 1, 1024, 1)],
)
def test_parts_follow_from_batch_processes_and_the_largest_micro_batch(
    batch: int, world: int, micro: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: world)
    asked = options(batch=batch, micro_batch=micro)
    assert micro_batches.accumulation_steps(asked, batch) == parts
    assert (f"{parts} accumulation steps" in micro_batches.batch_summary(asked, batch)) == (parts > 1)
    cached = micro_batches.batch_summary(asked, batch, cached=True)
    assert (f"gradient caching with {parts} micro-batches" in cached) == (parts > 1)


@pytest.mark.parametrize(
    ("model", "micro", "warned"), [("test_resnet", 4, True), ("test_resnet", 0, False), ("test_vit", 4, False)]
)
def test_batch_norms_of_micro_batches_are_pointed_out(
    model: str, micro: int, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    micro_batches.check_batch_norms(options(batch=16, micro_batch=micro), SimCLR(Backbone(model, size=(32, 32))), 16)
    assert has_facts(capsys.readouterr().out, "4 images", "16", "--micro-batch") is warned


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


@pytest.mark.parametrize("model", ["test_vit", "test_resnet"])
def test_a_model_that_accepts_several_sizes_is_trained_on_them(model: str) -> None:
    asked = options(model=model, size=("32:0.5,64",), epochs=4)
    method = MoCo(Backbone(model, size=asked.final_size), dim=8, queue=8, bn_group=2).train()
    names = method.state_dict().keys()
    setup.accept_sizes(asked, method)
    for encoder in (method.backbone, method.key[0]):  # type: ignore[index]
        features = [encoder(torch.zeros(4, 1, side, side)) for side in (32, 64)]  # type: ignore[operator]
        assert features[0].shape == features[1].shape
    assert method.state_dict().keys() == names and method.backbone.training
    assert has_facts(setup.size_summary(asked), "32 px in epochs 1 to 2", "64 px in epochs 3 to 4")


def test_the_last_size_of_a_transformer_gives_the_features_that_it_gives_alone() -> None:
    """Position embeddings of the same grid are not interpolated."""
    torch.manual_seed(0)
    backbone, images = Backbone("test_vit", size=(64, 64)).eval(), torch.rand(2, 1, 64, 64)
    alone = backbone(images)
    backbone.accept_any_size()
    assert torch.equal(backbone(images), alone)


@pytest.mark.parametrize(
    ("method", "model", "first", "facts"),
    [
        (Supervised, "visformer_tiny", 32, ["visformer_tiny", "single image size"]),
        (MAE, "test_vit", 32, ["MAE", "single size"]),
        (Supervised, "test_vit", 8, ["test_vit", "8 × 8"]),
    ],
)
def test_a_model_that_cannot_process_all_sizes_is_refused(
    method: Any, model: str, first: int, facts: list[str]
) -> None:
    asked = options(model=model, size=(f"{first}:0.5,64",), epochs=4)
    backbone = Backbone(model, size=asked.final_size)
    with pytest.raises(ValueError) as error:
        setup.accept_sizes(asked, method(backbone, ("a",)))
    assert has_facts(str(error.value), f"--size {first}:0.5,64", *facts) and "\n" not in str(error.value)


def test_blocks_are_recomputed_where_asked_and_not_together_with_compile() -> None:
    method = Supervised(Backbone("test_resnet"), ("a",))
    setup.save_memory(options(checkpoint_activations=True), method)
    assert all("forward" in vars(block) for block in blocks(method.backbone.model))
    with pytest.raises(ValueError) as error:
        setup.save_memory(options(checkpoint_activations=True, compile=True), method)
    assert has_facts(str(error.value), "--checkpoint-activations", "--compile")
