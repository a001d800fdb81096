"""Linear layers by oneDNN give what torch's own give, and only where they are faster."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from ribcage.models import linear as layers
from ribcage.models.linear import FasterLinear, count_products, linear, onednn_is_faster, use_faster_products

pytestmark = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")),
    reason="this build of torch has no oneDNN",
)


@pytest.fixture(autouse=True)
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor on which it is faster."""
    torch.manual_seed(0)
    monkeypatch.setattr(layers, "onednn_is_faster", lambda: True)


def numbers(*shape: int, trained: bool = True) -> Tensor:
    return torch.randn(*shape).requires_grad_(trained)


@pytest.mark.parametrize("shape", [(256,), (2, 128), (2, 4, 32)])
@pytest.mark.parametrize("bias", [True, False])
def test_results_and_gradients_are_those_of_a_linear_layer(shape: tuple[int, ...], bias: bool) -> None:
    values = [numbers(*shape, 96), numbers(64, 96), numbers(64) if bias else None]
    exact = [None if one is None else one.detach().double().requires_grad_() for one in values]
    found, expected = linear(*values), F.linear(*exact)  # type: ignore[arg-type]
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-5)
    turned = torch.randn_like(found)
    found.backward(turned)
    expected.backward(turned.double())
    for own, plain in zip(values, exact, strict=True):
        if own is not None and plain is not None:
            assert own.grad is not None and plain.grad is not None
            torch.testing.assert_close(own.grad.double(), plain.grad, rtol=1e-5, atol=5e-5)


def test_a_frozen_layer_passes_the_gradient_on() -> None:
    values, weight = numbers(256, 96), numbers(64, 96, trained=False)
    linear(values, weight).sum().backward()
    assert values.grad is not None and weight.grad is None
    torch.testing.assert_close(values.grad, weight.sum(0).expand(256, -1), rtol=1e-5, atol=1e-5)


def used_onednn(values: Tensor, weight: Tensor) -> bool:
    count_products()
    with FlopCounterMode(display=False) as counter:
        linear(values, weight)
    return torch.ops.mkldnn._linear_pointwise in counter.get_flop_counts()["Global"]


def test_other_precisions_and_small_products_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    values, weight = numbers(256, 96), numbers(64, 96)
    assert used_onednn(values, weight)
    assert not used_onednn(values[:8], weight)
    assert not used_onednn(values.double(), weight.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not used_onednn(values, weight)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert not used_onednn(values, weight)


def test_a_compiled_step_has_a_plain_linear_layer_for_the_compiler_to_choose() -> None:
    seen: list[Any] = []

    def backend(graph: Any, _: list[Tensor]) -> Callable[..., Any]:
        seen.extend(node.target for node in graph.graph.nodes)
        return graph.forward

    torch.compile(linear, backend=backend, fullgraph=True)(numbers(256, 96), numbers(64, 96))
    assert F.linear in seen


def test_torch_is_used_where_it_is_as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "onednn_is_faster", lambda: False)
    assert not used_onednn(numbers(256, 96), numbers(64, 96))


EPYC = {"architecture": "x86_64", "avx512_f": True, "cpu_name": "AMD EPYC 9655"}


@pytest.mark.parametrize(
    ("known", "mkl", "faster"),
    [
        (EPYC, True, True),
        (EPYC, False, False),
        ({**EPYC, "avx512_f": False}, True, False),
        ({**EPYC, "cpu_name": "Intel(R) Xeon(R) Platinum 8480+"}, True, False),
        ({"architecture": "aarch64", "neon": True}, False, False),
        ({}, False, False),
    ],
    ids=["AMD with MKL", "AMD with OpenBLAS", "AMD without AVX-512", "Intel", "ARM", "unknown"],
)
def test_onednn_is_used_only_beside_an_mkl_without_avx_512(
    known: dict[str, Any], mkl: bool, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    assert onednn_is_faster.__wrapped__() is faster


def test_layers_of_a_model_keep_their_names_and_derived_classes() -> None:
    class Own(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(96, 64), nn.ReLU(), Own(64, 3))
    before, values = copy.deepcopy(model), numbers(256, 96)
    use_faster_products(model)
    assert [type(part) for part in model] == [FasterLinear, nn.ReLU, Own]
    assert list(model.state_dict()) == list(before.state_dict())
    torch.testing.assert_close(model(values), before(values), rtol=1e-5, atol=1e-5)


def test_operations_are_counted() -> None:
    count_products()
    with FlopCounterMode(display=False) as counter:
        linear(numbers(256, 96), numbers(64, 96)).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 256 * 96 * 64


def test_a_bias_in_any_layout_and_a_wrong_shape_are_treated_as_by_torch() -> None:
    values, weight = numbers(256, 96, trained=False), numbers(64, 96, trained=False)
    for bias in (torch.ones(1).expand(64), torch.randn(128)[::2]):
        torch.testing.assert_close(linear(values, weight, bias), F.linear(values, weight, bias), rtol=1e-5, atol=2e-5)
    with pytest.raises(RuntimeError, match="95"):
        linear(values[:, :95], weight)


def test_the_input_of_a_frozen_layer_may_change_afterwards() -> None:
    values, weight = numbers(256, 96), numbers(64, 96, trained=False)
    scaled = values * 2
    found = linear(scaled, weight)
    scaled.mul_(2)
    found.sum().backward()
    assert values.grad is not None


def test_gradients_can_be_differentiated_and_transformed() -> None:
    values, weight = numbers(256, 96), numbers(64, 96)
    gradients = []
    for layer in (linear, F.linear):
        (first,) = torch.autograd.grad((layer(values, weight) ** 2).sum(), values, create_graph=True)
        gradients.append(torch.autograd.grad((first**2).sum(), weight)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-2)
    found = torch.func.grad(lambda one: linear(values, one).sum())(weight)
    torch.testing.assert_close(found, values.sum(0).expand(64, -1), rtol=1e-4, atol=1e-4)
