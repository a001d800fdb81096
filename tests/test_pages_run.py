"""The commands of README and docs run: each page from top to bottom, on small images.

A page of docs may use what README has made (`data/nih`, `runs/chexnet`); else it stands for itself.
"""

import re
import shlex
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import cv2
import processes
import pytest
import trees
from clinics import clinic
from networks import Tiny
from test_transformers_dino import RAD_DINO, as_transformers, folder, random_timm
from test_tutorials import healthy, published

from ribcage import cli
from ribcage.data import datasets
from ribcage.data.datasets import phantom
from ribcage.data.findings import CHESTXRAY14

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent
SMALL = "--epochs 1 --batch 8 --threads 1"
QUICK = (
    (r"--model resnet18 (--out runs/plain)", r"--model test_vit --size 64 \g<1>"),
    (r"--model (densenet121 --init imagenet|resnet18)", "--model test_resnet --size 64"),
    (r"--model vit_base_patch16_224 --init imagenet", "--model test_vit --size 64"),
    (r"hf:microsoft/rad-dino", "rad-dino/model.safetensors"),
    (r"--model vit_base_patch14_dinov2 --size 224", "--model vit_small_patch14_dinov2 --size 70"),
    (r"--model eeea_net_c2", r"\g<0> --size 64"),
    (r"ribcage (pretrain \w+|finetune|distil|localise) .*", rf"\g<0> {SMALL}"),
    (r"ribcage tune .*", rf"\g<0> --model test_resnet --size 64 --trials 1 {SMALL}"),
    (r"--size 128:0.6,224 (.*)", r"--size 32:0.6,64 \g<1> --model test_resnet --epochs 2"),
    (r"ribcage pretrain moco .*", r"\g<0> --bn-group 4 --queue 16"),
    (r"ribcage import (?!folder)\w+ .*", r"\g<0> --size 64"),
    (r"import phantom (.*)--images \d+", r"import phantom \g<1>--images 150"),
    (r"--labels 0.01", "--labels 0.5"),
    (r"ribcage labels .*", r"\g<0> --seeds 2 --findings Effusion"),
    (r"ribcage probe .*", r"\g<0> --labels 1 --findings Effusion Atelectasis Cardiomegaly Infiltration"),
    (r" --port \d+", ""),
    (r"ribcage serve .*", r"\g<0> --port 0 --threads 1 --workers 1"),
    (r"profile .*", "profile test_resnet --no-latency"),
    (r"export (models/chexnet|runs/small)", "export runs/chexnet"),
    (r"convert model\.pth\.tar .*", r"\g<0> --size 64"),
)
"""What is typed instead, to be done within seconds; what is exported and counted is a small ResNet."""
ELSEWHERE = {
    "benchmarks": "measured by hand",
    "cluster": "test_launcher.py plays srun",
    "extending": "test_docs_examples.py",
    "index": "the same lines as README",
    "remote": "test_remote_data.py and test_remote_bundle.py, on servers of this machine",
    "tuning": "test_tune.py",
}


# ---- the world


def nih(folder: Path, patients: int = 60) -> None:
    """ChestX-ray14 as it is downloaded, of synthetic radiographs."""
    index = datasets.index("phantom", images=2 * patients, lateral=0.0, uncertain=0.0, missing=0.0)
    drawn = phantom.images(index, size=64, depth=8)
    rows, bits = [], {}
    for place, row in enumerate(index.table.to_dict("records")):
        has = [name for name in CHESTXRAY14 if row[name] == 1]
        patient, follow = divmod(place, 2)
        name = f"{patient + 1:08d}_{follow:03d}.png"
        rows.append((name, "|".join(has) or "No Finding", follow, patient + 1, "050Y", row["sex"], row["view"]))
        bits[name] = " ".join(str(int(one in has)) for one in CHESTXRAY14)
        file = folder / "images_001" / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(cv2.imencode(".png", drawn(place))[1].tobytes())
    trees.nih_table(folder / "Data_Entry_2017_v2020.csv", rows)
    names = list(bits)
    trees.text(folder / "train_val_list.txt", *names[: len(names) * 2 // 3])
    trees.text(folder / "test_list.txt", *names[len(names) * 2 // 3 :])
    trees.text(
        folder / "BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,", f"{names[0]},Mass,9,9,30,40"
    )
    third = len(names) // 3
    for part, chosen in {"train": names[third:], "val": names[20:third], "test": names[:20]}.items():
        trees.text(folder / "arnoweng" / f"{part}_list.txt", *(f"{name} {bits[name]}" for name in chosen))


def chests(folder: Path, seed: int) -> None:
    """Synthetic chests instead of noise, which is the same in all trees."""
    files = sorted(file for file in folder.rglob("*") if file.suffix in (".jpg", ".dcm"))
    pixels = phantom.images(datasets.index("phantom", images=len(files), seed=seed), size=64, depth=8)
    for place, file in enumerate(files):
        if file.suffix == ".dcm":
            trees.dicom(file, pixels(place))
        else:
            file.write_bytes(cv2.imencode(".jpg", pixels(place))[1].tobytes())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to work in; /data and /clinic are others, that have spaces in their names."""
    place = tmp_path_factory.mktemp("pages 文档")
    disk = place / "disk of mine"
    nih(disk / "data" / "ChestX-ray14")
    trees.chexpert(disk / "data", patients=40)
    trees.mimic(disk / "data" / "mimic-cxr-jpg")
    trees.rsna(disk / "data" / "rsna-pneumonia")
    for seed, name in enumerate(("CheXpert-v1.0-small", "mimic-cxr-jpg", "rsna-pneumonia"), 10):
        chests(disk / "data" / name, seed)
    clinic(disk / "data" / "ours", images=120, side=64)
    trees.image(disk / "clinic" / "inbox" / "study.dcm", side=64)
    trees.image(disk / "clinic" / "inbox" / "2024-01.dcm", seed=1, side=64)
    published(place / "model.pth.tar")
    Tiny(size=(64, 64)).save(place / "network.onnx")
    rad_dino = as_transformers(random_timm("vit_small_patch14_dinov2", img_size=70))
    folder(place / "rad-dino", rad_dino, {"model_type": "dinov2", "image_size": 70}, RAD_DINO)
    for name in ("study.dcm", "image.png", "chest.png"):
        trees.image(place / name, seed=2, side=64)
    (place / "token.txt").write_text("a token of enough letters\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        yield place


# ---- pages


def lines(page: Path) -> list[str]:
    """Every command of ours on a page."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^(?:    )?(?:\$ )?(ribcage [a-z].*)$", text, re.M)
    return [line.split("  #")[0] for line in found]


def typed(line: str, place: Path) -> list[str]:
    """The words of a command, small and with this machine's folders."""
    for said, instead in QUICK:
        line = re.sub(said, instead, line)
    return [re.sub(r"^/(data|clinic)/", rf"{place}/disk of mine/\1/", word) for word in shlex.split(line)[1:]]


def follow(page: Path, place: Path, capsys: pytest.CaptureFixture) -> None:
    """Type the commands of a page one by one."""
    for line in lines(page):
        words = typed(line, place)
        if words[0] == "serve":
            served(words, place)
            continue
        for option, run in pairwise(words):  # a second page that makes a run makes it anew
            if option == "--out" and words[0] != "import":
                shutil.rmtree(place / run, ignore_errors=True)
        code = cli.main(words)
        assert code == 0, f"{page.name}: {line}\n{shlex.join(words)}\n{capsys.readouterr().err}"


def served(words: list[str], place: Path) -> None:
    """Start a server, send a request, and stop it."""
    told = place / "serve.txt"
    told.unlink(missing_ok=True)
    with processes.ribcage(words, told, PYTHONUNBUFFERED="1") as server:
        found: list[str] = []

        def ready() -> bool:
            found[:] = re.findall(r"http://[\d.]+:(\d+)", told.read_text(encoding="utf-8"))
            return bool(found) and healthy(f"http://127.0.0.1:{found[0]}")

        processes.until(ready, server)
        server.send_signal(15)
        code, said = server.end()
        assert code == 0, said


def test_readme_and_then_the_docs_can_be_followed(place: Path, capsys: pytest.CaptureFixture) -> None:
    follow(ROOT / "README.md", place, capsys)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S | re.M)
    for block in blocks:
        exec(compile(block.replace("images=500", "images=150, size=64, redo=True"), "README.md", "exec"), {})
    assert "torch.Size([32, 1, 224, 224]) torch.Size([32, 14])" in capsys.readouterr().out
    for page in sorted((ROOT / "docs").glob("*.md")):
        if page.stem not in ELSEWHERE:
            follow(page, place, capsys)
