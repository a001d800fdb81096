"""Detection: a detection head is trained on the feature maps of a frozen or fine-tuned backbone.

The heads are in `detectors/`: FCOS on a pyramid, and the YOLOv3 of the LoVT protocol (Müller et al. 2022,
https://arxiv.org/abs/2112.02889), which evaluates the pretraining of a frozen backbone by the boxes it detects.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ribcage.data.batch import Batch
from ribcage.methods.base import Method, Step, refuse_faults
from ribcage.models.backbone import Backbone
from ribcage.models.detectors.boxes import Found, Truth, best_boxes
from ribcage.models.detectors.fcos import FCOS
from ribcage.models.detectors.yolo import YOLO, Anchors
from ribcage.runtime import distributed

CHINESE = "目标检测：在骨干网络的特征图上接检测头，骨干网络可冻结，也可一起训练"

Head = Literal["fcos", "yolo"]
WIDEST, DEEPEST = 1024, 16
"""Limits on a head, which keep a file from outside from exhausting memory."""


class Detect(Method):
    """A backbone and a detection head.

    head: detection head: fcos, anchor-free; or yolo, as in LoVT's protocol
    freeze: train only the head; the backbone stays in evaluation mode
    width: channels of the fcos head, and of yolo's feature pyramid on a vision transformer
    depth: convolutions of each fcos branch
    quality: quality by which fcos weights the score of a box: centreness of its location, or predicted IoU
    anchors: anchors of yolo: the published ones, or clustered from the training boxes
    overlap: non-maximum suppression: IoU above which the box with the lower score is dropped
    keep: largest number of detections per image
    """

    command = "localise"
    from_labels = True

    def __init__(
        self,
        backbone: Backbone,
        findings: Sequence[str],
        *,
        head: Head = "fcos",
        freeze: bool = True,
        width: int = 256,
        depth: int = 4,
        quality: Literal["centreness", "iou"] = "centreness",
        anchors: Anchors = "published",
        overlap: float = 0.4,
        keep: int = 100,
    ) -> None:
        super().__init__(backbone, findings)
        refuse_faults(
            {
                f"--head {head} must be fcos or yolo": head not in ("fcos", "yolo"),
                f"--quality {quality} must be centreness or iou": quality not in ("centreness", "iou"),
                f"--anchors {anchors} must be published or fitted": anchors not in ("published", "fitted"),
                f"--head-width {width} must be from 4 to {WIDEST}": not 4 <= width <= WIDEST,
                f"--head-depth {depth} must be from 1 to {DEEPEST}": not 1 <= depth <= DEEPEST,
                f"--nms-iou {overlap} must be above 0 and at most 1": not 0 < overlap <= 1,
                f"--max-detections {keep} must be at least 1": type(keep) is not int or keep < 1,
                "Detection needs at least one finding": not self.findings,
            }
        )
        self.freeze, self.anchors, self.overlap, self.keep = freeze, anchors, overlap, keep
        levels, count = backbone.levels, len(self.findings)
        self.head: Any = (
            YOLO(levels, count, width=width)
            if head == "yolo"
            else FCOS(levels, count, width=width, depth=depth, quality=quality)
        )
        self._shapes: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
        if freeze:
            backbone.requires_grad_(False)
        else:
            _leave_out(backbone)

    def measure(self, boxes: np.ndarray, size: tuple[int, int]) -> None:
        """Fit what depends on the (M, 6) training boxes, in images of this size: the anchors."""
        if isinstance(self.head, YOLO) and self.anchors == "fitted":
            self.head.measure((boxes[:, 4:6] - boxes[:, 2:4]) / [size[1], size[0]])

    def forward(self, batch: Batch) -> Step:
        """The head's losses over the global batch."""
        view, truth = batch.views[0], Truth.of(batch.boxes[0], batch.labels)
        maps = [kept.float() for kept in batch.maps] or self.maps(view)
        sizes = [(x.shape[2], x.shape[3]) for x in maps]
        losses = self.head.losses(self.head(maps, (view.shape[2], view.shape[3])), truth)
        share = distributed.world_size() / distributed.total(self.head.count(truth, sizes)).clamp(min=1)
        means = {name: loss * share for name, loss in losses.items()}
        return Step(torch.stack(list(means.values())).sum(), {name: mean.detach() for name, mean in means.items()})

    def share(self, part: Batch, batch: Batch) -> Tensor:
        """This part's share of the denominator of the losses, so that a batch computed in parts has the loss of the
        whole."""
        sizes = [(x.shape[2], x.shape[3]) for x in batch.maps]
        sizes = sizes or [(height, width) for _, height, width in self.shapes(batch.views[0])]
        counts = [self.head.count(Truth.of(each.boxes[0], each.labels), sizes) for each in (part, batch)]
        of_part, of_batch = distributed.total(torch.stack(counts)).clamp(min=1).unbind()
        return of_part / of_batch

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Numbers of boxes that lie outside the view entirely or mostly."""
        return {"boxes_dropped": batch.dropped.sum()}

    def maps(self, images: Tensor) -> list[Tensor]:
        """The backbone's maps at several strides; without gradients when it is frozen."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            return self.backbone.pyramid(images)

    def shapes(self, images: Tensor) -> list[tuple[int, int, int]]:
        """(channels, height, width) of the backbone's maps for these images."""
        size = (images.shape[2], images.shape[3])
        if size not in self._shapes:
            self._shapes[size] = [(x.shape[1], x.shape[2], x.shape[3]) for x in _looked(self.backbone, images[:1])]
        return self._shapes[size]

    @torch.no_grad()
    def found(self, images: Tensor, kept: Sequence[Tensor] = ()) -> list[Found]:
        """The detections in each image, highest score first, without a score threshold.

        kept: the backbone's maps, if already computed; only the size of the images is then used.
        """
        training, size = self.training, (images.shape[2], images.shape[3])
        self.eval()
        maps = [one.float() for one in kept] or self.maps(images)
        boxes, scores = self.head.boxes(self.head(maps, size))
        self.train(training)
        return [best_boxes(*each, size, self.overlap, self.keep) for each in zip(boxes, scores, strict=True)]

    def train(self, mode: bool = True) -> "Detect":
        """A frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.freeze:
            self.backbone.eval()
        return self


@torch.no_grad()
def _looked(backbone: Backbone, images: Tensor) -> list[Tensor]:
    """The maps, without gradients or changes to the model, for their shapes."""
    training = backbone.training
    maps = backbone.eval().pyramid(images)
    backbone.train(training)
    return maps


def _leave_out(backbone: Backbone) -> None:
    """Freeze layers of a backbone after its maps (a norm or a wider layer before its features), which get no gradient
    here."""
    training = backbone.training
    weights = [weight for weight in backbone.parameters() if weight.requires_grad]
    image = torch.zeros(1, backbone.channels, *backbone.size, device=weights[0].device)
    with torch.enable_grad():
        seen = torch.stack([x.float().sum() for x in backbone.eval().pyramid(image)]).sum()
        gradients = torch.autograd.grad(seen, weights, allow_unused=True)
    backbone.train(training)
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.requires_grad_(gradient is not None)
