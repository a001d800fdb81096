"""Fingerprints: altered copies are found, other images are not, and the fast search equals the exhaustive one."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from ribcage.imaging import duplicates, hamming
from ribcage.imaging import fingerprint as fp

REAL = os.environ.get("RIBCAGE_REAL_DATA")
real = pytest.mark.skipif(not REAL, reason="RIBCAGE_REAL_DATA does not name a folder of real images")


def image(seed: int, size: int = 192) -> np.ndarray:
    """Blobs from coarse to fine, so that the image has structure at every scale."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size, size), np.float32)
    for blur, weight in ((40, 1.0), (16, 0.6), (7, 0.4), (3, 0.2)):
        field = cv2.GaussianBlur(rng.standard_normal((size, size)).astype(np.float32), (0, 0), blur)
        total += weight * (field - field.mean()) / field.std()
    return np.clip(128 + 45 * total, 1, 254).astype(np.uint8)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 0))


def resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def bordered(pixels: np.ndarray, gray: int) -> np.ndarray:
    return cv2.copyMakeBorder(pixels, 12, 9, 30, 25, cv2.BORDER_CONSTANT, value=[gray])


IMAGES = [image(seed) for seed in range(40)]
PRINTS = np.stack([fp.fingerprint(pixels) for pixels in IMAGES])

KEPT_BITS = {
    "jpeg": lambda p: jpeg(p, 40),
    "28 px": lambda p: resized(p, 28, 28),
    "squashed": lambda p: resized(p, 390, 320),
    "enlarged": lambda p: cv2.resize(p, (700, 700)),
    "gamma": lambda p: np.rint(255 * (p / 255) ** 0.6).astype(np.uint8),
    "equalised": cv2.equalizeHist,
    "window": lambda p: np.clip((p.astype(int) - 25) * 5 // 4, 0, 255).astype(np.uint8),
    "sixteen bits": lambda p: p.astype(np.uint16) * 257,
    "twelve bits high up": lambda p: p.astype(np.uint16) * 16 + 30000,
    "inverted": lambda p: 255 - p,
    "inverted, 28 px": lambda p: 255 - resized(p, 28, 28),
    "black border": lambda p: bordered(p, 0),
    "white border, JPEG": lambda p: jpeg(bordered(p, 255), 70),
}
TURNED = {
    "mirrored": lambda p: p[:, ::-1],
    "upside down": lambda p: p[::-1],
    "turned by 90°": np.rot90,
    "turned by 180°": lambda p: np.rot90(p, 2),
    "turned by 270°": lambda p: np.rot90(p, 3),
    "transposed": lambda p: p.T,
    "mirrored, JPEG": lambda p: jpeg(np.ascontiguousarray(p[:, ::-1]), 40),
    "turned, inverted": lambda p: 255 - np.rot90(p),
    "mirrored, bordered": lambda p: bordered(np.ascontiguousarray(p[:, ::-1]), 0),
}
KEPT_BITS |= TURNED
MOVED = {
    "cropped 10 %": lambda p: p[19:-19, 19:-19],
    "mirrored, cropped 5 %": lambda p: p[10:-10, 10:-10][:, ::-1],
    "cropped 2 %": lambda p: p[4:-4, 4:-4],
    "cropped 5 %": lambda p: p[10:-10, 10:-10],
    "cropped unevenly": lambda p: p[6:-2, 3:-9],
    "cropped, JPEG, resized": lambda p: resized(jpeg(p[5:-5, 4:-6], 60), 128, 128),
    "cropped and inverted": lambda p: 255 - p[8:-8, 8:-8],
    "CLAHE": lambda p: cv2.createCLAHE(2, (8, 8)).apply(p),
}


@pytest.mark.parametrize("name", KEPT_BITS)
def test_bits_alone_find_a_copy(name: str) -> None:
    copies = [KEPT_BITS[name](pixels) for pixels in IMAGES[:10]]
    found = duplicates.duplicates_between(np.stack([fp.fingerprint(copy) for copy in copies]), PRINTS)
    assert found.first.tolist() == list(range(10))
    assert found.second.tolist() == list(range(10))
    assert found.distance.max() <= duplicates.STRICT
    assert np.isnan(found.likeness).all()


@pytest.mark.parametrize("name", [*KEPT_BITS, *MOVED])
def test_images_confirm_a_copy(name: str) -> None:
    copies = [{**KEPT_BITS, **MOVED}[name](pixels) for pixels in IMAGES[:10]]
    prints = np.stack([fp.fingerprint(copy) for copy in copies])
    found = duplicates.duplicates_between(prints, PRINTS, images_a=copies.__getitem__, images_b=IMAGES.__getitem__)
    assert found.first.tolist() == found.second.tolist() == list(range(10))


def test_different_images_are_no_duplicates() -> None:
    assert len(duplicates.duplicates_within(PRINTS)) == 0
    assert len(duplicates.duplicates_within(PRINTS, images=IMAGES.__getitem__)) == 0


def test_images_reject_what_only_has_close_bits() -> None:
    fine = image(99).astype(float) - cv2.GaussianBlur(image(99), (0, 0), 5)
    other = np.clip(cv2.GaussianBlur(IMAGES[0], (0, 0), 5) + fine, 0, 255).astype(np.uint8)
    prints = np.stack([PRINTS[0], fp.fingerprint(other)])
    both = [IMAGES[0], other]
    assert len(duplicates.duplicates_within(prints, max_distance=duplicates.LOOSE)) == 1
    assert len(duplicates.duplicates_within(prints, images=both.__getitem__)) == 0


def test_duplicates_come_once_in_order_with_their_distance() -> None:
    prints = np.stack([PRINTS[3], PRINTS[5], PRINTS[3], PRINTS[5], PRINTS[3]])
    found = duplicates.duplicates_within(prints)
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(0, 2), (0, 4), (1, 3), (2, 4)]
    assert found.distance.tolist() == [0, 0, 0, 0]
    assert found.first.dtype == found.second.dtype == np.int64


def test_both_directions_find_the_same_pairs() -> None:
    crops = np.stack([fp.fingerprint(pixels[8:-8, 8:-8]) for pixels in IMAGES])
    there, back = (
        duplicates.duplicates_between(crops, PRINTS, max_distance=60),
        duplicates.duplicates_between(PRINTS, crops, max_distance=60),
    )
    pairs = sorted(zip(back.second.tolist(), back.first.tolist(), back.distance.tolist(), strict=True))
    assert list(zip(there.first.tolist(), there.second.tolist(), there.distance.tolist(), strict=True)) == pairs
    assert len(pairs) >= 40


EMPTY = {
    "constant": np.full((64, 64), 7, np.uint8),
    "black": np.zeros((300, 200), np.uint16),
    "one pixel": np.full((1, 1), 9, np.uint8),
    "a line": np.arange(256, dtype=np.uint8)[None],
    "nothing": np.zeros((0, 5), np.uint8),
    "black with a marker": cv2.putText(np.zeros((256, 256), np.uint8), "L", (20, 60), 0, 1, (255,), 2),
    "faint noise": np.random.default_rng(0).integers(0, 2, (256, 256), np.uint8),
}


@pytest.mark.parametrize("name", EMPTY)
def test_no_content_matches_nothing(name: str) -> None:
    print_ = fp.fingerprint(EMPTY[name])
    assert not print_.any()
    twice = np.stack([print_, print_, PRINTS[0]])
    assert len(duplicates.duplicates_within(twice, max_distance=127)) == 0
    assert len(duplicates.duplicates_between(twice, ~np.zeros_like(twice))) == 0


def test_empty_collections_have_no_pairs() -> None:
    none = np.empty((0, fp.VARIANTS, 4), np.uint64)
    assert (
        len(duplicates.duplicates_within(none))
        == len(duplicates.duplicates_between(none, PRINTS))
        == len(duplicates.duplicates_between(PRINTS, none))
        == 0
    )


def test_prints_are_the_same_on_every_machine() -> None:
    rows, columns = np.indices((70, 90))
    pixels = ((rows * rows * 7 + columns * columns * 3 + rows * columns * 11) // 97 % 251).astype(np.uint8)
    expected = [
        "00b4d45a2639ed697406d679b059e218cf6265fc89ec61a3e9890243be7a114b",
        "00b4d45a2639ed697406d679b059e218cf6265fc89ec61a3e9890243be7a114b",
        "00b4d65a2639ef793407f37918ceef424322c7dc896c6933a68f1623be33971a",
        "00b4d652262de73c369db13918ceaf42024acf94093eed33a607d63cd2619a5b",
    ]
    assert [variant.astype("<u8").tobytes().hex() for variant in fp.fingerprint(pixels)][:4] == expected


def test_frames_are_cut_off_to_the_row_also_one_inside_another() -> None:
    inner = IMAGES[0]
    for rings in (((0, 7, 12, 5, 9),), ((0, 3, 4, 5, 6), (255, 9, 2, 30, 11))):
        framed, expected = inner, [0, 192, 0, 192]
        for gray, *sides in rings:
            framed = cv2.copyMakeBorder(framed, *sides, cv2.BORDER_CONSTANT, value=[gray])
            expected = [expected[0] + sides[0], expected[1] + sides[0], expected[2] + sides[2], expected[3] + sides[2]]
        assert list(fp._content(framed, float(framed.var()))) == expected
    framed = inner
    for gray, *sides in ((0, 3, 4, 5, 6), (255, 9, 2, 8, 11), (0, 4, 4, 4, 4), (255, 4, 4, 4, 4)):
        framed = cv2.copyMakeBorder(framed, *sides, cv2.BORDER_CONSTANT, value=[gray])
    top, bottom, left, right = fp._content(framed, float(framed.var()))
    left_over = cv2.copyMakeBorder(inner, 3, 4, 0, 0, cv2.BORDER_CONSTANT, value=[0])  # of a fourth frame
    assert np.array_equal(framed[top:bottom, left:right], left_over)


def test_what_is_less_than_a_third_is_no_frames_content() -> None:
    inner = np.random.default_rng(0).integers(0, 256, (30, 30), np.uint8)
    for sides, seen in (
        ((30, 30, 5, 5), True),
        ((31, 30, 5, 5), False),
        ((5, 5, 30, 30), True),
        ((5, 5, 30, 31), False),
    ):
        framed = cv2.copyMakeBorder(inner, *sides, cv2.BORDER_CONSTANT, value=[128])
        whole = (0, framed.shape[0], 0, framed.shape[1])
        assert (fp._content(framed, float(framed.var())) != whole) == seen
    for side in (7, 8):  # nor what is smaller than anything that has a fingerprint
        framed = cv2.copyMakeBorder(inner[:side], 4, 4, 0, 0, cv2.BORDER_CONSTANT, value=[128])
        assert (fp._content(framed, float(framed.var())) == (0, side + 8, 0, 30)) == (side == 7)
        framed = np.ascontiguousarray(framed.T)
        assert (fp._content(framed, float(framed.var())) == (0, 30, 0, side + 8)) == (side == 7)


def test_a_view_and_its_copy_have_the_same_print() -> None:
    turned = IMAGES[0].T[::-1]
    assert (fp.fingerprint(turned) == fp.fingerprint(turned.copy())).all()


def test_small_images_need_to_be_more_alike() -> None:
    """Where little fine structure is left, another exposure of a patient resembles a copy."""
    distances, large, small = np.array([0, 24, 44, 60]), np.full(4, 256), np.full(4, 64)
    np.testing.assert_allclose(duplicates._needed(distances, large), [0.45, 0.45, 0.82, 0.82])
    np.testing.assert_allclose(duplicates._needed(distances, small), [0.45, 0.45, 0.9, 0.9])


@pytest.mark.parametrize("turn", range(8))
def test_bits_of_a_turned_image_follow_from_those_of_the_image(turn: int) -> None:
    transposed, upside, mirrored = fp.TURNS[turn]
    moved = IMAGES[0].T if transposed else IMAGES[0]
    moved = np.ascontiguousarray(moved[:: -1 if upside else 1, :: -1 if mirrored else 1])
    apart = np.bitwise_count(fp.turned_prints(PRINTS[0], turn) ^ fp.fingerprint(moved)).sum(axis=1)
    assert (apart[:2] <= 2 * transposed).all()  # of 256, two have no counterpart among those that are kept
    assert (apart <= 4 + 2 * transposed).all()  # edges of crops are rounded downwards from either side


def test_how_a_copy_lies_is_told_and_inverted_within_one_collection() -> None:
    copies = np.stack([fp.fingerprint(np.rot90(IMAGES[0])), PRINTS[1], PRINTS[0]])
    found = duplicates.duplicates_within(copies)
    assert (found.first.tolist(), found.second.tolist()) == ([0], [2])
    back = fp.turned_prints(copies[0], int(found.turn[0]))
    assert np.bitwise_count(back ^ copies[2]).sum(axis=1).max() <= 2


def exhaustive(a: np.ndarray, b: np.ndarray, cut: int) -> set[tuple[int, int, int]]:
    """What `matches` promises, by plain counting."""
    pairs = {}
    crops = range(2, fp.VARIANTS)
    for turn in range(8):
        cropped = [(1, crop) for crop in crops] + [(crop, 1) for crop in crops] if turn < 2 else []
        for i, j in [(0, 0), (1, 1), *cropped]:
            apart = np.bitwise_count(fp.turned_prints(a, turn)[:, None, i] ^ b[None, :, j]).sum(axis=2, dtype=np.int64)
            apart = np.minimum(apart, fp.BITS - apart)
            for first, second in np.argwhere(apart <= cut):
                key = int(first), int(second)
                pairs[key] = min(pairs.get(key, 256), int(apart[first, second]))
    return {(*key, distance) for key, distance in pairs.items()}


def random_prints(count: int, seed: int, likeness: float = 0.0) -> np.ndarray:
    """Random bits; with likeness, each a noisy copy of one of eight."""
    rng = np.random.default_rng(seed)
    bits = rng.random((count, fp.VARIANTS, fp.BITS)) < 0.5
    if likeness:
        centres = np.random.default_rng(7).random((8, fp.VARIANTS, fp.BITS)) < 0.5
        bits = np.where(rng.random(bits.shape) < likeness, centres[rng.integers(8, size=count)], bits)
    return np.packbits(bits, axis=2, bitorder="little").view("<u8").astype(np.uint64)


def triples(found: duplicates.DuplicatePairs) -> set[tuple[int, int, int]]:
    return set(zip(found.first.tolist(), found.second.tolist(), found.distance.tolist(), strict=True))


@pytest.mark.parametrize("flipped", [24, fp.BITS - 24])
def test_a_pair_just_at_the_cut_is_found(flipped: int) -> None:
    """Also a negative, all of whose other bits differ."""
    one = random_prints(1, 5)
    bits = np.unpackbits(one.view(np.uint8).reshape(1, fp.VARIANTS, -1), axis=2, bitorder="little")
    bits[:, :, :flipped] ^= 1
    other = np.packbits(bits, axis=2, bitorder="little").view("<u8").astype(np.uint64)
    assert duplicates.duplicates_between(one, other, max_distance=24).distance.tolist() == [24]
    assert len(duplicates.duplicates_between(one, other, max_distance=23)) == 0


def test_neighbourhoods_hold_each_target_once_by_its_nearest_pivot() -> None:
    queries, targets = random_prints(20, 6)[:, 0], random_prints(5000, 8, 0.5)[:, 0]
    cells = hamming._neighbourhoods(queries, targets)
    assert sorted(np.concatenate([cell.rows for cell in cells]).tolist()) == list(range(5000))
    pivots = np.stack([cell.pivot for cell in cells])
    assert len(cells) == len(targets) // 64, "a pivot that is another's twin would hold nothing"
    apart = np.bitwise_count(targets[:, None] ^ pivots[None]).sum(axis=2, dtype=np.int64)
    apart = np.minimum(apart, fp.BITS - apart)
    for place, cell in enumerate(cells):
        assert (apart[cell.rows, place] == apart[cell.rows].min(axis=1)).all()
    far = np.bitwise_count(queries[:, None] ^ pivots[None]).sum(axis=2, dtype=np.int64)
    far, sizes = np.minimum(far, fp.BITS - far), np.array([len(cell.rows) for cell in cells])
    for row, limit in enumerate(cells[0].limits.astype(int)):  # as near as needed for a sixteenth, and no farther
        assert sizes[far[row] <= limit].sum() >= 5000 / 16 > sizes[far[row] < limit].sum()


def test_the_cut_grows_stricter_with_the_mean_size_of_two_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = duplicates.duplicates_within(PRINTS[:0])
    cuts: list[int] = []
    monkeypatch.setattr(duplicates, "_candidates", lambda a, b, cut: cuts.append(cut) or nothing)
    many = np.broadcast_to(np.uint64(0), (10**7, fp.VARIANTS, 4))
    reader = {"images_a": IMAGES.__getitem__, "images_b": IMAGES.__getitem__}
    for a, b in ((many, many), (many[:10], many), (many, many[: 10**5])):
        duplicates.duplicates_between(a, b, **reader)
    assert cuts == [duplicates.LOOSE - 20, duplicates.LOOSE, duplicates.LOOSE - 10]
    duplicates.duplicates_between(PRINTS, PRINTS, images_a=IMAGES.__getitem__)
    assert cuts.pop() == duplicates.STRICT, "where only one side can be looked at, the bits decide alone"


@pytest.mark.parametrize("cut", [20, 90])
def test_search_finds_what_counting_finds(cut: int) -> None:
    a, b = random_prints(300, 1, 0.6), random_prints(4500, 2, 0.6)
    b[:50] = a[:50]
    assert triples(duplicates.duplicates_between(a, b, max_distance=cut)) == exhaustive(a, b, cut)
    within = {(i, j, d) for i, j, d in exhaustive(a, a, cut) if i < j}
    assert triples(duplicates.duplicates_within(a, max_distance=cut)) == within


def test_search_by_neighbourhoods_finds_close_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    originals = random_prints(20_000, 4, 0.3)
    flips = np.packbits(rng.random((500, fp.VARIANTS, fp.BITS)) < 0.08, axis=2, bitorder="little").view("<u8")
    copies = originals[:500] ^ flips.astype(np.uint64)
    every = triples(duplicates.duplicates_between(copies, originals, max_distance=40))
    monkeypatch.setattr(hamming, "_EXACT", 0)
    some = triples(duplicates.duplicates_between(copies, originals, max_distance=40))
    assert some <= every, "a pair or a distance that counting does not find"
    assert len(every) >= 480
    assert len(some) >= 0.97 * len(every)


@pytest.mark.parametrize("cut", [-1, 128])
def test_an_impossible_cut_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match=r"\b0\b.*\b127 bits"):
        duplicates.duplicates_within(PRINTS, max_distance=cut)


def test_wrong_inputs_are_named() -> None:
    with pytest.raises(ValueError, match=r"uint8 or uint16"):
        fp.fingerprint(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"uint8 or uint16"):
        fp.fingerprint(np.zeros((40, 40), np.float32))
    with pytest.raises(ValueError, match=r"7, 4\).*\(3, 4\)"):
        duplicates.duplicates_within(np.zeros((3, 4), np.uint64))


def test_pixel_hash_tells_shape_and_type_apart() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    same = np.asfortranarray(pixels)
    others = [pixels.reshape(4, 16), pixels.astype(np.uint16), pixels.view(np.uint16), pixels.T, pixels ^ 1]
    assert fp.pixel_hash(same) == fp.pixel_hash(pixels)
    assert fp.pixel_hash(pixels.astype(">u2")) == fp.pixel_hash(pixels.astype("<u2"))
    assert len({fp.pixel_hash(pixels), *map(fp.pixel_hash, others)}) == 6
    assert 0 <= fp.pixel_hash(pixels) < 2**64


def test_patients_are_hashed_per_dataset() -> None:
    assert fp.patient_fingerprint("nih", "00000013") == fp.patient_fingerprint("NIH ", "13")
    assert fp.patient_fingerprint("nih", "p１３") == fp.patient_fingerprint("nih", "P13")
    assert (
        len({fp.patient_fingerprint(*who) for who in (("nih", "13"), ("nih", "0"), ("rsna", "13"), ("nih1", "3"))}) == 4
    )
    assert 0 <= fp.patient_fingerprint("nih", "患者 13") < 2**64


def test_importing_does_not_load_numba() -> None:
    code = "import sys, ribcage.imaging.duplicates; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@real
def test_pneumoniamnist_holds_its_known_copies() -> None:
    data = np.load(Path(str(REAL)) / "pneumoniamnist.npz")
    train, val = data["train_images"], data["val_images"]
    hashes = [fp.pixel_hash(pixels) for pixels in train]
    assert len(hashes) - len(set(hashes)) == 18
    assert len({fp.pixel_hash(pixels) for pixels in val} & set(hashes)) == 8
    prints, others = (np.stack([fp.fingerprint(pixels) for pixels in part]) for part in (train, val))
    within = duplicates.duplicates_within(prints, images=train.__getitem__)
    assert all(hashes[i] == hashes[j] for i, j in zip(within.first, within.second, strict=True))
    assert len(within) == 18
    across = duplicates.duplicates_between(prints, others, images_a=train.__getitem__, images_b=val.__getitem__)
    assert all(hashes[i] == fp.pixel_hash(val[j]) for i, j in zip(across.first, across.second, strict=True))
    assert len({hashes[i] for i in across.first}) == 8


@real
def test_dicom_twins_are_found_and_nothing_else() -> None:
    from pydicom import dcmread

    names = ("1.2.276*", "Fake_MONOHR1*", "RG1*", "RG2_JLSN*", "RG3_J2KI*", "RG3_J2KR*", "gdcm-CR*", "panimg*", "vlut*")
    files = [dcmread(next((Path(str(REAL)) / "dicom").glob(name))) for name in names]
    shown = [
        p.max() - p if file.PhotometricInterpretation == "MONOCHROME1" else p
        for file in files
        for p in [file.pixel_array]
    ]
    found = duplicates.duplicates_within(np.stack([fp.fingerprint(p) for p in shown]), images=shown.__getitem__)
    assert list(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(0, 1), (4, 5), (6, 7)]


@real
def test_originals_are_found_among_small_jpegs() -> None:
    folder = Path(str(REAL)) / "nih"
    files = [sorted((folder / name).iterdir()) for name in ("images_1024", "images_256")]
    large, small = ([np.asarray(cv2.imread(str(file), 0)) for file in part] for part in files)
    prints, others = (np.stack([fp.fingerprint(p) for p in part]) for part in (large, small))
    for found in (
        duplicates.duplicates_between(prints, others),
        duplicates.duplicates_between(prints, others, images_a=large.__getitem__, images_b=small.__getitem__),
    ):
        assert found.first.tolist() == list(range(len(large)))
        assert [files[1][row].stem for row in found.second] == [file.stem for file in files[0]]


@real
def test_real_patients_are_told_apart_and_a_true_duplicate_is_found() -> None:
    files = sorted((Path(str(REAL)) / "nih" / "images_256").glob("*.jpg"))
    images = [np.asarray(cv2.imread(str(file), 0)) for file in files]
    prints = np.stack([fp.fingerprint(p) for p in images])
    found = duplicates.duplicates_within(prints, images=images.__getitem__)
    names = [(files[i].stem, files[j].stem) for i, j in zip(found.first, found.second, strict=True)]
    assert names == [("00002658_001", "00002658_002")]
    crops = [p[5:-10, 3:-8] for p in images[:200]]
    seen = np.stack([fp.fingerprint(p) for p in crops])
    again = duplicates.duplicates_between(seen, prints, images_a=crops.__getitem__, images_b=images.__getitem__)
    assert (files_patient(files, again.first) == files_patient(files, again.second)).all()
    assert len(set(again.first.tolist())) >= 190


def files_patient(files: list[Path], rows: np.ndarray) -> np.ndarray:
    return np.array([files[row].name[:8] for row in rows])


def test_uniform_rows_are_content() -> None:
    ramp = np.repeat(np.arange(64, dtype=np.uint8)[:, None] * 4, 64, axis=1)
    assert fp.rank_images(ramp).any() and fp.rank_images(ramp.T).any()
