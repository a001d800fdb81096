"""Blocks that are recomputed: the same loss, gradients and statistics, with less memory."""

from typing import Any

import pytest
import ranks
import torch
from ranks import images, made

from ribcage import methods
from ribcage.methods import Method
from ribcage.models.backbone import Backbone
from ribcage.models.recomputation import blocks, recompute_blocks

MODELS = {
    "test_resnet": 4, "test_vit": 6, "densenet121": 58, "resnet50": 16, "efficientnet_b0": 16, "visformer_tiny": 15,
    "swin_tiny_patch4_window7_224": 12, "convnext_tiny": 18, "mobilenetv3_large_100": 16,
}  # fmt: skip


def step(method: Method) -> tuple[float, dict[str, Any], int]:
    """Loss; gradients, running statistics and all else; bytes stored for the backward pass."""
    stored: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        stored[storage.data_ptr()] = storage.nbytes()
        return tensor

    for block in blocks(method.backbone.model):  # a recomputed block keeps its inputs
        block.register_forward_pre_hook(lambda _, values: [pack(one) for one in values] and None)
    weights = {weight.untyped_storage().data_ptr() for weight in method.parameters()}
    torch.manual_seed(3)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = method(images(method)).loss
    count = sum(size for place, size in stored.items() if place not in weights)
    loss.backward()
    method.after_step(0.5)
    gradients = {f"{name}.grad": weight.grad for name, weight in method.named_parameters() if weight.grad is not None}
    return loss.item(), gradients | method.state_dict(), count


@pytest.mark.parametrize("name", methods.method_names())
@pytest.mark.parametrize("model", ["test_resnet", "test_vit"])
def test_a_recomputed_step_has_the_same_loss_gradient_and_statistics(name: str, model: str) -> None:
    if name in {"test_resnet": ranks.TRANSFORMERS_ONLY, "test_vit": ranks.CNNS_ONLY}[model]:
        return
    plain, saving = made(name, model), made(name, model)
    assert recompute_blocks(saving.backbone.model)
    loss, state, _ = step(plain)
    again, other, _ = step(saving)
    assert again == loss
    assert other.keys() == state.keys()
    for key, value in state.items():
        assert torch.equal(other[key], value), key


def test_dense_blocks_are_recomputed_from_the_maps_that_they_had() -> None:
    """A dense block hands one growing list of maps to all of its layers."""
    found = []
    for saving in (False, True):
        torch.manual_seed(0)
        model = Backbone("densenet121", size=(32, 32)).train()
        if saving:
            recompute_blocks(model.model)
        model(torch.randn(2, 1, 32, 32)).square().sum().backward()
        found.append([weight.grad for weight in model.parameters()] + list(model.buffers()))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(("model", "share"), [("resnet18", 0.6), ("test_vit", 0.3)])
def test_less_is_stored(model: str, share: float) -> None:
    plain, saving = (made("supervised", model, size=(64, 64)) for _ in range(2))
    recompute_blocks(saving.backbone.model)
    assert step(saving)[2] < share * step(plain)[2]


@pytest.mark.parametrize(("name", "count"), MODELS.items(), ids=list(MODELS))
def test_the_blocks_of_known_networks_are_found(name: str, count: int) -> None:
    with torch.device("meta"):
        assert len(list(blocks(Backbone(name).model))) == count
