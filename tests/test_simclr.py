"""SimCLR: eq. 1 of the paper, the negatives of an image, and refused inputs."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from batches import batch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from ribcage.methods.simclr import SimCLR
from ribcage.models.backbone import Backbone

PATIENTS = (7, 8, 7, 9)


def made(**options: Any) -> SimCLR:
    torch.manual_seed(0)
    return SimCLR(Backbone("test_resnet"), dim=3, **options).eval()  # batch norms then do not depend on the batch


def by_hand(z: Tensor, temperature: float, patients: Sequence[int]) -> float:
    """The equation, word by word: of N images the views are k and k + N."""
    count, losses = len(z) // 2, []
    for i in range(2 * count):
        j = (i + count) % (2 * count)
        others = [k for k in range(2 * count) if k == j or patients[k % count] != patients[i % count]]
        below = sum(torch.exp(z[i] @ z[k] / temperature) for k in others)
        losses.append(-torch.log(torch.exp(z[i] @ z[j] / temperature) / below))
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize(("aware", "patients"), [(False, range(4)), (True, PATIENTS)])
def test_the_loss_is_that_of_the_paper(aware: bool, patients: Sequence[int]) -> None:
    method = made(temperature=0.5, patient_aware=aware)
    shown = batch(4, sides=(32, 32), patients=PATIENTS)
    with torch.no_grad():
        z = F.normalize(method.head(method.backbone(torch.cat(shown.views))), dim=1)
        assert method(shown).loss.item() == pytest.approx(by_hand(z, 0.5, patients), rel=1e-5)


def test_views_that_are_alike_are_found() -> None:
    method, shown = made(), batch(4, sides=(32, 32))
    shown.views[1] = shown.views[0]
    with torch.no_grad():
        found = method(shown)
    assert found.logs["acc1"] == 100 and found.loss < method(batch(4, sides=(32, 32))).loss


@pytest.mark.parametrize(
    ("options", "named"), [({"temperature": 0.0}, "--temperature 0.0"), ({"temperature": -1.0}, "--temperature -1.0")]
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        made(**options)


def test_a_batch_of_one_image_has_no_negatives() -> None:
    method = made()
    assert "--batch 1" in method.faults(100, 1)[0] and not method.faults(100, 2)
    assert method(batch(1, sides=(32, 32))).loss == 0
