"""Untrusted files of weights: no code is executed, hostile files are refused in one line, and other contents are ignored."""

import argparse
import builtins
import codecs
import collections
import copyreg
import datetime
import io
import json
import operator
import os
import pathlib
import pickle
import random
import subprocess
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refusals import has_facts
from safetensors.torch import save_file
from torch import nn

from ribcage import cli
from ribcage.bundle import formats
from ribcage.bundle.formats.reading import pickled, torch_files
from ribcage.bundle.init import initial_backbone
from ribcage.bundle.spec import ModelSpec

WEIGHTS = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2)}
ARRAYS = {name: value.numpy() for name, value in WEIGHTS.items()}


class Call:
    """Pickled, it is a call of a function; unpickled by Python's own reader, what that function gives."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments

    def __call__(self) -> None:
        """What gives a function is called in its turn."""


def write(marker: Path) -> str:
    """A command of the shell that leaves a mark."""
    return f'echo ran > "{marker}"'


PAYLOADS: dict[str, Callable[[Path], Any]] = {
    "os.system": lambda marker: Call(os.system, write(marker)),
    "subprocess": lambda marker: Call(subprocess.check_call, ["/bin/sh", "-c", write(marker)]),
    "eval": lambda marker: Call(eval, f"open({str(marker)!r}, 'w').close()"),
    "eval-data": lambda marker: Call(eval, f"open({str(marker)!r}, 'w').close()", {"data": 1}),
    "exec": lambda marker: Call(exec, f"open({str(marker)!r}, 'w').close()"),
    "open": lambda marker: Call(open, str(marker), "w"),
    "getattr": lambda marker: Call(Call(getattr, Call(__import__, "os"), "system"), write(marker)),
    "attrgetter": lambda marker: Call(Call(operator.attrgetter("system"), Call(__import__, "os")), write(marker)),
    "method": lambda marker: Call(Path.touch, marker),
    "mkdir": lambda marker: Call(os.mkdir, str(marker)),
    "loads": lambda marker: Call(pickle.loads, pickle.dumps(Call(os.system, write(marker)))),
    "torch.load": lambda marker: Call(torch.load, str(marker)),
    "memmap": lambda marker: Call(np.memmap, str(marker), "f4", "w+", 0, (3,)),
    "dataset": lambda marker: Call(np.savez, str(marker)),
}


def torch_zip(content: Any, file: Path) -> None:
    torch.save(content, file)


def torch_old(content: Any, file: Path) -> None:
    torch.save(content, file, _use_new_zipfile_serialization=False)


def paddle(protocol: int) -> Callable[[Any, Path], None]:
    def saved(content: Any, file: Path) -> None:
        file.write_bytes(pickle.dumps(arrays(content), protocol=protocol))

    return saved


def arrays(content: Any) -> Any:
    """Tensors as arrays."""
    if type(content) is dict:
        return {name: arrays(value) for name, value in content.items()}
    return content.numpy() if isinstance(content, torch.Tensor) else content


FORMS: dict[str, Callable[[Any, Path], None]] = {
    "torch": torch_zip,
    "torch-old": torch_old,
    "paddle-2": paddle(2),
    "paddle-4": paddle(4),
}
PLACES: dict[str, Callable[[Any], Any]] = {
    "alone": lambda payload: payload,
    "before": lambda payload: {"epoch": payload, "state_dict": dict(WEIGHTS)},
    "as-weight": lambda payload: {**WEIGHTS, "fc.scale": payload},
    "in-namespace": lambda payload: {**WEIGHTS, "args": argparse.Namespace(lr=payload)},
    "as-argument": lambda payload: {**WEIGHTS, "args": Call(collections.OrderedDict, [("a", payload)])},
    "as-state": lambda payload: {**WEIGHTS, "args": Filled(payload)},
}


class Filled:
    """Pickled, it is a harmless thing that is then filled from within."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __reduce__(self) -> Any:
        return collections.OrderedDict, (), {"state": self.state}


def refused(file: Path, marker: Path | None = None) -> str:
    """Why a file is not read: in one short line."""
    with pytest.raises((ValueError, MemoryError)) as error:
        formats.published(file)
    said = str(error.value)
    assert said.startswith(str(file)) and "\n" not in said and len(said) < 300 + len(str(file))
    assert marker is None or not marker.exists()
    return said.removeprefix(str(file))


@pytest.mark.parametrize(
    "payload", ["os.system", "subprocess", "eval", "eval-data", "exec", "open", "getattr", "loads"]
)
def test_the_payloads_are_live(payload: str, tmp_path: Path) -> None:
    """By Python's own reader they would leave their mark."""
    found = pickle.loads(pickle.dumps({**ARRAYS, "args": PAYLOADS[payload](tmp_path / "mark")}))
    if hasattr(found["args"], "close"):
        found["args"].close()
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("form", FORMS)
def test_nothing_in_a_file_runs(form: str, payload: str, tmp_path: Path) -> None:
    file, marker = tmp_path / "w.pth", tmp_path / "mark"
    for place, put in PLACES.items():
        FORMS[form](put(PAYLOADS[payload](marker)), file)
        said = refused(file, marker)
        assert "not allowed" in said or "not a function" in said, (place, said)


@pytest.mark.parametrize(
    ("form", "payload"),
    [("torch", "os.system"), ("torch-old", "eval"), ("paddle-4", "subprocess"), ("paddle-2", "eval")],
)
def test_the_commands_refuse_it_in_a_line(
    form: str, payload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, marker, data, out = tmp_path / "坏 w.pth", tmp_path / "mark", tmp_path / "data", tmp_path / "out"
    assert cli.main(["import", "phantom", "--out", str(data), "--images", "80", "--size", "32"]) == 0
    FORMS[form](PLACES["before"](PAYLOADS[payload](marker)), file)
    tuned = ["finetune", "--model", "resnet18", "--size", "32", "--epochs", "1", "--batch", "8"]
    tuned += ["--data", str(data), "--init", str(file)]
    capsys.readouterr()
    for words in (["convert", str(file)], ["convert", str(file), "--model", "resnet18", "--partial"], tuned):
        assert cli.main([*words, "--out", str(out)]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and f"{file} cannot be read" in said
        assert not marker.exists() and not (out / "model.json").exists() and not (out / "bundle").exists()


# ---- steps of a pickle, by hand


def step(*parts: bytes | str) -> bytes:
    """Steps in a row, text as pickle's short text."""
    return b"".join(
        part if isinstance(part, bytes) else b"\x8c" + bytes([len(part.encode())]) + part.encode() for part in parts
    )


def name(module: str, what: str) -> bytes:
    return step(module, what, b"\x93")


BY_HAND = {
    "a class by its old step": (b"(S'id'\nios\nsystem\n", "opcodes"),
    "an object by its old step": (step(b"(", b"cos\nsystem\n", b"\x8c\x02id", b"o"), "os.system"),
    "a new object": (step(name("numpy", "ndarray"), b")\x81"), "opcodes"),
    "a new object with names": (step(name("numpy", "ndarray"), b")}\x92"), "opcodes"),
    "a registered extension": (b"\x82\x01", "opcodes"),
    "a thing from elsewhere": (b"Pos.system\n", "opcodes"),
    "a buffer from elsewhere": (b"\x97", "opcodes"),
    "a name with dots": (name("numpy", "ndarray.__class__"), "numpy.ndarray.__class__"),
    "a name of a known module": (name("numpy", "load"), "numpy.load"),
    "a name that shifts": (name("numpy.core.multiarray._reconstruct", ""), "numpy.core.multiarray._reconstruct"),
    "a function that is filled": (
        step(name("_codecs", "encode"), b"N}", "__defaults__", b"\x8c\x01xs\x86b"),
        "after creating it",
    ),
    "a class that is filled": (step(name("numpy", "dtype"), b"}", "build", b"\x8c\x01xsb"), "after creating it"),
    "a dict that is filled": (step(b"}}", "items", b"\x8c\x01xsb"), "after creating it"),
    "a text that is called": (step("print", b")R"), "not a function"),
    "an array that is called": (step(name("numpy", "ndarray"), b")R)R"), "not a function"),
    "a name as a dict": (step(name("numpy", "dtype"), "x", "y", b"s"), "keys"),
    "a name as a list": (step(name("numpy", "dtype"), "x", b"a"), "not a list"),
    "code for eval": (step(name("builtins", "eval"), "1+1", b"\x85R"), "calls builtins.eval"),
    "code for eval beside data": (step(name("builtins", "eval"), "1+1", b"}\x8c\x04dataK\x01s\x86R"), "builtins.eval"),
    "text of another coding": (step(name("_codecs", "encode"), "x", "rot13", b"\x86R"), "text"),
    "nothing to take from": (b"R", "damaged"),
    "a mark that is missing": (b"u", "damaged"),
    "a thing never noted": (b"j\xff\xff\xff\x7f", "damaged"),
    "no such step": (b"\xff", "opcodes"),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_a_pickle_written_by_hand_is_refused(case: str, tmp_path: Path) -> None:
    steps, says = BY_HAND[case]
    (tmp_path / "w.pdparams").write_bytes(b"\x80\x04" + steps + b".")
    before = {known: vars(known).copy() for known in pickled.KNOWN.values() if hasattr(known, "__dict__")}
    assert says in refused(tmp_path / "w.pdparams")
    assert before == {known: vars(known).copy() for known in before}


def test_a_large_number_of_a_note_takes_no_memory(tmp_path: Path) -> None:
    """Python's quick reader makes room for two thousand million notes. Here it is a file as good as any."""
    data = pickle.dumps(ARRAYS, protocol=2)
    (tmp_path / "w.pdparams").write_bytes(data[:3] + b"r\xff\xff\xff\x7f" + data[3:])
    assert formats.published(tmp_path / "w.pdparams").state.keys() == WEIGHTS.keys()


def twice(depth: int, first: bytes, pair: Callable[[int], bytes]) -> bytes:
    """A thing that holds the one before it twice, and so on."""
    return first + b"\x94" + b"".join(pair(number) + b"\x94" for number in range(depth))


def test_what_is_in_itself_many_times_takes_no_time(tmp_path: Path) -> None:
    """Dicts of dicts, two to the power of sixty of them, and one in itself."""
    dicts = twice(60, b"}", lambda n: step(b"}", "a", b"h", bytes([n]), b"s", "b", b"h", bytes([n]), b"s"))
    (tmp_path / "w.pdparams").write_bytes(b"\x80\x04" + dicts + b".")
    assert "no weights" in refused(tmp_path / "w.pdparams")
    (tmp_path / "w.pdparams").write_bytes(b"\x80\x04" + step(b"}\x94", "model", b"h\x00s", "state_dict", b"h\x00s."))
    assert "no weights" in refused(tmp_path / "w.pdparams")
    tuples = twice(60, b")", lambda n: step(b"h", bytes([n]), b"h", bytes([n]), b"\x86"))
    (tmp_path / "w.pdparams").write_bytes(b"\x80\x04" + tuples + b"}h\x3cK\x01s.")
    assert "keys" in refused(tmp_path / "w.pdparams")
    (tmp_path / "w.pdparams").write_bytes(b"\x80\x04" + b"}\x8c\x01a" * 10_000 + b"N" + b"s" * 10_000 + b".")
    assert "damaged" in refused(tmp_path / "w.pdparams")


def test_a_dict_of_torchs_that_is_in_itself_is_read_once(tmp_path: Path) -> None:
    content: dict[str, Any] = {"fc.weight": torch.ones(2)}
    content["model"] = content
    for save in (torch_zip, torch_old):
        save(content, tmp_path / "w.pth")
        assert formats.published(tmp_path / "w.pth").state.keys() == {"fc.weight"}


def array(shape: tuple[int, ...], kind: str, content: Any, columns: bool = False) -> Call:
    """A pickled array that may claim anything."""

    class Claims:
        def __reduce__(self) -> Any:
            return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), (1, shape, np.dtype(kind), columns, content)  # fmt: skip

    return Claims()  # type: ignore[return-value]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("shape", "kind", "content", "says"),
    [
        ((2**40, 2**20), "f4", b"1234", "bytes"),
        ((3,), "f4", b"1234", "bytes"),
        ((1,), "f4", b"12345678", "bytes"),
        ((-1,), "f4", b"1234", "bytes"),
        ((1,) * 70, "f4", b"1234", "damaged"),
        ((0, 2**62, 2**62), "f4", b"", "damaged"),
        (("a",), "f4", b"1234", "damaged"),
        (None, "f4", b"1234", "damaged"),
        ((1,), "f4", None, "bytes"),
        ((1,), "f4", [1.0], "bytes"),
        ((1,), "O", [1.0], "object"),
        ((1,), "O", b"12345678", "object"),
        ((1,), "U1", b"1234", "U1"),
        ((1,), "c8", b"12345678", "c8"),
        ((1,), "M8[s]", b"12345678", "M8"),
        ((1,), "f4,f4", b"12345678", "V8"),
        ((1,), "V4", b"1234", "V4"),
    ],
)
def test_an_array_that_claims_what_it_has_not_is_refused(
    shape: Any, kind: str, content: Any, says: str, protocol: int, tmp_path: Path
) -> None:
    data = pickle.dumps({**ARRAYS, "fc.scale": array(shape, kind, content)}, protocol=protocol)
    (tmp_path / "w.pdparams").write_bytes(data)
    assert says in refused(tmp_path / "w.pdparams")


def test_the_same_bytes_a_thousand_times_are_refused(tmp_path: Path) -> None:
    content = bytes(2**16)
    found = {f"w{number}": array((2**14,), "f4", content) for number in range(1000)}
    (tmp_path / "w.pdparams").write_bytes(pickle.dumps(found, protocol=4))
    assert (tmp_path / "w.pdparams").stat().st_size < 2**18
    assert "arrays" in refused(tmp_path / "w.pdparams")
    texts = step(b"\x8c\xffa", b"a" * 254, b"\x94")
    texts += b"]" + step(name("_codecs", "encode"), b"h\x00\x85Ra") * 100
    (tmp_path / "w.pdparams").write_bytes(b"\x80\x04" + texts + b".")
    assert "arrays" in refused(tmp_path / "w.pdparams")


@pytest.mark.parametrize("kind", ["B", "\x8e", "\x96", "\x8d", "X", "T", "\x95"])
def test_a_length_beyond_the_end_takes_no_memory(kind: str, tmp_path: Path) -> None:
    """Bytes, text and frames that claim the largest number there is."""
    wide = kind in "\x8e\x96\x8d\x95"
    length = (2**63 - 1).to_bytes(8, "little") if wide else (2**31 - 1).to_bytes(4, "little")
    (tmp_path / "w.pdparams").write_bytes(b"\x80\x05}" + kind.encode("latin1") + length + b"xs.")
    said = refused(tmp_path / "w.pdparams")
    assert "damaged" in said or "opcodes" in said  # of a frame what is there is read


# ---- torch's own forms


@pytest.mark.filterwarnings("ignore")  # torch's, of what it makes here
def test_a_tensor_that_is_no_plain_one_is_refused(tmp_path: Path) -> None:
    strange = {
        "meta": torch.empty(2**40, device="meta"),
        "sparse": torch.sparse_coo_tensor(torch.zeros(1, 1, dtype=torch.long), torch.ones(1), (2**40,)),
        "complex": torch.ones(2, dtype=torch.complex64),
        "quantised": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    }
    for kind, value in strange.items():
        torch.save({**WEIGHTS, "fc.scale": value}, tmp_path / "w.pth")
        assert has_facts(refused(tmp_path / "w.pth"), "fc.scale", "array"), kind


def test_a_tensor_that_repeats_a_number_for_ever_is_refused(tmp_path: Path) -> None:
    torch.save({**WEIGHTS, "fc.scale": torch.ones(1).expand(2**40)}, tmp_path / "w.pth")
    assert "4,398.0 GB" in refused(tmp_path / "w.pth")
    torch.save({**WEIGHTS, "fc.scale": torch.ones(1).expand(64)}, tmp_path / "w.pth")
    assert formats.published(tmp_path / "w.pth").state["fc.scale"].shape == (64,)


def stored(value: torch.Tensor) -> Any:
    """The numbers of a tensor, as torch pickles them."""
    return torch.storage.TypedStorage(wrap_storage=value.untyped_storage(), dtype=value.dtype, _internal=True)


def tensor(numbers: int, shape: tuple[int, ...], own: dict[str, Any]) -> Call:
    """A pickled tensor that may claim any shape, and have things of its own."""
    arguments = (stored(torch.ones(numbers)), 0, shape, (1,), False, collections.OrderedDict())
    return Call(torch._tensor._rebuild_from_type_v2, torch._utils._rebuild_tensor_v2, torch.Tensor, arguments, own)


def test_a_tensor_larger_than_its_numbers_is_refused(tmp_path: Path) -> None:
    for save in (torch_zip, torch_old):
        save({"w": tensor(4, (2**40,), {})}, tmp_path / "w.pth")
        said = refused(tmp_path / "w.pth")
        assert " storage" in said or " memory" in said
        save({"w": tensor(4, (8,), {})}, tmp_path / "w.pth")
        assert " storage" in refused(tmp_path / "w.pth")
        save({"w": tensor(4, (-4,), {})}, tmp_path / "w.pth")
        refused(tmp_path / "w.pth")


class Shadowed:
    """Pickled, it is a dict of weights with an `items` of its own, and `get`, and `keys`."""

    def __reduce__(self) -> Any:
        own = dict.fromkeys(("items", "get", "keys", "values", "__iter__"), 5)
        scale = tensor(2, (2,), dict.fromkeys(("numel", "detach", "is_complex", "element_size"), 5))
        found = {**WEIGHTS, "fc.bias": nn.Parameter(torch.ones(2)), "fc.scale": scale}
        return collections.OrderedDict, (), own, None, iter(found.items())


def test_names_upon_a_dict_or_a_tensor_change_nothing(tmp_path: Path) -> None:
    """Objects in a file may have an `items` or a `numel` of their own."""
    for save in (torch_zip, torch_old):
        save({"state_dict": Shadowed()}, tmp_path / "w.pth")
        found = formats.published(tmp_path / "w.pth").state
        assert found.keys() == {"fc.weight", "fc.bias", "fc.scale"} and found["fc.scale"].numel() == 2
        assert type(found["fc.bias"]) is torch.Tensor and not found["fc.bias"].requires_grad


@pytest.mark.parametrize("odd", ["a\nb", "a\x1b[2Jb", "a" * 501, "a\u202eb"])
def test_names_that_would_spoil_a_line_are_refused(odd: str, tmp_path: Path) -> None:
    torch.save({**WEIGHTS, odd: torch.ones(1)}, tmp_path / "w.pth")
    assert "weight names" in refused(tmp_path / "w.pth")


def test_a_weight_with_and_without_a_wrapper_is_refused(tmp_path: Path) -> None:
    torch.save({**WEIGHTS, "module.fc.bias": torch.zeros(2)}, tmp_path / "w.pth")
    assert "two weights" in refused(tmp_path / "w.pth")


def test_a_whole_program_of_torchs_is_refused(tmp_path: Path) -> None:
    """TorchScript, and a pickled module: both hold code."""
    torch.save(nn.Linear(3, 2), tmp_path / "w.pth")
    assert "torch.nn.modules.linear.Linear" in refused(tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "s.pth", "w") as packed:
        packed.writestr("s/constants.pkl", pickle.dumps((), protocol=2))
        packed.writestr("s/data.pkl", pickle.dumps((), protocol=2))
        packed.writestr("s/code/__torch__.py", "class Net(Module):\n  def forward(self): pass\n")
        packed.writestr("s/version", "3\n")
    assert "TorchScript" in refused(tmp_path / "s.pth")


# ---- bombs


def test_a_packed_bomb_is_refused(tmp_path: Path) -> None:
    numbers = np.zeros(5_000_000, np.float32)
    with zipfile.ZipFile(tmp_path / "w.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("w/data.pkl", pickle.dumps({}, protocol=2))
        packed.writestr("w/data/0", numbers.tobytes())
    np.savez_compressed(tmp_path / "w.npz", w=numbers)
    for file in ("w.pth", "w.npz"):
        assert "0.0 GB" in refused(tmp_path / file)


def test_a_npz_of_objects_is_refused(tmp_path: Path) -> None:
    marker, objects = tmp_path / "mark", np.empty(1, object)
    objects[0] = PAYLOADS["os.system"](marker)
    np.savez(tmp_path / "w.npz", fc=objects)
    assert "allow_pickle" in refused(tmp_path / "w.npz", marker)
    with pytest.raises(ValueError, match=r"w\.npz") as error:
        initial_backbone(ModelSpec("resnet18", (), (32, 32), 32, "pad", 0.5, 0.3), str(tmp_path / "w.npz"), 0.0)
    assert "\n" not in str(error.value) and not marker.exists()


def test_a_npz_that_claims_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (2**50,)})
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as packed:
        packed.writestr("fc.npy", head.getvalue() + b"1234")
    refused(tmp_path / "w.npz")
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as packed:
        packed.writestr("fc.npy", head.getvalue().replace(b"'<f4'", b"f(1)") + b"1234")
    refused(tmp_path / "w.npz")


def tensors_file(head: Any, size: int | None = None, numbers: bytes = bytes(16)) -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + numbers


def claim(shape: list[int], begin: int, end: int, kind: str = "F32") -> dict[str, Any]:
    return {"w": {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}}


@pytest.mark.parametrize(
    "data",
    [
        tensors_file(claim([4], 0, 16), size=2**62),
        tensors_file(claim([4], 0, 16), size=10**6),
        tensors_file(claim([4], 0, 16), size=3),
        tensors_file(claim([2**40], 0, 2**42)),
        tensors_file(claim([2**40], 0, 16)),
        tensors_file(claim([2**33, 2**33], 0, 16)),
        tensors_file(claim([4], 8, 24)),
        tensors_file(claim([4], 16, 0)),
        tensors_file(claim([-4], 0, 16)),
        tensors_file(claim([4], 0, 16, "F33")),
        tensors_file(claim([4], 0, 16) | {"v": claim([4], 0, 16)["w"]}),
        tensors_file(b"{" * 5000),
        tensors_file(b"{}"),
        tensors_file({}, numbers=b""),
    ],
    ids=[
        "endless",
        "long",
        "short",
        "huge",
        "more",
        "overflow",
        "beyond",
        "back",
        "less",
        "kind",
        "shared",
        "deep",
        "rest",
        "none",
    ],
)
def test_a_lying_head_of_safetensors_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(data)
    refused(tmp_path / "w.safetensors")
    (tmp_path / "w.pth").write_bytes(data)
    refused(tmp_path / "w.pth")


# ---- damaged, and of other kinds


def whole(form: str, folder: Path) -> Path:
    """A good file."""
    file = folder / f"w.{form}"
    if form == "safetensors":
        save_file(WEIGHTS, file)
    elif form == "npz":
        np.savez(file, **ARRAYS)
    else:
        FORMS[form](dict(WEIGHTS), file)
    return file


@pytest.mark.parametrize("form", [*FORMS, "safetensors", "npz"])
def test_a_file_is_read_whole_or_not_at_all(form: str, tmp_path: Path) -> None:
    file = whole(form, tmp_path)
    found = formats.published(file).state
    assert found.keys() == WEIGHTS.keys() and all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)
    data = file.read_bytes()
    for end in sorted({*range(0, len(data), max(1, len(data) // 60)), 1, 2, 3, 4, 8, 9, 20, len(data) - 1}):
        file.write_bytes(data[:end])
        refused(file)


@pytest.mark.parametrize("form", [*FORMS, "safetensors", "npz"])
def test_a_damaged_file_is_read_or_refused_in_a_line(form: str, tmp_path: Path) -> None:
    """With a few bytes changed, others put in or taken out, at places drawn by lot."""
    draw, file = random.Random(form), whole(form, tmp_path)
    data = file.read_bytes()
    for _ in range(150):
        spoilt = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(4, len(spoilt) - 8)
            spoilt[place : place + draw.choice((0, 1, 1, 1, 4))] = draw.randbytes(draw.choice((0, 1, 1, 1, 4)))
        file.write_bytes(spoilt)
        try:
            formats.published(file)
        except (ValueError, MemoryError) as error:
            assert "\n" not in str(error) and len(str(error)) < 300 + len(str(file))


def in_tar(folder: Path) -> bytes:
    (folder / "storages").write_bytes(pickle.dumps(3))
    with tarfile.open(folder / "t.tar", "w") as packed:
        packed.add(folder / "storages", "storages")
    return (folder / "t.tar").read_bytes()


OTHERS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "empty": (lambda _: b"", "empty"),
    "text": (lambda _: b"fc.weight 1 2 3\n" * 9, "text"),
    "json": (lambda _: json.dumps({"fc.weight": [1, 2, 3]}).encode(), "text"),
    "page": (lambda _: b"\n\n<!DOCTYPE html><html><title>Google Drive</title></html>" * 9, "web page"),
    "page in capitals": (lambda _: b"\xef\xbb\xbf<HTML><body>404</body></HTML>" * 9, "web page"),
    "pointer": (
        lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 28\n",
        "Git LFS pointer",
    ),
    "image": (lambda _: b"\x89PNG\r\n\x1a\n" + bytes(99), "not supported"),
    "tar": (in_tar, "not supported"),
    "gzip": (lambda _: b"\x1f\x8b\x08" + bytes(99), "not supported"),
    "zeros": (lambda _: bytes(999), "not supported"),
    "one byte": (lambda _: b"\x80", "not supported"),
    "half a beginning": (lambda _: pickled.TORCH[:9], "damaged"),
    "a beginning": (lambda _: pickled.TORCH, "damaged"),
    "empty zip": (lambda _: b"PK\x05\x06" + bytes(18), "empty archive"),
    "a number": (lambda _: pickle.dumps(3), "no weights"),
    "no weights": (lambda _: pickle.dumps({"epoch": 3, "names": ["a"]}), "no weights"),
}


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("called", ["模型 w.pth", "w.safetensors", "w.npz"])
def test_what_is_no_file_of_weights_is_refused_in_a_line(kind: str, called: str, tmp_path: Path) -> None:
    make, says = OTHERS[kind]
    (tmp_path / called).write_bytes(make(tmp_path))
    assert says in refused(tmp_path / called)


def test_a_folder_and_a_missing_file_are_refused_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w.pth").mkdir()
    assert "folder" in refused(tmp_path / "w.pth")
    assert cli.main(["convert", str(tmp_path / "w.pth"), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert cli.main(["convert", str(tmp_path / "v.pth"), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert has_facts(said, f"ribcage: {tmp_path / 'v.pth'} ") and said.count("\n") == 1


# ---- what stands beside weights


def made(monkeypatch: pytest.MonkeyPatch, where: str, called: str, base: type) -> Any:
    """A class of a library that is not here."""
    parts = where.split(".")
    for end in range(1, len(parts) + 1):
        if ".".join(parts[:end]) not in sys.modules:
            monkeypatch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    found = type(called, (base,), {"__module__": where})
    monkeypatch.setattr(sys.modules[where], called, found, raising=False)
    return found


def beside(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What training programs put into their files."""
    options = {"lr": 1e-3, "betas": [0.9, 0.999]}
    lists: Any = collections.defaultdict(list)
    lists["loss"].append(0.5)
    found: dict[str, Any] = {
        "args": argparse.Namespace(lr=0.1, out=pathlib.PosixPath("runs"), more=argparse.Namespace(a=np.float64(2))),
        "defaultdict": lists,
        "counts": collections.Counter("aab"),
        "ordered": collections.OrderedDict(options),
        "recent": collections.deque([1.0, 2.0], maxlen=20),
        "paths": [pathlib.PurePosixPath("a"), pathlib.PureWindowsPath("a")],
        "numpy": [np.float64(0.5), np.float32(0.5), np.int64(3), np.bool_(True), np.dtype("float32"), np.arange(3)],
        "random": np.random.RandomState(0).get_state(),
        "when": datetime.datetime(2017, 12, 27, 1, 2, 3, tzinfo=datetime.UTC),
        "day": datetime.date(2017, 12, 27),
        "took": datetime.timedelta(seconds=3),
        "sizes": (torch.Size([2]), torch.float32, torch.device("cpu"), {1, 2}, 1 + 2j, b"bytes", 2**70, None),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2)}}, "param_groups": [options]},
    }
    dicts = [("easydict", "EasyDict"), ("addict.addict", "Dict"), ("yacs.config", "CfgNode")]
    dicts += [
        ("pytorch_lightning.utilities.parsing", "AttributeDict"),
        ("lightning_fabric.utilities.data", "AttributeDict"),
    ]
    dicts += [("lightning.fabric.utilities.data", "AttributeDict")]
    for where, called in dicts:
        config = made(monkeypatch, where, called, dict)(options)
        config.within = config.lr = 5  # kept beside what is in the dict
        config["deep"] = type(config)(options)
        found[where] = config
    config = made(monkeypatch, "omegaconf.dictconfig", "DictConfig", object)()
    config._content, config._metadata = options, made(monkeypatch, "omegaconf.base", "ContainerMetadata", object)()
    found["omegaconf"] = config
    return found


def test_what_stands_beside_weights_is_no_hindrance(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for form, save in (("torch", torch_zip), ("torch-old", torch_old)):
            for kind, value in beside(patch).items():
                save({kind: value, "state_dict": dict(WEIGHTS)}, tmp_path / f"{form} {kind}.pth")
            every = beside(patch)
            save(
                {"model": every["easydict"], **every, "net": dict(WEIGHTS)},
                tmp_path / f"{form} all.pth",
            )
    assert "easydict" not in sys.modules or hasattr(sys.modules["easydict"], "__file__")
    files = sorted(tmp_path.glob("*.pth"))
    assert len(files) > 30
    for file in files:
        found = formats.published(file).state
        assert found.keys() == WEIGHTS.keys(), file.name
        assert all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)


def test_weights_in_a_dict_of_another_library_are_found(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        config = made(patch, "easydict", "EasyDict", dict)
        torch.save({"model": config(WEIGHTS)}, tmp_path / "w.pth")
    assert formats.published(tmp_path / "w.pth").state.keys() == WEIGHTS.keys()


def test_numbers_of_python_2_are_read(tmp_path: Path) -> None:
    """A score of NumPy's was a text of raw bytes there."""
    torch_old({**WEIGHTS, "score": "SCORE"}, tmp_path / "w.pth")
    scalar = (
        b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x02f8K\x00K\x01\x87RU\x08\xcd\xcc\xcc\xcc\xcc\xcc\xec?\x86R"
    )
    data = (tmp_path / "w.pth").read_bytes()
    assert data.count(b"X\x05\x00\x00\x00SCORE") == 1
    (tmp_path / "w.pth").write_bytes(data.replace(b"X\x05\x00\x00\x00SCORE", scalar))
    assert formats.published(tmp_path / "w.pth").state.keys() == WEIGHTS.keys()


def test_reading_leaves_nothing_behind(tmp_path: Path) -> None:
    """torch is told of the classes that are put up with only as long as a file is read."""
    torch.save({**WEIGHTS, "args": argparse.Namespace(a=1)}, tmp_path / "w.pth")
    before = set(torch.serialization.get_safe_globals())
    formats.published(tmp_path / "w.pth")
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "w.pth", weights_only=True)
    assert not {"eval", "exec", "getattr"} & {name.rpartition(".")[2] for known in torch_files.REPLACEMENTS.values() for name in known}  # fmt: skip
    assert not copyreg.dispatch_table.keys() & {Call, Filled} and builtins.eval("1") == 1


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("call", [(bytearray, 10**14), (codecs.encode, "模" * 1000, "punycode")])
def test_torch_s_own_calls_cost_no_more_than_the_file(tmp_path: Path, call: Any, zipped: bool) -> None:
    """Longer texts would be encoded for hours, and bytes made until the memory is full."""
    torch.save(WEIGHTS | {"x": Call(*call)}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"w\.pth .*byte strings"):
        formats.published(tmp_path / "w.pth")
