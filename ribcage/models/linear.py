"""Linear layers in float32 on CPUs on which oneDNN multiplies matrices faster than MKL.

Where torch was built with MKL, it uses MKL for products in float32, and MKL does not use AVX-512 on processors by AMD:
on an EPYC of the Zen 5 generation, oneDNN is more than twice as fast. Results are equal up to rounding; weights and
their names do not change. Builds with another library (OpenBLAS, Accelerate on a Mac, ArmPL) are left as they are.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name

SMALL = 2**20
"""Multiplications below which the call of oneDNN takes longer than it saves."""


def use_faster_products(module: nn.Module) -> None:
    """Let the linear layers inside use `linear`; layers of derived classes stay as they are."""
    for part in module.modules():
        if type(part) is nn.Linear:
            part.__class__ = FasterLinear


class FasterLinear(nn.Linear):
    """A linear layer that uses `linear`."""

    def forward(self, values: Tensor) -> Tensor:
        """(…, inputs) → (…, outputs)"""
        return linear(values, self.weight, self.bias)


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same as `F.linear`, by oneDNN where that is faster."""
    if _is_transformed() or not _is_faster(values, weight, bias):
        return F.linear(values, weight, bias)
    return _OneDnn.apply(values.reshape(-1, values.shape[-1]), weight, bias).unflatten(0, values.shape[:-1])


def _is_faster(values: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether oneDNN computes this product faster."""
    tensors = (values, weight) if bias is None else (values, weight, bias)
    return (
        all(one.dtype == torch.float32 and one.device.type == "cpu" for one in tensors)
        and values.ndim > 1
        and weight.ndim == 2
        and values.shape[-1] == weight.shape[1]
        and (bias is None or (bias.shape == weight.shape[:1] and bias.is_contiguous()))
        and math.prod(values.shape) * weight.shape[0] >= SMALL
        and not torch.is_autocast_enabled("cpu")
        and bool(torch.backends.mkldnn.enabled)
        and onednn_is_faster()
    )


def _is_transformed() -> bool:
    """Whether the computation is compiled, traced or transformed by `torch.func`, which need torch's own operation."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._functorch.peek_interpreter_stack() is not None
    )


@functools.cache
def onednn_is_faster() -> bool:
    """Whether torch has both libraries, and oneDNN uses AVX-512 on this processor, but MKL does not. Nothing is
    measured, so that two runs on the same machine compute the same."""
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return (
        bool(known.get("avx512_f"))
        and str(known.get("cpu_name", "")).startswith("AMD")
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


@functools.cache
def count_products() -> None:
    """Let torch's FlopCounterMode count the products that oneDNN computes here."""
    from torch.utils.flop_counter import register_flop_formula

    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # a build without oneDNN
        return

    @register_flop_formula(torch.ops.mkldnn._linear_pointwise)
    def operations(values: tuple[int, ...], weight: tuple[int, ...], *_: Any, **__: Any) -> int:
        return 2 * math.prod(values) * weight[0]


class _OneDnn(torch.autograd.Function):
    """y = x Wᵀ + b"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        by_x, by_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(x if by_weight else None, weight if by_x else None)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by_x, by_weight, by_bias = ctx.needs_input_grad
        product = F.linear if torch.is_grad_enabled() else _product  # enabled if the gradient is differentiated again
        return (
            product(gradient, weight.t()) if by_x else None,
            product(gradient.t(), x.t()) if by_weight else None,
            gradient.sum(0) if by_bias else None,
        )


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a bᵀ + bias"""
    return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")
