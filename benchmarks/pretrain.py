"""Time of a pretraining step, compared with a plain float32 RGB implementation of the paper.

    python benchmarks/pretrain.py [--batch 32] [--rounds 5] [--threads 1] [--precision float32] [--methods mae moco …]

MAE: ViT-S/16 at 224 pixels, mask ratio .90, decoder dec512d2b; the baseline is lightly's modules on timm. MoCo v2:
ResNet-18 at 224 pixels, a queue of 65,536; the baseline is the paper's two encoders from torchvision. MoCo v3: ViT-S/16
at 224 pixels; the baseline is lightly's heads and momentum updates on timm. DINO and DINOv2: ViT-S/16, two crops of 224
pixels and eight of 96, 65,536 prototypes; the baselines are lightly's modules, heads, masks and losses on timm, which
centre the teacher where DINOv2 here uses Sinkhorn-Knopp. Ribcage runs the loop of `ribcage pretrain` on gray images
from a dataset folder, in the fastest precision of the machine unless --precision is given. All alternate in one
process; medians are compared. On a GPU the baselines run in bf16, too.

The last column is the rate of floating-point operations of the step's matrix products and convolutions, as counted by
torch, relative to that of one large matrix product in the same precision, which alternates with the steps. It exceeds
100 % where torch's convolutions, or the linear layers of Ribcage on processors by AMD, are computed by oneDNN and the
matrix product by MKL, which is slower there."""

import argparse
import copy
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F  # noqa: N812 – everybody's name for it
from torch.utils.flop_counter import FlopCounterMode

from ribcage import cli
from ribcage.data import dataset_folder
from ribcage.data.loader import Loader
from ribcage.methods import Method
from ribcage.methods.dino import DINO
from ribcage.methods.dinov2 import DINOv2
from ribcage.methods.mae import MAE
from ribcage.methods.moco import MoCo
from ribcage.methods.mocov3 import MoCoV3
from ribcage.models.backbone import Backbone
from ribcage.models.hyperparameters import Optimizer
from ribcage.models.linear import count_products, linear, onednn_is_faster
from ribcage.runtime import devices
from ribcage.training import optim, trainer

SIDE, QUEUE = 224, 65536
CROPS, CROP, PROTOTYPES = 8, 96, 65536
MASK = 0.9


@dataclass
class Contestant:
    """Somebody's step, and how long it took each time."""

    name: str
    step: Callable[[], Any]
    bf16: bool
    wanted: float = 1.0
    """How many times as fast as the plain one it shall be."""
    seconds: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    """Shares of a step spent waiting for data."""
    operations: int = 0


# ---- the papers' steps, plainly


def plain_mae(batch: int, device: torch.device, bf16: bool) -> Callable[[], None]:
    """He et al. 2021 as in lightly's example."""
    modules, utils = _lightly()
    model = timm.create_model("vit_small_patch16_224", num_classes=0)
    encoder = modules.MaskedVisionTransformerTIMM(model).to(device)
    decoder = modules.MAEDecoderTIMM(196, 16, embed_dim=384, decoder_embed_dim=512, decoder_depth=2).to(device)
    weights = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)
    images = torch.randn(batch, 3, SIDE, SIDE, device=device)

    def step() -> None:
        visible, hidden = utils.random_token_mask((batch, 197), MASK, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            tokens = decoder.embed(encoder.encode(images, idx_keep=visible))
            whole = utils.repeat_token(decoder.mask_token, (batch, 197))
            whole = utils.set_at_index(whole, visible, tokens.type_as(whole))
            drawn = decoder.predict(utils.get_at_index(decoder.decode(whole), hidden))
        target = utils.get_at_index(utils.patchify(images, 16), hidden - 1)
        optimizer.zero_grad()
        F.mse_loss(drawn.float(), target).backward()
        optimizer.step()

    return step


def plain_moco(batch: int, device: torch.device, bf16: bool) -> Callable[[], None]:
    """Chen et al. 2020, algorithm 1 of He et al. 2020 with an MLP head; on one process nothing is shuffled."""
    query, key = (torchvision.models.resnet18(num_classes=128).to(device) for _ in range(2))
    for encoder in (query, key):
        encoder.fc = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), encoder.fc).to(device)
    if bf16:
        query, key = (encoder.to(memory_format=torch.channels_last) for encoder in (query, key))
    key.load_state_dict(query.state_dict())
    key.requires_grad_(False)
    queue, at = F.normalize(torch.randn(128, QUEUE, device=device), dim=0), 0
    optimizer = torch.optim.SGD(query.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
    views = [torch.randn(batch, 3, SIDE, SIDE, device=device) for _ in range(2)]
    answers = torch.zeros(batch, dtype=torch.int64, device=device)

    def step() -> None:
        nonlocal at
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            q = F.normalize(query(views[0]), dim=1)
            with torch.no_grad():
                for old, new in zip(key.parameters(), query.parameters(), strict=True):
                    old.data = old.data * 0.999 + new.data * 0.001
                k = F.normalize(key(views[1]), dim=1)
            logits = torch.cat([torch.einsum("nc,nc->n", q, k)[:, None], torch.einsum("nc,ck->nk", q, queue)], dim=1)
        optimizer.zero_grad()
        F.cross_entropy(logits.float() / 0.2, answers).backward()
        optimizer.step()
        queue[:, at : at + batch] = k.T
        at = (at + batch) % (QUEUE - QUEUE % batch)

    return step


def plain_mocov3(batch: int, device: torch.device, bf16: bool) -> Callable[[], None]:
    """Chen et al. 2021, algorithm 1, with lightly's heads and momentum updates."""
    modules, utils = _lightly()
    query = timm.create_model("vit_small_patch16_224", num_classes=0).to(device)
    query.patch_embed.requires_grad_(False)
    projector = modules.MoCoProjectionHead(384, 4096, 256, num_layers=3, batch_norm=True).to(device)
    predictor = modules.MoCoProjectionHead(256, 4096, 256, num_layers=2, batch_norm=True).to(device)
    key, key_projector = copy.deepcopy(query), copy.deepcopy(projector)
    for part in (key, key_projector):
        utils.deactivate_requires_grad(part)
    weights = [weight for part in (query, projector, predictor) for weight in part.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1.5e-4, weight_decay=0.1)
    views = [torch.randn(batch, 3, SIDE, SIDE, device=device) for _ in range(2)]
    own = torch.arange(batch, device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            utils.update_momentum(query, key, 0.99)
            utils.update_momentum(projector, key_projector, 0.99)
            q = [F.normalize(predictor(projector(query(view))), dim=1) for view in views]
            with torch.no_grad():
                k = [F.normalize(key_projector(key(view)), dim=1) for view in views]
            logits = [q[0] @ k[1].T, q[1] @ k[0].T]
        optimizer.zero_grad()
        (
            2 * 0.2 * (F.cross_entropy(logits[0].float() / 0.2, own) + F.cross_entropy(logits[1].float() / 0.2, own))
        ).backward()
        optimizer.step()

    return step


def plain_dino(batch: int, device: torch.device, bf16: bool, masked: bool) -> Callable[[], None]:
    """Caron et al. 2021 and, if masked, Oquab et al. 2023 as in lightly's examples."""
    modules, utils = _lightly()
    from lightly import loss as losses

    def network() -> Any:
        model = timm.create_model("vit_small_patch16_224", num_classes=0, dynamic_img_size=True)
        head = modules.DINOProjectionHead(384, 2048, 256, PROTOTYPES)
        return nn.ModuleList([modules.MaskedVisionTransformerTIMM(model), head]).to(device)

    student, teacher = network(), network().requires_grad_(False)
    teacher.load_state_dict(student.state_dict())
    dino, ibot, koleo = (kind.to(device) for kind in (losses.DINOLoss(), losses.IBOTPatchLoss(), losses.KoLeoLoss()))
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, weight_decay=0.04)
    large = torch.randn(2 * batch, 3, SIDE, SIDE, device=device)
    small = torch.randn(CROPS * batch, 3, CROP, CROP, device=device)

    def step() -> None:
        utils.update_momentum(student, teacher, m=0.996)
        mask = torch.zeros(2 * batch, 197, dtype=torch.bool, device=device)
        blocks = utils.random_block_mask((2 * batch, 14, 14), device=device)
        mask[:, 1:] = blocks.flatten(1)
        (encoder, head), (momentum, target) = student, teacher
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            with torch.no_grad():
                taught = momentum.encode(large)
                t, t_patches = target(taught[:, 0]), target(taught[mask]) if masked else None
            tokens = encoder.encode(large, mask=mask if masked else None)
            features = tokens[:, 0]
            s = head(torch.cat([features, encoder.encode(small)[:, 0]]))
            s_patches = head(tokens[mask]) if masked else None
        loss = dino(list(t.float().chunk(2)), list(s.float().chunk(2 + CROPS)), teacher_temp=0.04)
        if s_patches is not None and t_patches is not None:
            loss = loss + ibot(t_patches.float(), s_patches.float(), blocks, teacher_temp=0.04)
            loss = loss + 0.1 * sum(koleo(one.float()) for one in features.chunk(2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _lightly() -> tuple[Any, Any]:
    """Its modules and tools, without a look at the network."""
    os.environ["LIGHTLY_DID_VERSION_CHECK"] = "True"
    warnings.simplefilter("ignore")
    from lightly.models import modules, utils

    return modules, utils


# ---- ours


def ours(
    name: str,
    method: Method,
    opened: dataset_folder.DatasetFolder,
    batch: int,
    device: torch.device,
    precision: devices.Precision,
    kind: Optimizer,
    wanted: float,
) -> Contestant:
    """A method in the loop of `pretrain`."""
    method.to(device).to(memory_format=torch.channels_last)
    loader = Loader([opened], method.views((SIDE, SIDE)), batch=batch, drop_last=True, device=device)
    rates = optim.Rates(1e-4, 10**6)
    run = trainer.Trainer(
        method, loader, optim.optimizer(method, kind), rates, epochs=10**6, device=device, precision=precision
    )
    logs, waited = run.fit(), list[float]()

    def step() -> None:
        log = next(logs)
        waited.append(log.waited / log.seconds)

    return Contestant(name, step, run.dtype == torch.bfloat16, wanted, waited=waited)


def mae(
    opened: dataset_folder.DatasetFolder, batch: int, device: torch.device, bf16: bool, precision: devices.Precision
) -> Iterator[Contestant]:
    """All of MAE."""
    yield Contestant("lightly on timm, RGB", plain_mae(batch, device, bf16), bf16)
    for share, wanted in ((1.0, 2.2), (0.25, 4.5)):
        method = MAE(Backbone("vit_small_patch16_224"), mask_ratio=MASK, decoder="dec512d2b", decode_ratio=share)
        yield ours(
            f"ribcage, gray, --decode-ratio {share:g}", method, opened, batch, device, precision, "adamw", wanted
        )


def moco(
    opened: dataset_folder.DatasetFolder, batch: int, device: torch.device, bf16: bool, precision: devices.Precision
) -> Iterator[Contestant]:
    """All of MoCo."""
    yield Contestant("two torchvision encoders, RGB", plain_moco(batch, device, bf16), bf16)
    method = MoCo(Backbone("resnet18"), bn_group=min(32, batch // 2))
    yield ours("ribcage, gray", method, opened, batch, device, precision, "sgd", 2.0)


def mocov3(
    opened: dataset_folder.DatasetFolder, batch: int, device: torch.device, bf16: bool, precision: devices.Precision
) -> Iterator[Contestant]:
    """All of MoCo v3."""
    yield Contestant("lightly on timm, RGB", plain_mocov3(batch, device, bf16), bf16)
    method = MoCoV3(Backbone("vit_small_patch16_224"))
    yield ours("ribcage, gray", method, opened, batch, device, precision, "adamw", 2.0)


def dino(
    opened: dataset_folder.DatasetFolder, batch: int, device: torch.device, bf16: bool, precision: devices.Precision
) -> Iterator[Contestant]:
    """All of DINO."""
    yield Contestant("lightly on timm, RGB", plain_dino(batch, device, bf16, masked=False), bf16)
    method = DINO(Backbone("vit_small_patch16_224"), crops=CROPS, prototypes=PROTOTYPES, freeze_prototypes=0.0)
    yield ours("ribcage, gray", method, opened, batch, device, precision, "adamw", 2.0)


def dinov2(
    opened: dataset_folder.DatasetFolder, batch: int, device: torch.device, bf16: bool, precision: devices.Precision
) -> Iterator[Contestant]:
    """All of DINOv2."""
    yield Contestant("lightly on timm, RGB", plain_dino(batch, device, bf16, masked=True), bf16)
    method = DINOv2(Backbone("vit_small_patch16_224"), crops=CROPS, prototypes=PROTOTYPES, freeze_prototypes=0.0)
    yield ours("ribcage, gray", method, opened, batch, device, precision, "adamw", 2.0)


METHODS = {
    "mae": ("MAE, ViT-S/16, 224 px, mask 0.9, dec512d2b", mae),
    "moco": ("MoCo v2, ResNet-18, 224 px", moco),
    "mocov3": ("MoCo v3, ViT-S/16, 224 px", mocov3),
    "dino": ("DINO, ViT-S/16, 2 × 224 + 8 × 96 px", dino),
    "dinov2": ("DINOv2, ViT-S/16, 2 × 224 + 8 × 96 px", dinov2),
}
"""Method → title of its table, and contestants."""


# ---- the clock


def timed(step: Callable[[], None], device: torch.device) -> float:
    """Seconds of a step, the device's work included."""
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def products(device: torch.device) -> Iterator[Contestant]:
    """One large matrix product in each precision; in float32 also as the linear layers of Ribcage compute it."""
    side = 8192 if device.type == "cuda" else 2048
    for precision in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(side, side, device=device, dtype=precision) for _ in range(2))
        yield Contestant("one matrix product", partial(torch.mm, a, b), precision == torch.bfloat16)
        if precision == torch.float32 and device.type == "cpu" and onednn_is_faster():
            yield Contestant("one matrix product by oneDNN", partial(linear, a, b), False)


@contextmanager
def counted(contestant: Contestant) -> Iterator[None]:
    """Note the operations of what is done meanwhile."""
    count_products()
    with FlopCounterMode(display=False) as counter:
        yield
    contestant.operations = counter.get_total_flops()


def compare(contestants: list[Contestant], rounds: int, device: torch.device) -> None:
    """Let them take turns: once to be counted, once to warm up, then against the clock."""
    for one in contestants:
        with counted(one):
            one.step()
    for turn in range(rounds + 1):
        for one in contestants:
            seconds = timed(one.step, device)
            if turn:
                one.seconds.append(seconds)


def table(contestants: list[Contestant], machine: list[Contestant], batch: int) -> None:
    """Print what was found."""
    rates = dict[bool, float]()
    for one in machine:
        rates.setdefault(one.bf16, one.operations / statistics.median(one.seconds))
    base = statistics.median(contestants[0].seconds)
    for one in contestants:
        seconds = statistics.median(one.seconds)
        waiting = f"{statistics.median(one.waited[2:]):.2%}" if one.waited else "–"
        print(
            f"{one.name:44}{'bf16' if one.bf16 else 'float32':>8}{1e3 * seconds / batch:>11.2f}{base / seconds:>7.2f}×"
            f"{one.wanted:>7.1f}×{waiting:>9}{one.operations / batch / 1e9:>9.2f}"
            f"{one.operations / seconds / rates[one.bf16]:>7.0%}"
        )
    for one in machine:
        rate = one.operations / statistics.median(one.seconds) / 1e9
        print(f"{one.name:44}{'bf16' if one.bf16 else 'float32':>8}{rate:>11,.0f} GFLOP/s")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--precision", choices=("auto", "float32", "bf16"), default="auto", help="of Ribcage's steps")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    card = torch.cuda.get_device_name() if device.type == "cuda" else f"{options.threads} thread(s) of the CPU"
    print(f"batch {options.batch}, {card}, torch {torch.__version__}, {options.rounds} rounds side by side")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "phantom"
        cli.main(["import", "phantom", "--out", str(folder), "--images", str(max(64, 4 * options.batch))])
        opened = dataset_folder.open(folder)
        for title, made in (METHODS[name] for name in options.methods):
            contestants = list(made(opened, options.batch, device, device.type == "cuda", options.precision))
            machine = list(products(device))
            compare(contestants + machine, options.rounds, device)
            print(f"\n{title:52} ms/image   ratio    goal  waiting  GFLOP/i  relative to product")
            table(contestants, machine, options.batch)


if __name__ == "__main__":
    main()
