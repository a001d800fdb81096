"""Weights: the weights of a method under timm's names, and the checks before they are loaded.

The backbone and the classifier have timm's own names; all other weights of a detector are under `detector.`.
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ribcage.bundle.formats.reading.safetensors_header import StoredTensor
from ribcage.bundle.spec import ModelSpec
from ribcage.methods.detect import Detect
from ribcage.methods.supervised import Supervised
from ribcage.models.adapters import merged_state
from ribcage.models.backbone import Backbone, timm_pool
from ribcage.models.ensemble import Ensemble
from ribcage.models.query_head import POOL
from ribcage.runtime.spelling import count_phrase


def timm_options(name: str, size: tuple[int, int], pool: str) -> dict[str, Any]:
    """Further options of timm.create_model: the input size and the pooling, where the architecture needs them."""
    import timm

    config: Any = timm.get_pretrained_cfg(name)
    sized = {"img_size": tuple(size)} if config.fixed_input_size else {}
    return sized | ({"global_pool": timm_pool(pool)} if pool else {})


def plain_shapes(spec: ModelSpec) -> dict[str, torch.Size]:
    """Names and shapes of the weights of the timm model that the lines on the model card create; none for an
    ensemble and for query pooling, which timm does not have."""
    if spec.members or (spec.findings and spec.pool == POOL):
        return {}
    return _plain_shapes(spec.name, spec.channels, len(spec.findings), spec.size, spec.pool)


@functools.cache
def _plain_shapes(name: str, channels: int, count: int, size: tuple[int, int], pool: str) -> dict[str, torch.Size]:
    import timm

    options = {"in_chans": channels, "num_classes": count} | timm_options(name, size, pool)
    with torch.random.fork_rng(devices=()):
        try:
            with torch.device("meta"):  # shapes without numbers
                plain = timm.create_model(name, **options)
        except (RuntimeError, NotImplementedError):
            plain = timm.create_model(name, **options)
    return {key: value.shape for key, value in plain.state_dict().items()}


def ensemble_state(backbone: Ensemble, head: nn.Module) -> dict[str, Tensor]:
    """The weights of an ensemble: those of member k under `members.k.` with timm's names, and the head."""
    state = {f"head.{name}": value for name, value in head.state_dict().items()}
    for place, member in enumerate(backbone.backbones):
        state |= member_state(place, member)
    return state


def member_state(place: int, member: Backbone) -> dict[str, Tensor]:
    """The weights of a member of an ensemble."""
    return {f"members.{place}.{name}": value for name, value in member.model.state_dict().items()}


def plain_state(method: Supervised) -> dict[str, Tensor]:
    """The weights as a plain timm model with as many classes names them; a head with query pooling, which timm does not
    have, is under `query_head.`. Where timm averages the outputs of two heads,
    both get the same weights, which gives the head of the averaged features. A head whose output is added (VOLO's, for
    each place) gets zeros."""
    if isinstance(method.backbone, Ensemble):
        return ensemble_state(method.backbone, method.head)
    names = method.backbone.model.pretrained_cfg["classifier"]
    state = merged_state(method.backbone.model)
    if not method.findings:
        return state
    if method.backbone.pools_by_query:
        return state | {f"query_head.{name}": value for name, value in method.head.state_dict().items()}
    for head in (names,) if isinstance(names, str) else names:
        share = 0.0 if head == "aux_head" else 1.0
        own = {"weight": method.head.weight, "bias": method.head.bias}
        state |= {f"{head}.{name}": value if share else torch.zeros_like(value) for name, value in own.items()}
    return state


def convolutional_head(state: dict[str, Tensor], shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """A linear head as the 1 × 1 convolution that some architectures have in its place."""
    return {
        name: value[:, :, None, None] if shapes.get(name) == (*value.shape, 1, 1) else value
        for name, value in state.items()
    }


def detector_state(method: Detect) -> dict[str, Tensor]:
    """The weights of the backbone under timm's names, all others under `detector.`."""
    inside, own = "backbone.model.", method.state_dict()
    return {key.removeprefix(inside) if key.startswith(inside) else f"detector.{key}": own[key] for key in own}


# ---- into a method


def load_plain_state(method: Supervised, state: dict[str, Tensor], where: str) -> None:
    """Load weights under timm's names into a method; all must be there and fit."""
    load_state(plain_state(method), state, where)


def load_state(own: dict[str, Tensor], state: dict[str, Tensor], where: str) -> None:
    """Copy weights into those of the same names; all must be there and fit."""
    stored = {name: StoredTensor(tuple(value.shape), value.is_floating_point()) for name, value in state.items()}
    check_state(own, stored, where)
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(state[name].reshape(value.shape))


def check_state(own: dict[str, Tensor], there: Mapping[str, StoredTensor], where: str) -> None:
    """Raise unless a file has exactly these weights, of these shapes and kinds (floating-point or integer)."""
    missing, strange = sorted(own.keys() - there.keys()), sorted(there.keys() - own.keys())
    other = [name for name, value in own.items() if name in there and not _alike(value, there[name])]
    if missing or strange or other:
        counts = f"missing: {len(missing)}; unexpected: {len(strange)}; of another shape: {len(other)}"
        first = (missing + strange + other)[0]
        raise ValueError(f"The weights in {where} do not fit the model ({counts}). The first that differs is {first}.")


def _alike(value: Tensor, there: StoredTensor) -> bool:
    """Whether a weight can be filled from the file; a 1 × 1 convolution is a linear head."""
    shapes = (tuple(value.shape), (*value.shape, 1, 1))
    return there.shape in shapes and there.floating == value.is_floating_point()


def load_backbone(built: Backbone, trained: Backbone, where: str) -> None:
    """Copy all weights of another backbone; position embeddings are resampled to the new size. The last
    norm of a transformer is applied to each token or to their average, whatever the other backbone does."""
    state = trained.model.state_dict()
    state = _last_norm(state, built.model.state_dict())
    if hasattr(built.model, "pos_embed") and built.model.pos_embed is not None:
        from timm.layers import resample_abs_pos_embed

        grids = [one.model.patch_embed.grid_size for one in (trained, built)]
        if grids[0] != grids[1]:
            prefix = built.model.num_prefix_tokens
            state["pos_embed"] = resample_abs_pos_embed(
                state["pos_embed"], new_size=grids[1], old_size=grids[0], num_prefix_tokens=prefix
            )
    found = {name: value.shape for name, value in state.items()}
    wanted = {name: value.shape for name, value in built.model.state_dict().items()}
    if found != wanted:
        other = sorted(name for name in set(found) | set(wanted) if found.get(name) != wanted.get(name))
        count = count_phrase(len(other), "weight differs", "weights differ")
        raise ValueError(
            f"The weights in {where} do not fit the model ({count} in name or shape). The first that differs is "
            f"{other[0]}."
        )
    built.model.load_state_dict(state)


def _last_norm(state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with timm's name for the last norm of this pooling: `fc_norm` after averaging, `norm` before it."""
    for old, new in (("fc_norm.", "norm."), ("norm.", "fc_norm.")):
        if f"{new}weight" in wanted and f"{old}weight" in state and f"{new}weight" not in state:
            return {new + name[len(old) :] if name.startswith(old) else name: one for name, one in state.items()}
    return state
