"""Parameters and operations are counted exactly; memory and time are measured."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – everybody's name for it

from ribcage.bundle import cost, onnx_export
from ribcage.bundle.cost import Subject, Timing, subject, timing
from ribcage.methods.supervised import Supervised

SMALL = Subject("test_resnet", 3, 1, (32, 32))
PRINTED = {
    ("eeea_net_c2", 14): (4_732_838, 311_335_744, 0),
    ("ofa_595", 14): (7_620_446, 543_255_984, 0),
    ("densenet121", 14): (6_968_206, 2_895_997_440, 0),
    ("visformer_small", 14): (39_461_358, 4_757_290_496 - 986 * 768, 132_765_696),
    ("visformer_small", 1000): (40_219_592, 4_757_290_496, 132_765_696),
    ("autoformer_v2_base", 14): (70_367_528, 12_749_295_552 - 986 * 768, 980_990_976),
    ("autoformer_v2_base", 1000): (71_125_762, 12_749_295_552, 980_990_976),
}
"""Parameters and thop's FLOPs as they were published for images of 3 × 224 × 224 – with 14 classes in place of 1000
both have a head of 768 · 14 – and attention's products, which were not."""


@pytest.mark.parametrize(("name", "classes"), cost.FAMOUS)
def test_the_five_models_cost_what_was_published(name: str, classes: int) -> None:
    found = cost.count_operations(Subject(name, classes, 3, (224, 224)))
    assert (found.parameters, found.thop, found.outside) == PRINTED[name, classes]


def test_the_table_has_every_published_count_and_each_model_in_gray() -> None:
    table = cost.famous((224, 224))
    assert {(one.name, one.classes) for one in table if one.channels == 3} == set(PRINTED)
    assert {one.name for one in table if one.channels == 1} == {name for name, _ in PRINTED}
    assert len(table) == len(set(table))


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet18", 1_823_528_960), ("resnet50", 4_131_723_264), ("densenet161", 7_843_663_968)],
)
def test_timm_s_models_count_as_thop_counts_torchvision_s(name: str, count: int) -> None:
    """The counts are thop 0.1.1's own, of torchvision's models with 14 classes."""
    assert cost.count_operations(Subject(name, 14, 3, (224, 224))).thop == count


@pytest.mark.parametrize(
    ("layer", "shape", "count"),
    [
        (nn.Conv2d(4, 6, 3, padding=1, groups=2), (1, 4, 5, 5), 6 * 25 * 2 * 9),
        (nn.Conv2d(4, 6, 3, stride=2), (1, 4, 5, 5), 6 * 4 * 4 * 9),
        (nn.Linear(4, 6), (1, 7, 4), 7 * 4 * 6),
        (nn.BatchNorm2d(4), (1, 4, 5, 5), 4 * 100),
        (nn.BatchNorm2d(4, affine=False), (1, 4, 5, 5), 2 * 100),
        (nn.LayerNorm(4), (1, 7, 4), 4 * 28),
        (nn.LayerNorm(4, elementwise_affine=False), (1, 7, 4), 2 * 28),
        (nn.AvgPool2d(2), (1, 4, 6, 6), 36),
        (nn.AdaptiveAvgPool2d(1), (1, 4, 7, 7), 4 * (49 + 1)),
        (nn.Softmax(dim=1), (1, 5, 3), 3 * (3 * 5 - 1)),
        (nn.MaxPool2d(2), (1, 4, 6, 6), 0),
        (nn.GELU(), (1, 4, 6, 6), 0),
        (timm.layers.BatchNormAct2d(4), (1, 4, 5, 5), 4 * 100),
        (timm.layers.LayerNorm2d(4), (1, 4, 5, 5), 4 * 100),
        (timm.layers.adaptive_avgmax_pool.FastAdaptiveAvgPool(True, "NHWC"), (1, 7, 7, 4), 4 * (49 + 1)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)  # fmt: skip
def test_each_layer_counts_by_its_rule(layer: nn.Module, shape: tuple[int, ...], count: int) -> None:
    x = torch.zeros(shape)
    assert cost.by_thop(layer.eval(), x, layer.eval()(x)) == count


def test_attention_s_products_are_counted_whether_fused_or_not() -> None:
    """Tokens by tokens, once for what attends and once for what is taken: 2 · tokens² · width in each block."""
    one = Subject("test_vit", 3, 1, (64, 64))
    vit = cost.built(one).backbone.model
    tokens = math.prod(vit.patch_embed.grid_size) + vit.num_prefix_tokens
    assert cost.count_operations(one).outside == len(vit.blocks) * 2 * tokens**2 * vit.embed_dim


@pytest.mark.parametrize("name", ["densenet121", "eeea_net_c2", "visformer_small", "autoformer_v2_tiny", "test_vit"])
def test_a_backbone_and_its_head_have_the_parameters_of_timm_s_model(name: str) -> None:
    size = timm.get_pretrained_cfg(name).input_size[1:]
    with torch.device("meta"):
        whole = timm.create_model(name, num_classes=14)
    found = cost.count_operations(Subject(name, 14, 3, size))
    assert found.parameters == sum(value.numel() for value in whole.parameters())


def test_what_cannot_be_made_without_numbers_is_counted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, whole = cost.count_operations(SMALL), cost.built
    calls: list[str] = []

    def picky(one: Subject) -> Supervised:
        calls.append(torch.get_default_device().type)
        if calls[-1] == "meta":
            raise NotImplementedError("no numbers")
        return whole(one)

    monkeypatch.setattr(subject, "built", picky)
    assert cost.count_operations(SMALL) == expected
    assert calls == ["meta", "cpu"]


# ---- memory


class Tiny(nn.Module):
    """A convolution 1 → 4, a ReLU and a mean; every number of it can be followed."""

    dim, pools_by_query = 4, False

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.model: Any = SimpleNamespace()

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(images))).mean((2, 3))

    def hidden(self, images: Tensor) -> Tensor:
        return self(images)

    def head_input(self, hidden: Tensor) -> Tensor:
        return hidden


def test_memory_is_that_of_the_activations_and_weights_are_none() -> None:
    """In float32, 8 × 8: the image 256 bytes; each of three maps 1,024; four features 16.

    On the way there two maps live beside the image. Kept for the way back: the image for the convolution, its map
    for the norm, the ReLU's map for itself, the features for the head. What the norm keeps once for a batch is not of
    one image.
    """
    method = Supervised(Tiny(), ("a", "b"))  # type: ignore[arg-type]
    found = cost.activation_memory(method, 1, (8, 8))
    assert found.inference == 256 + 2 * 1024
    assert found.training == 256 + 2 * 1024 + 16


def test_measuring_memory_leaves_the_model_as_it_was() -> None:
    method = cost.built(SMALL)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    cost.activation_memory(method, 1, (32, 32))
    assert not method.training
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


# ---- time


def test_time_is_the_median_of_runs_that_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, said = [0.0], []
    takes = {"fast": iter([9, 9, 9, 1, 9, 2, 9, 90]), "slow": iter([9, 9, 9, 5, 9, 4, 9, 6])}  # each is woken first

    def ask(name: str) -> None:
        said.append(name)
        clock[0] += next(takes[name]) / 1000

    pauses: list[float] = []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(timing.time, "sleep", pauses.append)
    assert cost.medians([lambda: ask("fast"), lambda: ask("slow")], 3) == pytest.approx([2, 5])
    assert said == ["fast", "fast", "slow", "slow"] * 4 and pauses == [timing.ASLEEP] * 8


def test_the_exported_network_answers_as_the_model_for_any_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    method = cost.built(Subject("test_vit", 3, 1, (32, 32)))
    method.head.weight.data.normal_()
    onnx_export.onnx(onnx_export.Network(method), (1, 32, 32), tmp_path / "a.onnx")
    answer = onnx_export.onnx_function(tmp_path / "a.onnx", threads=1)
    for count in (1, 3):
        images = torch.rand(count, 1, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(answer(images), method.logits(images), atol=1e-5, rtol=1e-4)


def test_both_ways_are_timed_and_threads_come_back() -> None:
    before = torch.get_num_threads()
    found = cost.latency(cost.built(SMALL), 1, (32, 32), Timing(threads=1, runs=1, batches=(1, 2)))
    assert [each.batch for each in found] == [1, 2]
    assert all(not each.why and each.eager > 0 and each.exported is not None and each.exported > 0 for each in found)
    assert torch.get_num_threads() == before


def test_without_the_exporter_there_is_no_exported_time_and_a_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnx_export, "NEEDED", ("onnx", "no_such_package"))
    found = cost.latency(cost.built(SMALL), 1, (32, 32), Timing(threads=1, runs=1, batches=(1,)))
    assert found[0].exported is None
    assert found[0].why == "Exporting needs no_such_package: pip install 'ribcage[export]'"


def test_a_network_that_answers_otherwise_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        onnx_export, "onnx_function", lambda file, threads: lambda images: torch.full((len(images), 3), 7.0)
    )
    monkeypatch.setattr(onnx_export, "onnx", lambda network, shape, file: None)
    found = cost.latency(cost.built(SMALL), 1, (32, 32), Timing(threads=1, runs=1, batches=(1,)))
    assert found[0].exported is None
    assert found[0].why.endswith("by 7")
