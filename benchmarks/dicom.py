"""Reading DICOM files: Ribcage beside dicomsdl, which only decodes the stored values.

    pip install dicomsdl
    python benchmarks/dicom.py FOLDER

For each file the table shows the CPU times of dicomsdl and of the three stages of reading in Ribcage, which follow each
other: the file and its header, the stored values (as dicomsdl returns them, and checked against the header), and the
grey image of 8 bits. `decoder` is the decoder of the compressed stream alone. Ratios above 1 mean that Ribcage takes
less time than dicomsdl, first for the stored values (the first two stages), then for the grey image (all stages). The
times are medians of rounds in which the readers alternate; those of the second and third stage are differences of
medians. The last file is a synthetic, uncompressed image of the size of a radiograph."""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom

from ribcage.imaging import dicom, image_file
from ribcage.imaging.dicom import samples, transfer_syntaxes
from ribcage.imaging.dicom.decoders import decode_stream
from ribcage.imaging.dicom.stored_pixels import read_stored
from ribcage.imaging.dicom.streams import read_stream
from ribcage.imaging.gray_image import Limits

ROUNDS = 21
LIMITS = Limits()


def read_header(file: Path) -> Any:
    """The header and the layout of the pixels."""
    return dicom.read_header(image_file.file_content(file, LIMITS), file.name, LIMITS)


def read_stored_values(file: Path) -> object:
    """The values that dicomsdl returns."""
    dataset, layout, _ = read_header(file)
    if layout.samples > 1:
        raise ValueError("a colour image")
    return read_stored(dataset, layout, file.name, min_side=None, limits=LIMITS)


def contestants(file: Path, dicomsdl: Any) -> dict[str, Callable[[], object]]:
    """What is timed."""
    runs: dict[str, Callable[[], object]] = {
        "dicomsdl": lambda: dicomsdl.open(str(file)).pixelData(storedvalue=True),
        "header": lambda: read_header(file),
        "stored": lambda: read_stored_values(file),
        "grey": lambda: image_file.read_image(file),
    }
    dataset, layout, _ = read_header(file)
    if layout.syntax not in transfer_syntaxes.UNCOMPRESSED:
        frame, stream, _ = read_stream(dataset, layout, file.name)
        runs["decoder"] = lambda: decode_stream(frame, stream, layout, file.name, None, LIMITS)
    return runs


def synthetic_file(folder: Path) -> Path:
    """An uncompressed image of 3000 x 2500 pixels of 12 bits with noise."""
    y, x = np.mgrid[:3000, :2500]
    smooth = 1500 + 900 * np.sin(x / 300) + 700 * np.cos(y / 400)
    pixels = (smooth + np.random.default_rng(0).normal(0, 25, smooth.shape)).clip(0, 4095).astype("<u2")
    dataset = pydicom.dcmread(io.BytesIO(samples.sample_file(transfer_syntaxes.EXPLICIT, np.zeros((8, 8), np.uint8))))
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.WindowCenter, dataset.WindowWidth = 2000, 4000
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    file = folder / "synthetic.dcm"
    dataset.save_as(file)
    return file


def medians(runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median CPU time of each in milliseconds; the first round is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(ROUNDS + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if number:
                taken[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(times) for name, times in taken.items()}


def row(name: str, times: dict[str, float]) -> str:
    """The row of a file: times of dicomsdl and of the stages, and ratios."""
    stages = [times["header"], times["stored"] - times["header"], times["grey"] - times["stored"]]
    cells = [f"{each:.2f}" for each in (times["dicomsdl"], *stages)]
    cells.insert(3, f"{times['decoder']:.2f}" if "decoder" in times else "")
    ratios = [f"{times['dicomsdl'] / times[stage]:.2f}×" for stage in ("stored", "grey")]
    return f"| {' | '.join([name, *cells, *ratios])} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    import dicomsdl

    cv2.setNumThreads(1)
    print("| file | dicomsdl, ms | header, ms | stored values, ms | of which decoder, ms | grey image, ms", end="")
    print(" | ratio, stored values | ratio, grey image |\n|---|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for file in [*sorted(parser.parse_args().folder.glob("*.dcm")), synthetic_file(Path(folder))]:
            try:
                times = medians(contestants(file, dicomsdl))
            except Exception as error:  # either reader may refuse a file
                print(f"| {file.name} | not compared: {type(error).__name__} | | | | | | |")
                continue
            print(row(file.name, times), flush=True)


if __name__ == "__main__":
    main()
