"""What `ribcage predict` remarks on: in-range pictures (it should not) and strange ones (it should), of two sources.

    RIBCAGE_REAL_DATA=/data python benchmarks/typical.py [--features] [--pictures 2400]

Real pictures: $RIBCAGE_REAL_DATA/nih/images_256/*.jpg (ChestX-ray14, named patient_study.jpg) and dicom/. The
description is fitted on half of the patients, its limits on a quarter, and tested on the rest. Made-up pictures are
always measured. --features also trains a ResNet-18 on the first half, to compare its features with thumbnails.
"""

import argparse
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from ribcage import image, typical
from ribcage.backbone import Backbone
from ribcage.datasets import phantom

Pictures = Sequence[np.ndarray]
KINDS = ("Far", "Looks inverted", "Looks upside down", "Looks turned", "Empty")
DRAWN = 200
"""Of what is drawn by chance."""


# --- pictures -------------------------------------------------------------------------------------------------------


def parts(patients: np.ndarray) -> list[np.ndarray]:
    """The rows of half of the patients, of a quarter, and of the rest."""
    people = np.random.default_rng(0).permutation(np.unique(patients))
    cuts = [len(people) // 2, len(people) * 3 // 4]
    return [np.flatnonzero(np.isin(patients, some)) for some in np.split(people, cuts)]


def of(pictures: Pictures, rows: np.ndarray) -> Pictures:
    """Those of these rows."""
    return [pictures[one] for one in rows.tolist()]


def made_up(count: int, seed: int = 0) -> tuple[Pictures, dict[str, np.ndarray]]:
    """Pictures, and columns of their table."""
    table = phantom.index(pictures=count, lateral=0.3, seed=seed)
    draw = phantom.pictures(table, size=128)
    return [draw(row) for row in range(count)], {
        name: table.table[name].to_numpy() for name in ("patient", "view", "hospital")
    }


def photographs(rng: np.random.Generator) -> Pictures:
    """Squares out of scikit-learn's two photographs."""
    from sklearn.datasets import load_sample_images

    found = []
    for colours in load_sample_images().images:
        gray = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)
        for _ in range(DRAWN // 2):
            side = int(rng.integers(150, min(gray.shape) + 1))
            top, left = (int(rng.integers(0, length - side + 1)) for length in gray.shape)
            found.append(gray[top : top + side, left : left + side])
    return found


def clouds(rng: np.random.Generator) -> Pictures:
    """Smooth patterns, fine and coarse."""
    drawn = [cv2.GaussianBlur(rng.standard_normal((256, 256)), (0, 0), s) for s in np.geomspace(4, 60, DRAWN)]
    return [np.rint(255 * (one - one.min()) / np.ptp(one)).astype(np.uint8) for one in drawn]


def cropped(picture: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A square of this share of both sides, anywhere."""
    side = round(len(picture) * share)
    top, left = rng.integers(0, len(picture) - side + 1, 2)
    return picture[top : top + side, left : left + side]


def brightened(picture: np.ndarray, power: float) -> np.ndarray:
    return np.rint(255 * (picture / 255.0) ** power).astype(np.uint8)


ALTERED: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "gamma 0.6": lambda p, r: brightened(p, 0.6),
    "gamma 1.7": lambda p, r: brightened(p, 1.7),
    "inverted": lambda p, r: 255 - p,
    "upside down": lambda p, r: p[::-1, ::-1],
    "turned to the left by 90°": lambda p, r: np.rot90(p),
    "turned to the right by 90°": lambda p, r: np.rot90(p, -1),
    "left and right exchanged": lambda p, r: p[:, ::-1],
    "cropped to 90 %": lambda p, r: cropped(p, 0.9, r),
    "cropped to 75 %": lambda p, r: cropped(p, 0.75, r),
    "cropped to 60 %": lambda p, r: cropped(p, 0.6, r),
    "cropped to 40 %": lambda p, r: cropped(p, 0.4, r),
}


def foreign() -> dict[str, Pictures]:
    """What is no radiograph."""
    rng = np.random.default_rng(1)
    noise = [rng.integers(0, 256, (256, 256), dtype=np.uint8) for _ in range(DRAWN)]
    return {"photographs": photographs(rng), "noise": noise, "smooth patterns": clouds(rng)}


def cases(pictures: Pictures, alterations: Sequence[str] = tuple(ALTERED)) -> dict[str, Pictures]:
    """The pictures as they are, and altered."""
    rng = np.random.default_rng(2)
    return {"as they are": pictures} | {name: [ALTERED[name](one, rng) for one in pictures] for name in alterations}


# --- the table ------------------------------------------------------------------------------------------------------


def wilson(count: int, of: int) -> tuple[float, float]:
    """95 % interval of a share."""
    z, share = 1.959964, count / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(middle - half, 0), min(middle + half, 1)


def smalls(pictures: Pictures) -> np.ndarray:
    return np.stack([typical.small(np.asarray(one)) for one in pictures])


def row(name: str, known: typical.Typical, pictures: Pictures) -> str:
    """How many of these pictures each remark is made on."""
    said = [typical.remarks(known, np.asarray(one), {}) for one in pictures]
    kinds = [sum(bool(one) and one[0].startswith(kind) for one in said) for kind in KINDS]
    count, of = sum(map(bool, said)), len(said)
    low, high = wilson(count, of)
    shares = " | ".join(f"{each / of:.3f}" for each in kinds)
    return f"| {name} | {of:,} | {count / of:.3f} ({low:.3f}–{high:.3f}) | {shares} |"


def report(title: str, known: typical.Typical, tested: dict[str, Pictures]) -> None:
    """One table."""
    heads = ("pictures", "remarked on (95 %)", "far", "inverted", "upside down", "turned", "empty")
    print(f"\n| {title} | " + " | ".join(heads) + " |\n" + "|---" * (len(heads) + 1) + "|")
    for name, pictures in tested.items():
        print(row(name, known, pictures), flush=True)
    counts = ", ".join(f"{name} {count}" for name, count in zip(typical.UNDONE, known.mended.tolist(), strict=True))
    print(f"\nLimit {known.limit:.2f}; of {known.held_out} pictures that set it {known.inside} within; look {counts}.")


# --- other descriptions ---------------------------------------------------------------------------------------------

Describe = Callable[[np.ndarray], np.ndarray]


def plain_thumbnail(few: np.ndarray) -> np.ndarray:
    """Without local normalisation."""
    return np.asarray((few - few.mean()) / max(few.std(), 1)).ravel()


def learnt_features(pictures: np.ndarray, labels: np.ndarray, epochs: int = 4) -> Describe:
    """Pooled features of a ResNet-18, trained to name 'no finding' and what is there."""
    torch.manual_seed(0)
    backbone = Backbone("resnet18", size=(64, 64))
    head = torch.nn.Linear(backbone.dim, labels.shape[1])
    optimizer = torch.optim.AdamW([*backbone.parameters(), *head.parameters()], 1e-3)
    x, y = torch.from_numpy(pictures[:, None]), torch.from_numpy(labels)
    for _ in range(epochs):
        for part in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(head(backbone(x[part])), y[part])
            loss.backward()
            optimizer.step()
    backbone.eval()

    def described(few: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return backbone(torch.from_numpy(few[None, None])).numpy()[0].astype(np.float64)

    return described


def scaled(picture: np.ndarray) -> np.ndarray:
    """(64, 64) of mean 0 and spread 1, for a model."""
    few = cv2.resize(np.ascontiguousarray(picture, np.float32), (64, 64), interpolation=cv2.INTER_AREA)
    return np.asarray((few - few.mean()) / max(float(few.std()), 1), np.float32)


def far(
    groups: Sequence[Pictures],
    describe: Describe,
    reduce: Describe = typical.small,
    weights: tuple[float, ...] = (1, 1),
) -> list[str]:
    """How many pictures of each group after the first two are far, by this description alone."""
    vectors = [np.stack([describe(reduce(np.asarray(one))) for one in group]) for group in groups]
    mean, components, variances = typical._principal(vectors[0])

    def sums(some: np.ndarray) -> np.ndarray:
        z = some - mean
        along = z @ components.T
        rest = np.maximum((z * z).sum(axis=1) - (along * along).sum(axis=1), 0)
        return np.stack([(along * along / variances).sum(axis=1), rest], axis=1)

    scale = sums(vectors[1]).mean(axis=0)
    distances = [(sums(one) / scale) @ np.array(weights) for one in vectors]
    limit = typical._kept_by(distances[1], typical.INSIDE)
    return [f"{(one > limit).mean():.3f}" for one in distances[2:]]


def compare(learnt: Pictures, limits: Pictures, tested: dict[str, Pictures], labels: np.ndarray | None) -> None:
    """Descriptions side by side."""
    groups = [learnt, limits, *tested.values()]
    columns = {
        "both sums": far(groups, typical.thumbnail),
        "Mahalanobis alone": far(groups, typical.thumbnail, weights=(1, 0)),
        "residual alone": far(groups, typical.thumbnail, weights=(0, 1)),
        "both, of plain thumbnails": far(groups, plain_thumbnail),
    }
    if labels is not None:
        features = learnt_features(np.stack([scaled(one) for one in learnt]), labels)
        columns["both, of a ResNet-18's features"] = far(groups, features, scaled)
    print("\n| share that is far, by | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    for name, *shares in zip(tested, *columns.values(), strict=True):
        print(f"| {name} | " + " | ".join(shares) + " |")


# --- sources --------------------------------------------------------------------------------------------------------


def real(root: Path, features: bool) -> None:
    """ChestX-ray14, what is none of it, and DICOM files."""
    import pandas as pd

    table = pd.read_csv(root / "nih" / "manifest.csv")
    files = [root / "nih" / "images_256" / name.replace(".png", ".jpg") for name in table["image"]]
    pictures = [image.read(file).pixels for file in files]
    learnt, limits, rest = parts(table["patient_id"].to_numpy())
    began = time.perf_counter()
    known = typical.fitted(smalls(of(pictures, learnt)), smalls(of(pictures, limits)))
    print(f"ChestX-ray14: fitted on {len(learnt)}, limits from {len(limits)}, {time.perf_counter() - began:.1f} s.")
    tested = cases(of(pictures, rest)) | foreign()
    report("ChestX-ray14", known, tested)
    remarked = [files[one].stem for one in rest if typical.remarks(known, pictures[int(one)], {})]
    print(f"Remarked on as they are: {', '.join(remarked)}.")
    findings = table.loc[learnt, "Atelectasis":"Hernia"].to_numpy(np.float32) if features else None
    compare(of(pictures, learnt), of(pictures, limits), tested, findings)
    dicoms(known, root / "dicom")


def dicoms(known: typical.Typical, folder: Path) -> None:
    """What is said of each file: by its tags and by its pixels."""
    print("\n| DICOM | by its tags | by its pixels |\n|---|---|---|")
    for file in [*sorted(folder.glob("*.dcm")), *sorted((folder / "syntaxes").glob("*.dcm"))[:1]]:
        try:
            read = image.read(file)
        except image.UnreadableError:
            continue
        square, _ = image.fit(read.pixels, 256, "squash")
        tags = [one.split(":")[0].split(";")[0] for one in typical.remarks(None, square, read.tags)]
        pixels = [one.split(":")[0] for one in typical.remarks(known, square, {})]
        print(f"| {file.name[:32]} | {'; '.join(tags) or '–'} | {'; '.join(pixels) or '–'} |")


def phantoms(count: int) -> None:
    """Made-up pictures: frontal ones of one hospital, of another, laterals; and a model that knows laterals."""
    pictures, table = made_up(count)
    frontal, here = table["view"] != "LATERAL", table["hospital"] == "A"
    alterations = [name for name in ALTERED if not name.startswith("gamma")]
    for title, chosen in (("made up: frontal, hospital A", frontal & here), ("made up: all views, hospital A", here)):
        learnt, limits, rest = (rows[chosen[rows]] for rows in parts(table["patient"]))
        known = typical.fitted(smalls(of(pictures, learnt)), smalls(of(pictures, limits)))
        if (~frontal[learnt]).any():
            known = replace(known, views=np.array([len(learnt), int((~frontal[learnt]).sum())]))
        report(title, known, cases(of(pictures, rest), alterations) | others(pictures, frontal, here, table))


def others(pictures: Pictures, frontal: np.ndarray, here: np.ndarray, table: dict) -> dict[str, Pictures]:
    """Of the patients that nothing was fitted on."""
    rest = np.zeros(len(pictures), bool)
    rest[parts(table["patient"])[2]] = True
    groups = {"laterals, hospital A": ~frontal & here, "frontal, hospital B": frontal & ~here}
    return {name: of(pictures, np.flatnonzero(rest & group)) for name, group in groups.items()}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--features", action="store_true")
    parser.add_argument("--pictures", type=int, default=2400)
    options = parser.parse_args()
    if root := os.environ.get("RIBCAGE_REAL_DATA"):
        real(Path(root), options.features)
    phantoms(options.pictures)


if __name__ == "__main__":
    main()
