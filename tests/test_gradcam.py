"""Saliency maps: equal to CAM where that is defined, on every kind of network, in the right place; boxes around them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from dataset_folders import make_store
from torch import Tensor, nn

from ribcage.bundle.spec import ModelSpec
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.imaging import augment, heatmaps
from ribcage.inference import detections, gradcam, map_points, predictions
from ribcage.inference.cam_detector import CamDetector
from ribcage.inference.gradcam import saliency_maps
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.models.detectors.cam import CamBoxes

FINDINGS = ("Mass", "Edema", "Effusion")
SIDES = {"autoformer_v2_tiny": 224, "mixer_s32_224": 224}
SMALL = (  # in place, channels last, by the mean of tokens, by a token, by two, by attention, ours
    *("test_resnet", "densenet121", "convnext_atto", "mobilenetv3_small_050", "resnet18_slim"),
    *("test_vit", "deit_tiny_distilled_patch16_224", "xcit_nano_12_p16_224", "pit_ti_224", "mixer_s32_224"),
    *("swin_tiny_patch4_window7_224", "eeea_net_c2", "visformer_tiny", "autoformer_v2_tiny"),
)
BY_TOKEN = ("test_vit", "deit_tiny_distilled_patch16_224", "xcit_nano_12_p16_224", "pit_ti_224")


def classifier(
    name: str = "test_resnet", side: int = 64, loss: str = "bce", seed: int = 0, **options: str
) -> Supervised:
    torch.manual_seed(seed)
    method = Supervised(Backbone(name, size=(side, side), **options), FINDINGS, loss=loss)  # type: ignore[arg-type]
    nn.init.normal_(method.head.weight)
    return method.eval()


# ---- Grad-CAM


@pytest.mark.parametrize("name", SMALL)
def test_maps_of_any_network(name: str) -> None:
    """In 0 … 1 with a maximum of 1 or none, logits as the network gives them, and the network left as it was."""
    side = SIDES.get(name, 64)
    method = classifier(name, side)
    images = torch.randn(2, 1, side, side)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    method.train()
    with torch.inference_mode():
        seen = saliency_maps(method, images * 1)
    assert method.training and not any(module._forward_hooks for module in method.modules())
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    assert all(value.grad is None and value.requires_grad for value in method.parameters())
    assert seen.maps.shape[:2] == (2, 3) and min(seen.maps.shape[2:]) > 1 and not seen.maps.requires_grad
    assert seen.maps.min() >= 0 and set(seen.maps.amax((2, 3)).flatten().tolist()) <= {0.0, 1.0}
    assert (seen.maps.flatten(2).std(2) > 0).any()
    with torch.inference_mode():
        torch.testing.assert_close(seen.logits, method.eval().logits(images))


@pytest.mark.parametrize(
    ("name", "pool"), [("test_resnet", ""), ("densenet121", ""), ("swin_tiny_patch4_window7_224", "")]
)
def test_where_the_mean_is_pooled_grad_cam_is_cam(name: str, pool: str) -> None:
    """Zhou et al. 2016: the features weighed by the head."""
    method = classifier(name, pool=pool)
    images = torch.randn(3, 1, 64, 64)
    with torch.no_grad():
        cam = torch.einsum("nchw,fc->nfhw", method.backbone.maps(images), method.head.weight).relu()
    expected = cam / cam.amax((2, 3), keepdim=True).clamp(min=1e-12)
    torch.testing.assert_close(saliency_maps(method, images).maps, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "eeea_net_c2"])
def test_all_findings_at_once_are_what_each_gives_by_itself(name: str) -> None:
    """Equation 1 and 2 by hand, one finding and one image after the other, through the whole network."""
    method = classifier(name)
    images = torch.randn(2, 1, 64, 64)
    seen = saliency_maps(method, images)
    place = method.backbone.model.blocks[-2] if name in BY_TOKEN else _last(method.backbone.model, name)
    for n, f in [(0, 0), (0, 2), (1, 1)]:
        kept: list[Tensor] = []
        handle = place.register_forward_hook(lambda module, inputs, output, kept=kept: kept.append(output))
        z = method.logits(images[n : n + 1].requires_grad_())[0, f]
        handle.remove()
        (gradient,) = torch.autograd.grad(z, kept[0])
        features = kept[0].detach()
        if features.ndim == 3:
            features, gradient = (x[:, 1:].transpose(1, 2).unflatten(2, (4, 4)) for x in (features, gradient))
        heat = (gradient.mean((2, 3), keepdim=True) * features).sum(1)[0].relu()
        torch.testing.assert_close(seen.maps[n, f], heat / heat.max().clamp(min=1e-12), rtol=1e-4, atol=1e-5)


def _last(model: nn.Module, name: str) -> nn.Module:
    """What gives the features that a CNN pools."""
    return model.get_submodule({"test_resnet": "layer4", "eeea_net_c2": "final_expand_layer"}[name])


@pytest.mark.parametrize("name", BY_TOKEN)
def test_models_that_read_a_class_token_have_maps(name: str) -> None:
    method = classifier(name)
    seen = saliency_maps(method, torch.randn(4, 1, 64, 64))
    assert (seen.maps.amax((2, 3)) == 1).float().mean() > 0.5


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_maps_depend_on_the_weights(name: str) -> None:
    """Adebayo et al. 2018, https://arxiv.org/abs/1810.03292: with other weights, of the head or of the network, another
    map; a map that only shows the edges of the image would stay."""
    trained, other, headless = (classifier(name, 128, seed=seed) for seed in (0, 1, 0))
    headless.head.load_state_dict(other.head.state_dict())
    images = torch.randn(8, 1, 128, 128)
    first = saliency_maps(trained, images).maps.flatten()
    assert torch.equal(first, saliency_maps(classifier(name, 128, seed=0), images).maps.flatten())
    for changed in (other, headless):
        second = saliency_maps(changed, images).maps.flatten()
        assert torch.corrcoef(torch.stack([first, second]))[0, 1] < 0.5


@pytest.mark.parametrize(("x", "y"), [(4, 4), (28, 4), (4, 28), (28, 28), (12, 20)])
def test_evidence_planted_in_one_place_is_found_there(x: int, y: int) -> None:
    """A network made by hand: its features are the mean of each 8 × 8 patch and the opposite; Mass is bright."""
    method = Supervised(_patches(), FINDINGS).eval()
    with torch.no_grad():
        method.head.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0], [0.0, 0.0]]))
    image = torch.full((1, 1, 32, 32), 0.1)
    image[0, 0, y - 4 : y + 4, x - 4 : x + 4] = 1.0
    seen = saliency_maps(method, image)
    torch.testing.assert_close(heatmaps.peaks(seen.maps, seen.cells)[0, 0], torch.tensor([float(x), float(y)]))
    assert seen.maps[0, 0, y // 8, x // 8] == 1
    assert (seen.maps[0, 2] == 0).all() and heatmaps.peaks(seen.maps, seen.cells)[
        0, 2
    ].isnan().all()  # never looked for
    found = CamDetector(method).found(image)[0]
    box = found.boxes[found.findings == 0][0]
    assert box[0] < x < box[2] and box[1] < y < box[3] and (box[2:] - box[:2] <= 16).all()


def _patches() -> Backbone:
    """A real backbone whose weights are set: a ViT would do no better than its patches, a ResNet than its stem."""
    backbone = Backbone("resnet18_small", size=(32, 32))

    class Means(nn.Module):
        num_features, feature_info, global_pool = 2, [{"reduction": 8}], "avg"

        def forward_features(self, images: Tensor) -> Tensor:
            mean = nn.functional.avg_pool2d(images, 8)
            return torch.cat([mean, 1 - mean], dim=1)

        def forward_head(self, hidden: Tensor, pre_logits: bool = False) -> Tensor:
            return hidden.mean((2, 3))

    backbone.model, backbone.dim = Means(), 2
    return backbone


def test_maps_of_exclusive_findings_are_of_the_difference_to_the_others() -> None:
    """Adding the same number to all logits changes no probability, and so no map."""
    method = classifier(loss="cross-entropy")
    images = torch.randn(2, 1, 64, 64)
    before = saliency_maps(method, images).maps
    with torch.no_grad():
        method.head.weight += torch.randn(method.backbone.dim) * 5
    torch.testing.assert_close(saliency_maps(method, images).maps, before, rtol=1e-3, atol=1e-3)


def test_maps_of_two_exclusive_findings_are_opposite() -> None:
    torch.manual_seed(0)
    method = Supervised(Backbone("test_resnet", size=(64, 64)), FINDINGS[:2], loss="cross-entropy").eval()
    nn.init.normal_(method.head.weight)
    images = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        cam = torch.einsum("chw,c->hw", method.backbone.maps(images)[0], method.head.weight[0] - method.head.weight[1])
    seen = saliency_maps(method, images).maps[0]
    torch.testing.assert_close(seen[0], cam.relu() / cam.max(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen[1], (-cam).relu() / (-cam).max(), rtol=1e-4, atol=1e-5)


def test_a_head_of_zeros_has_empty_maps_and_one_without_findings_is_refused() -> None:
    for name in ("test_resnet", "test_vit"):
        method = classifier(name)
        nn.init.zeros_(method.head.weight)
        assert (saliency_maps(method, torch.randn(2, 1, 64, 64)).maps == 0).all()
    with pytest.raises(ValueError, match="test_resnet"):
        saliency_maps(Supervised(Backbone("test_resnet"), ()), torch.randn(1, 1, 64, 64))


def test_maps_of_an_image_do_not_depend_on_its_batch() -> None:
    method = classifier("densenet121")
    images = torch.randn(3, 1, 64, 96)
    torch.testing.assert_close(
        saliency_maps(method, images).maps[1:2], saliency_maps(method, images[1:2]).maps, rtol=1e-3, atol=1e-4
    )


# ---- from maps to places


def test_heat_is_never_nan() -> None:
    weights = torch.tensor([[[1.0], [-1.0]]])
    assert torch.equal(heatmaps.gradcam_maps(torch.zeros(1, 1, 2, 2), weights), torch.zeros(1, 2, 2, 2))
    assert (heatmaps.gradcam_maps(torch.ones(1, 1, 2, 2), weights)[0] == torch.tensor([1.0, 0.0])[:, None, None]).all()


def test_peaks_are_the_centres_of_the_hottest_cells() -> None:
    heat = torch.zeros(1, 3, 3, 4)
    heat[0, 0, 2, 1] = heat[0, 1, 0, 3] = 1
    cells = heatmaps.Cells.even((3, 4), (30, 80))
    found = heatmaps.peaks(heat, cells)
    torch.testing.assert_close(found[0, :2], torch.tensor([[30.0, 25.0], [70.0, 5.0]]))
    assert found[0, 2].isnan().all()
    shifted = heatmaps.peaks(heat, heatmaps.Cells((0.5, 1.5), (20.0, 10.0)))
    torch.testing.assert_close(shifted[0, :2], torch.tensor([[20.5, 21.5], [60.5, 1.5]]))


def test_enlarged_maps_are_what_interpolation_gives_where_cells_are_even_and_move_with_them() -> None:
    heat = torch.rand(2, 3, 3, 5)
    even = heatmaps.Cells.even((3, 5), (21, 40))
    expected = nn.functional.interpolate(heat, (21, 40), mode="bilinear", align_corners=False)
    torch.testing.assert_close(heatmaps.upsampled_maps(heat, even, (21, 40)), expected)
    moved = heatmaps.Cells((even.first[0] - 3, even.first[1] - 2), even.step)
    torch.testing.assert_close(heatmaps.upsampled_maps(heat, moved, (21, 40))[:, :, :-2, :-3], expected[:, :, 2:, 3:])


@pytest.mark.parametrize(
    ("name", "first", "step"),
    [
        ("resnet18", 0.5, 32),  # 7 × 7, p 3, then 3 × 3, p 1: pixels 0, 32, 64 …
        ("densenet121", 14.5, 32),  # the same to pixels 0, 4 …, then three means of two
        ("efficientnet_b0", 0.5, 32),
        ("eeea_net_c2", 0.5, 32),
        ("tf_efficientnet_lite0", 31.5, 32),  # pads at the end only: 1, 2 + 1, 4 + 2 + 1 …
        ("convnext_atto", 16, 32),
        ("test_vit", 8, 16),
        ("swin_tiny_patch4_window7_224", 16, 32),
    ],
)
def test_cells_lie_where_their_pixels_do(name: str, first: float, step: float) -> None:
    method = classifier(name, side=SIDES.get(name, 64))
    seen = saliency_maps(method, torch.randn(1, 1, *[SIDES.get(name, 64)] * 2))
    assert seen.cells == heatmaps.Cells((first, first), (step, step))


@pytest.mark.parametrize("name", ["regnetx_002", "test_vit"])
def test_a_cell_lies_where_the_image_changes_it_most(name: str) -> None:
    """The middle of the gradient's square above half of its maximum: what attention spreads everywhere is left out."""
    side = 160
    method = classifier(name, side)
    cells = saliency_maps(method, torch.randn(1, 1, side, side)).cells
    images = torch.randn(2, 1, side, side, requires_grad=True)
    features = method.backbone.maps(images)
    middle = features.shape[2] // 2
    chosen = (features[:, :, middle, middle] * torch.randn(2, features.shape[1])).sum()
    square = nn.functional.avg_pool2d(torch.autograd.grad(chosen, images)[0].square().sum(0), 9, 1, 4)[0]
    for axis in (0, 1):
        weight = square.sum(axis) - square.sum(axis).max() / 2
        centre = weight.clamp(min=0) @ (torch.arange(side) + 0.5) / weight.clamp(min=0).sum()
        assert abs(centre.item() - (cells.first[0] + middle * cells.step[0])) < 4


@pytest.mark.parametrize(
    "view", [augment.View(64, flip=1.0), augment.View((48, 64), rotation=20, crop=(0.4, 0.6)), augment.plain_view(32)]
)
def test_maps_and_points_go_back_to_the_stored_image(view: augment.View) -> None:
    """A spot of the stored image, seen through the view as heat, comes back where it was."""
    stored = np.zeros((128, 128), np.uint8)
    cv2.circle(stored, (70, 58), 6, 255, -1)
    numbers = augment.draw_numbers(view, 3, 0, np.array([7]), 0, 128)
    shown = augment.apply(stored[None], numbers, 0.0, 1.0)[0].numpy()  # (1, H, W)
    back = heatmaps.maps_in_image(shown, numbers.affine[0], 128)[0]
    assert back.shape == (128, 128) and back.max() <= 1.001
    outside = heatmaps.maps_in_image(np.ones_like(shown), numbers.affine[0], 128)[0] == 0
    inner = cv2.erode((~outside).astype(np.uint8), np.ones((9, 9)))
    assert np.abs(back - stored / 255)[inner > 0].mean() < 0.01
    centre = (back.sum(0) @ (np.arange(128) + 0.5) / back.sum(), back.sum(1) @ (np.arange(128) + 0.5) / back.sum())
    np.testing.assert_allclose(centre, (70.5, 58.5), atol=0.3)
    x, y = (shown[0].sum(axis) @ (np.arange(shown.shape[2 - axis]) + 0.5) / shown.sum() for axis in (0, 1))
    np.testing.assert_allclose(heatmaps.points_in_image(np.array([x, y]), numbers.affine[0]), (70.5, 58.5), atol=0.3)


def test_heat_reaches_the_edge_of_what_was_shown_and_is_nothing_beyond() -> None:
    numbers = augment.draw_numbers(augment.View(32, crop=(0.25, 0.25), place=(0.5, 0.5)), 0, 0, np.array([0]), 0, 128)
    back = heatmaps.maps_in_image(np.ones((1, 32, 32)), numbers.affine[0], 128)[0]
    expected = np.zeros((128, 128))
    expected[32:96, 32:96] = 1
    np.testing.assert_allclose(back, expected, atol=1e-6)


def test_boxes_are_around_each_region_hot_enough() -> None:
    heat = np.zeros((20, 30))
    heat[2:5, 3:9] = 0.5
    heat[2, 3] = 1.0
    heat[10:14, 20:30] = 0.8
    heat[14, 19] = 0.6  # touches at a corner
    heat[18, 0] = 0.49
    found = heatmaps.heatmap_boxes(heat)
    np.testing.assert_allclose(found[:, :4], [[19, 10, 30, 15], [3, 2, 9, 5]])
    np.testing.assert_allclose(found[:, 4], [(40 * 0.8 + 0.6) / 41, (17 * 0.5 + 1) / 18])
    np.testing.assert_allclose(heatmaps.heatmap_boxes(heat, 1.0)[:, :4], [[3, 2, 4, 3]])
    assert heatmaps.heatmap_boxes(np.zeros((4, 4))).shape == (0, 5)
    with pytest.raises(ValueError, match="not 0"):
        heatmaps.heatmap_boxes(heat, 0)


# ---- a classifier that finds boxes


def test_boxes_of_a_classifier_are_scored_by_probability_and_heat() -> None:
    method = classifier()
    images = torch.randn(2, 1, 64, 64)
    seen = saliency_maps(method, images)
    for n, found in enumerate(
        CamDetector(method, temperature=(2.0, 1.0, 0.5), boxes=CamBoxes(share=0.6)).found(images)
    ):
        assert (found.scores.diff() <= 0).all() and found.findings.dtype == torch.int64
        sure = (seen.logits[n] / torch.tensor([2.0, 1.0, 0.5])).sigmoid().numpy()
        for f in range(3):
            large = heatmaps.upsampled_maps(seen.maps[n : n + 1], seen.cells, (64, 64))[0, f].numpy()
            expected = heatmaps.heatmap_boxes(large, 0.6)
            mine = found.findings == f
            np.testing.assert_allclose(found.boxes[mine].numpy(), expected[:, :4])
            np.testing.assert_allclose(found.scores[mine].numpy(), sure[f] * expected[:, 4], rtol=1e-5)
    assert len(CamDetector(method, boxes=CamBoxes(keep=1)).found(images)[0].boxes) == 1
    with pytest.raises(ValueError, match=r"not 1\.5"):
        CamBoxes(share=1.5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    return make_store(tmp_path_factory.mktemp("看 where"), count=10, findings=FINDINGS)


def test_a_classifier_gives_the_table_of_a_detector(dataset: DatasetFolder, tmp_path: Path) -> None:
    method = classifier(side=32)
    model = ModelSpec("test_resnet", FINDINGS, (32, 32), 48, "pad", 0.5, 0.25)
    rows = np.array([1, 4, 5, 8])
    found = detections.detect(CamDetector(method), Datasets.of([dataset]), rows, model=model, batch=3, threads=1)
    assert found.findings == FINDINGS and found.images["row"].tolist() == rows.tolist()
    said = predictions.predict(method, Datasets.of([dataset]), rows, model=model, threads=1).probabilities()
    for image, several in found.boxes.groupby("image"):
        sides = several[["x", "y", "width", "height"]].to_numpy()
        assert sides.min() >= 0 and (sides[:, :2] + sides[:, 2:]).max() <= 48
        for finding, own in several.groupby("finding"):
            assert own["score"].max() <= said[image, FINDINGS.index(str(finding))] + 1e-6
    found.save(tmp_path / "看.parquet")
    assert len(detections.read_detections(tmp_path / "看.parquet").boxes) == len(found.boxes) > 0


def test_points_are_in_stored_pixels(dataset: DatasetFolder) -> None:
    method = classifier(side=32)
    model = ModelSpec("test_resnet", FINDINGS, (32, 32), 48, "pad", 0.5, 0.25)
    rows = np.array([1, 4, 5, 8])
    found = map_points.points(method, Datasets.of([dataset]), rows, model=model, batch=3, threads=1)
    numbers = augment.draw_numbers(augment.plain_view(32), 0, 0, rows, 0, 48)
    shown = augment.apply(np.asarray(dataset.images)[rows], numbers, 0.5, 0.25)
    seen = saliency_maps(method, shown)
    expected = heatmaps.peaks(seen.maps, seen.cells).numpy() * 48 / 32
    np.testing.assert_allclose(found, expected, atol=1e-4)


# ---- finer maps


def bright(method: Supervised, side: int = 64) -> torch.Tensor:
    """A dark image with a bright block at the lower left."""
    shown = torch.zeros(1, 1, side, side)
    shown[:, :, 36:44, 12:20] = 1.0
    return shown


def test_layercam_is_the_sum_of_positive_gradients_times_features() -> None:
    random = torch.Generator().manual_seed(0)
    features, gradients = torch.randn(2, 3, 4, 5, generator=random), torch.randn(2, 2, 3, 4, 5, generator=random)
    found = heatmaps.layercam_maps(features, gradients)
    own = (gradients[1, 0].clamp(min=0) * features[0]).sum(0).clamp(min=0)
    torch.testing.assert_close(found[0, 1], own / own.max())
    assert found.shape == (2, 2, 4, 5) and float(found.min()) >= 0


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224"])
def test_an_earlier_layer_has_twice_as_many_cells_and_what_is_not_there_is_named(name: str) -> None:
    torch.manual_seed(0)
    method = Supervised(Backbone(name, size=(64, 64)), ("Mass", "Edema")).eval()
    images = torch.randn(1, 1, 64, 64)
    for layer, side in enumerate((2, 4, 8)):
        seen = gradcam.saliency_maps(method, images, gradcam.MapMethod("layercam", layer))
        assert seen.maps.shape == (1, 2, side, side)
        assert seen.cells.step == (64 / side, 64 / side)
        torch.testing.assert_close(seen.logits, method.logits(images).detach())
    with pytest.raises(ValueError, match=r"no layer 9 .* 0: 2 × 2, 1: 4 × 4"):
        gradcam.saliency_maps(method, images, gradcam.MapMethod("gradcam", 9))


def test_occlusion_is_hot_where_the_evidence_is_and_needs_no_layer() -> None:
    method = Supervised(Backbone("test_resnet", size=(64, 64)), ("Mass", "Edema")).eval()
    method.logits = lambda shown: torch.stack([shown[:, 0, 36:44, 12:20].mean((1, 2)), -shown.mean((1, 2, 3))], 1)  # type: ignore[method-assign]
    seen = gradcam.saliency_maps(method, bright(method), gradcam.MapMethod("occlusion"))
    assert seen.maps.shape == (1, 2, 14, 14)
    x, y = heatmaps.peaks(seen.maps, seen.cells)[0, 0].tolist()
    assert 10 <= x <= 22 and 34 <= y <= 46
    assert float(seen.maps[0, 0, 0, 13]) == 0  # far from it


def test_maps_that_are_too_coarse_are_called_so_with_what_is_finer() -> None:
    method = Supervised(Backbone("resnet18", size=(64, 64)), ("Mass",))
    said = gradcam.coarseness(method, (2, 2), (64, 64))
    assert "2 × 2 cells" in said and "64 × 64 px" in said and "--map-method layercam --map-layer 2" in said
    assert not gradcam.coarseness(method, (7, 7), (224, 224))
    assert gradcam.map_grid_note(method, (64, 64)) == said and "7 × 7" in gradcam.map_grid_note(method, (224, 224))
    plain = Supervised(Backbone("test_vit", size=(32, 32)), ("Mass",))
    assert "--map-layer" not in gradcam.coarseness(plain, (2, 2), (32, 32))
    assert "occlusion" in gradcam.coarseness(plain, (2, 2), (32, 32))
