"""Reading DICOM files: Ribcage beside dicomsdl, which only decodes the stored values.

    pip install dicomsdl
    python benchmarks/dicom.py FOLDER

For each file the CPU time of reading (header, pixels, grey range), that of decoding its JPEG stream alone, if it is a
12-bit or lossless one, and that of dicomsdl: medians of rounds in which they alternate."""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pydicom
from pydicom.encaps import generate_frames

from ribcage.imaging import image_file, jpeg_scan, medical_jpeg


def frame(file: Path) -> bytes | None:
    """The stream of a 12-bit or lossless JPEG in a DICOM file."""
    dataset = pydicom.dcmread(file)
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        return None
    data, _ = jpeg_scan.repaired(next(generate_frames(dataset.PixelData, number_of_frames=1)))
    if not medical_jpeg.is_medical_jpeg(data):
        return None
    scan = jpeg_scan.read_scan(data)
    return data if scan.kind == jpeg_scan.LOSSLESS or scan.bits > 8 else None


def contestants(file: Path, dicomsdl: Any) -> dict[str, Callable[[], object]]:
    """What is timed."""
    runs: dict[str, Callable[[], object]] = {
        "dicomsdl": lambda: dicomsdl.open(str(file)).pixelData(storedvalue=True),
        "ribcage": lambda: image_file.read_image(file),
    }
    if (data := frame(file)) is not None:
        runs["stream"] = lambda: medical_jpeg.decode_medical_jpeg(data)
    return runs


def medians(runs: dict[str, Callable[[], object]], rounds: int = 7) -> dict[str, float]:
    """Median CPU time of each in milliseconds; the first round is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if number:
                taken[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    import dicomsdl

    cv2.setNumThreads(1)
    print("| file | dicomsdl, ms | ribcage, ms | of which JPEG stream, ms | ratio |\n|---|---:|---:|---:|---:|")
    for file in sorted(parser.parse_args().folder.rglob("*.dcm")):
        try:
            times = medians(contestants(file, dicomsdl))
        except Exception as error:  # either reader may refuse a file
            print(f"| {file.name} | not compared: {type(error).__name__} | | | |")
            continue
        stream = f"{times['stream']:.1f}" if "stream" in times else ""
        ratio = times["dicomsdl"] / times["ribcage"]
        print(
            f"| {file.name} | {times['dicomsdl']:.1f} | {times['ribcage']:.1f} | {stream} | {ratio:.2f}× |", flush=True
        )


if __name__ == "__main__":
    main()
