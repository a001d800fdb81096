"""How much of the gray range real DICOM files use: the central 80 % of the pixels, without and with a robust range.

    python benchmarks/gray_range.py FOLDER

For every readable file below FOLDER, the table shows the 10th and 90th percentiles of the pixels on a scale of 0 to
255, once scaled from the minimum to the maximum (the former method for files without a usable window) and once with the
current method. The messages of the DICOM reader follow below the table.
"""

import sys
from pathlib import Path
from unittest import mock

import numpy as np

from ribcage.imaging import image_file
from ribcage.imaging.dicom import value_of_interest


def central(pixels: np.ndarray) -> str:
    """The 10th and the 90th percentile out of 255, and the fraction of the range between them."""
    low, high = np.percentile(pixels, (10, 90)) / 257
    return f"{low:3.0f}-{high:3.0f} ({(high - low) / 255:.2f})"


def from_least_to_greatest(values: np.ndarray, counts: np.ndarray) -> tuple[float, float, str]:
    """The range from the minimum to the maximum."""
    seen = values[counts > 0]
    return float(seen.min()), float(seen.max()), "minimum to maximum"


def main(folder: Path) -> None:
    """One row for each file, and below the table its messages."""
    messages = []
    print("| file | minimum to maximum | current method |\n|---|---|---|")
    for file in sorted(folder.rglob("*.dcm")):
        try:
            now = image_file.read_image(file, depth=16)
            with mock.patch.object(value_of_interest, "robust_range", from_least_to_greatest):
                before = image_file.read_image(file, depth=16)
        except image_file.UnreadableError as error:
            print(f"| {file.name[:44]} | – | – |")
            messages.append(f"{file.name[:44]}\n  {str(error).removeprefix(str(file)).strip()[:60]} …")
            continue
        print(f"| {file.name[:44]} | {central(before.pixels)} | {central(now.pixels)} |")
        if now.notes:
            messages.append("\n  ".join([file.name[:44], *now.note_texts]))
    print("", *messages, sep="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
