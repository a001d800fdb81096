"""Warnings of the out-of-distribution (OOD) check: false alarms on chest radiographs, and detection of other images.

    RIBCAGE_REAL_DATA=/data python benchmarks/ood.py [--features]

Real images: nih/ (ChestX-ray14), lungs/ (another source: portable and supine films with borders), odd/ (real laterals
and CT slices), dicom/ and pneumoniamnist.npz (children) of $RIBCAGE_REAL_DATA. Photographs and other images come from
the packages scikit-learn, pydicom and, if installed, scikit-image. The check is fitted on the 'train' split of
nih/manifest.csv; everything else is tested once. Without $RIBCAGE_REAL_DATA only synthetic images are measured.
Intervals are Wilson intervals with the effective number of independent images, since images of one patient (or parts
of one photograph) are correlated. --features also trains a ResNet-18, to compare the distance of its features.
"""

import argparse
import importlib.util
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from ribcage.bundle import counterexamples, ood
from ribcage.data.datasets import phantom
from ribcage.imaging import appearance, image_file
from ribcage.models.backbone import Backbone

STORED = 256
"""Side of the square that images are tested at, as `ribcage import` stores them."""
CROPS = 4
"""Of a photograph, beside the whole."""
HELD_OUT = 0.25
"""Share of the training patients that the limits are from."""


@dataclass(frozen=True)
class Images:
    """Images with whom or what each is of."""

    pixels: Sequence[np.ndarray]
    of: Sequence[str]

    def chosen(self, which: np.ndarray) -> "Images":
        """Some of them."""
        places = (np.flatnonzero(which) if which.dtype == bool else which).tolist()
        return Images([self.pixels[one] for one in places], [self.of[one] for one in places])

    def changed(self, change: Callable[[np.ndarray], np.ndarray]) -> "Images":
        """Each of them altered."""
        return Images([np.ascontiguousarray(change(one)) for one in self.pixels], self.of)

    def contents(self) -> list[np.ndarray]:
        """What a check is fitted on."""
        return [appearance.cropped_content(one) for one in self.pixels]


# ---- altered images


def padded(pixels: np.ndarray, shape: float) -> np.ndarray:
    """With black bars, to this width / height."""
    high, wide = pixels.shape
    found = np.zeros((high, round(high * shape)) if shape > 1 else (round(wide / shape), wide), pixels.dtype)
    top, left = (found.shape[0] - high) // 2, (found.shape[1] - wide) // 2
    found[top : top + high, left : left + wide] = pixels
    return found


def cut(pixels: np.ndarray, high: float, wide: float) -> np.ndarray:
    """The middle, with these shares of height and width."""
    sides = [round(length * share) for length, share in zip(pixels.shape, (high, wide), strict=True)]
    top, left = ((length - side) // 2 for length, side in zip(pixels.shape, sides, strict=True))
    return pixels[top : top + sides[0], left : left + sides[1]]


def squashed(pixels: np.ndarray, shape: float) -> np.ndarray:
    """Stretched to this width / height."""
    return cv2.resize(pixels, (round(pixels.shape[0] * shape), pixels.shape[0]), interpolation=cv2.INTER_LINEAR)


def stored(pixels: np.ndarray, fit: image_file.Fit = "pad") -> np.ndarray:
    """As a dataset folder keeps it."""
    return image_file.fit(pixels, STORED, fit)[0]


SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "padded to 3 : 2": lambda pixels: padded(pixels, 1.5),
    "padded to 2 : 3": lambda pixels: padded(pixels, 2 / 3),
    "cut to 3 : 2": lambda pixels: cut(pixels, 2 / 3, 1),
    "cut to 2 : 3": lambda pixels: cut(pixels, 1, 2 / 3),
    "stretched to 3 : 2": lambda pixels: squashed(pixels, 1.5),
    "stretched to 2 : 3": lambda pixels: squashed(pixels, 2 / 3),
    "cropped to 80 %": lambda pixels: cut(pixels, 0.8, 0.8),
    "cropped to 60 %": lambda pixels: cut(pixels, 0.6, 0.6),
    "reduced to 64 × 64": lambda pixels: cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_AREA),
}
TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{name: change for name, change in counterexamples.ALTERED.items() if name != "inverted"},
    "flipped vertically": lambda pixels: pixels[::-1],
    "inverted": lambda pixels: (255 - pixels).astype(np.uint8),
    "flipped horizontally": lambda pixels: pixels[:, ::-1],
}


# ---- sources


def nih(root: Path) -> tuple[Images, pd.DataFrame]:
    """ChestX-ray14 and its table."""
    table = pd.read_csv(root / "nih" / "manifest.csv")
    files = [root / "nih" / "images_256" / name.replace(".png", ".jpg") for name in table["image"]]
    return Images([image_file.read_image(one).pixels for one in files], table["patient_id"].astype(str).tolist()), table


def lungs(root: Path) -> Images:
    """Frontal images of another source, in the shape of the file."""
    table = pd.read_csv(root / "lungs" / "manifest.csv")
    table = table[table["view"] != "L"]
    files = [root / "lungs" / name for name in table["image"]]
    return Images([image_file.read_image(one).pixels for one in files], table["patient"].astype(str).tolist())


def odd(root: Path) -> dict[str, Images]:
    """Real laterals and CT slices."""
    table = pd.read_csv(root / "odd" / "manifest.csv")
    found = {}
    for kind, rows in table.groupby("kind"):
        files = [image_file.read_image(root / "odd" / name).pixels for name in rows["image"]]
        found[str(kind)] = Images(files, rows["patient"].astype(str).tolist())
    return found


def children(root: Path, split: str, every: int = 1) -> Images:
    """PneumoniaMNIST; who is on an image is not known."""
    with np.load(root / "pneumoniamnist.npz") as arrays:
        found = arrays[f"{split}_images"][::every]
    return Images(list(found), [str(one) for one in range(len(found))])


def made_up(count: int, seed: int) -> tuple[Images, np.ndarray]:
    """Images of the phantom, and their views."""
    table = phantom.index(images=count, lateral=0.3, seed=seed)
    draw = phantom.images(table, size=128)
    return Images([draw(row) for row in range(count)], table.table["patient"].tolist()), table.table["view"].to_numpy()


def dicoms(root: Path, names: Sequence[str]) -> Images:
    """Files of dicom/ by the beginnings of their names."""
    files = [next((root / "dicom").glob(f"{name}*")) for name in names]
    return Images([image_file.read_image(one).pixels for one in files], [one.name for one in files])


UPRIGHT = ("1.2.276", "RG1_J2KI", "gdcm-CR-MONO1", "panimg_cxr")
UPSIDE_DOWN = ("JPEG2KLossless_1s",)
LIMBS = ("RG2_JLSN", "RG3_J2KR")
"""A hip and a leg."""


def photographs() -> Images:
    """Every image that scikit-learn and scikit-image carry, and squares out of it."""
    from sklearn.datasets import load_sample_images

    found = {f"scikit-learn {place}": gray(one) for place, one in enumerate(load_sample_images().images)}
    folder = importlib.util.find_spec("skimage")
    places = [Path(one) / "data" for one in (folder.submodule_search_locations or []) if folder] if folder else []
    for file in sorted(one for place in places for one in [*place.glob("*.png"), *place.glob("*.jpg")]):
        found[file.name] = np.asarray(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE))
    rng, whole = np.random.default_rng(1), Images([], [])
    for name, pixels in found.items():
        several = [pixels, *(square(pixels, rng) for _ in range(CROPS))]
        kept = [one for one in several if not appearance.is_blank(one)]
        whole = Images([*whole.pixels, *kept], [*whole.of, *[name] * len(kept)])
    return whole


def square(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some square of a photograph."""
    side = int(rng.uniform(0.4, 1) * min(pixels.shape))
    top, left = (int(rng.integers(0, length - side + 1)) for length in pixels.shape)
    return pixels[top : top + side, left : left + side]


def gray(colours: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY))


def other_dicoms() -> Images:
    """What pydicom's own files show: CT and MR slices, ultrasound, drawings. The same pixels count once."""
    import pydicom

    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    found: dict[bytes, tuple[str, np.ndarray]] = {}
    for file in sorted(folder.glob("*.dcm")):
        try:
            pixels = image_file.read_image(file).pixels
        except Exception:  # many are broken, or no image, on purpose
            continue
        if not appearance.is_blank(pixels) and min(pixels.shape) >= 32:
            small = cv2.resize(pixels, (16, 16), interpolation=cv2.INTER_AREA) // 16
            found.setdefault(small.tobytes(), (file.name, pixels))
    return Images([pixels for _, pixels in found.values()], [name for name, _ in found.values()])


# ---- tables


def interval(hits: np.ndarray, of: Sequence[str], z: float = 1.959964) -> tuple[float, float, float]:
    """A share and its 95 % interval: Wilson's, with the effective number of images."""
    n, share = float(len(hits)), float(hits.mean())
    codes = pd.factorize(np.asarray(of))[0]
    sums = np.bincount(codes, hits - share)
    clusters, variance = len(sums), share * (1 - share) / n
    robust = float((sums**2).sum()) / n**2 * clusters / max(clusters - 1, 1)
    n = min(n / max(robust / variance, 1.0), n) if variance else clusters
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return share, max(middle - half, 0.0), min(middle + half, 1.0)


def looks(check: ood.OODCheck, images: Images, fit: image_file.Fit = "pad") -> np.ndarray:
    """(N,) what each is noticed as; -1 where it is not."""
    squares = [counterexamples.plainly(appearance.cropped_content(stored(one, fit))) for one in images.pixels]
    return check.noticed(np.stack([appearance.vector(one) for one in squares]))


WORDS = {
    "rotated to the left by 90°": "rotated 90° anticlockwise",
    "rotated to the right by 90°": "rotated 90° clockwise",
    "other": "not a frontal chest radiograph",
    **{f"adults, rotated to the {way} by 90°": f"adults, rotated 90° {words}"
       for way, words in (("left", "anticlockwise"), ("right", "clockwise"))},
}  # fmt: skip
"""Class of the check, or alteration → its name in the tables."""


def row(name: str, found: np.ndarray, of: Sequence[str]) -> str:
    """One row of a table."""
    share, low, high = interval((found >= 0).astype(float), of)
    names = ("unlike the training images", *(WORDS.get(name, name) for name in ood.CLASSES[1:]))
    counts = {names[place]: int((found == place).sum()) for place in np.unique(found[found >= 0])}
    ranked = [f"{what}: {many}" for what, many in sorted(counts.items(), key=lambda one: -one[1])]
    first, second, third = [*ranked, "–", "–", "–"][:3]
    name, fraction = WORDS.get(name, name), f"{share:.3f} ({low:.3f}–{high:.3f})"
    return f"| {name} | {len(found):,} | {len(set(of)):,} | {fraction} | {first} | {second} | {third} |"


def report(title: str, rows: Iterable[tuple[str, np.ndarray, Sequence[str]]]) -> None:
    """One table."""
    warnings = "most frequent warning | second | third"
    print(f"\n| {title} | images | patients | fraction with a warning (95 %) | {warnings} |")
    print("|---|---|---|---|---|---|---|")
    for one in rows:
        print(row(*one), flush=True)


def judged(check: ood.OODCheck, named: dict[str, Images]) -> Iterable[tuple[str, np.ndarray, Sequence[str]]]:
    """A row for each of these."""
    for name, images in named.items():
        yield name, looks(check, images), images.of


# ---- what is measured


def fitted(images: Images, laterals: Sequence[np.ndarray] = ()) -> ood.OODCheck:
    """A check of these images, a share of their patients held out."""
    people = np.random.default_rng(0).permutation(np.unique(images.of))
    held_out = np.isin(images.of, people[: round(HELD_OUT * len(people))])
    began = time.perf_counter()
    found = ood.fitted_check(images.chosen(~held_out).contents(), images.chosen(held_out).contents(), laterals)
    alarms = int(found.alarms.sum())
    print(
        f"\nFitted on {found.fitted_on:,} images, limits from {found.held_out:,} (of which {alarms} get a warning), "
        f"{time.perf_counter() - began:.1f} s; limits {', '.join(f'{one:.2f}' for one in found.limits)}."
    )
    return found


def upright(check: ood.OODCheck, test: Images, names: np.ndarray, other: Images) -> None:
    """False alarms on frontal images of every shape."""
    clear = ~np.isin(names, [f"{one}.png" for one in ALTERED_AT_SOURCE])
    named = {"ChestX-ray14, unaltered": test}
    named |= {"… excluding 10 rotated/inverted images": test.chosen(clear)}
    named |= {f"… {name}": test.chosen(clear).changed(change) for name, change in SHAPES.items()}
    report("upright frontal images", judged(check, named))
    shape = np.array([one.shape[1] / one.shape[0] for one in other.pixels])
    groups = {
        "another source, all": shape > 0, "… wider than 1.2 : 1": shape > 1.2, "… about square": abs(shape - 1) <= 0.2,
        "… taller than 1.2 : 1": shape < 1 / 1.2,
    }  # fmt: skip
    report("another source", judged(check, {name: other.chosen(one) for name, one in groups.items() if one.any()}))
    fits: tuple[image_file.Fit, ...] = ("squash", "crop")
    report("stored otherwise", ((f"another source, --fit {fit}", looks(check, other, fit), other.of) for fit in fits))


def altered(check: ood.OODCheck, test: Images, other: Images) -> None:
    """What must be noticed, of the same images."""
    for title, images in (("ChestX-ray14, altered", test), ("another source, altered", other)):
        report(title, judged(check, {name: images.changed(change) for name, change in TURNS.items()}))


def foreign(check: ood.OODCheck, root: Path) -> None:
    """What must be noticed, and is no frontal chest."""
    views = odd(root)
    views["CT, axial and coronal"] = Images(
        [*views["CT Axial"].pixels, *views["CT Coronal"].pixels], [*views["CT Axial"].of, *views["CT Coronal"].of]
    )
    named = {"lateral views" if name == "lateral" else name: one for name, one in views.items()}
    named |= {"photographs, whole and in parts": photographs(), "test files of pydicom": other_dicoms()}
    named |= {"a hip and a leg (DICOM)": dicoms(root, LIMBS)}
    report("not a frontal chest radiograph", judged(check, named))
    report(
        "chest radiographs in DICOM files",
        judged(check, {"upright": dicoms(root, UPRIGHT), "upside down": dicoms(root, UPSIDE_DOWN)}),
    )


def ages(check: ood.OODCheck, test: Images, years: np.ndarray, root: Path) -> None:
    """Children and adults, by pixels alone."""
    groups = {"under 10": years < 10, "10 to 17": (years >= 10) & (years < 18), "18 and older": years >= 18}
    named = {f"ChestX-ray14, {name}": test.chosen(one) for name, one in groups.items()}
    named["PneumoniaMNIST (children), 28 × 28"] = children(root, "test")
    report("fitted on ChestX-ray14 (mostly adults)", judged(check, named))
    young = fitted(children(root, "train", 8))
    small = test.changed(lambda pixels: cv2.resize(pixels, (28, 28), interpolation=cv2.INTER_AREA))
    adults = small.chosen(years >= 18)
    named = {"children (PneumoniaMNIST)": children(root, "test"), "adults (ChestX-ray14), 28 × 28": adults}
    named |= {f"adults, {name}": adults.changed(change) for name, change in TURNS.items()}
    report("fitted on PneumoniaMNIST (children)", judged(young, named))


def few(train: Images, test: Images, root: Path) -> None:
    """How a check fares that was fitted on few images."""
    laterals = odd(root)["lateral"]
    for count in (27, 67, 134):
        check = fitted(train.chosen(np.random.default_rng(3).permutation(len(train.of))[:count]))
        named = {"ChestX-ray14, unaltered": test, "lateral views": laterals}
        named |= {name: test.changed(TURNS[name]) for name in ("rotated to the left by 90°", "flipped horizontally")}
        report(f"fitted on {check.fitted_on} images", judged(check, named))


def phantoms(root: Path | None, test: Images | None) -> None:
    """A model of synthetic images."""
    images, views = made_up(900, seed=0)
    check = fitted(images.chosen(views != "LATERAL"), images.chosen(views == "LATERAL").contents())
    fresh, view = made_up(400, seed=1)
    frontal = fresh.chosen(view != "LATERAL")
    named = {"synthetic frontal images": frontal, "synthetic lateral views": fresh.chosen(view == "LATERAL")}
    named |= {name: frontal.changed(change) for name, change in TURNS.items()}
    if root and test:
        named |= {"real: ChestX-ray14": test, "real: another source": lungs(root)}
    report("fitted on synthetic frontal images", judged(check, named))


# ---- another description: the features of a model


def features(train: Images, table: pd.DataFrame, named: dict[str, Images], epochs: int = 4) -> None:
    """Mahalanobis distance of the pooled features of a ResNet-18 that learns findings, with a limit that 98 %
    of the held-out training images respect."""
    torch.manual_seed(0)
    backbone = Backbone("resnet18", size=(64, 64))
    labels = torch.from_numpy(table.loc[:, "Atelectasis":"Hernia"].to_numpy(np.float32))
    head = torch.nn.Linear(backbone.dim, labels.shape[1])
    optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], 1e-3)
    people = np.random.default_rng(0).permutation(np.unique(train.of))
    held_out = np.isin(train.of, people[: round(HELD_OUT * len(people))])
    x = scaled(train)
    for _ in range(epochs):
        for part in torch.from_numpy(np.random.default_rng(0).permutation(np.flatnonzero(~held_out))).split(32):
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(head(backbone(x[part])), labels[part]).backward()
            optimizer.step()
    backbone.eval()
    with torch.inference_mode():
        own = backbone(x).numpy().astype(np.float64)
        mean, spread = own[~held_out].mean(axis=0), np.cov(own[~held_out].T)
        spread += 0.1 * np.trace(spread) / len(spread) * np.eye(len(spread))

        def distances(some: np.ndarray) -> np.ndarray:
            return np.einsum("ij,ij->i", some - mean, np.linalg.solve(spread, (some - mean).T).T)

        limit = ood.upper_limit(distances(own[held_out]), ood.KEPT)
        found = {name: distances(backbone(scaled(one)).numpy().astype(np.float64)) for name, one in named.items()}
    report(
        "Mahalanobis distance of ResNet-18 features",
        ((name, np.where(one > limit, 0, -1), named[name].of) for name, one in found.items()),
    )


def scaled(images: Images) -> torch.Tensor:
    """(N, 1, 64, 64) of mean 0 and standard deviation 1, for a model."""
    small = [counterexamples.plainly(stored(one).astype(np.float32)) for one in images.pixels]
    return torch.from_numpy(np.stack([(one - one.mean()) / max(float(one.std()), 1) for one in small])[:, None])


# ---- all of it

ALTERED_AT_SOURCE = (
    *("00000061_025", "00002265_000", "00002599_004", "00008168_008", "00008980_003", "00012681_003", "00017007_002"),
    *("00021299_001", "00017625_000", "00017999_000"),
)
"""Of the noticed test images those that do lie on their side or are inverted, as seen by eye."""


def real(root: Path, compare: bool) -> None:
    """What a model of ChestX-ray14 notices."""
    images, table = nih(root)
    train = (table["arnoweng_split"] == "train").to_numpy()
    test, years = images.chosen(~train), table["age"].to_numpy()[~train]
    names = table["image"].to_numpy()[~train]
    other = lungs(root)
    check = fitted(images.chosen(train))
    upright(check, test, names, other)
    found = looks(check, test)
    noticed = [f"{names[one]} ({ood.CLASSES[found[one]]})" for one in np.flatnonzero(found >= 0)]
    print(f"\nUnaltered images with a warning: {', '.join(noticed)}")
    altered(check, test, other)
    foreign(check, root)
    ages(check, test, years, root)
    few(images.chosen(train), test, root)
    if compare:
        turned = {name: test.changed(change) for name, change in TURNS.items()}
        named = {
            "ChestX-ray14, unaltered": test,
            "another source": other,
            **turned,
            "lateral views": odd(root)["lateral"],
        }
        features(images.chosen(train), table[train], named | {"photographs, whole and in parts": photographs()})
    phantoms(root, test)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--features", action="store_true")
    options = parser.parse_args()
    root = os.environ.get("RIBCAGE_REAL_DATA")
    if root:
        real(Path(root), options.features)
    else:
        phantoms(None, None)


if __name__ == "__main__":
    main()
