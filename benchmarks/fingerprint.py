"""Recall, false positives and search time of the fingerprints on altered copies.

    RIBCAGE_REAL_DATA=/data python benchmarks/fingerprint.py [--altered 300] [--rows 10000 100000 1000000]

Real images: $RIBCAGE_REAL_DATA/nih/images_256/*.jpg (ChestX-ray14, named patient_study.jpg) and pneumoniamnist.npz.
Synthetic images are always measured. The collections for the search times are simulated from the coefficients of the
real images (or of the synthetic ones), so that their bits are correlated as in real fingerprints.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from ribcage.data.datasets import phantom
from ribcage.imaging import duplicates, image_file
from ribcage.imaging import fingerprint as fp

GrayImage = np.ndarray
Alteration = Callable[[GrayImage, np.random.Generator], GrayImage]


# --- alterations ----------------------------------------------------------------------------------------------------


def jpeg(image: GrayImage, quality: int) -> GrayImage:
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE))


def resized(image: GrayImage, width: int, height: int | None = None) -> GrayImage:
    return cv2.resize(image, (width, height or width), interpolation=cv2.INTER_AREA)


def gamma(image: GrayImage, power: float) -> GrayImage:
    return np.rint(255 * (image / 255.0) ** power).astype(np.uint8)


def windowed(image: GrayImage, low: float, high: float) -> GrayImage:
    """Gray values between two percentiles spread over all of them."""
    start, stop = np.percentile(image, (low, high))
    return np.clip((image - start) * (255 / max(stop - start, 1)), 0, 255).astype(np.uint8)


def clahe(image: GrayImage, limit: float) -> GrayImage:
    return cv2.createCLAHE(limit, (8, 8)).apply(image)


def cropped(image: GrayImage, left: float, top: float, right: float, bottom: float) -> GrayImage:
    height, width = image.shape
    return image[
        round(top * height) : height - round(bottom * height), round(left * width) : width - round(right * width)
    ]


def tilted(image: GrayImage, degrees: float) -> GrayImage:
    height, width = image.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    return cv2.warpAffine(image, matrix, (width, height))


def padded(image: GrayImage, left: float, top: float, right: float, bottom: float, gray: int) -> GrayImage:
    height, width = image.shape
    sides = (round(top * height), round(bottom * height), round(left * width), round(right * width))
    return cv2.copyMakeBorder(image, *sides, cv2.BORDER_CONSTANT, value=[gray])


ALTERATIONS: dict[str, Alteration] = {
    "JPEG quality 50": lambda p, r: jpeg(p, 50),
    "JPEG quality 15": lambda p, r: jpeg(p, 15),
    "resized to 224, JPEG 30": lambda p, r: jpeg(resized(p, 224), 30),
    "resized to 64 px": lambda p, r: resized(p, 64),
    "resized to 28 px": lambda p, r: resized(p, 28),
    "squashed to 390×320": lambda p, r: resized(p, 390, 320),
    "gamma 0.6": lambda p, r: gamma(p, 0.6),
    "gamma 1.7": lambda p, r: gamma(p, 1.7),
    "windowed to percentiles 5–95": lambda p, r: windowed(p, 5, 95),
    "windowed to percentiles 20–90": lambda p, r: windowed(p, 20, 90),
    "histogram equalised": lambda p, r: cv2.equalizeHist(p),
    "CLAHE 2": lambda p, r: clahe(p, 2),
    "CLAHE 4": lambda p, r: clahe(p, 4),
    "inverted": lambda p, r: 255 - p,
    "16 bit, inverted, ×16": lambda p, r: 4095 - p.astype(np.uint16) * 16,
    "cropped 2 % each side": lambda p, r: cropped(p, 0.02, 0.02, 0.02, 0.02),
    "cropped 5 % each side": lambda p, r: cropped(p, 0.05, 0.05, 0.05, 0.05),
    "cropped 5 % on one side": lambda p, r: cropped(p, *np.roll((0.05, 0, 0, 0), r.integers(4))),
    "cropped 0–5 % at random": lambda p, r: cropped(p, *r.uniform(0, 0.05, 4)),
    "centre 224 of 256": lambda p, r: cropped(resized(p, 256), 0.0625, 0.0625, 0.0625, 0.0625),
    "cropped 7 % each side": lambda p, r: cropped(p, 0.07, 0.07, 0.07, 0.07),
    "cropped 10 % each side": lambda p, r: cropped(p, 0.1, 0.1, 0.1, 0.1),
    "cropped 10 % on one side": lambda p, r: cropped(p, *np.roll((0.1, 0, 0, 0), r.integers(4))),
    "cropped 0–10 % at random": lambda p, r: cropped(p, *r.uniform(0, 0.1, 4)),
    "mirrored": lambda p, r: p[:, ::-1],
    "upside down": lambda p, r: p[::-1],
    "rotated by 90°": lambda p, r: np.rot90(p),
    "rotated by 180°": lambda p, r: np.rot90(p, 2),
    "rotated by 270°": lambda p, r: np.rot90(p, 3),
    "mirrored, JPEG 30": lambda p, r: jpeg(np.ascontiguousarray(p[:, ::-1]), 30),
    "mirrored, cropped 5 % each side": lambda p, r: cropped(p[:, ::-1], 0.05, 0.05, 0.05, 0.05),
    "rotated by 90°, inverted, JPEG 60": lambda p, r: jpeg(np.ascontiguousarray(255 - np.rot90(p)), 60),
    "rotated by 2°": lambda p, r: tilted(p, 2),
    "rotated by 5°": lambda p, r: tilted(p, 5),
    "black border 5 %": lambda p, r: padded(p, 0.05, 0.05, 0.05, 0.05, 0),
    "white border 5 %": lambda p, r: padded(p, 0.05, 0.05, 0.05, 0.05, 255),
    "padded to a square, JPEG 60": lambda p, r: jpeg(padded(p, 0.15, 0, 0.15, 0, 0), 60),
    "random crop, gamma, JPEG 60": lambda p, r: jpeg(gamma(cropped(p, *r.uniform(0, 0.05, 4)), 0.7), 60),
}


# --- images -------------------------------------------------------------------------------------------------------


def real_images(root: Path) -> tuple[list[GrayImage], np.ndarray]:
    """Images and their patients."""
    files = sorted((root / "nih" / "images_256").glob("*.jpg"))
    images = [np.asarray(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)) for file in files]
    return images, np.array([int(file.name[:8]) for file in files])


def made_up_images(count: int) -> tuple[list[GrayImage], np.ndarray]:
    table = phantom.index(images=count)
    draw = phantom.images(table)
    return [draw(row) for row in range(count)], np.unique(table.table["patient"], return_inverse=True)[1]


# --- what is found --------------------------------------------------------------------------------------------------


def rate_below(hits: int, tested: int) -> float:
    """Upper end of the 95 % interval of a rate (one-sided, Poisson)."""
    from scipy.stats import chi2

    return float(chi2.ppf(0.95, 2 * (hits + 1)) / 2 / max(tested, 1))


def report(name: str, images: list[GrayImage], patients: np.ndarray, altered: int) -> None:
    prints = np.stack([fp.fingerprint(image) for image in images])
    print(f"\n## {name}: {len(images)} images of {len(np.unique(patients))} patients\n")
    wrong = {"bits": 0, "confirmed": 0}
    print(
        "| alteration | median distance, bits | 99th percentile, bits | detected by fingerprint "
        "| detected by fingerprint and pixels |\n|---|---|---|---|---|"
    )
    chosen = np.random.default_rng(0).permutation(len(images))[:altered]
    for title, alter in ALTERATIONS.items():
        rng = np.random.default_rng(1)
        copies = [alter(images[row], rng) for row in chosen]
        queries = np.stack([fp.fingerprint(copy) for copy in copies])
        loose = duplicates.duplicates_between(queries, prints, max_distance=127)
        own = loose.second == chosen[loose.first]
        bits = np.full(len(chosen), 128)
        bits[loose.first[own]] = loose.distance[own]
        by_bits = duplicates.duplicates_between(queries, prints)
        confirmed = duplicates.duplicates_between(
            queries, prints, images_a=copies.__getitem__, images_b=images.__getitem__
        )
        found = [
            np.mean(np.isin(np.arange(len(chosen)), m.first[m.second == chosen[m.first]])) for m in (by_bits, confirmed)
        ]
        for kind, result in (("bits", by_bits), ("confirmed", confirmed)):
            wrong[kind] += int((patients[chosen[result.first]] != patients[result.second]).sum())
        middle, far = np.percentile(bits, (50, 99))
        print(f"| {title} | {middle:.0f} | {far:.0f} | {found[0]:.1%} | {found[1]:.1%} |", flush=True)
    pairs = altered_pairs(patients, chosen) * len(ALTERATIONS)
    for kind, hits in wrong.items():
        print(
            f"\nAltered copies and other patients, {kind}: {hits} of {pairs:,} pairs reported "
            f"(rate below {rate_below(hits, pairs):.1e})"
        )
    originals(images, patients, prints)


def altered_pairs(patients: np.ndarray, chosen: np.ndarray) -> int:
    return int(sum((patients != patients[row]).sum() for row in chosen))


def originals(images: list[GrayImage], patients: np.ndarray, prints: np.ndarray) -> None:
    """Pairs of different images that are called duplicates."""
    count = len(images)
    same = int(sum(n * (n - 1) // 2 for n in np.unique(patients, return_counts=True)[1]))
    other = count * (count - 1) // 2 - same
    head = "pairs tested | reported by fingerprint | rate below | reported by fingerprint and pixels | rate below"
    print(f"\n| pairs of originals | {head} |")
    print("|---|---|---|---|---|---|")
    by_bits = duplicates.duplicates_within(prints)
    confirmed = duplicates.duplicates_within(prints, images=images.__getitem__)
    for title, tested, own in (("different patients", other, False), ("studies of one patient", same, True)):
        hits = [int(((patients[m.first] == patients[m.second]) == own).sum()) for m in (by_bits, confirmed)]
        ends = [f"{rate_below(n, tested):.1e}" for n in hits]
        print(f"| {title} | {tested:,} | {hits[0]} | {ends[0]} | {hits[1]} | {ends[1]} |")
    likest = duplicates.duplicates_within(prints, max_distance=100)
    own = patients[likest.first] == patients[likest.second]
    for title, which in (("different patients", ~own), ("studies of one patient", own)):
        order = np.flatnonzero(which)[np.argsort(likest.distance[which], kind="stable")][:1500]
        alike = [like(prints, images, int(likest.first[k]), int(likest.second[k])) for k in order]
        bits = ", ".join(map(str, likest.distance[order][:8]))
        most = ", ".join(f"{value:.3f}" for value in sorted(alike)[:-6:-1])
        print(f"\nNearest {len(order)} pairs, {title}: bits {bits} …; highest correlations {most} …")


def like(prints: np.ndarray, images: list[GrayImage], first: int, second: int) -> float:
    i, j, flipped = duplicates._closest(prints[first], prints[second])  # in the position in which both lie
    return duplicates.likeness(
        fp.rank_images(images[first])[i], fp.rank_images(images[second])[j] * (-1 if flipped else 1)
    )


def stored_small(name: str, images: list[GrayImage], patients: np.ndarray) -> None:
    """Other exposures of one patient that are called copies where images are stored small, and how near they come."""
    head = "pairs tested | reported by fingerprint | reported by fingerprint and pixels | smallest distances, bits "
    head += "| margin below the correlation threshold"
    print(f"\n| {name}, stored at | {head} |")
    print("|---|---|---|---|---|---|")
    full = np.stack([fp.fingerprint(image) for image in images])
    true = {(i, j) for i, j in pairs_of(duplicates.duplicates_within(full, images=images.__getitem__), patients)}
    same = int(sum(n * (n - 1) // 2 for n in np.unique(patients, return_counts=True)[1])) - len(true)
    for size in (256, 128, 96, 64, 48, 32):
        small = [image_file.fit(image, size, "pad")[0] for image in images]
        prints = np.stack([fp.fingerprint(image) for image in small])
        found = [duplicates.duplicates_within(prints), duplicates.duplicates_within(prints, images=small.__getitem__)]
        called = [len(set(pairs_of(each, patients)) - true) for each in found]
        near = duplicates.duplicates_within(prints, max_distance=duplicates.LOOSE + 20)
        others = [k for k, pair in enumerate(zip(near.first.tolist(), near.second.tolist(), strict=True))
                  if patients[pair[0]] == patients[pair[1]] and pair not in true]  # fmt: skip
        alike = [like(prints, small, int(near.first[k]), int(near.second[k])) for k in others]
        lacking = duplicates._needed(near.distance[others], np.full(len(others), size)) - np.array(alike)
        nearest = ", ".join(map(str, np.sort(near.distance[others])[:4]))
        print(f"| {size} px | {same} | {called[0]} | {called[1]} | {nearest} | {lacking.min():.2f} |", flush=True)
    print(f"True copies within one patient, left out: {len(true)}")


def pairs_of(found: duplicates.DuplicatePairs, patients: np.ndarray) -> list[tuple[int, int]]:
    """The found pairs that show one patient."""
    pairs = zip(found.first.tolist(), found.second.tolist(), strict=True)
    return [(i, j) for i, j in pairs if patients[i] == patients[j]]


def lung_images(root: Path) -> tuple[list[GrayImage], np.ndarray]:
    """Follow-up radiographs of one illness: many exposures of a patient within days."""
    import csv

    with (root / "lungs" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    images = [np.asarray(cv2.imread(str(root / "lungs" / row["image"]), cv2.IMREAD_GRAYSCALE)) for row in rows]
    return images, np.unique([row["patient"] for row in rows], return_inverse=True)[1]


def exact_copies(file: Path) -> None:
    """PneumoniaMNIST: 18 images twice in train, 8 in train and in val."""
    data = np.load(file)
    train, val = list(data["train_images"]), list(data["val_images"])
    hashes = np.array([fp.pixel_hash(image) for image in train], np.uint64)
    within = len(hashes) - len(np.unique(hashes))
    across = len(np.unique([h for h in map(fp.pixel_hash, val) if h in set(hashes.tolist())]))
    prints, others = (np.stack([fp.fingerprint(image) for image in part]) for part in (train, val))
    near = duplicates.duplicates_within(prints, images=train.__getitem__)
    far = duplicates.duplicates_between(prints, others, images_a=train.__getitem__, images_b=val.__getitem__)
    print("\n## PneumoniaMNIST (28 px)\n")
    print(f"exact copies by pixel_hash: {within} within train, {across} across train and val")
    for title, found in (("within train", near), ("train and val", far)):
        bits = ", ".join(map(str, np.sort(found.distance)))
        print(f"by fingerprint, {title}: {len(found)} pairs, distances {bits}")


# --- how fast -------------------------------------------------------------------------------------------------------


class Model:
    """New coefficients from those of real images: the mean plus three images' deviations from it, over √3. Their
    distances lie as those of the images do, in the middle and at the near end, which decides what a search costs."""

    def __init__(self, images: list[GrayImage]) -> None:
        waves = np.stack([fp._waves(fp.rank_images(image)) for image in images]).astype(np.float32)
        self.mean, self.spread = waves.mean(0), waves.std(0)
        self.apart = (waves - self.mean) / np.sqrt(3)
        self.bordered = float((waves[:, 0] != waves[:, 1]).any(axis=1).mean())

    def waves(self, count: int, rng: np.random.Generator) -> np.ndarray:
        waves = self.mean + sum(self.apart[rng.integers(len(self.apart), size=count)] for _ in range(3))
        plain = rng.random(count) >= self.bordered
        waves[plain, 0] = waves[plain, 1]
        return waves

    def prints(self, waves: np.ndarray) -> np.ndarray:
        return np.packbits(waves > 0, axis=2, bitorder="little").view("<u8").astype(np.uint64)

    def copies(self, waves: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Noise on the coefficients, from hardly any to as much as moves sixty bits and more."""
        noise = rng.standard_normal(waves.shape, np.float32) * self.spread
        copied = waves + noise * rng.uniform(0, 0.9, (len(waves), 1, 1)).astype(np.float32)
        plain = (waves[:, 0] == waves[:, 1]).all(axis=1)
        copied[plain, 0] = copied[plain, 1]
        return copied


def collection(model: Model, count: int, copies: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, V, 4) prints, and prints of altered copies of the first `copies` of them."""
    rng = np.random.default_rng(2)
    prints = np.empty((count, fp.VARIANTS, 4), np.uint64)
    altered: list[np.ndarray] = []
    for start in range(0, count, 10_000):
        waves = model.waves(min(10_000, count - start), rng)
        prints[start : start + len(waves)] = model.prints(waves)
        wanted = waves[: max(0, copies - start)]
        if len(wanted):
            altered.append(model.prints(model.copies(wanted, rng)))
    return prints, np.concatenate(altered)


def nearest_bits(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distance of print a[i] and b[i], by plain counting."""
    apart = [np.bitwise_count(a[:, i] ^ b[:, j]).sum(axis=1, dtype=np.int64) for i, j in duplicates._pairs()]
    return np.minimum(apart, fp.BITS - np.array(apart)).min(axis=0)


def timed(call: Callable[[], duplicates.DuplicatePairs]) -> tuple[str, duplicates.DuplicatePairs]:
    """Seconds on the clock, and seconds of all cores together, which other work on the machine does not lengthen."""
    start, busy = time.perf_counter(), time.process_time()
    result = call()
    return f"{time.perf_counter() - start:.1f} ({time.process_time() - busy:.1f})", result


def search_times(images: list[GrayImage], sizes: list[int]) -> None:
    model = Model(images)
    duplicates.duplicates_within(model.prints(model.waves(100, np.random.default_rng(3))))
    check_model(model, images)
    print("\nElapsed time and, in brackets, CPU time in seconds; fraction of copies detected, by distance in bits:\n")
    print(
        "| fingerprints | limit, bits | all pairs, s (CPU, s) | 10,000 queries, s (CPU, s) "
        "| 0–16 bits | 17–32 bits | 33–48 bits | 49–60 bits |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for size in sizes:
        prints, queries = collection(model, size, min(10_000, size))
        truth = nearest_bits(queries, prints[: len(queries)])
        for cut in (duplicates.STRICT, duplicates._loose(size)):
            within, _ = timed(lambda: duplicates.duplicates_within(prints, max_distance=cut))  # noqa: B023
            asked, result = timed(lambda: duplicates.duplicates_between(queries, prints, max_distance=cut))  # noqa: B023
            hit = np.zeros(len(queries), bool)
            hit[result.first[result.first == result.second]] = True
            shares = " | ".join(shares_found(truth, hit, cut))
            print(f"| {size:,} | {cut} | {within} | {asked} | {shares} |", flush=True)


def shares_found(truth: np.ndarray, hit: np.ndarray, cut: int) -> Iterator[str]:
    for low, high in ((0, 16), (17, 32), (33, 48), (49, 60)):
        band = (truth >= low) & (truth <= min(high, cut))
        yield f"{hit[band].mean():.2%} of {band.sum()}" if band.any() else "–"


def check_model(model: Model, images: list[GrayImage]) -> None:
    """The distribution of distances, drawn and real."""
    for title, prints in (
        ("fitted images", np.stack([fp.fingerprint(image) for image in images])),
        ("drawn", model.prints(model.waves(len(images), np.random.default_rng(4)))),
    ):
        apart = duplicates.duplicates_within(prints, max_distance=127).distance
        pairs = len(prints) * (len(prints) - 1) // 2
        low = [np.sort(apart)[int(pairs * share)] for share in (1e-5, 1e-4, 1e-3, 1e-2, 0.5)]
        print(
            f"bits between {title}: quantile 1e-5 {low[0]}, 1e-4 {low[1]}, 1e-3 {low[2]}, 1e-2 {low[3]}, "
            f"median {low[4]}"
        )


def main() -> None:
    # numba asks for the package 'coverage', and must not get the benchmark of that name beside this file
    sys.path = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stored", type=int, default=0, help="real images are brought to this size before all else")
    parser.add_argument("--only", default="", help="alterations whose name has this text in it")
    parser.add_argument("--small-only", action="store_true", help="only how small stored images do")
    parser.add_argument("--altered", type=int, default=300, help="images that are altered in every way")
    parser.add_argument("--synthetic", type=int, default=600, help="phantoms drawn")
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], help="sizes to search")
    options = parser.parse_args()
    for title in [title for title in ALTERATIONS if options.only not in title]:
        del ALTERATIONS[title]
    cv2.setNumThreads(1)
    images, patients = made_up_images(options.synthetic)
    root = os.environ.get("RIBCAGE_REAL_DATA")
    if root:
        real, owners = real_images(Path(root))
        if options.stored:
            real = [image_file.fit(image, options.stored, "pad")[0] for image in real]
        if options.small_only:
            stored_small("ChestX-ray14", real, owners)
            stored_small("COVID-19 follow-ups", *lung_images(Path(root)))
            return
        start = time.perf_counter()
        for image in real:
            fp.fingerprint(image)
        print(f"fingerprint at 256 px: {(time.perf_counter() - start) / len(real) * 1e3:.2f} ms")
        report("ChestX-ray14", real, owners, options.altered)
        stored_small("ChestX-ray14", real, owners)
        stored_small("COVID-19 follow-ups", *lung_images(Path(root)))
        exact_copies(Path(root) / "pneumoniamnist.npz")
    report("Synthetic images", images, patients, options.altered)
    if options.rows:
        search_times(real if root else images, options.rows)


if __name__ == "__main__":
    main()
