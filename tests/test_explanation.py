"""Saliency maps of files: in the file's own pixels, readable, and dependent on the trained weights."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from test_gradcam import _patches
from torch import Tensor

from ribcage.bundle.io import Classifier, Detector
from ribcage.bundle.spec import ModelSpec
from ribcage.data.dataset_facts import Fit
from ribcage.data.provenance import Provenance
from ribcage.imaging import heatmaps, image_file
from ribcage.inference import explanation, gradcam, sanity
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.reports import saliency, tiles

FINDINGS = ("Mass", "肺不张")


def opened(**facts: Any) -> Classifier:
    """A network made by hand, whose features are the means of patches of 8 × 8 pixels: Mass is bright."""
    method = Supervised(_patches(), FINDINGS).eval()
    with torch.no_grad():
        method.head.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, -1.0]]))
    about: dict[str, Any] = {"size": (64, 64), "stored": 96, "fit": "pad"} | facts
    model = ModelSpec("resnet18_small", FINDINGS, mean=0.0, std=1.0, **about)
    return Classifier(Path("m"), model, method, Provenance.nothing())


def image(width: int, height: int, at: tuple[float, float], half: float = 0.13) -> image_file.GrayImage:
    """Dark, with a bright block around a place given in shares of the sides."""
    pixels = np.full((height, width), 30, np.uint8)
    x, y = at[0] * width, at[1] * height
    reach = half * min(width, height)
    pixels[int(y - reach) : int(y + reach), int(x - reach) : int(x + reach)] = 250
    return image_file.GrayImage(pixels, width, height)


# ---- heat in the file's pixels


@pytest.mark.parametrize("fit", ["pad", "crop", "squash"])
@pytest.mark.parametrize(("width", "height"), [(300, 220), (160, 240)])
@pytest.mark.parametrize("size", [(64, 64), (48, 64)])
def test_heat_is_where_the_evidence_is_in_the_file(fit: Fit, width: int, height: int, size: tuple[int, int]) -> None:
    read = image(width, height, (0.55, 0.42))
    one = opened(fit=fit, size=size)
    heat = explanation.file_heatmaps(one, read, ["Mass"])
    assert heat.shape == (1, height, width) and heat.dtype == np.float32 and 0.9 < heat.max() <= 1
    hot = heat[0] > 0.8
    x, y = (float(np.flatnonzero(hot.any(axis)).mean()) + 0.5 for axis in (0, 1))
    cell = max(width, height) / 64 * 8  # one cell of the map, in the file
    assert abs(x - 0.55 * width) < cell / 2 and abs(y - 0.42 * height) < cell / 2
    [box] = explanation.heat_boxes_in_file(heat[0], (width, height))
    assert box[0] < 0.55 * width < box[0] + box[2] and box[1] < 0.42 * height < box[1] + box[3]


def test_heat_is_what_is_drawn_in_the_view_where_the_file_is_the_view() -> None:
    read = image_file.GrayImage(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8), 64, 64)
    one = opened(stored=64)
    seen = gradcam.saliency_maps(one.method, explanation.view_tensor(read.pixels, one.spec))
    expected = heatmaps.upsampled_maps(seen.maps, seen.cells, (64, 64))[0, 0].numpy()
    np.testing.assert_allclose(explanation.file_heatmaps(one, read, ["Mass"])[0], expected, atol=1e-5)


def test_a_smaller_map_is_the_same_map() -> None:
    read = image(400, 300, (0.3, 0.6))
    one = opened()
    whole, small = (explanation.file_heatmaps(one, read, ["Mass"], side)[0] for side in (None, 100))
    assert small.shape == (75, 100) == explanation.shrunk_size((400, 300), 100)[::-1]
    np.testing.assert_allclose(cv2.resize(whole, (100, 75), interpolation=cv2.INTER_AREA), small, atol=0.05)
    [box], [other] = (explanation.heat_boxes_in_file(heat, (400, 300)) for heat in (whole, small))
    np.testing.assert_allclose(box[:4], other[:4], atol=4.1)


def test_what_was_cut_off_has_no_heat() -> None:
    read = image(300, 100, (0.5, 0.5))
    heat = explanation.file_heatmaps(opened(fit="crop"), read, ["Mass"])[0]
    assert (heat[:, :100] == 0).all() and (heat[:, 200:] == 0).all() and heat[:, 100:200].max() > 0.9
    bright = replace(read, pixels=np.full_like(read.pixels, 200))
    everywhere = explanation.file_heatmaps(opened(fit="crop"), bright, ["Mass"])[0]
    assert (everywhere[:, 100:200] > 0).all() and not everywhere[:, :100].any() and not everywhere[:, 200:].any()


def test_a_finding_without_evidence_is_named_and_a_detector_refused() -> None:
    found = explanation.file_saliency(opened(), image(90, 90, (0.5, 0.5)))
    assert found.empty == ("肺不张",) and not found.heat("肺不张").any()
    with pytest.raises(ValueError, match="detector"):
        explanation.file_saliency(
            Detector(Path("d"), opened().spec, torch.nn.Identity(), Provenance.nothing()), image(9, 9, (0.5, 0.5))
        )  # type: ignore[arg-type]


def test_a_16_bit_image_has_the_maps_of_its_8_bit_twin() -> None:
    eight = image(120, 120, (0.4, 0.4))
    sixteen = replace(eight, pixels=eight.pixels.astype(np.uint16) * 257)
    assert np.array_equal(*(explanation.stored_square(each, opened().spec) for each in (eight, sixteen)))
    assert np.array_equal(*(saliency.overlay(each.pixels, np.zeros((120, 120))) for each in (eight, sixteen)))


# ---- to be looked at


def test_no_heat_leaves_the_image_and_more_heat_is_lighter_also_in_gray() -> None:
    gray = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    cold = saliency.overlay(gray, np.zeros(gray.shape))
    assert (cold == gray[..., None]).all()
    ramp = np.tile(np.linspace(0, 1, 101, dtype=np.float32)[:, None], (1, 40))
    shown = saliency.overlay(np.full(ramp.shape, 60, np.uint8), ramp)
    light = cv2.cvtColor(shown, cv2.COLOR_RGB2GRAY).astype(float)[:, 20]
    away = np.r_[0:46, 56:97]  # the line at one half, and the one at the edge
    assert light[96] > light[60] + 20 > light[5] + 40
    assert (np.diff(light[np.r_[60:97]]) >= 0).all() and len(away)
    steps = saliency.overlay(np.tile(np.array([[40, 90]], np.uint8), (60, 30)), np.full((60, 60), 0.9, np.float32))
    inner = cv2.cvtColor(steps, cv2.COLOR_RGB2GRAY)[20:40, 20:40].astype(int)
    assert (inner[:, 1::2] - inner[:, ::2] > 15).all()  # what was there is still to be seen where it is hottest


def test_the_line_goes_around_what_is_half_as_hot_as_the_hottest() -> None:
    heat = np.zeros((80, 100), np.float32)
    heat[30:50, 40:70] = 0.3
    heat[35:45, 45:60] = 0.8
    drawn = saliency.outlined(np.full((80, 100, 3), 100, np.uint8), heat)
    white = np.argwhere((drawn == 255).all(2))
    assert white.min(0).tolist() == [35, 45] and white.max(0).tolist() == [44, 59]


def test_boxes_are_drawn_around_what_they_hold() -> None:
    drawn = saliency.with_boxes(np.zeros((100, 200), np.uint8), [(20.0, 30.0, 40.0, 50.0)])
    own = np.argwhere((drawn == saliency.BOX).all(2))
    assert own.min(0).tolist() == [30, 20] and own.max(0).tolist() == [79, 59]


def svg(text: str) -> ET.Element:
    return ET.fromstring(text)


NAMED = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(("count", "rows", "columns"), [(15, 3, 5), (2, 1, 2), (4, 2, 2), (7, 2, 4), (20, 3, 7)])
def test_a_sheet_has_a_tile_for_each_in_even_rows(count: int, rows: int, columns: int) -> None:
    tile = tiles.Tile(np.zeros((30, 40, 3), np.uint8), "Mass", "12.3 %")
    root = svg(tiles.tile_sheet("a", "b", [tile] * count))
    places = [(float(one.get("x", "")), float(one.get("y", ""))) for one in root.iter(NAMED + "image")]
    assert len(set(places)) == count
    assert len({y for _, y in places}) == rows and len({x for x, _ in places}) == columns
    width, height = map(float, root.get("viewBox", "").split()[2:])
    assert all(x + tiles.TILE <= width and y + tiles.TILE + tiles.TEXT <= height for x, y in places)


def test_names_of_any_script_and_hostile_ones_stand_on_a_sheet_as_they_are() -> None:
    names = ["肺不张", "<script>alert(1)</script>", 'a"b&c', "Pleural_Thickening", "x\x00y\ud800"]
    made = [tiles.Tile(np.full((9, 9, 3), 99, np.uint8), name, "1 %", strong=True) for name in names]
    root = svg(tiles.tile_sheet("胸片 <1>.png", "foot & more", made))
    said = [one.text for one in root.iter(NAMED + "text")]
    assert said[0] == "胸片 <1>.png" and said[-1] == "foot & more"
    assert said[1:-1:2] == ["肺不张", names[1], names[2], "Pleural Thickening", "x?y?"]
    assert not list(root.iter(NAMED + "script"))


def test_a_sheet_shows_the_image_and_each_finding_with_its_number() -> None:
    read = image(700, 500, (0.5, 0.5))
    found = explanation.file_saliency(opened(), read)
    made = saliency.saliency_tiles(read.pixels, found, {"Mass": 0.876, "肺不张": 0.001}, ["Mass"])
    assert [(one.name, one.number, one.strong) for one in made] == [
        ("original", "", False), ("Mass", "87.6 %", True), ("肺不张", "0.1 %", False),
    ]  # fmt: skip
    assert {one.image.shape for one in made} == {(257, 360, 3)}
    assert np.array_equal(made[0].image, made[2].image) and not np.array_equal(made[0].image, made[1].image)


# ---- names of files


def test_every_file_has_a_place_of_its_own_that_stays_inside(tmp_path: Path) -> None:
    long = "肺" * 84
    paths = [
        tmp_path / "a b" / "x.png",
        tmp_path / "病" / "x.png",
        tmp_path / "a b" / ".." / "x.png",
        tmp_path / long,
        tmp_path / (long + "1"),
    ]
    places = explanation.output_places(paths)
    assert places[:3] == [Path("a b/x.png"), Path("病/x.png"), Path("x.png")]
    assert len(set(places)) == 5 and all(len(str(one).encode()) <= 200 for one in places)
    assert not any(one.is_absolute() or ".." in one.parts for one in places)
    assert (
        explanation.output_places([tmp_path / "p" / ".." / ".." / "x.png", tmp_path / "q.png"])[1].parts[-1] == "q.png"
    )
    assert not any(
        ".." in one.parts for one in explanation.output_places([tmp_path / "p/../../x.png", tmp_path / "q.png"])
    )


def test_endings_of_findings_are_words_and_none_is_anothers() -> None:
    names = ("Mass", "mass", "a/b", "a b", "../../x", "肺不张", "x-y", "l" * 99, "l" * 98)
    words = explanation.endings(names)
    assert len({word.casefold() for word in words.values()}) == len(names)
    assert all(word.replace("_", "x").isalnum() for word in words.values()) and words["肺不张"] == "肺不张"


def test_what_cannot_be_written_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saliency.save_png(np.zeros((4, 4, 3), np.uint8), tmp_path / "新 folder" / "a.png")
    before = (tmp_path / "新 folder" / "a.png").read_bytes()

    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="新 folder"):
        saliency.save_png(np.ones((4, 4, 3), np.uint8), tmp_path / "新 folder" / "a.png")
    assert (tmp_path / "新 folder" / "a.png").read_bytes() == before


# ---- whether maps depend on weights


SIDE = 96


def taught() -> Classifier:
    """A tiny CNN that has learnt whether there is a bright block, and whether there are stripes."""
    torch.manual_seed(0)
    findings, steps = ("block", "stripes"), 50
    method = Supervised(Backbone("test_resnet", size=(SIDE, SIDE)), findings)
    optimiser = torch.optim.Adam(method.parameters())
    rates = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=steps)
    for _ in range(steps):
        images, labels = drawn(8)
        optimiser.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(method.logits(images), labels).backward()
        optimiser.step()
        rates.step()
    model = ModelSpec("test_resnet", findings, (SIDE, SIDE), SIDE, "pad", 0.0, 1.0)
    return Classifier(Path("m"), model, method.eval(), Provenance.nothing())


def drawn(count: int) -> tuple[Tensor, Tensor]:
    """(N, 1, S, S) noise with or without a block and stripes anywhere, and (N, 2) whether."""
    images, labels = 0.3 * torch.rand(count, 1, SIDE, SIDE), torch.randint(0, 2, (count, 2)).float()
    shapes = torch.full((24, 24), 0.9), (torch.arange(24) // 2 % 2).float().expand(24, 24)
    for n, f in labels.nonzero().tolist():
        y, x = torch.randint(0, SIDE - 24, (2,)).tolist()
        images[n, 0, y : y + 24, x : x + 24] = shapes[f]
    return images, labels


def squares(count: int) -> list[np.ndarray]:
    return list((255 * drawn(count)[0][:, 0]).numpy().round().astype(np.uint8))


@pytest.fixture(scope="module")
def learnt() -> Classifier:
    return taught()


def test_maps_of_a_trained_model_depend_on_its_weights(learnt: Classifier) -> None:
    torch.manual_seed(1)
    shown, labels = drawn(40)
    with torch.no_grad():
        assert ((learnt.method.logits(shown) > 0) == labels.bool()).float().mean() > 0.85  # it has learnt
    images = squares(12)
    state = torch.get_rng_state()
    found = sanity.map_likeness(learnt, images)
    assert torch.equal(state, torch.get_rng_state())
    assert found.known and found.images == 12 and found.draws == 5 and not found.independent_of_weights()
    assert np.abs(found.network).max() < 0.5 and np.abs(found.head).max() < 0.6
    again = sanity.map_likeness(learnt, images)
    assert np.array_equal(found.head, again.head) and np.array_equal(found.network, again.network)


def test_maps_that_ignore_the_weights_are_caught(learnt: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map that only shows the edges of the image, as some published ways to make maps do."""

    def edges(method: Supervised, images: Tensor, map_method: object = None) -> gradcam.SaliencyMaps:
        found = torch.nn.functional.avg_pool2d((images[..., 1:] - images[..., :-1]).abs(), 8)
        heat = (found / found.amax((2, 3), keepdim=True)).expand(-1, len(method.findings), -1, -1)
        return gradcam.SaliencyMaps(heat, heatmaps.Cells.even((12, 11), (SIDE, SIDE)), method.logits(images))

    monkeypatch.setattr(gradcam, "saliency_maps", edges)
    found = sanity.map_likeness(learnt, squares(3), draws=2)
    assert found.independent_of_weights() == ("block", "stripes")
    np.testing.assert_allclose([*found.head, *found.network], 1.0)


def test_rank_correlation_is_spearmans() -> None:
    draw = np.random.default_rng(0)
    own, other = (np.maximum(draw.normal(size=(3, 2, 5, 6)), 0) for _ in range(2))
    own[0, 1], other[1, 0], own[2, 0], other[2, 0] = 0, 0, 0, 0
    found = sanity.rank_correlation(own, other)
    for n, f in [(0, 0), (1, 1), (2, 1)]:
        assert found[n, f] == pytest.approx(spearmanr(own[n, f].ravel(), other[n, f].ravel()).statistic)
    assert np.isnan(found[0, 1]) and found[1, 0] == 0 and np.isnan(found[2, 0])


def test_maps_without_heat_prove_no_dependence() -> None:
    one = opened(stored=64)
    with torch.no_grad():
        one.method.head.weight.fill_(-1)
    images = torch.rand(2, 1, 64, 64)
    assert not gradcam.saliency_maps(one.method, images).maps.any()
    found = sanity.Likeness(FINDINGS, *(np.full(2, np.nan),) * 2, 2, 5)
    assert not found.known and not found.independent_of_weights()
