"""The tutorials can be followed: their commands are typed as they stand, on a small clinic, and say what the page says.

Numbers differ from machine to machine and are not compared; `RIBCAGE_WRITE_TUTORIALS=1 pytest tests/test_tutorials.py`
writes those of this one into the pages.
"""

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import processes
import pytest
import torch
import trees
from clinics import clinic
from test_chexnet import densenet

from ribcage import cli
from ribcage.bundle.io import save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.data.findings import CHESTXRAY14
from ribcage.data.provenance import Provenance
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone

pytestmark = pytest.mark.integration

PAGES = Path(__file__).parent.parent / "docs" / "tutorials"
SMALL = "--model test_resnet --size 64 --epochs 8 --batch 32 --lr 0.005 --threads 1"
QUICK = {
    "--model densenet121 --init imagenet": SMALL,
    "ribcage convert model.pth.tar": "ribcage convert model.pth.tar --size 64",
    "--out runs/leak": "--out runs/leak --epochs 1 --batch 7",
    "ribcage serve": "ribcage serve --port 0 --threads 1 --workers 1",
}
"""What is typed instead, to be done within seconds."""
WRITTEN = ("own-data", "checkpoint-to-server")
"""Pages whose numbers are of the small clinic; others tell of the whole dataset."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to work in, beside /data, which is another one here."""
    place = tmp_path_factory.mktemp("tutorial 教程")
    new = place / "data of mine" / "new"
    clinic(place / "data of mine" / "ours")
    new.mkdir()
    for name in ("0001.png", "0002.png", "0003.png"):
        shutil.copy(place / "data of mine" / "ours" / "images" / name, new)
    shutil.copy(new / "0002.png", new / "chest.png")
    (new / "cut.png").write_bytes((new / "0001.png").read_bytes()[:200])
    (new / "0003.png").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place


# ---- pages


def steps(page: Path) -> list[tuple[str, list[str]]]:
    """Every command of a page, and the output that the page shows."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)
    found: list[tuple[str, list[str]]] = []
    for line in "".join(blocks).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def typed(command: str, place: Path) -> list[str]:
    """The words of a command, small and with this machine's folders."""
    for said, instead in QUICK.items():
        command = command.replace(said, instead)
    return [word.replace("/data/", f"{place}/data of mine/") for word in shlex.split(command)]


def shape(line: str) -> str:
    """A line without its numbers, spaces and emphasis."""
    return " ".join(re.sub(r"[-−–]?\d[\d,.]*|(?<=\s)–(?=\s|$)", "#", line).split())


def check(page: Path, told: Sequence[str], text: str, place: Path) -> None:
    """Each line told is among those really said, in this order; where asked, write what was said into the page."""
    said = iter([line.rstrip() for line in text.replace(f"{place}/data of mine", "/data").splitlines()])
    for line in told:
        found = next((one for one in said if shape(one).startswith(shape(line))), None)
        assert found is not None, f"{page.name} tells of {line!r}, but this was said:\n{text}"
        if os.environ.get("RIBCAGE_WRITE_TUTORIALS") and page.stem in WRITTEN:
            kept = found if shape(found) == shape(line) else line
            page.write_text(page.read_text(encoding="utf-8").replace(line, kept), encoding="utf-8")


def follow(
    page: Path,
    steps: Sequence[tuple[str, list[str]]],
    place: Path,
    capsys: pytest.CaptureFixture,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Type the commands one by one."""
    for command, told in steps:
        caplog.clear()
        code = cli.main(typed(command, place)[1:])
        out, err = capsys.readouterr()
        refused = any(line.startswith("ribcage: ") for line in told)
        unread = any("could not be read" in line for line in told)
        assert code == 3 if unread else (code != 0) == refused, f"{command}: {err}"
        check(page, told, "\n".join(caplog.messages) + "\n" + out + err, place)


# ---- your own data


def test_a_table_of_ones_own_becomes_a_tested_model(
    place: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    page = PAGES / "own-data.md"
    follow(page, steps(page), place, capsys, caplog)
    assert (place / "predictions.csv").exists() and (place / "runs" / "ours" / "evaluation" / "ours-test").is_dir()


# ---- from a checkpoint to a server


@contextmanager
def serving(command: str, place: Path) -> Iterator[tuple[str, str]]:
    """A server that is ready: its address, and what it said."""
    with processes.ribcage(typed(command, place)[1:], place / "said" / "serve.txt", PYTHONUNBUFFERED="1") as server:
        found: list[str] = []

        def ready() -> bool:
            found[:] = re.findall(r"http://127\.0\.0\.1:\d+", server.file.read_text(encoding="utf-8"))
            return bool(found) and healthy(found[0])

        processes.until(ready, server)
        yield found[0], server.file.read_text(encoding="utf-8")
        server.send_signal(15)
        code, said = server.end()
        assert code == 0 and said.endswith("Stopped.\n")


def healthy(address: str) -> bool:
    """Whether it accepts connections; polled now and then."""
    import httpx

    time.sleep(0.05)
    return httpx.get(f"{address}/healthz", timeout=30).status_code == 200


def published(file: Path) -> None:
    """A file as CheXNet's is, of random weights."""
    torch.manual_seed(0)
    weights = {
        f"module.densenet121.{name}": torch.randn(shape) * 0.05 if len(shape) > 1 else torch.ones(shape)
        for name, shape in densenet().items()
    }
    torch.save({"state_dict": weights, "epoch": 1}, file)


def smaller(folder: Path) -> None:
    """A small network instead of the DenseNet: the same findings, and quick to export."""
    torch.manual_seed(0)
    method = Supervised(Backbone("test_resnet", size=(64, 64)), CHESTXRAY14)
    torch.nn.init.normal_(method.head.weight, std=3.0)
    facts = TrainingRecord(images=1, patients=1, selection=1)
    model = ModelSpec("test_resnet", method.findings, (64, 64), 96, "pad", 0.5, 0.25, training=facts)
    shutil.rmtree(folder)
    save_bundle(folder, method.eval(), model, Provenance.nothing("a file"))


def test_a_published_file_answers_in_a_server(
    place: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    page = PAGES / "checkpoint-to-server.md"
    listed = steps(page)
    published(place / "model.pth.tar")
    data = "ribcage import folder /data/ours --out data/ours --redo --label-columns 胸腔积液 Cardiomegaly PTX Mass"
    follow(page, [(data, []), listed[0]], place, capsys, caplog)
    smaller(place / "models" / "chexnet")
    follow(page, listed[1:3], place, capsys, caplog)
    with serving(listed[3][0], place) as (address, said):
        check(page, listed[3][1], said.replace(address, "http://127.0.0.1:8000"), place)
        for command, told in listed[4:]:
            check(page, told, asked(typed(command.replace("http://127.0.0.1:8000", address), place)), place)
        script = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)[0]
        script = script.replace("http://127.0.0.1:8000", address).replace("/data/", f"{place}/data of mine/")
        exec(compile(script, str(page), "exec"), {})
    answers = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in answers] == list(CHESTXRAY14)


def asked(words: list[str]) -> str:
    """What curl prints; where there is none, nothing can be said of it."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    return subprocess.run([words[0], "-sSf", *words[1:]], capture_output=True, text=True, check=True).stdout


# ---- public datasets, as little images in their makers' layouts


@pytest.mark.parametrize(
    ("page", "name", "build"),
    [
        ("chestx-ray14", "ChestX-ray14", trees.nih),
        ("chexpert", "CheXpert", partial(trees.chexpert, patients=60)),
        ("mimic-on-a-cluster", "mimic-cxr-jpg", trees.mimic),
    ],
    ids=["chestx-ray14", "chexpert", "mimic"],
)
def test_a_page_on_a_public_dataset_can_be_followed(
    page: str,
    name: str,
    build: Callable[[Path], Path],
    place: Path,
    capsys: pytest.CaptureFixture,
    caplog: pytest.LogCaptureFixture,
) -> None:
    build(place / "data of mine" / name)
    file = PAGES / f"{page}.md"
    follow(file, steps(file), place, capsys, caplog)


# ---- all of them


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_a_tutorial_has_requirements_troubleshooting_and_next_steps(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert all(part in text for part in ("**Before you start**", "## What can go wrong", "## Where to go next"))
    assert steps(page)
