"""Hostile files: damaged and malicious files must be read or refused with one clear line, and do nothing else.

    python -m benchmarks.hostile --count 100000 --jobs 2

Images and folders of them, DICOM, weights, tables, bundles, exports, dataset folders, runs and uploads are generated
from valid ones. Each can be regenerated from its number: `--only KIND --first NUMBER --count 1`. They are read in
separate processes. These count as faults: a process that dies, an exception without a clear message, more than one
line, a warning or other output, anything executed or written elsewhere, and an input that takes more than 20 seconds.
"""

import argparse
import asyncio
import codecs
import collections
import contextlib
import copy
import csv
import functools
import io
import json
import logging
import multiprocessing
import os
import pickle
import shutil
import socket
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import torch
from safetensors.torch import save as safetensors_bytes

from benchmarks import fuzz_upload
from benchmarks.fuzz_upload import CHANGES, Draw
from ribcage import cli
from ribcage.bundle import attestation, deployment, formats, history, ood, opaque_conversion
from ribcage.bundle.io import load_bundle, save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.data import dataset_facts, dataset_folder, datasets
from ribcage.data.provenance import Provenance
from ribcage.evaluation import own_predictions
from ribcage.imaging import image_file
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.runtime import digest
from ribcage.training import checkpoint, runs
from ribcage.training.shards import Rows, shard_bytes, whole

SECONDS = 20.0
"""For one input; a sound one takes milliseconds."""
SHARES = {
    "image": 0.28, "dicom": 0.28, "weights": 0.13, "tables": 0.07, "bundle": 0.07, "dataset": 0.05, "run": 0.03,
    "upload": 0.03, "predictions": 0.02, "folder": 0.02, "export": 0.01, "network": 0.01,
}  # fmt: skip
"""Of the corpus."""
WORDS = (
    "", "\x00", "\x1b[31m", "=cmd|'/C calc'!A0", "../../../etc/passwd", "/etc/passwd", "A" * 100_000, "\u202egnp",
    "NaN", "inf", "-1", "1e308", "9" * 400, "0", "true", "null", "[]", "{}", "<script>", "__class__", "hf-hub:a/b",
    "os.system", "\ud800", "é", "模型",
)  # fmt: skip
CHINESE = "".join(chr(0x4E00 + number % 20_000) for number in range(120_000))
"""Text that takes minutes to encode in some ways."""
NUMBERS = (0, -1, 1, 2**31, 2**63, 2**64, 10**400, 1e308, float("nan"), float("inf"), -0.5, 1e-320, True, 65535, 3)


@dataclass
class Sound:
    """What everything is made from: sound files, made once."""

    folder: Path
    images: list[bytes] = field(default_factory=list)
    bombs: list[bytes] = field(default_factory=list)
    dicoms: list[bytes] = field(default_factory=list)
    weights: list[bytes] = field(default_factory=list)

    @property
    def marker(self) -> Path:
        """What an executed payload leaves."""
        return self.folder / "executed"


# ---- sound files


def sound(folder: Path) -> Sound:
    """One of each kind, and several of those that are single files."""
    made = Sound(folder)
    seeds = fuzz_upload.seeds()
    made.dicoms = [data for data in seeds if data[128:132] == b"DICM" and len(data) < 3_000_000]
    made.images = [data for data in seeds if data[128:132] != b"DICM"]
    made.bombs = fuzz_upload.bombs()
    made.weights = list(_weights())
    method = Supervised(Backbone("test_vit", size=(32, 32)), ("Mass", "Nodule")).eval()
    facts = TrainingRecord(images=0, patients=0, selection=0)
    model = ModelSpec("test_vit", method.findings, (32, 32), 32, "pad", 0.5, 0.25, training=facts)
    save_bundle(folder / "bundle", method, model, Provenance.nothing())
    assert cli.main(["import", "phantom", "--out", str(folder / "dataset"), "--images", "12", "--size", "32"]) == 0
    (folder / "table").mkdir()
    for number in range(4):
        (folder / "table" / f"image{number}.png").write_bytes(
            cv2.imencode(".png", np.full((8, 8), 60 * number, np.uint8))[1]
        )
    (folder / "run").mkdir()
    checkpoint.save_checkpoint(
        folder / "run" / "checkpoint.pt", {"run": {"step": 3, "weights": torch.zeros(3)}, "standing": {}}
    )
    part = folder / "run" / "checkpoint"
    checkpoint.begin_folder(part, {"run": {"step": 3, "method": {}}, "standing": {}})
    for number in (0, 1):
        rows = shard_bytes({"run/method/w": Rows(2 * number, 4, torch.zeros(2, 3))})
        (part / f"{number}.safetensors").write_bytes(rows)
    names = ("0.safetensors", "1.safetensors")
    (part / digest.SUMS).write_text(digest.digest_lines({name: part / name for name in names}), "utf-8")
    (folder / "run" / "options.json").write_text('{"command": "finetune", "data": ["d"], "model": "test_vit"}', "utf-8")
    (folder / "run" / "state.json").write_text('{"name": "finished", "place": null, "why": ""}', "utf-8")
    (folder / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n', "utf-8")
    return made


def _weights() -> Iterator[bytes]:
    """Files of weights in every container."""
    state = {f"layer{one}.0.conv{two}.weight": torch.randn(3, 4) for one in range(1, 5) for two in (1, 2)}
    state |= {"conv1.weight": torch.randn(2, 3), "fc.weight": torch.randn(5, 4), "fc.bias": torch.randn(5)}
    for content in (state, {"state_dict": state, "epoch": 3, "args": argparse.Namespace(lr=0.1)}):
        for zipped in (True, False):
            stream = io.BytesIO()
            torch.save(content, stream, _use_new_zipfile_serialization=zipped)
            yield stream.getvalue()
    yield safetensors_bytes(state)
    plain = {name: value.numpy() for name, value in state.items()}
    yield from (pickle.dumps(plain, protocol=protocol) for protocol in (2, 4))
    stream = io.BytesIO()
    np.savez(stream, **plain)  # type: ignore[arg-type]
    yield stream.getvalue()


# ---- hostile ones; each answers what reading it does


class Payload:
    """Pickled, it asks for a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def changed(data: bytes, draw: Draw) -> bytes:
    """Bytes with something done to them, once or several times."""
    for _ in range(int(draw.choice([1, 1, 1, 2, 4]))):
        data = CHANGES[int(draw.integers(len(CHANGES)))](data, draw)
    return data


def of_image(made: Sound, draw: Draw, place: Path) -> Callable[[], object]:
    """An image file."""
    data = _one(made.images if draw.random() < 0.85 else made.bombs, draw)
    data, depth = changed(data, draw), (8, 16)[int(draw.integers(2))]
    return lambda: image_file.decode_image(data, "a.png", depth=depth)  # type: ignore[arg-type]


def of_dicom(made: Sound, draw: Draw, place: Path) -> Callable[[], object]:
    """A DICOM file whose bytes are damaged, or whose elements say something else."""
    data = _one(made.dicoms, draw)
    if draw.random() < 0.5:
        data = _other_elements(data, draw)
    if draw.random() < 0.6:
        data = changed(data, draw)
    if draw.random() < 0.3:
        named = _damaged_length(_one(made.dicoms, draw), draw)
        return lambda: _without_the_secret(named)
    return lambda: image_file.decode_image(data, "a.dcm")


SECRET = "SECRET^JANE"


def _damaged_length(data: bytes, draw: Draw) -> bytes:
    """A DICOM file of a patient with a name, and one element whose length is damaged so that it may contain others."""
    found, stream = pydicom.dcmread(io.BytesIO(data), force=True), io.BytesIO()
    found.PatientName = found.PatientID = found.ReferringPhysicianName = SECRET
    found.Modality, found.BodyPartExamined = "DX", "CHEST"
    pydicom.dcmwrite(stream, found, enforce_file_format=False)
    bad = bytearray(stream.getvalue())
    if found.file_meta.TransferSyntaxUID == pydicom.uid.DeflatedExplicitVRLittleEndian:
        return bytes(bad)
    again = pydicom.dcmread(io.BytesIO(bad), force=True)
    places = [getattr(again.get_item(tag), "value_tell", 0) for tag in again.keys() if tag < 0x7FE00010]  # noqa: SIM118
    place = _one([place for place in places if place > 132], draw)
    bad[place - 2 + int(draw.integers(2))] ^= 1 << int(draw.integers(8))
    return bytes(bad)


def _without_the_secret(data: bytes) -> None:
    """Reads a DICOM file; its error, notes and warnings must not contain the patient's name."""
    try:
        image = image_file.decode_image(data, "a.dcm")
        said = " ".join([*image.note_texts, *ood.image_warnings(None, image.pixels, image.tags, image.notes)])
    except image_file.UnreadableError as error:
        said = str(error)
        if SECRET[:6] not in said:
            raise
    if SECRET[:6] in said:
        raise AssertionError(f"the name of a patient is shown: {said}")


ELEMENTS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit"), (0, 1, 7, 8, 12, 16, 32, 65535)),
    "SamplesPerPixel": (0, 1, 3, 4), "PixelRepresentation": (0, 1, 2), "PlanarConfiguration": (0, 1, 5),
    "NumberOfFrames": ("0", "2", "99999", "-1"),
    "SmallestImagePixelValue": (0, 65535), "PixelPaddingValue": (0, 65535),
    "PhotometricInterpretation": ("", "RGB", "YBR_FULL_422", "PALETTE COLOR", "MONOCHROME1", "ARGB"),
    "WindowCenter": ("0", "1e300", "-5", ["1", "2"], "nan"),
    "WindowWidth": ("0", "-1", "1e-300", ["1", "2", "3"], "inf"),
    "RescaleSlope": ("0", "1e300", "-1", "nan"), "RescaleIntercept": ("1e300", "-1e300", "inf"),
    "VOILUTFunction": ("SIGMOID", "LINEAR_EXACT", "OTHER"), "PresentationLUTShape": ("INVERSE", "IDENTITY", "X"),
    "PatientOrientation": (["L", "F"], ["R", "H"], ["P", "F"], ["X", "Y"], ["L"]),
    "ImageHorizontalFlip": ("Y", "N", "Q"),
    "PixelAspectRatio": (["1", "2"], ["0", "1"], ["-1", "1"], ["9999999", "1"]),
    "PixelSpacing": (["0", "0"], ["1", "9"]),
    "ShutterShape": ("RECTANGULAR", "CIRCULAR", "POLYGONAL", "OTHER"), "ShutterUpperHorizontalEdge": ("5", "-5"),
    "CenterOfCircularShutter": (["3", "3"], ["3"]), "RadiusOfCircularShutter": ("0", "2", "-7"),
    "VerticesOfThePolygonalShutter": (["1", "1", "9", "9"], ["1"], ["1", "1", "5", "1", "5", "5"]),
    "PatientAge": ("999Y", "", "62", "X"), "Modality": ("", "CT", "DX", "\x00"), "BurnedInAnnotation": ("YES", "?"),
    "SpecificCharacterSet": ("ISO_IR 192", "GB18030", "NONE", "\\ISO 2022 IR 87"),
}  # fmt: skip


def _other_elements(data: bytes, draw: Draw) -> bytes:
    """The same file, some of whose elements are others."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = pydicom.dcmread(io.BytesIO(data), force=True)
            for _ in range(int(draw.integers(1, 4))):
                name = list(ELEMENTS)[int(draw.integers(len(ELEMENTS)))]
                if draw.random() < 0.15:
                    found.pop(name, None)
                else:
                    setattr(found, name, ELEMENTS[name][int(draw.integers(len(ELEMENTS[name])))])
            if draw.random() < 0.2:
                name = ("ModalityLUTSequence", "VOILUTSequence")[int(draw.integers(2))]
                setattr(found, name, pydicom.Sequence(_tables(draw)))
            stream = io.BytesIO()
            pydicom.dcmwrite(stream, found, enforce_file_format=False)
            return stream.getvalue()
        except Exception:  # pydicom writes not every nonsense
            return data


def _tables(draw: Draw) -> list[pydicom.Dataset]:
    """Look-up tables, sound and not."""
    item, count = pydicom.Dataset(), int(draw.choice([0, 1, 256, 4096]))
    if draw.random() < 0.2:
        return [item]
    item.LUTDescriptor = [count % 65536, int(draw.choice([0, 5, 65535])), int(draw.choice([0, 8, 12, 16, 99]))]
    item.LUTData = [int(one) for one in draw.integers(0, 4096, int(draw.choice([count, count // 2, 3])))]
    return [item] * int(draw.choice([1, 1, 2]))


def of_weights(made: Sound, draw: Draw, place: Path) -> Callable[[], object]:
    """A file of weights: damaged, or with calls in it."""
    kind, file = (
        draw.random(),
        place / f"w{('.pth', '.safetensors', '.pdparams', '.npz', '.ckpt', '.bin')[int(draw.integers(6))]}",
    )
    if kind < 0.7:
        file.write_bytes(changed(_one(made.weights, draw), draw))
    else:
        calls = (
            Payload(os.system, f"touch '{made.marker}'"),
            Payload(eval, f"open({str(made.marker)!r}, 'w')"),
            Payload(os.mkdir, str(made.marker)),
            Payload(Path.touch, made.marker),
            Payload(torch.zeros, (10**6, 10**6)),
            Payload(bytes, 10**10),
            Payload(bytearray, 10**10),
            Payload(codecs.encode, CHINESE, "punycode"),
            Payload(np.memmap, str(made.marker), "f4", "w+", 0, (3,)),
        )
        content: Any = {"fc.weight": torch.zeros(2, 2), "x": calls[int(draw.integers(len(calls)))]}
        shared = torch.zeros(1000)
        more: tuple[Any, ...] = (
            [],
            {},
            None,
            "text",
            [content] * 3,
            {f"w{n}": shared for n in range(500)},
            {"optimizer": {"state": {}}},
        )
        content = content if draw.random() < 0.6 else more[int(draw.integers(len(more)))]
        stream = io.BytesIO()
        if draw.random() < 0.5:
            torch.save(content, stream, _use_new_zipfile_serialization=bool(draw.random() < 0.5))
        else:
            pickle.dump(content, stream, protocol=int(draw.integers(0, 6)))
        file.write_bytes(stream.getvalue() if draw.random() < 0.7 else changed(stream.getvalue(), draw))
    return lambda: formats.published(file)


def of_tables(made: Sound, draw: Draw, place: Path) -> Callable[[], object]:
    """A table of one's own beside four images."""
    shutil.copytree(made.folder / "table", place / "t")
    rate = float(draw.choice([0.0, 0.02, 0.3]))

    def cell(*usual: str) -> str:
        return str(_one(WORDS if draw.random() < rate else usual, draw))

    heads = [cell(name) for name in ("file", "patient", "Mass", "split", "age", "sex", "view")]
    columns = int(draw.integers(1, len(heads) + 1))
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=str(draw.choice([",", ";", "\t", "|"])))
    writer.writerow(heads[:columns])
    for number in range(int(draw.integers(0, 12))):
        cells = [cell(f"image{number}.png", "image0.jpg"), cell("p1", "p2"), cell("0", "1", ""), cell("train", "test")]
        cells += [cell("50", "060Y", ""), cell("F", "M", ""), cell("PA", "AP", "Lateral", "")]
        writer.writerow(cells[: columns if draw.random() < 0.95 else 1])
    data = stream.getvalue().encode(str(draw.choice(["utf-8", "utf-16", "utf-8-sig"])), "surrogatepass")
    (place / "t" / "list.csv").write_bytes(data if draw.random() < 0.6 else changed(data, draw))
    return lambda: datasets.index("folder", place / "t", csv="list.csv")


def of_bundle(made: Sound, draw: Draw, place: Path) -> Callable[[], object]:
    """A model's folder, one or two of whose files are others."""
    shutil.copytree(made.folder / "bundle", place / "b")
    _spoilt(place / "b", draw)
    if draw.random() < 0.5 and (place / "b" / digest.SUMS).is_file():  # who means harm writes digests, too
        whole = {file.name: file for file in (place / "b").iterdir() if file.is_file() and file.suffix != ".md"}
        whole.pop(digest.SUMS)
        (place / "b" / digest.SUMS).write_text(digest.digest_lines(whole), "utf-8")
    return lambda: _without_digests(lambda: [load_bundle(place / "b").ood, history.load_tests(place / "b")])


def _without_digests(read: Callable[[], object]) -> object:
    """What is read; that a folder has no digests is said beside it, in one line."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        found = read()
    lines = said.getvalue().splitlines()
    assert len(lines) <= 1 and all(digest.SUMS in line for line in lines), lines
    return found


def of_dataset(made: Sound, draw: Draw, place: Path) -> Callable[[], object]:
    """A dataset folder, one or two of whose files are others."""
    shutil.copytree(made.folder / "dataset", place / "d")
    _spoilt(place / "d", draw)
    if draw.random() < 0.5:  # who means harm writes digests, too
        with contextlib.suppress(Exception):
            dataset_folder.write_facts(place / "d", dataset_facts.Facts.load(place / "d" / "dataset.json"))

    def read() -> object:
        opened = dataset_folder.open(place / "d")
        return [opened.image(0), opened.index.table.describe(), opened.fingerprints]

    return read


def of_predictions(made: Sound, draw: Draw, place: Path) -> Callable[[], object]:
    """A table of predictions, one or two of whose columns are others."""
    rows = 4
    cells: dict[str, Any] = {"set": ["d"] * rows, "path": [f"{row}.png" for row in range(rows)]}
    cells |= {"patient": ["p"] * rows, "Mass": [0.5] * rows, "Mass_label": [1.0] * rows}
    strange = ([{"a": 1}], [[1.5]], [b"\xff"], [None], [True], [2**62], [float("nan")], ["A" * 100_000])
    for _ in range(int(draw.integers(0, 3))):
        cells[_one(list(cells), draw)] = _one(strange, draw) * rows
    if draw.random() < 0.3:
        cells[_one(WORDS[:10], draw)] = ["1"] * rows
    file = place / ("p.csv" if draw.random() < 0.4 else "p.parquet")
    if file.suffix == ".csv":
        pd.DataFrame(cells).to_csv(file, index=False, errors="replace")
    else:
        table = pa.table(cells)
        wish = (b"[" * 100_000, b'{"index_columns": ["nope"]}', b'{"columns": "x"}', b"{[")
        table = table.replace_schema_metadata({"pandas": _one(wish, draw)}) if draw.random() < 0.3 else table
        pq.write_table(table.slice(0, int(draw.integers(0, rows + 1))), file)
    if draw.random() < 0.3:
        file.write_bytes(changed(file.read_bytes(), draw))
    return lambda: own_predictions.read_own_predictions(file, ("Mass",))


def of_folder(made: Sound, draw: Draw, place: Path) -> Callable[[], object]:
    """A folder of images with pipes, sockets, loops of links, links that lead outside, and odd names."""
    root = place / "images"
    for number in range(2):
        (root / f"class{number}").mkdir(parents=True)
        (root / f"class{number}" / "image.png").write_bytes(made.images[0])
    for number in range(int(draw.integers(1, 6))):
        odd = _one(("pipe", "socket", "loop", "zero", "secret", "up", "directory", "name", "empty", "table"), draw)
        name = root / f"class{number % 2}" / f"{number}.png"
        if odd == "pipe":
            os.mkfifo(name)
        elif odd == "socket":
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as made_socket:  # its path may be too long
                made_socket.bind(str(name))
        elif odd in ("loop", "zero", "secret", "up"):
            name.symlink_to({"loop": name.name, "zero": "/dev/zero", "secret": "/etc/passwd", "up": ".."}[odd])
        elif odd == "directory":
            name.mkdir()
        elif odd == "table":
            os.mkfifo(root / f"{number}.csv")
        else:
            word = _one(("a\nb", "\x1b[31m", "\u202egnp.exe", "\udcff", "=cmd|' calc'!A0", "n" * 240, "-rf"), draw)
            name.with_name(f"{word}{number}.png").write_bytes(made.images[0] if odd == "name" else b"")
    trusted = bool(draw.random() < 0.5)

    def read() -> object:
        logging.getLogger("ribcage").setLevel(logging.CRITICAL)  # what is left out is said beside it
        index = datasets.index("folder", root, allow_outside=trusted)
        return [_outcome(functools.partial(image_file.read_image, index.file(row))) for row in range(len(index))]

    return read


def of_export(made: Sound, draw: Draw, place: Path) -> Callable[[], object]:
    """An exported file from elsewhere: damaged, with weights elsewhere, or beside a model with a digest that fits."""
    away = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=onnx.TensorProto.EXTERNAL)
    away.external_data.add(key="location", value=_one(("../secret", "/etc/passwd", "pipe", "/dev/zero"), draw))
    weights = [away] if draw.random() < 0.4 else [onnx.helper.make_tensor("w", 1, [4], [1.0] * 4)]
    sides = [onnx.helper.make_tensor_value_info(name, 1, [4]) for name in ("images", "probabilities")]
    node = onnx.helper.make_node(_one(("Add", "Mul", "Nope", "Loop"), draw), ["images", "w"], ["probabilities"])
    graph = onnx.helper.make_graph([node], "g", sides[:1], sides[1:], initializer=weights)
    shutil.copytree(made.folder / "bundle", folder := place / "b")
    os.mkfifo(folder / "pipe")
    file, content = (
        folder / "model.onnx",
        onnx.helper.make_model(
            graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]
        ).SerializeToString(),
    )
    file.write_bytes(changed(content, draw) if draw.random() < 0.5 else content)
    deployment.write_digests([file])
    attestation.file_beside(file).write_bytes(_one((b"", b"0" * 64, b"\xff" * 1000), draw))

    def read() -> object:
        assert attestation.attested(file, folder) is None, "a stranger's export is taken"
        return deployment.opened_onnx(file, 1)(np.zeros(4, np.float32))

    return read


def of_network(made: Sound, draw: Draw, place: Path) -> Callable[[], object]:
    """An ONNX file to be run as it is: damaged, with strange operators, loops, branches, sizes, or numbers."""
    given = [onnx.helper.make_tensor_value_info("scan", 1, ["N", 1, *_one(((8, 8), (8, "W"), (2**20, 8)), draw)])]
    sizes = onnx.helper.make_tensor("w", 7, [2], [_one((1, 8, 2**31), draw), _one((8, 2**33, -1), draw)])
    parts = [onnx.helper.make_node("Flatten", ["scan"], ["a"])]
    for number in range(int(draw.integers(0, 4))):
        kind = _one(
            ("Relu", "Log", "Loop", "If", "ConstantOfShape", "Expand", "Reshape", "Nope", "Concat", "Tile"), draw
        )
        branch = onnx.helper.make_graph(list(parts), "b", [], [onnx.helper.make_tensor_value_info("a", 1, None)])
        inner = {"Loop": {"body": branch}, "If": {"then_branch": branch, "else_branch": branch}}.get(kind, {})
        inputs = {"ConstantOfShape": ["w"], "Expand": ["a", "w"], "Reshape": ["a", "w"], "Tile": ["a", "w"]}
        more: dict[str, Any] = inner | ({"axis": _one((0, 1, -1), draw)} if kind == "Concat" else {})
        parts.append(onnx.helper.make_node(kind, inputs.get(kind, ["a"]), [f"b{number}"], **more))
    parts.append(onnx.helper.make_node("ReduceMean", ["a"], ["m"], axes=[1]))
    last = f"b{len(parts) - 3}" if len(parts) > 2 and draw.random() < 0.5 else "m"
    parts.append(onnx.helper.make_node("Concat", [last, "m"], ["scores"], axis=1))
    out = [onnx.helper.make_tensor_value_info("scores", 1, _one((["N", 2], ["N"], None, [2**40, 2**40]), draw))]
    graph = onnx.helper.make_graph(parts, "g", given, out, initializer=[sizes])
    opsets = [onnx.helper.make_opsetid("", int(_one((17, 17, 17, 1, 10**6), draw)))]
    content = onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets).SerializeToString()
    (file := place / "a.onnx").write_bytes(changed(content, draw) if draw.random() < 0.5 else content)
    stated = opaque_conversion.Stated(findings=("Mass", "Edema"), mean=(0.5,), std=(0.25,), size=(8, 8), channels=1)
    return lambda: opaque_conversion.opaque_model(file, replace(stated, kind="logits"))


def of_run(made: Sound, draw: Draw, place: Path) -> Callable[[], object]:
    """A run folder, one or two of whose files are others."""
    shutil.copytree(made.folder / "run", place / "r")
    name = "checkpoint" if draw.random() < 0.5 else "checkpoint.pt"
    _spoilt(place / "r" / name if name == "checkpoint" else place / "r", draw)

    def read() -> object:
        runs.run_rows(place)
        method = checkpoint.load_checkpoint(place / "r" / name)["run"].get("method", {})
        return [whole(value) for value in method.values()]

    return read


def _spoilt(folder: Path, draw: Draw) -> None:
    """Something is done to one or two files of a folder."""
    for _ in range(int(draw.integers(1, 3))):
        names = sorted(file for file in folder.iterdir() if file.is_file())
        file = names[int(draw.integers(len(names)))]
        kind = draw.random()
        if kind < 0.1:
            file.unlink()
        elif kind < 0.15:
            file.unlink()
            file.mkdir()
            return
        elif file.suffix == ".json" and kind < 0.8:
            said = _said(file)
            file.write_text(
                json.dumps(_other_json(said, draw), ensure_ascii=bool(draw.integers(2))), "utf-8", "surrogatepass"
            )
        elif file.suffix == ".parquet" and kind < 0.6:
            pd.DataFrame({_one(WORDS[:20], draw): [_one(WORDS, draw).encode("utf-8", "replace")] * 12}).to_parquet(file)
        else:
            file.write_bytes(changed(file.read_bytes(), draw))


def _said(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError:  # it was spoilt before
        return {}


def _other_json(said: Any, draw: Draw) -> Any:
    """The same facts, one or more of which are others."""
    said = copy.deepcopy(said)
    for _ in range(int(draw.integers(1, 4))):
        place, key = said, None
        while isinstance(place, dict | list) and len(place):
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            above, key = place, keys[int(draw.integers(len(keys)))]
            place = place[key]
            if draw.random() < 0.5:
                break
        if key is None:
            return _strange(draw)
        if draw.random() < 0.15:
            del above[key]
        else:
            above[key] = _strange(draw)
    return said if draw.random() < 0.95 else _strange(draw)


def _strange(draw: Draw) -> Any:
    """A value that nobody expects."""
    nested: Any = []
    for _ in range(200):
        nested = [nested]
    every: tuple[Any, ...] = (
        *WORDS,
        *NUMBERS,
        None,
        [],
        {},
        [[]],
        {"a": [1]},
        [0] * 5000,
        nested,
        ["Mass", "Mass"],
        [1e308, -1],
    )
    return every[int(draw.integers(len(every)))]


def of_upload(made: Sound, draw: Draw, place: Path) -> Callable[[], object]:
    """A form with files."""
    from starlette.requests import Request

    from ribcage.server.uploads import Uploads

    _, kind, body = fuzz_upload.upload(int(draw.integers(2**31)), made.images, made.bombs)
    if draw.random() < 0.5:
        body = changed(body, draw)
    pieces = [body[at : at + 30_000] for at in range(0, max(1, len(body)), 30_000)]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0) if pieces else b"", "more_body": bool(pieces)}

    async def read() -> list[object]:
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-type", kind.encode())]}
        async with Uploads(most=50_000_000, files=8).of(Request(scope, receive)) as found:
            names = [one.name for one in found]
            assert all(name.isprintable() and "/" not in name for name in names)
            return list(names)

    return lambda: asyncio.run(read())


KINDS: dict[str, Callable[[Sound, Draw, Path], Callable[[], object]]] = {
    "image": of_image, "dicom": of_dicom, "weights": of_weights, "tables": of_tables, "bundle": of_bundle,
    "dataset": of_dataset, "run": of_run, "upload": of_upload, "predictions": of_predictions,
    "folder": of_folder, "export": of_export, "network": of_network,
}  # fmt: skip


def _one(of: Any, draw: Draw) -> Any:
    return of[int(draw.integers(len(of)))]


# ---- reading them


def tried(kind: str, number: int, made: Sound) -> tuple[str, str]:
    """What became of an input: 'read', 'refused', or a fault; and what was said."""
    draw = np.random.default_rng([17, list(KINDS).index(kind), number])
    with tempfile.TemporaryDirectory(dir=made.folder) as folder:
        read = KINDS[kind](made, draw, Path(folder))
        began, before = time.monotonic(), os.fstat(2).st_size
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            became, said = _outcome(read)
        sys.stdout.flush()
        if warned:
            became, said = "warned", str(warned[0].message)
        if os.fstat(2).st_size != before:
            with Path("/proc/self/fd/2").open("rb") as printed:
                printed.seek(before)
                became, said = "printed", repr(printed.read(300))
        if time.monotonic() - began > SECONDS:
            became, said = "slow", f"{time.monotonic() - began:.0f} s"
    if made.marker.exists():
        became, said = "executed", str(made.marker)
    return became, said


def _outcome(read: Callable[[], object]) -> tuple[str, str]:
    from ribcage.server.problem import Problem

    try:
        read()
        return "read", ""
    except Problem as error:
        said = str(error)
    except Exception as error:
        said = cli.error_line(error)
        if "fault in Ribcage" in said:
            return "fault", f"{said}\n{traceback.format_exc()[-1500:]}"
    return ("refused", said) if said and "\n" not in said and len(said) <= 2000 else ("long", said[:300])


FAULTS = {"fault": "unexpected exceptions", "long": "messages too long", "warned": "warnings",
          "printed": "other output", "slow": "more than 20 s", "executed": "executed code",
          "died": "crashed processes"}  # fmt: skip
"""Outcome → its heading in the table."""


def worker(
    kind: str, numbers: range, made: Sound, told: "multiprocessing.Queue[tuple[str, int, str, str]]", at: Any
) -> None:
    """Reads a share of a kind; `at` says which is being read, for the case that this process dies of it."""
    file = os.open(made.folder / f"stderr-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    logging.disable(logging.CRITICAL)  # what an import tells of sound tables, and a parser of forms
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    counts: collections.Counter[str] = collections.Counter()
    for number in numbers:
        at.value = number
        became, said = tried(kind, number, made)
        counts[became] += 1
        if became in FAULTS:
            told.put((kind, number, became, said))
    told.put((kind, -1, "counts", json.dumps(counts)))


def main() -> int:
    """All kinds, several processes at once; 1 if there was any fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", choices=list(KINDS), help="one kind alone")
    parser.add_argument("--first", type=int, default=0, help="the first number of each kind")
    parser.add_argument("--shown", type=int, default=5, help="faults of each kind that are printed")
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        made = sound(Path(folder))
        found, faults = hammered(made, asked, parts(asked))
    kinds = [kind for kind in KINDS if found[kind]]
    print(
        f"\n| kind of file | files | read | refused with a one-line message | {' | '.join(FAULTS.values())} |\n"
        f"|---|{'---:|' * (3 + len(FAULTS))}"
    )
    for kind in kinds:
        one = found[kind]
        cells = [
            f"{sum(one.values()):,}",
            f"{one['read']:,}",
            f"{one['refused']:,}",
            *(str(one[fault]) for fault in FAULTS),
        ]
        print(f"| {kind} | {' | '.join(cells)} |")
    total, minutes = sum(sum(one.values()) for one in found.values()), (time.monotonic() - began) / 60
    print(f"\n{total:,} inputs, {faults} faults, {minutes:.1f} min.")
    return int(faults > 0)


def parts(asked: argparse.Namespace) -> list[tuple[str, range]]:
    """The corpus in shares of a few hundred, so that one process that dies takes little with it."""
    kinds = {asked.only: 1.0} if asked.only else SHARES
    shares = [
        (kind, range(start, min(start + 500, asked.first + round(asked.count * share))))
        for kind, share in kinds.items()
        for start in range(asked.first, asked.first + round(asked.count * share), 500)
    ]
    return sorted(shares, key=lambda one: one[1].start)


def hammered(
    made: Sound, asked: argparse.Namespace, waiting: list[tuple[str, range]]
) -> tuple[dict[str, "collections.Counter[str]"], int]:
    """Everything read; how often what became of it, by kind, and how many faults there were."""
    context = multiprocessing.get_context("forkserver")  # a copy of this process could wait for threads it has not
    context.set_forkserver_preload(["torch._dynamo", "timm", "ribcage.imaging.dicom", "ribcage.server.uploads"])
    told: Any = context.Queue()
    found: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in KINDS}
    shown: collections.Counter[str] = collections.Counter()
    running: list[tuple[Any, str, range, Any]] = []
    faults = 0

    def take() -> None:
        nonlocal faults
        while not told.empty():
            kind, number, became, said = told.get()
            if became == "counts":
                found[kind].update(json.loads(said))
                continue
            faults += 1
            shown[kind] += 1
            if shown[kind] <= asked.shown:
                print(f"{kind} {number}: {became}: {said}", flush=True)

    while waiting or running:
        while waiting and len(running) < asked.jobs:
            kind, numbers = waiting.pop(0)
            at = context.Value("q", numbers.start)
            process = context.Process(target=worker, args=(kind, numbers, made, told, at))
            process.start()
            running.append((process, kind, numbers, at))
        for one in list(running):
            process, kind, numbers, at = one
            process.join(0.02)
            if process.exitcode is None:
                continue
            running.remove(one)
            if process.exitcode:
                dead = int(at.value)
                told.put((kind, dead, "died", f"exit {process.exitcode}"))
                found[kind].update({"died": 1, "read or refused": dead - numbers.start})
                waiting.insert(0, (kind, range(dead + 1, numbers.stop)))
            time.sleep(0.02)
        take()
    time.sleep(0.1)
    take()
    return found, faults


if __name__ == "__main__":
    sys.exit(main())
