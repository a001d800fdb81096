"""Training on one GPU: steps beside the papers' own, time spent waiting for data, and synchronisations.

    python benchmarks/gpu.py [--part steps large options loader norms optimizers] [--seconds 3] [--dry-run]

Each row is printed as soon as it is known; --seconds is the time for each row of the parts steps, large and loader,
without its preparation. The rows of options take half of it, those of optimizers and norms a fifth. torch.compile may
take --compile-seconds in all, and a third of that for each row; a row that needs more says so, as does one that needs
more memory than there is. --dry-run runs every row at toy size on any machine, to test the script where there is no
GPU; its numbers mean nothing. The parts optimizers and norms also run at full size on a CPU. The script is a single
file of more than 400 lines so that it can be copied to a machine on which only Ribcage is installed.

rate: matrix products and copies from pinned memory to the device, which bound everything else.
steps: each recipe as the paper writes it (bf16, channels_last, RGB, images already on the device), as Ribcage runs it
    at equal work, fed by its loader from a dataset folder, and with torch.compile. Matrix rate: the operations per
    second of matrix products and convolutions, relative to one large product. Waiting: the share of a step in which
    the GPU had no data, by CUDA events. Syncs: how often a step made the CPU wait for the GPU, by torch's debug mode.
options: options of a training beside the defaults: precision, memory, averaged weights, fused attention, CUDA graphs
    for a small model, and gradient caching beside the whole batch. Memory: the largest allocated.
large: the same as steps at 512 pixels, where loading is the bottleneck, with a quarter of the batch.
loader: images per second of the loader alone, by method and size.
optimizers: the update of the weights alone, by each implementation that torch has, eager and compiled.
norms: forward and backward pass of batch norms over groups, as in MoCo: a loop over groups (as in Ribcage), one call
    for all groups, and the equations written out, eager and compiled."""

import argparse
import contextlib
import copy
import gc
import math
import signal
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from timm.optim import Lars
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name
from torch.utils.flop_counter import FlopCounterMode

from ribcage import cli
from ribcage.data import dataset_folder
from ribcage.data.loader import Loader
from ribcage.methods import Method
from ribcage.methods.mae import MAE
from ribcage.methods.moco import MoCo
from ribcage.methods.simclr import SimCLR
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.models.hyperparameters import Optimizer
from ribcage.models.linear import count_products
from ribcage.models.recomputation import recompute_blocks
from ribcage.runtime.devices import choose_kernels
from ribcage.training import optim, step_log, trainer

MASK, QUEUE, FINDINGS = 0.9, 65536, 14
IMAGES, EPOCH = 512, 1 << 17
"""Different images of a dataset folder, and images of an epoch, which repeats them: at the end of an epoch the loader
starts anew, which is rare in a training."""
Step = Callable[[], None]


@dataclass(frozen=True)
class Recipe:
    """A model and method to time."""

    title: str
    model: str
    batch: int
    optimizer: Optimizer
    plain: Callable[[str, int, int, torch.device], Step]
    """(model, batch, side, device) → a step of the paper's."""
    method: Callable[[Backbone], Method]


@dataclass
class Timing:
    """Steps of one implementation."""

    seconds: list[float] = field(default_factory=list)
    waiting: list[float] = field(default_factory=list)
    syncs: int = 0
    operations: int = 0


# ---- the papers' steps, written plainly


def plain_mae(name: str, batch: int, side: int, device: torch.device) -> Step:
    """He et al. 2021, as their code does it: the decoder sees every token; the loss is that of the masked ones."""
    encoder: Any = timm.create_model(name, num_classes=0, img_size=side).to(device)
    width, count = encoder.embed_dim, encoder.patch_embed.num_patches
    block = timm.models.vision_transformer.Block
    decoder: Any = nn.ModuleDict(
        {
            "embed": nn.Linear(width, 512),
            "blocks": nn.Sequential(*(block(512, 16, qkv_bias=True) for _ in range(2)), nn.LayerNorm(512)),
            "pred": nn.Linear(512, 768),
        }
    ).to(device)
    token = nn.Parameter(torch.zeros(1, 1, 512, device=device))
    places = torch.randn(1, count + 1, 512, device=device)
    weights = [*encoder.parameters(), *decoder.parameters(), token]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)
    images, shown = torch.randn(batch, 3, side, side, device=device), int(count * (1 - MASK))

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            x = encoder.patch_embed(images) + encoder.pos_embed[:, 1:]
            order = torch.rand(batch, count, device=device).argsort(1)
            back = order.argsort(1)
            x = x.gather(1, order[:, :shown, None].expand(-1, -1, width))
            first = (encoder.cls_token + encoder.pos_embed[:, :1]).expand(batch, -1, -1)
            x = decoder["embed"](encoder.norm(encoder.blocks(torch.cat([first, x], 1))))
            whole = torch.cat([x[:, 1:], token.expand(batch, count - shown, -1).to(x)], 1)
            whole = whole.gather(1, back[:, :, None].expand(-1, -1, 512))
            drawn = decoder["pred"](decoder["blocks"](torch.cat([x[:, :1], whole], 1) + places))[:, 1:]
        patches = images.unfold(2, 16, 16).unfold(3, 16, 16).permute(0, 2, 3, 4, 5, 1).reshape(batch, count, 768)
        hidden = torch.ones(batch, count, device=device)
        hidden.scatter_(1, order[:, :shown], 0)
        loss = ((drawn.float() - patches).square().mean(2) * hidden).sum() / hidden.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def plain_moco(name: str, batch: int, side: int, device: torch.device) -> Step:
    """Chen et al. 2020: algorithm 1 of He et al. 2020 with an MLP head; on one GPU nothing is shuffled."""
    query = torchvision.models.get_model(name, num_classes=128)
    query.fc = nn.Sequential(nn.Linear(query.fc.in_features, query.fc.in_features), nn.ReLU(), query.fc)
    query = query.to(device, memory_format=torch.channels_last)
    key = copy.deepcopy(query).requires_grad_(False)
    queue, at = F.normalize(torch.randn(128, QUEUE, device=device), dim=0), 0
    optimizer = torch.optim.SGD(query.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    views = [_images(batch, side, device) for _ in range(2)]
    target = torch.zeros(batch, dtype=torch.int64, device=device)

    def step() -> None:
        nonlocal at
        with torch.autocast(device.type, torch.bfloat16):
            q = F.normalize(query(views[0]), dim=1)
            with torch.no_grad():
                for old, new in zip(key.parameters(), query.parameters(), strict=True):
                    old.data = old.data * 0.999 + new.data * 0.001
                k = F.normalize(key(views[1]), dim=1)
            logits = torch.cat([torch.einsum("nc,nc->n", q, k)[:, None], torch.einsum("nc,ck->nk", q, queue)], dim=1)
        optimizer.zero_grad()
        F.cross_entropy(logits.float() / 0.2, target).backward()
        optimizer.step()
        queue[:, at : at + batch] = k.T
        at = (at + batch) % (QUEUE - QUEUE % batch)

    return step


def plain_supervised(name: str, batch: int, side: int, device: torch.device) -> Step:
    """The usual loop: a model, binary cross-entropy, AdamW."""
    sized: Any = {"img_size": side} if name.startswith("vit") else {}
    model: Any = timm.create_model(name, num_classes=FINDINGS, **sized)
    model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    images, labels = _images(batch, side, device), torch.rand(batch, FINDINGS, device=device).round()

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            logits = model(images)
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(logits.float(), labels).backward()
        optimizer.step()

    return step


def _images(batch: int, side: int, device: torch.device) -> Tensor:
    return torch.randn(batch, 3, side, side, device=device).to(memory_format=torch.channels_last)


# ---- what is timed


def recipes(toy: bool, findings: Sequence[str]) -> list[Recipe]:
    """The rows of the table; at toy size small models and batches."""
    small, base, resnet, dense = (
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224", "resnet18", "resnet18")
        if toy
        else ("vit_small_patch16_224", "vit_base_patch16_224", "resnet50", "densenet121")
    )
    group = 2 if toy else 32

    def batch(count: int) -> int:
        return 4 if toy else count

    def mae(backbone: Backbone) -> Method:
        return MAE(backbone, mask_ratio=MASK, decoder="dec512d2b")

    def supervised(backbone: Backbone) -> Method:
        return Supervised(backbone, findings)

    return [
        Recipe(f"MAE, {small}, mask {MASK}, dec512d2b", small, batch(1024), "adamw", plain_mae, mae),
        Recipe(f"MoCo v2, {resnet}", resnet, batch(256), "sgd", plain_moco, lambda one: MoCo(one, bn_group=group)),
        Recipe(f"supervised, {resnet}", resnet, batch(256), "adamw", plain_supervised, supervised),
        Recipe(f"supervised, {dense}", dense, batch(256), "adamw", plain_supervised, supervised),
        Recipe(f"fine-tuning, {base}", base, batch(256), "adamw", plain_supervised, supervised),
    ]


def ours(
    recipe: Recipe,
    opened: dataset_folder.DatasetFolder,
    side: int,
    device: torch.device,
    compiled: bool,
    *,
    recompute: bool = False,
    graphs: bool = False,
    **how: Any,
) -> Iterator[step_log.StepLog]:
    """Steps as `ribcage pretrain` and `finetune` run them, without an end.

    recompute: activations inside the blocks; graphs: the compiled step as CUDA graphs; how: options of the trainer.
    """
    method = recipe.method(Backbone(recipe.model, size=(side, side)))
    method.to(device).to(memory_format=torch.channels_last)
    if recompute:
        recompute_blocks(method.backbone.model)
    loader = batches(opened, method, side, recipe.batch, device)
    optimizer, rates = optim.optimizer(method, recipe.optimizer), optim.Rates(1e-4, 10**6)
    how = {"precision": "bf16", "compile": compiled, **how}
    run = trainer.Trainer(method, loader, optimizer, rates, epochs=10**6, device=device, **how)
    if graphs:  # on a CPU, where there are none, the graph is only captured
        on_gpu: Any = {"mode": "reduce-overhead"} if device.type == "cuda" else {"backend": "eager"}
        run.forward = torch.compile(run.method, **on_gpu)
    return run.fit()


def batches(
    opened: dataset_folder.DatasetFolder, method: Method, side: int, batch: int, device: torch.device
) -> Loader:
    """A loader with long epochs."""
    rows = np.resize(np.arange(len(opened.index)), max(EPOCH, batch) if device.type == "cuda" else len(opened.index))
    return Loader([opened], method.views((side, side)), batch=batch, rows=rows, drop_last=True, device=device)


class Compilation:
    """The time for torch.compile, in seconds."""

    def __init__(self, seconds: float) -> None:
        self.left, self.most = seconds, seconds / 3

    @contextlib.contextmanager
    def limited(self) -> Iterator[None]:
        """Within the block, TimeoutError is raised when the time for a row, or for all, is used up."""
        seconds, start = min(self.left, self.most), time.perf_counter()
        if seconds <= 0:
            raise TimeoutError("not compiled: --compile-seconds is used up")
        before = signal.signal(signal.SIGALRM, _expired)
        signal.setitimer(signal.ITIMER_REAL, 0 if math.isinf(seconds) else seconds, 1.0)  # again if it is caught
        try:
            yield
        except Exception:
            if time.perf_counter() - start >= seconds:
                raise TimeoutError(f"not compiled within {seconds:.0f} s") from None
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            self.left -= time.perf_counter() - start


def _expired(number: int, frame: object) -> None:
    raise TimeoutError


def reason(error: Exception) -> str:
    """Why a row has no numbers."""
    return str(error) if isinstance(error, TimeoutError) else type(error).__name__


def free(device: torch.device) -> None:
    """Give the memory of a row back, and forget what was compiled, so that the next row is not compiled for variable
    shapes."""
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def timed(step: Callable[[], Any], seconds: float, device: torch.device, least: int, operations: int = 0) -> Timing:
    """Time steps in blocks, each of which ends when the device is idle; warm up, count operations and waits first.

    operations: those of a step if they are known, as the operations of a compiled step are from the plain one.
    """
    timing = Timing(operations=operations)
    if not operations:
        count_products()
        with FlopCounterMode(display=False) as counter:
            step()
        timing.operations = counter.get_total_flops()
    for _ in range(2):
        step()
    timing.syncs = synchronisations(step, device)
    finish(device)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(timing.seconds) < 2:
        start, logs = time.perf_counter(), [step() for _ in range(least)]
        finish(device)
        timing.seconds.append((time.perf_counter() - start) / least)
        timing.waiting += [log.waited for log in logs if isinstance(log, step_log.StepLog)]
    return timing


def synchronisations(step: Callable[[], Any], device: torch.device) -> int:
    """How often a step makes the CPU wait for the GPU."""
    if device.type != "cuda":
        return 0
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in caught)


def finish(device: torch.device) -> None:
    """Wait until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize()


# ---- the parts


def rate(device: torch.device, toy: bool) -> float:
    """Print the rates of the card; operations a second of one large product in bf16."""
    side, found = 256 if toy else 8192, {}
    for name, kind in (("bf16", torch.bfloat16), ("TF32", torch.float32)):
        a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
        timing = timed(lambda a=a, b=b: torch.mm(a, b), 0.5, device, 10)  # type: ignore[misc]
        found[name] = 2 * side**3 / statistics.median(timing.seconds)
        print(f"| matrix product, {name}, {side}³ | {found[name] / 1e12:,.1f} TFLOP/s |", flush=True)
    pinned = torch.empty(1 << (20 if toy else 28), dtype=torch.uint8, pin_memory=device.type == "cuda")
    copied = timed(lambda: pinned.to(device, non_blocking=True).sum() if toy else pinned.to(device), 0.5, device, 4)
    print(f"| pinned memory to the device | {len(pinned) / statistics.median(copied.seconds) / 1e9:,.1f} GB/s |\n")
    return found["bf16"]


def steps(
    chosen: list[Recipe],
    folder: dataset_folder.DatasetFolder,
    side: int,
    seconds: float,
    device: torch.device,
    peak: float,
    compilation: Compilation,
) -> None:
    """Print a table of training steps."""
    print(f"| {side} px, bf16 | batch | images/s | × plain | of the matrix rate | waiting | syncs a step |")
    print("|---|---|---|---|---|---|---|")
    for recipe in chosen:
        plain, operations = 0.0, 0
        for name in ("plain", "ribcage", "ribcage, compiled"):
            if name.endswith("compiled") and device.type == "cpu" and recipe is not chosen[0]:
                continue  # compiling is slow there, and the first row shows that it runs
            try:
                timing = timed_step(recipe, name, folder, side, seconds, device, operations, compilation)
                each = statistics.median(timing.seconds)
                plain, operations = plain or each, timing.operations
                waiting = f"{statistics.mean(timing.waiting) / each:.1%}" if timing.waiting else "–"
                cells = [
                    f"{recipe.batch / each:,.0f}", f"{plain / each:.2f}", f"{timing.operations / each / peak:.0%}",
                    waiting, f"{timing.syncs}",
                ]  # fmt: skip
            except (RuntimeError, TimeoutError) as error:
                cells = [reason(error), "–", "–", "–", "–"]
            print(f"| {recipe.title}: {name} | {recipe.batch} | {' | '.join(cells)} |", flush=True)
            free(device)
    print()


def timed_step(
    recipe: Recipe,
    name: str,
    folder: dataset_folder.DatasetFolder,
    side: int,
    seconds: float,
    device: torch.device,
    operations: int,
    compilation: Compilation,
) -> Timing:
    """The timing of a row; operations: those of the step that is compiled."""
    least = 2 if device.type == "cpu" else 5
    if name == "plain":
        return timed(recipe.plain(recipe.model, recipe.batch, side, device), seconds, device, least)
    logs = ours(recipe, folder, side, device, compiled=name.endswith("compiled"))
    if not name.endswith("compiled"):
        return timed(lambda: next(logs), seconds, device, least)
    with compilation.limited():
        next(logs)
        finish(device)
    return timed(lambda: next(logs), seconds, device, least, operations)


def options_table(
    folder: dataset_folder.DatasetFolder,
    side: int,
    seconds: float,
    device: torch.device,
    toy: bool,
    compilation: Compilation,
) -> None:
    """Print a table of trainings with options beside those without."""
    base, small = ("vit_tiny_patch16_224",) * 2 if toy else ("vit_base_patch16_224", "vit_small_patch16_224")
    findings, batch = folder.index.findings, 4 if toy else 256

    def supervised(backbone: Backbone) -> Method:
        return Supervised(backbone, findings)

    fine = Recipe(f"fine-tuning, {base}", base, batch, "adamw", plain_supervised, supervised)
    tiny = Recipe("fine-tuning, vit_tiny_patch16_224", "vit_tiny_patch16_224", 4 if toy else 32, "adamw",
                  plain_supervised, supervised)  # fmt: skip
    pairs = Recipe(f"SimCLR, {small}", small, 2 * batch, "lars", plain_supervised, SimCLR)
    rows: list[tuple[Recipe, list[tuple[str, dict[str, Any]]]]] = [
        (fine, [("defaults", {}), ("--precision fp16", {"precision": "fp16"}),
                ("--precision float32", {"precision": "float32"}), ("--checkpoint-activations", {"recompute": True}),
                ("--micro-batch, a quarter of the batch", {"accumulate": 4}), ("--ema 0.999", {"ema": 0.999}),
                ("without fused attention", {"fused": False})]),
        (tiny, [("defaults", {}), ("--compile as CUDA graphs", {"graphs": True})]),
        (pairs, [("defaults", {}), ("--micro-batch, a quarter of the batch", {"accumulate": 4}),
                 ("--micro-batch, an eighth of the batch", {"accumulate": 8})]),
    ]  # fmt: skip
    print(f"| {side} px, options | batch | images/s | × defaults | memory | syncs a step |\n|---|---|---|---|---|---|")
    for recipe, several in rows:
        default = 0.0
        for name, how in several:
            timm.layers.set_fused_attn(how.pop("fused", True))
            choose_kernels(device, how.get("precision", "bf16"))
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            try:
                logs = ours(recipe, folder, side, device, False, **how)
                with compilation.limited() if "graphs" in how else contextlib.nullcontext():
                    next(logs)
                    finish(device)
                timing = timed(lambda logs=logs: next(logs), seconds, device, 2, 1)  # type: ignore[misc]
                each = statistics.median(timing.seconds)
                default = default or each
                memory = f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if device.type == "cuda" else "–"
                cells = (f"{recipe.batch / each:,.0f}", f"{default / each:.2f}", memory, f"{timing.syncs}")
            except (RuntimeError, TimeoutError) as error:  # such as too little memory
                cells = (reason(error), "–", "–", "–")
            print(f"| {recipe.title}: {name} | {recipe.batch} | {' | '.join(cells)} |", flush=True)
            logs = iter(())
            free(device)
    timm.layers.set_fused_attn(True)
    choose_kernels(device, "bf16")
    print()


# ---- optimizers and batch norms alone


def optimizers(seconds: float, device: torch.device, toy: bool, compilation: Compilation) -> None:
    """Print the time of a step of the optimizer, by each implementation."""
    adamw, sgd = torch.optim.AdamW, partial(torch.optim.SGD, momentum=0.9)
    lars: Any = partial(Lars, momentum=0.9, weight_decay=1e-6)
    kinds: list[tuple[str, Any, dict[str, Any]]] = [
        ("AdamW, fused (default)", adamw, {"fused": True}), ("AdamW, foreach", adamw, {"foreach": True}),
        ("AdamW, one weight at a time", adamw, {"foreach": False, "fused": False}),
        ("AdamW, foreach, compiled", adamw, {"foreach": True}), ("SGD, fused", sgd, {"fused": True}),
        ("SGD, foreach", sgd, {"foreach": True}), ("LARS, foreach", lars, {"foreach": True}),
        ("LARS, one weight at a time", lars, {"foreach": False}), ("LARS, foreach, compiled", lars, {"foreach": True}),
    ]  # fmt: skip
    model = "test_vit" if toy else "vit_small_patch16_224"
    print(f"| optimizer alone, {model} | ms a step | compilation |\n|---|---|---|")
    for name, kind, how in kinds:
        weights = [weight for weight in Backbone(model).to(device).parameters() if weight.requires_grad]
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        made: Any = kind(weights, lr=1e-4, **how)
        step: Callable[[], Any] = made.step
        took = "–"
        try:
            if name.endswith("compiled"):
                made.step()  # the states, which are created in the first step
                start, backend = time.perf_counter(), "eager" if toy else "inductor"
                step = torch.compile(made.step, backend=backend)
                with compilation.limited():
                    step()  # type: ignore[no-untyped-call]
                    finish(device)
                took = f"{time.perf_counter() - start:.0f} s"
            cell = f"{1e3 * statistics.median(timed(step, seconds, device, 3, 1).seconds):.2f}"
        except (RuntimeError, TimeoutError) as error:
            cell = reason(error)
        print(f"| {name} | {cell} | {took} |", flush=True)
        free(device)
    print()


def looped_norm(x: Tensor, size: int, weight: Tensor, bias: Tensor) -> Tensor:
    """As Ribcage does it."""
    return torch.cat([F.batch_norm(part, None, None, weight, bias, True) for part in x.split(size)])


def single_norm(x: Tensor, size: int, weight: Tensor, bias: Tensor) -> Tensor:
    """One call: the groups become channels, for which a copy in another order is needed before and after it."""
    groups = len(x) // size
    apart = x.unflatten(0, (groups, size)).transpose(0, 1).flatten(1, 2)  # (size, groups · C, H, W)
    apart = apart.contiguous(memory_format=torch.channels_last)
    normal = F.batch_norm(apart, None, None, weight.repeat(groups), bias.repeat(groups), True)
    normal = normal.unflatten(1, (groups, -1)).transpose(0, 1).flatten(0, 1)
    return normal.contiguous(memory_format=torch.channels_last)


def written_norm(x: Tensor, size: int, weight: Tensor, bias: Tensor) -> Tensor:
    """The equations, which a compiler can fuse."""
    parts = x.unflatten(0, (-1, size))
    variance, mean = torch.var_mean(parts.float(), (1, 3, 4), correction=0, keepdim=True)
    scale = torch.rsqrt(variance + 1e-5) * weight[:, None, None]
    return (parts * scale + (bias[:, None, None] - mean * scale)).to(x.dtype).flatten(0, 1)


def norms(seconds: float, device: torch.device, toy: bool, compilation: Compilation) -> None:
    """Print the time of batch norms over groups."""
    batch, size = (8, 4) if toy else (256, 32) if device.type == "cuda" else (32, 8)
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    backend = "eager" if toy else "inductor"
    kinds: list[tuple[str, Any]] = [
        ("loop over groups (default)", looped_norm), ("one call", single_norm), ("equations", written_norm),
        ("loop over groups, compiled", torch.compile(looped_norm, backend=backend, dynamic=False)),
        ("equations, compiled", torch.compile(written_norm, backend=backend, dynamic=False)),
    ]  # fmt: skip
    print(f"| batch norm, {batch} images in groups of {size} | shape | ms | largest error |\n|---|---|---|---|")
    for shape in ((4, 8, 8),) if toy else ((64, 56, 56), (512, 28, 28), (2048, 7, 7)):
        x = torch.randn(batch, *shape, device=device, dtype=kind).to(memory_format=torch.channels_last)
        x.requires_grad_()
        weight, bias = (torch.ones(shape[0], device=device, requires_grad=True) for _ in range(2))
        exact = looped_norm(x.detach().float(), size, weight, bias).detach()
        gradient = torch.randn_like(x)
        for name, function in kinds:

            def step(
                function: Any = function, x: Tensor = x, gradient: Tensor = gradient, more: Any = (weight, bias)
            ) -> None:
                function(x, size, *more).backward(gradient)

            try:
                with compilation.limited() if name.endswith("compiled") else contextlib.nullcontext():
                    step()
                    finish(device)
                each = statistics.median(timed(step, seconds, device, 2, 1).seconds)
                away = (function(x, size, weight, bias).detach().float() - exact).abs().max()
                cells = (f"{1e3 * each:.2f}", f"{away:.1e}")
            except (RuntimeError, TimeoutError) as error:
                cells = (reason(error), "–")
            print(f"| {name} | {' × '.join(map(str, shape))} | {' | '.join(cells)} |", flush=True)
    print()


def loader(folders: dict[int, dataset_folder.DatasetFolder], seconds: float, device: torch.device, toy: bool) -> None:
    """Print how many images a second the loader makes when nothing else runs."""
    print("| loader alone | images/s |\n|---|---|")
    for side, folder in folders.items():
        vit = Backbone("vit_tiny_patch16_224" if toy else "vit_small_patch16_224", size=(side, side))
        for name, method in (("MAE, one view", MAE(vit)), ("MoCo, two views", MoCo(vit))):
            made = batches(folder, method, side, 4 if toy else 256, device)
            found = (batch for epoch in range(10**6) for batch in made.epoch(epoch))
            timing = timed(lambda found=found: next(found), seconds, device, 4)  # type: ignore[misc]
            print(f"| {name}, {side} px | {made.batch / statistics.median(timing.seconds):,.0f} |", flush=True)
    print()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = ("rate", "steps", "large", "options", "loader", "norms", "optimizers")
    parser.add_argument("--part", nargs="+", choices=every, default=every)
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each row")
    parser.add_argument("--compile-seconds", type=float, default=180.0, help="time for torch.compile in all rows")
    parser.add_argument("--dry-run", action="store_true", help="every row at toy size, on any machine")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    alone = set(options.part) <= {"optimizers", "norms"}
    if device.type == "cpu" and not options.dry_run and not alone:
        sys.exit(
            "benchmarks/gpu.py: this machine has no GPU that torch can use. --dry-run runs every row at toy size, and "
            "--part optimizers norms runs on a CPU."
        )
    toy, seconds = options.dry_run, 0.0 if options.dry_run else options.seconds
    card = torch.cuda.get_device_name() if device.type == "cuda" else "no GPU"
    card += ", toy size: numbers mean nothing" if toy else ""
    print(f"{time.strftime('%Y-%m-%d')}, {card}, torch {torch.__version__}, {' '.join(sys.argv)}\n")
    torch.manual_seed(0)
    choose_kernels(device, "bf16")
    start, compilation = time.perf_counter(), Compilation(math.inf if toy else options.compile_seconds)
    if not alone:
        trainings(options.part, seconds, device, toy, compilation)
    for part, table in (("norms", norms), ("optimizers", optimizers)):
        if part in options.part:
            table(seconds / 5, device, toy, compilation)
    print(f"{time.perf_counter() - start:.0f} s in all")


def trainings(parts: Sequence[str], seconds: float, device: torch.device, toy: bool, compilation: Compilation) -> None:
    """Print the tables that need dataset folders."""
    sides = {"steps": 64, "large": 96} if toy else {"steps": 224, "large": 512}
    with tempfile.TemporaryDirectory() as place:
        folders = {}
        for side in sides.values():
            folder = Path(place) / str(side)
            images = 24 if toy else IMAGES
            words = {"--out": folder, "--images": images, "--size": side}
            cli.main(["import", "phantom", *(str(word) for pair in words.items() for word in pair)])
            folders[side] = dataset_folder.open(folder)
        findings = next(iter(folders.values())).index.findings
        peak = rate(device, toy)
        every = recipes(toy, findings)
        large = [replace(recipe, batch=max(4, recipe.batch // 4)) for recipe in every[2:3]]
        for part, chosen in (("steps", every), ("large", large)):
            if part in parts:
                steps(chosen, folders[sides[part]], sides[part], seconds, device, peak, compilation)
        if "options" in parts:
            options_table(folders[sides["steps"]], sides["steps"], seconds / 2, device, toy, compilation)
        if "loader" in parts:
            loader(folders, seconds, device, toy)


if __name__ == "__main__":
    main()
