"""The contract of all methods."""

import copy
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
import ranks
import torch
from ranks import CNNS_ONLY, TRANSFORMERS_ONLY, images, made
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ribcage import methods
from ribcage.data.batch import Batch
from ribcage.imaging.augment import View
from ribcage.methods import Method
from ribcage.methods.base import ContrastiveMethod
from ribcage.methods.distil import Distil, Teachers
from ribcage.methods.eva import EVA
from ribcage.models import layers, mixing, patch_masks
from ribcage.models.detectors import yolo
from ribcage.training import gradient_caching, optim
from ribcage.training.micro_batches import micro_batches
from ribcage.training.teachers import live
from ribcage.training.teachers import stored as stored_teachers
from ribcage.training.teachers.stored import StoredTeacher
from ribcage.training.trainer import Trainer

NAMES = methods.method_names()
KINDS = [
    (name, model)
    for name in NAMES
    for model in ("test_resnet", "test_vit")
    if not (model == "test_resnet" and name in TRANSFORMERS_ONLY) and not (model == "test_vit" and name in CNNS_ONLY)
]
every_method = pytest.mark.parametrize("name", NAMES)
every_kind = pytest.mark.parametrize(("name", "model"), KINDS)


def stepped(method: Method, *seeds: int) -> list[float]:
    """The losses of optimizer steps, one on each of these batches."""
    optimizer = torch.optim.SGD([weight for weight in method.parameters() if weight.requires_grad], lr=0.05)
    losses = []
    for number, seed in enumerate(seeds):
        optimizer.zero_grad()
        loss = method(images(method, seed)).loss
        loss.backward()
        optimizer.step()
        method.after_step((number + 1) / 10)
        losses.append(loss.item())
    return losses


# ---- averages of the weights


@every_method
def test_the_average_of_a_method_is_a_separate_method(name: str) -> None:
    """Also momentum encoders, queues and batch norms over groups: what the average computes does not change the method."""
    method = made(name, "test_vit" if name in TRANSFORMERS_ONLY else "test_resnet")

    class Two:
        def __len__(self) -> int:
            return 2

        def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
            return iter([images(method, step) for step in range(start, 2)])

    rates, optimizer = optim.Rates(0.1, 2, schedule="constant"), optim.optimizer(method, "sgd")
    run = Trainer(method, Two(), optimizer, rates, epochs=1, device=torch.device("cpu"), ema=0.5)  # type: ignore[arg-type]
    list(run.fit())
    average, own = run.result.state_dict(), copy.deepcopy(method.state_dict())
    assert run.result is not method and average.keys() == own.keys()
    for part in method.not_averaged:
        assert torch.equal(average[part], own[part])
    trained = [key for key, weight in method.named_parameters() if weight.requires_grad]
    assert any(not torch.equal(average[key], own[key]) for key in trained)
    run.result.train()(images(method, 5))
    assert all(torch.equal(value, own[key]) for key, value in method.state_dict().items())
    features = run.result.eval().backbone(torch.zeros(2, 1, *ranks.SIZE))
    assert features.isfinite().all()


# ---- learning


class NoWaiting(TorchDispatchMode):
    """Raises where a copy between devices would make the CPU wait."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("device") not in (None, args[0].device):
            assert kwargs.get("non_blocking"), f"{args[0].shape} is copied to {kwargs['device']}"
        return func(*args, **kwargs)


SCHEDULED = {
    name: {"temperature": "0.4:0.2"} for name in ("moco", "mocov3", "simclr", "supcon", "swav", "dino", "distil")
}
MIXED = {name: {"mixup": 0.5, "cutmix": 1.0} for name in ("supervised", "distil")}
MORE: dict[str, dict[str, Any]] = {
    name: {**SCHEDULED.get(name, {}), **MIXED.get(name, {})} for name in (*SCHEDULED, *MIXED)
}
"""Further options that must not wait for the device either."""
WITH_MORE = [(name, model, {}) for name, model in KINDS] + [(name, "test_resnet", MORE[name]) for name in MORE]


@pytest.mark.parametrize(("name", "model", "more"), WITH_MORE)
def test_no_step_waits_for_the_device(
    name: str, model: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device every read of a value raises: `item`, `tolist`, `bool`, a shape that depends on values."""
    method = made(name, model, **more)
    batch = images(method, 0)
    method(batch)  # what a method reads from the device once
    method.after_step(0.0)
    device = torch.device("meta")
    method.to(device)
    if isinstance(method, Distil):
        stored = StoredTeacher(np.zeros((len(batch), 3), np.float32), torch.ones(3), device)
        method.teachers = Teachers([ranks.teacher(model, ranks.SIZE, device), stored])
    if isinstance(method, EVA):
        method.teacher = ranks.patch_teacher(device=device)
    with monkeypatch.context() as patched, NoWaiting():
        patched.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device
        patched.setattr(torch, "tensor", on_cpu(torch.tensor))
        patched.setattr(torch, "as_tensor", on_cpu(torch.as_tensor))
        patched.setattr(torch.Tensor, "new_tensor", None)  # it copies from memory that is not pinned
        for module in (layers, live, mixing, patch_masks, stored_teachers):
            patched.setattr(module, "on_device", without_waiting)
        on_meta = {name: [x.to(device, non_blocking=True) for x in getattr(batch, name)] for name in ("views", "boxes")}
        there = replace(
            batch,
            **on_meta,
            labels=batch.labels.to(device, non_blocking=True),
            patients=batch.patients.to(device, non_blocking=True),
        )
        method.before_step(0.5)
        method(there).loss.backward()
        method.after_step(0.0)
        if method.divisible:  # a batch in parts
            for part in micro_batches(there, 2):
                (method(part).loss * method.share(part, there)).backward()
        if isinstance(method, ContrastiveMethod):
            method.zero_grad()
            parts, network = list(micro_batches(there, 2)), method.representations
            gradient_caching.backward(
                method, network, there, parts, seed=(0,), precision=nullcontext, averaged=lambda last: nullcontext()
            )


def on_cpu(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The function for tensors on the CPU only: those on a device are copied from memory that is not pinned."""

    def checked(*values: Any, device: Any = None, **more: Any) -> torch.Tensor:
        assert device is None or torch.device(device).type == "cpu", values
        return make(*values, **more)

    return checked


def without_waiting(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """As `on_device`, whose memory is pinned."""
    return torch.from_numpy(array).to(device, non_blocking=True)


@pytest.mark.parametrize("head", ["fcos", "yolo"])
def test_no_head_of_a_detector_waits_for_the_device(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yolo, "WIDTHS", (16, 16, 16))
    monkeypatch.setitem(ranks.DETECTOR, "head", head)
    test_no_step_waits_for_the_device("detect", "test_resnet", {}, monkeypatch)


@every_kind
@pytest.mark.parametrize(("channels", "size"), [(1, (32, 32)), (3, (64, 64))])
def test_the_loss_is_one_finite_number_and_its_gradient_reaches_whatever_is_trained_and_nothing_else(
    name: str, model: str, channels: int, size: tuple[int, int]
) -> None:
    method = made(name, model, channels, size)
    step = method(images(method, 0, channels, size))
    assert step.loss.shape == () and step.loss.isfinite() and step.loss.dtype == torch.float32
    assert all(torch.as_tensor(value).isfinite() for value in step.logs.values())
    step.loss.backward()
    trained = {key: weight.grad for key, weight in method.named_parameters() if weight.requires_grad}
    assert not [key for key, gradient in trained.items() if gradient is None], "DistributedDataParallel would wait"
    assert all(gradient.isfinite().all() for gradient in trained.values() if gradient is not None)
    stem = next(method.backbone.parameters())
    assert stem.grad is not None and stem.grad.any()
    assert not [
        key for key, weight in method.named_parameters() if not weight.requires_grad and weight.grad is not None
    ]


@every_kind
def test_steps_follow_one_another_and_what_follows_the_weights_follows(name: str, model: str) -> None:
    method = made(name, model)
    before = {key: weight.clone() for key, weight in method.named_parameters()}
    losses = stepped(method, 0, 1, 2)
    assert torch.tensor(losses).isfinite().all()
    copies = [key for key, weight in method.named_parameters() if not weight.requires_grad and weight.numel() > 1]
    moved = [key for key in copies if not torch.equal(before[key], method.get_parameter(key))]
    assert bool(moved) == any(not key.endswith("pos_embed") for key in copies)


@every_kind
def test_down_the_gradient_the_loss_is_lower(name: str, model: str) -> None:
    method = made(name, model)
    weights = [weight for weight in method.parameters() if weight.requires_grad]
    before = method(images(method)).loss
    before.backward()
    length = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    torch.optim.SGD(weights, lr=1e-4 / float(length)).step()
    assert method(images(method)).loss < before


@every_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_half_precision_leaves_the_loss_in_whole_precision(name: str, model: str, dtype: torch.dtype) -> None:
    method = made(name, model)
    exact = method(images(method)).loss
    with torch.autocast("cpu", dtype):
        loss = method(images(method)).loss
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.1, atol=0.05)


@every_kind
def test_a_method_goes_on_from_what_was_saved(name: str, model: str) -> None:
    method, other = made(name, model), made(name, model, seed=1)
    stepped(method, 0, 1)
    other.load_state_dict(method.state_dict())
    assert stepped(method, 2, 3) == stepped(other, 2, 3)
    for key, value in method.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


@every_kind
def test_features_do_not_depend_on_the_head(name: str, model: str) -> None:
    method = made(name, model).eval()
    shown = images(method).views[0]
    before = method.backbone(shown)
    assert before.shape == (len(shown), method.backbone.dim)
    with torch.no_grad():
        for key, value in method.named_parameters():
            if not key.startswith("backbone."):
                value.normal_()
    assert torch.equal(method.backbone(shown), before)


def shortened(name: str, model: str) -> Method:
    """With one block in each network, where all blocks are alike to the method: the time to compile grows with them."""
    method = made(name, model)
    for part in [] if name in ("detect", "mae_unet") else list(method.modules()):
        if isinstance(part, VisionTransformer):
            part.blocks = part.blocks[:1]
        elif isinstance(part, ResNet):
            part.layer2, part.layer3, part.layer4 = nn.Conv2d(32, 96, 1), nn.Identity(), nn.Identity()
    return method


@pytest.mark.slow
@every_kind
def test_a_compiled_forward_pass_is_one_graph(name: str, model: str) -> None:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    plain, other = shortened(name, model), shortened(name, model)
    batch = images(plain)
    for method in (plain, other):
        method(batch)  # what a method reads from the device once
        method.after_step(0.0)
    torch.manual_seed(1)
    expected = plain(batch).loss
    torch.manual_seed(1)
    compiled = torch.compile(other, backend="eager")
    loss = compiled(batch).loss
    assert not counters["graph_break"] and counters["stats"]["unique_graphs"] == 1
    assert torch.equal(loss, expected)
    for _ in range(2):
        other.after_forward()
        other.after_step(0.0)
        compiled(batch)
    assert counters["stats"]["unique_graphs"] == 1, "it is not compiled anew in each step"


# ---- views and options


@every_method
@pytest.mark.parametrize("augment", ["radiograph", "paper"])
def test_views_are_no_larger_than_asked_and_the_first_is_as_large(name: str, augment: methods.base.Augment) -> None:
    method = made(name, "test_vit" if name in TRANSFORMERS_ONLY else "test_resnet")
    shown = method.views((64, 48), augment)
    assert all(isinstance(view, View) for view in shown) and shown[0].shape == (64, 48)
    assert all(view.shape[0] <= 64 and view.shape[1] <= 48 for view in shown)
    assert len(shown) > 1 or not method.same_patient


@every_method
def test_every_option_has_a_default_and_a_help_text(name: str) -> None:
    kind = methods.load_method(name)
    keywords = {
        option: parameter
        for option, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    said = re.findall(r"^ +(\w+): \S", kind.__doc__ or "", re.MULTILINE)
    assert set(keywords) == set(said)
    assert all(parameter.default is not inspect.Parameter.empty for parameter in keywords.values())
    assert not kind.same_patient or "patient_aware" in keywords


@every_method
def test_the_other_kind_of_backbone_is_refused_in_one_line(name: str) -> None:
    wrong = {**dict.fromkeys(TRANSFORMERS_ONLY, "test_resnet"), **dict.fromkeys(CNNS_ONLY, "test_vit")}
    if name in wrong:
        with pytest.raises(ValueError, match=wrong[name]) as error:
            made(name, wrong[name])
        assert "\n" not in str(error.value)
    else:
        assert {model for one, model in KINDS if one == name} == {"test_resnet", "test_vit"}


# ---- many processes


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("patient_aware", [False, True], ids=["", "patient-aware"])
def test_two_processes_learn_what_one_learns(name: str, patient_aware: bool, tmp_path: Path) -> None:
    more = {"patient_aware": True} if patient_aware else {}
    if patient_aware and "patient_aware" not in inspect.signature(methods.load_method(name)).parameters:
        assert not methods.load_method(name).same_patient
        return
    with processes.ranks(ranks.write, str(tmp_path / "two.pt"), name, more, said=tmp_path) as started:
        one = ranks.trace(name, **more)
        ends = [process.end() for process in started]
    assert [code for code, _ in ends] == [0, 0], "\n".join(said for _, said in ends)
    two = ranks.Trace(**torch.load(tmp_path / "two.pt", weights_only=True))
    assert two.losses == pytest.approx(one.losses, rel=1e-9)
    for found, expected in ((two.gradients, one.gradients), (two.state, one.state)):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-7, atol=1e-7, msg=lambda m, k=key: f"{k}: {m}")
