"""Training batches from storage: dataset folders beside WebDataset, LitData and MosaicML Streaming, on the same images.

    python benchmarks/storage.py [--images 4096] [--peers FOLDER --mosaic FOLDER [--install]]

All read the same 8-bit images of 256 × 256 px, stored without compression in files of about the same size, from the
local disk and from an S3 server on this machine (moto), and make the same batches: the augmentation of Ribcage, applied
to whole batches. Each measurement is a process of its own with an empty local cache; the measurements take turns, and
medians are printed. `first batch` counts from the opening of the data, without imports. `bytes` are those that the
server sent during the first epoch, relative to the stored images. The second epoch reads what is then stored locally.

--peers and --mosaic are virtual environments with the other libraries; --install makes them with uv. Streaming has one
of its own, because it requires NumPy below 2.2 and transformers below 5.
"""

import argparse
import collections
import dataclasses
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SIDE, VIEW, BATCH, EACH, MIXED, WORKERS = 256, 224, 64, 128, 1024, 2
"""Pixels, pixels, images per batch, images per file, images among which images are shuffled, threads or processes."""
BUCKET = "xray"
ENVIRONMENTS = {
    "peers": (["webdataset", "litdata", "braceexpand", "lightning-utilities", "tifffile", "obstore", "filelock"], []),
    "mosaic": (
        [
            "mosaicml-streaming",
            "zstd",
            "zstandard",
            "xxhash",
            "brotli",
            "python-snappy",
            "catalogue",
            "cramjam",
            "tqdm",
            "regex",
        ],
        ["numpy<2.2", "transformers<5", "huggingface-hub<1", "tokenizers>=0.22,<0.23.1", "boto3", "botocore"],
    ),
}
"""Packages of each environment, beside those of this one, which is below it; and those in other versions."""
CONTESTANTS = {
    "ribcage, one file": "own", "ribcage, shards, --shuffle rows": "own", "ribcage, shards, --shuffle blocks": "own",
    "WebDataset": "peers", "LitData": "peers", "MosaicML Streaming": "mosaic",
}  # fmt: skip
"""Name → the environment in which it runs."""

OWN = ("ribcage.data.loader", "ribcage.data.dataset_folder", "s3fs")
MODULES = {
    "WebDataset": ("webdataset",),
    "LitData": ("litdata", "obstore", "boto3"),
    "MosaicML Streaming": ("streaming", "torch.utils.data", "boto3"),
}
"""What each imports before the clock starts, with the libraries that it imports when it is used."""


# ---- the images, in the layout of each library


def images(count: int) -> Iterator[np.ndarray]:
    """Noise that is smooth like a radiograph."""
    chance = np.random.default_rng(0)
    for _ in range(count):
        yield cv2.resize(chance.integers(0, 256, (24, 24), np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def write_ribcage(root: Path, count: int) -> None:
    """Two dataset folders: in one file and in shards."""
    import pandas as pd

    from ribcage.data import dataset_facts, dataset_folder
    from ribcage.data import index as indexes
    from ribcage.data.fingerprint_table import Fingerprints
    from ribcage.data.importer.pixel_files import PixelFiles
    from ribcage.imaging import fingerprint

    rows = pd.DataFrame({"path": [f"{row}.png" for row in range(count)], "split": "train"})
    index = indexes.Index("bench", indexes.index_table(rows))
    prints = np.zeros((count, fingerprint.VARIANTS, 4), np.uint64)
    for name, each in (("one", 0), ("shards", EACH)):
        folder = root / name
        folder.mkdir(parents=True)
        facts = dataset_facts.Facts(
            "bench", "folder", "", "", count, 0, SIDE, "pad", 8, 0.5, 0.2, (), "", images_per_shard=each
        )
        pixels, hashes = PixelFiles(folder, facts), []
        for image in images(count):
            pixels.append(image[None])
            hashes.append(fingerprint.pixel_hash(image))
        shards = pixels.finish()
        dataset_folder.save_index(index, folder / "index.parquet")
        Fingerprints(prints, np.array(hashes, np.uint64), np.zeros(count, np.uint64)).save(
            folder / "fingerprints.parquet"
        )
        dataset_folder.write_facts(folder, dataclasses.replace(facts, shards=shards))


def write_webdataset(root: Path, count: int) -> None:
    """Tar files of NumPy arrays."""
    import webdataset

    root.mkdir(parents=True)
    with webdataset.ShardWriter(str(root / "%05d.tar"), maxcount=EACH, verbose=0) as sink:
        for row, image in enumerate(images(count)):
            sink.write({"__key__": f"{row:07d}", "raw": image.tobytes()})


def write_litdata(root: Path, count: int) -> None:
    """Chunks of bytes."""
    from litdata.streaming.writer import BinaryWriter

    root.mkdir(parents=True)
    writer = BinaryWriter(str(root), chunk_size=EACH)
    for row, image in enumerate(images(count)):
        writer[row] = image.tobytes()
    writer.done()
    writer.merge()


def write_mosaic(root: Path, count: int) -> None:
    """MDS files of bytes."""
    from streaming import MDSWriter

    with MDSWriter(out=str(root), columns={"image": "bytes"}, size_limit=EACH * (SIDE * SIDE + 64)) as out:
        for image in images(count):
            out.write({"image": image.tobytes()})


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "ribcage": write_ribcage, "webdataset": write_webdataset, "litdata": write_litdata, "mosaic": write_mosaic,
}  # fmt: skip


# ---- batches: each opens its data and returns a function that yields the batches of an epoch

Epochs = Callable[[int], Iterable[Any]]


def augmented(pixels: list[Any]) -> Any:
    """(n, 1, VIEW, VIEW) float32: the augmentation of Ribcage, of images as arrays or bytes."""
    import torch

    from ribcage.imaging import augment

    stored = [np.frombuffer(one, np.uint8).reshape(SIDE, SIDE) for one in pixels]
    out = np.empty((len(stored), 1, VIEW, VIEW), np.float32)
    address = np.random.randint(0, 1 << 31, len(stored))
    numbers = augment.draw_numbers(augment.gentle_view(VIEW), 0, 0, address, 0, SIDE)
    augment.apply_into([one[0] for one in out], stored, numbers, 0.5, 0.2)
    return torch.from_numpy(out)


def quiet(_: int) -> None:
    """One thread per worker process."""
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def ribcage_epochs(place: str, name: str, cache: Path) -> Epochs:
    """The loader of this package."""
    from ribcage.data import dataset_folder
    from ribcage.data.block_shuffle import BlockShuffle
    from ribcage.data.loader import Loader
    from ribcage.imaging import augment

    os.environ["RIBCAGE_CACHE"] = str(cache)
    opened = dataset_folder.open(f"{place}/ribcage/{'one' if 'one file' in name else 'shards'}")
    shuffle = BlockShuffle(EACH, 1) if "blocks" in name else True
    loader = Loader([opened], [augment.gentle_view(VIEW)], batch=BATCH, shuffle=shuffle, threads=WORKERS)
    return lambda epoch: (batch.views[0] for batch in loader.epoch(epoch))


def webdataset_epochs(place: str, name: str, cache: Path) -> Epochs:
    """WebDataset: tar files in random order, and a buffer in each worker."""
    import webdataset

    count = len(list((Path(os.environ["BENCH_LOCAL"]) / "webdataset").glob("*.tar")))
    base = place.replace("s3://", os.environ.get("AWS_ENDPOINT_URL", "") + "/") if place.startswith("s3") else place
    urls = [f"{base}/webdataset/{number:05d}.tar" for number in range(count)]
    kept = {"cache_dir": str(cache)} if place.startswith("s3") else {}
    data = webdataset.WebDataset(urls, shardshuffle=count, nodesplitter=None, empty_check=False, **kept)
    data = data.shuffle(MIXED // WORKERS).to_tuple("raw").map(lambda one: one[0])
    data = data.batched(BATCH, collation_fn=augmented)
    loader = webdataset.WebLoader(data, batch_size=None, num_workers=WORKERS, worker_init_fn=quiet)
    return lambda _: iter(loader)


def litdata_epochs(place: str, name: str, cache: Path) -> Epochs:
    """LitData: chunks in random order, images shuffled within each."""
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming import downloader

    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = "true"  # it has no option for servers without TLS
    options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]} if place.startswith("s3") else None
    data = StreamingDataset(f"{place}/litdata", cache_dir=str(cache), shuffle=True, storage_options=options)
    loader = StreamingDataLoader(
        data, batch_size=BATCH, num_workers=WORKERS, collate_fn=augmented, worker_init_fn=quiet
    )
    return lambda _: iter(loader)


def mosaic_epochs(place: str, name: str, cache: Path) -> Epochs:
    """MosaicML Streaming: its default shuffling, among MIXED images."""
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    where = (
        {"remote": f"{place}/mosaic", "local": str(cache)} if place.startswith("s3") else {"local": f"{place}/mosaic"}
    )
    data = StreamingDataset(**where, shuffle=True, batch_size=BATCH, shuffle_block_size=MIXED)
    loader = DataLoader(data, batch_size=BATCH, num_workers=WORKERS, collate_fn=image_bytes, worker_init_fn=quiet)
    return lambda _: iter(loader)


def image_bytes(samples: list[dict[str, bytes]]) -> Any:
    """A batch of MDS samples."""
    return augmented([one["image"] for one in samples])


def contestant(name: str) -> Callable[[str, str, Path], Epochs]:
    """The function that opens the data."""
    known = {"WebDataset": webdataset_epochs, "LitData": litdata_epochs, "MosaicML Streaming": mosaic_epochs}
    return known.get(name, ribcage_epochs)


def measured(name: str, place: str, cache: Path) -> dict[str, float]:
    """Seconds to the first batch, and images per second of two epochs."""
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    augmented([np.zeros((SIDE, SIDE), np.uint8)])
    for module in MODULES.get(name, OWN):
        importlib.import_module(module)
    found = {}
    sent, start = bytes_sent(), time.perf_counter()
    epochs = contestant(name)(place, name, cache)
    for epoch in range(2):
        count, begun = 0, time.perf_counter()
        for batch in epochs(epoch):
            if not count and not epoch:
                found["first"] = time.perf_counter() - start
            count += len(batch)
        found[f"epoch {epoch + 1}"] = count / (time.perf_counter() - (begun if epoch else start))
        if not epoch:
            found["bytes"] = (bytes_sent() - sent) / (count * SIDE * SIDE)
    return found


# ---- the server


def serve(port: int) -> None:
    """An S3 server that counts the bytes it sends."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    inner, sent = DomainDispatcherApplication(create_backend_app), [0]

    def counting(environ: dict[str, Any], begin: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/-/sent":
            begin("200 OK", [("Content-Type", "text/plain")])
            return [str(sent[0]).encode()]
        parts = list(inner(environ, begin))
        sent[0] += sum(map(len, parts))
        return parts

    run_simple("127.0.0.1", port, counting, threaded=True)


def bytes_sent() -> int:
    """What the server has sent so far; 0 without a server."""
    url = os.environ.get("AWS_ENDPOINT_URL", "")
    return int(urllib.request.urlopen(f"{url}/-/sent").read()) if url else 0


def started(port: int) -> "subprocess.Popen[bytes]":
    """The server in a process of its own, with an empty bucket that all may read."""
    process = subprocess.Popen([sys.executable, __file__, "--serve", str(port)], stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            request = urllib.request.Request(f"{os.environ['AWS_ENDPOINT_URL']}/{BUCKET}", method="PUT")
            urllib.request.urlopen(request)
            return process
        except OSError:
            time.sleep(0.1)
    raise SystemExit("The S3 server does not start.")


def upload(root: Path) -> None:
    """All layouts into the bucket."""
    import boto3

    client = boto3.client("s3")
    for file in sorted(file for file in root.rglob("*") if file.is_file()):
        client.upload_file(str(file), BUCKET, str(file.relative_to(root)), ExtraArgs={"ACL": "public-read"})


def ranges() -> None:
    """Print the time to read the images of a first batch one by one, and that to read their eight shards whole."""
    from concurrent.futures import ThreadPoolExecutor

    from ribcage.data.image_store import HEADER, shard_name
    from ribcage.runtime.remote import objects

    shards = [objects.describe(f"s3://{BUCKET}/ribcage/shards/{shard_name(number)}") for number in range(8)]
    each = SIDE * SIDE
    images = [(shard, HEADER + place * each, HEADER + (place + 1) * each) for place in range(8) for shard in shards]
    whole = [(shard, 0, shard.size) for shard in shards]
    with ThreadPoolExecutor(16) as pool:
        for name, requests in (("64 images", images), ("8 shards", whole)):
            seconds = []
            for _ in range(5):
                start = time.perf_counter()
                list(pool.map(lambda one: objects.read_range(*one), requests))
                seconds.append(time.perf_counter() - start)
            print(f"{name:40}{statistics.median(seconds):>10.2f} s (from {min(seconds):.2f} to {max(seconds):.2f} s)")


# ---- the table


def install(folder: Path, kind: str) -> None:
    """An environment with other libraries, above this one."""
    more, other = ENVIRONMENTS[kind]
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "base.pth").write_text(f"{Path(np.__file__).parents[1]}\n", encoding="utf-8")
    python = str(folder / "bin" / "python")
    subprocess.run([uv, "pip", "install", "-q", "--python", python, "--no-deps", *more, *other], check=True)


def elsewhere(python: str, *words: str) -> str:
    """The last line that this file prints in another environment."""
    done = subprocess.run([python, __file__, *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def compare(options: argparse.Namespace, root: Path) -> None:
    """Print the table."""
    pythons = {"own": sys.executable}
    for kind in ("peers", "mosaic"):
        folder = getattr(options, kind)
        if folder and options.install and not folder.exists():
            install(folder, kind)
        if folder and (folder / "bin" / "python").exists():
            pythons[kind] = str(folder / "bin" / "python")
    local = root / "data"
    os.environ["BENCH_LOCAL"] = str(local)
    writers = {"ribcage": "own", "webdataset": "peers", "litdata": "peers", "mosaic": "mosaic"}
    for name, kind in writers.items():
        if kind in pythons:
            elsewhere(pythons[kind], "--write", name, str(local / name), str(options.images))
    server = started(options.port)
    try:
        upload(local)
        if options.ranges:
            ranges()
            return
        for place in (str(local), f"s3://{BUCKET}"):
            print(f"\n{'S3' if place.startswith('s3') else 'local disk':40}{HEAD}")
            print(*table(options, root, place, pythons), sep="\n", flush=True)
    finally:
        server.terminate()
        server.wait()


def table(options: argparse.Namespace, root: Path, place: str, pythons: dict[str, str]) -> list[str]:
    """One line for each way of reading."""
    found: dict[str, list[dict[str, float]]] = collections.defaultdict(list)
    failed = {name: f"not measured: no --{kind}" for name, kind in CONTESTANTS.items() if kind not in pythons}
    for _ in range(options.rounds):
        for name, kind in CONTESTANTS.items():
            if name in failed:
                continue
            cache = root / "cache"
            shutil.rmtree(cache, ignore_errors=True)
            cache.mkdir()
            try:
                found[name].append(json.loads(elsewhere(pythons[kind], "--run", name, place, str(cache))))
            except RuntimeError as error:
                failed[name] = f"failed: {error}"
    lines = []
    for name in CONTESTANTS:
        if name in failed:
            lines.append(f"{name:40}{failed[name]}")
            continue
        first, one, two, sent = (statistics.median(each[key] for each in found[name]) for key in KEYS)
        lines.append(f"{name:40}{first:>10.2f} s{one:>10,.0f} im/s{two:>9,.0f} im/s{sent:>8.2f}")
    return lines


KEYS = ("first", "epoch 1", "epoch 2", "bytes")
HEAD = f"{'first batch':>12}{'epoch 1':>15}{'epoch 2':>14}{'bytes':>8}"


def main() -> None:
    """Print the tables, or do a part of the work in another environment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, help="environment with WebDataset and LitData")
    parser.add_argument("--mosaic", type=Path, help="environment with MosaicML Streaming")
    parser.add_argument("--install", action="store_true", help="make these environments with uv")
    parser.add_argument("--ranges", action="store_true", help="compare requests for images with requests for shards")
    parser.add_argument("--port", type=int, default=5123)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--write", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    elif options.write:
        WRITERS[options.write[0]](Path(options.write[1]), int(options.write[2]))
    elif options.run:
        print(json.dumps(measured(options.run[0], options.run[1], Path(options.run[2]))))
    else:
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{options.port}", "AWS_ACCESS_KEY_ID": "KEYOFTHEBENCHMARK",
            "AWS_SECRET_ACCESS_KEY": "SECRETOFTHEBENCHMARK", "AWS_DEFAULT_REGION": "us-east-1",
            "S3_ENDPOINT_URL": f"http://127.0.0.1:{options.port}", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
        with tempfile.TemporaryDirectory() as place:
            compare(options, Path(place))


if __name__ == "__main__":
    main()
