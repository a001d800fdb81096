"""Memory and start-up time of a process that uses the masks and radiology reports of a large dataset folder.

    python benchmarks/mask_memory.py [--counts 100000 1000000] [--folder /tmp/mask_memory]

For each count, a synthetic dataset folder with so many images of 8 × 8 pixels is made. Each image has one mask of 1.9
kB (two run lengths for each of 470 lines, as for a lung) and one report of about 1 kB. One process after the other then
opens the folder, makes a batch of 64 images with their masks, and reads the reports on these images: with the tables in
memory, with an empty cache, and with the memory-mapped tables that the second process wrote. `own` is the anonymous
memory that was added after the imports; pages of memory-mapped files are shared with other processes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LINES, COLUMNS, WORDS, SIDE, BLOCK = 470, 1024, 150, 8, 1 << 14


def make_folder(folder: Path, count: int) -> None:
    """A dataset folder, as an import would write it; the tables are written block by block."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    from ribcage.data import dataset_facts, dataset_folder
    from ribcage.data.index import Index, index_table
    from ribcage.data.masks import DrawnMask, mask_frame
    from ribcage.data.radiology_reports import COLUMNS as REPORT
    from ribcage.imaging.mask import Mask

    folder.mkdir(parents=True, exist_ok=True)
    rows = pd.DataFrame({"path": [f"{row}.png" for row in range(count)], "split": "train"})
    dataset_folder.save_index(Index("synthetic", index_table(rows)), folder / "index.parquet")
    np.save(folder / "images.npy", np.zeros((count, SIDE, SIDE), np.uint8))
    chance, words = np.random.default_rng(0), np.array([f"word{number}" for number in range(5000)])
    masks = reports = None
    for start in range(0, count, BLOCK):
        own = range(start, min(start + BLOCK, count))
        inside = chance.integers(200, 400, (len(own), LINES, 1))
        runs = np.concatenate([COLUMNS - inside, inside], axis=2).astype("<u2")
        drawn = mask_frame(
            DrawnMask(row, "Left_Lung", Mask(2048, 2048, 0, 0, COLUMNS, LINES, one.tobytes()))
            for row, one in zip(own, runs, strict=True)
        ).assign(width=SIDE / 2.0, height=SIDE / 4.0)
        table = pa.Table.from_pandas(drawn, preserve_index=False)
        text = [" ".join(one) for one in words[chance.integers(0, len(words), (len(own), WORDS))].tolist()]
        texts = pa.table(
            {name: [[row] for row in own] if name == "rows" else text if name == "findings" else [""] * len(own)
             for name in REPORT}
        )  # fmt: skip
        masks = masks or pq.ParquetWriter(folder / "masks.parquet", table.schema.remove_metadata(), compression="zstd")
        reports = reports or pq.ParquetWriter(folder / "reports.parquet", texts.schema, compression="zstd")
        masks.write_table(table)
        reports.write_table(texts)
    for writer in (masks, reports):
        if writer is not None:
            writer.close()
    facts = dataset_facts.Facts(
        "synthetic", "folder", "", "", count, 0, SIDE, "pad", 8, 0.5, 0.25, (), "", contents=str(count)
    )
    dataset_folder.write_facts(folder, facts)


def own_memory() -> float:
    """MB of anonymous memory of this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3


def measure(folder: Path, label: str) -> None:
    """Print the line of a process."""
    from ribcage.data import dataset_folder, mapped_index
    from ribcage.data.loader import Loader
    from ribcage.imaging.augment import plain_view

    if label == "in memory":
        mapped_index.LARGE_TABLE = 1 << 40
    before, began, processor = own_memory(), time.perf_counter(), time.process_time()
    opened = dataset_folder.open(folder)
    loader = Loader([opened], [plain_view(32)], batch=64, structures=["Left_Lung"], threads=1)
    batches = loader.epoch(0)
    batch = next(batches)
    assert all(opened.report_of(row) for row in batch.rows.tolist()) and (batch.masks[0] == 1).any()
    seconds = f"{time.perf_counter() - began:.1f} s | {time.process_time() - processor:.1f} s"
    print(f"| {len(opened):,} | {label} | {own_memory() - before:,.0f} MB | {seconds} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "mask_memory")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        measure(Path(given.child[0]), given.child[1])
        return
    print("| images | tables | own | time | processor |\n|---|---|---|---|---|", flush=True)
    for count in given.counts:
        folder = given.folder / str(count)
        if not (folder / "dataset.json").exists():
            make_folder(folder, count)
        with tempfile.TemporaryDirectory() as cache:
            for label in ("in memory", "written to the cache", "memory-mapped"):
                words = [sys.executable, __file__, "--child", str(folder), label]
                subprocess.run(words, check=True, env={**os.environ, "RIBCAGE_INDEX_CACHE": cache})


if __name__ == "__main__":
    main()
