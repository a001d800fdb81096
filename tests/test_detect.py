"""Detectors: targets and losses by hand on small grids, and decoding of perfect outputs."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from batches import batch
from torch import Tensor

from ribcage.data.batch import Batch
from ribcage.methods.detect import Detect, Head
from ribcage.models.backbone import Backbone
from ribcage.models.detectors import fcos, yolo
from ribcage.models.detectors.boxes import Found, Truth, best_boxes, cells
from ribcage.models.detectors.fcos import FCOS
from ribcage.models.detectors.pyramid import pyramid
from ribcage.models.detectors.yolo import YOLO
from ribcage.training.micro_batches import micro_batches

FINDINGS = ("a", "b")
both_heads = pytest.mark.parametrize("head", ["fcos", "yolo"])
both_kinds = pytest.mark.parametrize("model", ["test_resnet", "test_vit"])


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocol's head has sixty million weights: here it is an eighth as wide."""
    monkeypatch.setattr(yolo, "WIDTHS", tuple(width // 8 for width in yolo.WIDTHS))


def made(head: Head = "fcos", model: str = "test_resnet", side: int = 64, **more: object) -> Detect:
    torch.manual_seed(0)
    options = {"width": 16, "depth": 1} | more
    return Detect(Backbone(model, size=(side, side)), FINDINGS, head=head, **options).train()  # type: ignore[arg-type]


def truth(boxes: Sequence[Sequence[float]], images: int = 1, labels: float = 0.0) -> Truth:
    """From rows of image, finding, x0, y0, x1, y1."""
    rows = torch.tensor(boxes, dtype=torch.float32).view(-1, 6)
    return Truth.of(rows, torch.full((images, len(FINDINGS)), labels))


def small_fcos(**more: str) -> FCOS:
    return FCOS({8: 4, 16: 4}, len(FINDINGS), width=4, depth=1, **{"quality": "centreness", **more})  # type: ignore[arg-type]


def grid() -> Tensor:
    """The cells of an image of 32 pixels: 16, 4 and 1."""
    return cells([(4, 4), (2, 2), (1, 1)], [8, 16, 32], torch.device("cpu"))


def said(logits: float = 0.0, count: int = 1) -> fcos.FcosOutputs:
    """The same from every cell: a square of 8 pixels about it."""
    places = grid()
    boxes = torch.cat([places[:, :2] - 4, places[:, :2] + 4], dim=1).expand(count, -1, -1)
    shape = (count, len(places))
    return fcos.FcosOutputs(torch.full((*shape, 2), logits), boxes, torch.zeros(shape), places)


def assigned(head: FCOS, true: Truth) -> dict[tuple[int, int], int]:
    """Image and cell → the box that it is assigned."""
    box = head._assigned(true, grid())
    return {(int(n), int(cell)): int(box[n, cell]) for n, cell in (box >= 0).nonzero()}


# ---- FCOS


def test_cells_lie_at_the_middle_of_their_part_of_the_image() -> None:
    places = grid()
    assert places[0].tolist() == [4, 4, 8] and places[1].tolist() == [12, 4, 8] and places[4].tolist() == [4, 12, 8]
    assert places[16].tolist() == [8, 8, 16] and places[-1].tolist() == [16, 16, 32]


def test_cells_near_the_middle_of_a_box_have_it_on_the_map_for_its_size() -> None:
    head = small_fcos()
    owners = assigned(head, truth([[0, 1, 1, 5, 23, 19]]))
    assert owners == {(0, 4): 0, (0, 5): 0, (0, 6): 0}  # centres at 4, 12, 20 across and 12 down; not 4 and 20 down
    large = assigned(head, truth([[0, 1, -60, -60, 90, 90]]))
    assert list(large) == [
        (0, cell) for cell in (16, 17, 18, 19)
    ]  # its sides are 64 to 128 pixels away: the second map


def test_of_two_boxes_a_cell_has_the_smaller() -> None:
    boxes = [[0, 0, 8, 8, 16, 16], [0, 1, 2, 2, 30, 22], [1, 1, 2, 2, 30, 22]]
    owners = assigned(small_fcos(), truth(boxes, images=2))
    assert owners[0, 5] == 0 and owners[0, 6] == 1 and owners[1, 5] == 2


def test_no_box_is_too_small_to_be_learnt() -> None:
    assert assigned(small_fcos(), truth([[0, 0, 7, 7, 9, 9]]))  # between the centres of four cells


@pytest.mark.parametrize("quality", ["centreness", "iou"])
def test_the_loss_of_fcos_by_hand(quality: str) -> None:
    head, true = small_fcos(quality=quality), truth([[0, 1, 6, 8, 16, 18]])
    outputs = said()
    assert assigned(head, true) == {(0, 5): 0}  # at (12, 12): 6, 4, 4, 6 from the sides
    losses = {name: value.item() for name, value in head.losses(outputs, true).items()}
    focal = 0.25 * 0.25 * math.log(2) + (2 * 21 - 1) * 0.75 * 0.25 * math.log(2)
    assert losses["classes"] == pytest.approx(focal)
    shared, union, around = 8 * 8, 10 * 10, 10 * 10  # 8 … 16 lies inside
    assert losses["boxes"] == pytest.approx(1 - (shared / union - (around - union) / around), rel=1e-5)
    assert losses["quality"] == pytest.approx(math.log(2))
    assert head._quality(outputs.boxes[0, [5]], true.boxes, grid()[[5]]).item() == pytest.approx(
        math.sqrt(4 / 6 * 4 / 6) if quality == "centreness" else shared / union
    )
    assert head.count(true, [(4, 4), (2, 2)]).item() == 1


def test_where_nobody_drew_the_boxes_there_is_no_right_and_wrong() -> None:
    head, map_of = small_fcos(), YOLO({8: 4, 16: 4, 32: 4}, 2, width=4)
    raw = [torch.zeros(1, 3, side, side, 7) for side in (4, 2, 1)]
    outputs = [yolo.YoloOutputs(one, map_of._pixels((32, 32))[k], 8 << k) for k, one in enumerate(raw)]
    for label, taught in ((0.0, True), (1.0, False), (float("nan"), False)):
        assert bool(head.losses(said(), truth([], labels=label))["classes"] > 0) is taught
        assert bool(map_of.losses(outputs, truth([], labels=label))["confidence"] > 0) is taught
    half = Truth.of(torch.tensor([[0.0, 1, 6, 8, 16, 18]]), torch.tensor([[torch.nan, 1.0]]))
    assert half.asked.tolist() == [[False, True]]  # the finding whose boxes there are is known, the other is not


def test_fcos_finds_the_boxes_of_its_targets() -> None:
    boxes = [[0, 1, 1, 5, 23, 19], [0, 0, 25, 25, 31, 31], [1, 0, 3, 3, 30, 30]]
    true, head, outputs = truth(boxes, images=2), small_fcos(), said(-12.0, 2)
    found = outputs.boxes.clone()
    for (image, cell), box in assigned(head, true).items():
        outputs.logits[image, cell, true.findings[box]] = 12.0
        found[image, cell] = true.boxes[box]
    returned(*head.boxes(replace(outputs, boxes=found, quality=outputs.quality + 9)), boxes)


def returned(boxes: Tensor, scores: Tensor, wanted: Sequence[Sequence[float]]) -> None:
    """Whether the true boxes, and nothing else that is sure, are found."""
    for image in range(len(boxes)):
        found = best_boxes(boxes[image], scores[image], (32, 32), 0.4, 100)
        sure = found.scores > 0.5
        answers = torch.cat([found.findings[sure, None], found.boxes[sure]], dim=1)
        own = torch.tensor([row[1:] for row in wanted if row[0] == image], dtype=torch.float32)
        assert len(answers) == len(own)
        torch.testing.assert_close(answers[answers[:, 1].argsort()], own[own[:, 1].argsort()], rtol=1e-4, atol=1e-3)


# ---- YOLO


def by_the_protocol(raw: list[Tensor], anchors: np.ndarray, boxes: Sequence[Sequence[float]]) -> dict[str, float]:
    """The loss cell by cell, as the protocol says it; every finding of every image is known."""
    sums = dict.fromkeys(("centres", "sides", "confidence", "classes"), 0.0)
    for level, (one, stride) in enumerate(zip(raw, (8, 16, 32), strict=True)):
        values = one.double().numpy()
        count, _, height, width, size = values.shape
        has: dict[tuple[int, ...], list[float]] = {}
        ignored = set()
        for n, finding, x0, y0, x1, y1 in boxes:
            x, y, w, h = (x0 + x1) / 2 / stride, (y0 + y1) / 2 / stride, x1 - x0, y1 - y0
            ious = []
            for a, b in anchors[level]:
                shared = min(w, a) * min(h, b)
                ious.append(shared / (w * h + a * b - shared))
            here = (int(n), int(y), int(x))
            ignored |= {(here[0], k, *here[1:]) for k in range(3) if ious[k] > 0.5}
            k = int(np.argmax(ious))
            a, b = anchors[level][k]
            has[here[0], k, here[1], here[2]] = [x - int(x), y - int(y), math.log(w / a), math.log(h / b), finding]
        for place in np.ndindex(count, 3, height, width):
            p = values[place]
            cross = [[math.log1p(math.exp(z)) - t * z for t in (0, 1)] for z in p]  # of a logit with 0 and with 1
            share = 3 * height * width
            if place in has:
                x, y, w, h, finding = has[place]
                mixed = [t * cross[k][1] + (1 - t) * cross[k][0] for k, t in enumerate((x, y))]
                sums["centres"] += 2.5 * sum(mixed) / share
                sums["sides"] += 2.5 * ((p[2] - w) ** 2 + (p[3] - h) ** 2) / share
                sums["confidence"] += cross[4][1] / share
                sums["classes"] += sum(cross[5 + k][k == finding] for k in range(size - 5)) / share
            elif place not in ignored:
                sums["confidence"] += 0.5 * cross[4][0] / share
    return sums


def yolo_said(head: YOLO, images: int = 2) -> tuple[list[Tensor], list[yolo.YoloOutputs]]:
    random = torch.Generator().manual_seed(0)
    raw = [torch.randn(images, 3, side, side, 7, generator=random) for side in (4, 2, 1)]
    return raw, [yolo.YoloOutputs(one, head._pixels((32, 32))[k], 8 << k) for k, one in enumerate(raw)]


BOXES = [[0, 1, 1, 5, 23, 19], [0, 0, 25, 25, 31, 31], [1, 0, 3, 3, 30, 30], [1, 1, 26, 2, 29, 9]]


def test_the_loss_of_yolo_cell_by_cell() -> None:
    head = YOLO({8: 4, 16: 4, 32: 4}, 2, width=4)
    raw, outputs = yolo_said(head)
    true = truth(BOXES, images=2)
    assert true.asked.all()
    found = {name: value.item() for name, value in head.losses(outputs, true).items()}
    assert found == pytest.approx(by_the_protocol(raw, np.array(yolo.PUBLISHED) * 32 / 224, BOXES), rel=1e-5)
    assert head.count(true, []).item() == 2


def test_yolo_finds_the_boxes_of_its_targets() -> None:
    head = YOLO({8: 4, 16: 4, 32: 4}, 2, width=4)
    true, [_, outputs] = truth(BOXES, images=2), yolo_said(head)
    for each in outputs:
        assigned_box = yolo._assigned(each, true)[0]
        image, anchor, row, column = place = (assigned_box >= 0).nonzero(as_tuple=True)
        box = assigned_box[place]
        each.raw.fill_(-12.0)
        sides = true.boxes[box, 2:] - true.boxes[box, :2]
        inside = (true.boxes[box, :2] + sides / 2) / each.stride - torch.stack([column, row], dim=1)
        each.raw[image, anchor, row, column, :2] = inside.logit(1e-6)
        each.raw[image, anchor, row, column, 2:4] = (sides / each.anchors[anchor]).log()
        each.raw[image, anchor, row, column, 4] = 12.0
        each.raw[image, anchor, row, column, 5 + true.findings[box]] = 12.0
    returned(*head.boxes(outputs), BOXES)


def test_the_protocols_head_has_the_protocols_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert yolo.WIDTHS == (128, 256, 512)
    head = YOLO({8: 512, 16: 1024, 32: 2048}, 1, width=256)
    convolutions = [layer for layer in head.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert len(convolutions) == 3 * 7 + 2
    assert [answer[-1].out_channels for answer in head.answers] == [18, 18, 18]
    assert [trunk[0][0].in_channels for trunk in head.trunks] == [512 + 128, 1024 + 256, 2048]
    torch.testing.assert_close(head._pixels((224, 224))[2, 1], torch.tensor([84.24, 106.92]))
    torch.testing.assert_close(head._pixels((448, 224))[2, 1], torch.tensor([84.24, 2 * 106.92]))


def test_one_finding_is_certain_whatever_its_channel_says() -> None:
    head = YOLO({8: 4, 16: 4, 32: 4}, 1, width=4)
    raw = torch.zeros(1, 3, 2, 2, 6)
    raw[..., 4], raw[..., 5] = 2.0, -50.0
    scores = head.boxes([yolo.YoloOutputs(raw, head._pixels((32, 32))[0], 16)])[1]
    assert scores.allclose(torch.tensor(2.0).sigmoid())


def test_anchors_are_fitted_to_boxes_by_their_overlap() -> None:
    random = np.random.default_rng(0)
    kinds = np.array([[0.05, 0.08], [0.2, 0.1], [0.5, 0.6]])
    sides = np.concatenate([kind * random.uniform(0.9, 1.1, (40, 2)) for kind in kinds])
    np.testing.assert_allclose(yolo.fitted_anchors(random.permutation(sides), 3), kinds, rtol=0.05)
    nine = yolo.fitted_anchors(sides, 9)
    iou = yolo.overlaps(torch.from_numpy(sides), torch.from_numpy(nine.astype(float))).amax(1)
    published = yolo.overlaps(torch.from_numpy(sides), torch.tensor(yolo.PUBLISHED).view(9, 2).double() / 224).amax(1)
    assert iou.mean() > 0.9 > published.mean()
    assert (np.diff(nine.prod(1)) >= 0).all()
    assert len(yolo.fitted_anchors(sides[:2], 9)) == 9
    with pytest.raises(ValueError, match="no training boxes"):
        yolo.fitted_anchors(np.empty((0, 2)), 9)


def test_fitted_anchors_are_kept_with_the_weights() -> None:
    method, other = made("yolo", anchors="fitted"), made("yolo")
    before = method.head.anchors.clone()
    method.measure(np.array([[0, 0, 0, 0, 16, 32], [1, 0, 8, 8, 24, 40]], np.float32), (64, 64))
    assert not torch.equal(method.head.anchors, before)
    torch.testing.assert_close(method.head.anchors[0, 0], torch.tensor([0.25, 0.5]))
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.head.anchors, method.head.anchors)
    published = made("yolo")
    published.measure(np.array([[0, 0, 0, 0, 16, 32]], np.float32), (64, 64))
    assert torch.equal(published.head.anchors, before)


# ---- the method


@both_heads
@both_kinds
def test_eight_images_are_learnt_by_heart(head: Head, model: str) -> None:
    method, seen = made(head, model, freeze=False, width=32), batch(8, sides=(64,), findings=2, seed=3)
    boxes = seen.boxes[0][seen.boxes[0][:, 0].diff(prepend=torch.tensor([-1.0])) > 0]  # one in an image at most
    seen = replace(seen, boxes=[boxes], labels=torch.zeros_like(seen.labels))
    optimizer = torch.optim.Adam(method.parameters(), 3e-3 if model == "test_resnet" else 1e-3)
    for _ in range(50):
        optimizer.zero_grad()
        method(seen).loss.backward()
        optimizer.step()
    answers, hits = method.found(seen.views[0]), []
    for n, finding, *box in boxes.tolist():
        found = answers[int(n)]
        mine = (found.findings == finding) & (found.scores > 0.5)
        hits.append(bool((fcos._overlaps(found.boxes[mine], torch.tensor([box])) > 0.7).any()))
    assert all(hits) and len(hits) > 4


@both_heads
def test_a_frozen_backbone_stays_as_it_is(head: Head) -> None:
    method = made(head)
    before = {key: value.clone() for key, value in method.backbone.state_dict().items()}
    assert not method.backbone.training and method.head.training
    optimizer = torch.optim.SGD([weight for weight in method.parameters() if weight.requires_grad], 0.1)
    for seed in range(2):
        method.train()
        method(batch(4, sides=(64,), findings=2, seed=seed)).loss.backward()
        optimizer.step()
    assert all(weight.grad is None for weight in method.backbone.parameters())
    assert all(torch.equal(before[key], value) for key, value in method.backbone.state_dict().items())


@both_heads
def test_a_batch_in_parts_has_the_loss_and_gradient_of_the_whole(head: Head) -> None:
    whole = batch(8, sides=(64,), findings=2)
    found = []
    for turns in (1, 3):
        method = made(head).eval()  # batch norms look at a part
        losses = []
        for part in micro_batches(whole, turns):
            loss = method(part).loss * (method.share(part, whole) if turns > 1 else 1.0)
            loss.backward()
            losses.append(loss.item())
        found.append((sum(losses), [weight.grad for weight in method.head.parameters() if weight.grad is not None]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-5)


@both_heads
@both_kinds
def test_images_without_boxes_are_learnt_from_by_all_that_learns(head: Head, model: str) -> None:
    empty = batch(4, sides=(64,), findings=2)
    empty = replace(empty, boxes=[torch.empty(0, 6)], labels=torch.zeros(4, 2))
    method = made(head, model)
    step = method(empty)
    step.loss.backward()
    assert step.loss > 0 and step.loss.isfinite()
    assert all(weight.grad is not None for weight in method.parameters() if weight.requires_grad)


@both_heads
@both_kinds
def test_what_is_found_is_sorted_in_the_image_and_not_cut_by_its_score(head: Head, model: str) -> None:
    method, shown = made(head, model, keep=7), torch.randn(3, 1, 64, 64)
    answers = method.found(shown)
    assert method.training and len(answers) == 3
    for found in answers:
        assert isinstance(found, Found) and len(found.boxes) == len(found.scores) == len(found.findings) == 7
        assert (found.scores.diff() <= 0).all() and found.scores.max() < 0.9
        assert found.boxes.min() >= 0 and found.boxes.max() <= 64 and found.findings.max() < 2
    method.eval()
    alone = method.found(shown[:1])[0]
    torch.testing.assert_close(alone.scores, answers[0].scores, rtol=1e-4, atol=1e-5)


def test_overlapping_boxes_of_one_finding_are_found_once() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [20, 20, 30, 30]])
    scores = torch.tensor([[0.9, 0.0], [0.8, 0.0], [0.0, 0.7], [0.1, 0.0]])
    found = best_boxes(boxes, scores, (32, 32), 0.4, 100)
    sure = found.scores > 0
    assert found.scores[sure].tolist() == pytest.approx([0.9, 0.7, 0.1]) and found.findings[sure].tolist() == [0, 1, 0]


@both_heads
def test_a_saved_detector_finds_the_same(head: Head) -> None:
    method, other, shown = made(head).eval(), made(head).eval(), torch.randn(2, 1, 64, 64)
    torch.nn.init.normal_(next(iter(method.head.parameters())))
    other.load_state_dict(method.state_dict())
    for one, two in zip(method.found(shown), other.found(shown), strict=True):
        assert torch.equal(one.boxes, two.boxes) and torch.equal(one.scores, two.scores)


@pytest.mark.parametrize(
    "model", ["test_resnet", "test_vit", "test_convnext", "resnet18_small", "mobilenetv3_small_050"]
)
@pytest.mark.parametrize(("channels", "size"), [(1, (64, 64)), (3, (96, 48))])
def test_every_backbone_has_maps_as_high_and_wide_as_the_pyramid_thinks(
    model: str, channels: int, size: tuple[int, int]
) -> None:
    backbone = Backbone(model, channels=channels, size=size).eval()
    maps = backbone.pyramid(torch.randn(2, channels, *size))
    assert [x.shape[1] for x in maps] == list(backbone.levels.values())
    for x, stride in zip(maps, backbone.levels, strict=True):
        assert (abs(x.shape[2] - size[0] / stride), abs(x.shape[3] - size[1] / stride)) < (1, 1)
    neck = pyramid(backbone.levels, 8)
    levels = neck(maps)
    assert [(x.shape[2], x.shape[3]) for x in levels] == neck.sizes([(x.shape[2], x.shape[3]) for x in maps])
    assert {x.shape[1] for x in levels} == {8} and len(levels) == len(neck.strides)


def test_layers_behind_the_maps_are_left_out_of_what_learns() -> None:
    method = made(model="test_convnext", freeze=False)
    out = [name for name, weight in method.backbone.named_parameters() if not weight.requires_grad]
    assert out and all("head" in name for name in out)
    method(batch(4, sides=(64,), findings=2)).loss.backward()
    assert all(weight.grad is not None for weight in method.parameters() if weight.requires_grad)


def test_boxes_that_a_view_does_not_show_are_counted() -> None:
    seen = replace(batch(4, sides=(64,), findings=2), dropped=torch.tensor([0, 2, 1, 0]))
    assert made().counts(seen)["boxes_dropped"] == 3
    parts: list[Batch] = list(micro_batches(seen, 2))
    assert [made().counts(part)["boxes_dropped"].item() for part in parts] == [2, 1]


def test_all_wrong_options_are_named_together() -> None:
    with pytest.raises(ValueError, match=r"--head ssd .*--head-width 0 .*--nms-iou 2.*--max-detections 0") as error:
        made("ssd", width=0, overlap=2.0, keep=0)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
