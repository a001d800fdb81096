"""Every recipe runs from the download to the tested model by the commands on its top, alone and on two processes.

Weights, data and runs lie elsewhere than there, and a model sees less, for a shorter time: `SMALL`. All other options
stand as published.
"""

import json
import shlex
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import processes
import pytest
import trees
from refusals import has_facts

import ribcage
from ribcage import cli
from ribcage.runtime import recipe

RECIPES = recipe.FOLDER


def chexpert(folder: Path) -> Path:
    """The download, with patients of both kinds: what even ones have, odd ones have not."""
    trees.chexpert(folder, patients=40)
    swapped = {"1.0": "0.0", "0.0": "1.0"}
    for file in folder.rglob("*.csv"):
        head, *lines = file.read_text().splitlines()
        for place, line in enumerate(lines):
            start, *labels = line.split(",")
            if int(start.partition("/patient")[2].partition("/")[0]) % 2:
                lines[place] = ",".join([start, *(swapped.get(label, label) for label in labels)])
        file.write_text("\n".join([head, *lines]) + "\n")
    for seed, file in enumerate(sorted(folder.rglob("*.jpg"))):  # no image twice: that would be a leak
        trees.image(file, seed)
    return folder


@dataclass(frozen=True)
class Case:
    """A recipe, a download to try it on, and what is made small."""

    name: str
    tree: Any
    small: tuple[str, ...]
    rates: tuple[float, ...]
    """The learning rate of each step; a step is an epoch here, as all images fit into a batch."""
    test: tuple[int, int]
    """Images and patients in the test part."""
    tested: frozenset[str]
    """Findings of which both kinds are there."""

    @property
    def file(self) -> Path:
        return RECIPES / f"{self.name}.toml"

    @property
    def commands(self) -> list[list[str]]:
        """import, finetune and evaluate as they stand on top of the recipe."""
        return commands_on_top(self.file)


def commands_on_top(recipe: Path) -> list[list[str]]:
    """What stands on top of a recipe to be typed, without `ribcage`."""
    lines = recipe.read_text(encoding="utf-8").splitlines()
    return [shlex.split(line[1:])[1:] for line in lines if line.startswith("#   ribcage ")]


NIH = frozenset({"Effusion", "Mass", "Pleural_Thickening"})
CASES = [
    Case("chexnet-nih-densenet121", trees.nih, ("--init=",), (1e-3, 1e-4), (6, 2), NIH),
    Case("finetune-nih", trees.nih, (), (1e-3, 1e-3), (9, 3), NIH),
    Case(
        "finetune-chexpert",
        chexpert,
        (),
        (1e-3, 1e-3),
        (6, 3),
        frozenset({"Cardiomegaly", "Consolidation", "Edema", "Effusion"}),
    ),
]
OVERLAP = {"official": ("9 test images", "3 patients"), "arnoweng": ("6 test images", "2 patients")}
SMALL = ("--epochs=2", "--size=64", "--precision=float32", "--threads=1")


@dataclass(frozen=True)
class Tried:
    """A recipe that was run: the folder with `data` and a run `one` and `two`."""

    case: Case
    folder: Path

    def words(self, step: int, run: str) -> list[str]:
        """The import, finetune (1) or evaluate (2) of the recipe, with the places of the test."""
        words = self.case.commands[step]
        moved = {
            "/data/": str(self.folder / "download"),
            "data/": str(self.folder / "data"),
            "runs/": str(self.folder / run),
            "PRETRAINED": "",
        }
        return [next((to for start, to in moved.items() if word.startswith(start)), word) for word in words]

    def read(self, *names: str) -> Any:
        return json.loads(self.folder.joinpath(*names).read_text(encoding="utf-8"))

    def log(self, run: str) -> list[dict[str, Any]]:
        """The lines of the steps, without those of the validations."""
        lines = (self.folder / run / "metrics.jsonl").read_text().splitlines()
        return [line for line in map(json.loads, lines) if "loss" in line]


@pytest.mark.integration
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_recipe_runs_from_the_download_to_the_tested_model(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One test, not several with a fixture, since workers beside each other would each train again."""
    tried = Tried(case, tmp_path)
    case.tree(tmp_path / "download")
    assert cli.main(tried.words(0, "")) == 0
    assert cli.main([*tried.words(1, "one"), *SMALL, *case.small]) == 0
    two = [*tried.words(1, "two"), *SMALL, *case.small]
    processes.together(processes.command, two, said=tmp_path / "said")
    trained_with_what_it_says(tried)
    two_processes_took_the_steps_of_one(tried)
    for run in ("one", "two"):
        capsys.readouterr()
        assert cli.main([*tried.words(2, run), "--resamples=50"]) == 0
        ended_in_a_tested_model(tried, run, capsys.readouterr().out)
    if case.tree is trees.nih:
        the_other_split_is_refused(tried, capsys)


def trained_with_what_it_says(tried: Tried) -> None:
    says = tomllib.loads(tried.case.file.read_text(encoding="utf-8"))
    small = {word.partition("=")[0].removeprefix("--") for word in (*SMALL, *tried.case.small)}
    for run in ("one", "two"):
        did = tried.read(run, "options.json")
        kept = {name: value for name, value in says.items() if name not in small}
        assert kept and {name: did[name] for name in kept} == kept
        assert [line["lr"] for line in tried.log(run)] == pytest.approx(tried.case.rates)


def two_processes_took_the_steps_of_one(tried: Tried) -> None:
    """With drop path other branches are drawn, so the first loss, from a head near zero, is only about the same."""
    one, two = ([(line["step"], line["loss"]) for line in tried.log(run)] for run in ("one", "two"))
    assert [step for step, _ in one] == [step for step, _ in two]
    assert two[0][1] == pytest.approx(one[0][1], rel=1e-5 if "densenet" in tried.case.name else 0.02)


def ended_in_a_tested_model(tried: Tried, run: str, said: str) -> None:
    crops = "-ten-crop" if "chexnet" in tried.case.name else ""
    found = tried.read(run, "evaluation", f"{tried.case.tree.__name__}-test{crops}", "metrics.json")
    scores = {each["finding"]: each["auroc"]["value"] for each in found["findings"]}
    assert {name for name, score in scores.items() if score is not None} == tried.case.tested
    assert (found["images"], found["patients"]) == tried.case.test and not found["leak"]["found"]
    assert found["ten_crop"] == ("chexnet" in tried.case.name) == ("The AUROC of Mass is 0." in said)
    assert list(scores) == tried.read(run, "bundle", "model.json")["findings"]


def the_other_split_is_refused(tried: Tried, capsys: pytest.CaptureFixture[str]) -> None:
    """What one family of splits trains on, the other tests on."""
    family = "official" if "chexnet" in tried.case.name else "arnoweng"
    other = str(tried.folder / family)
    assert cli.main([*tried.words(0, ""), "--split", family, "--out", other]) == 0
    assert cli.main(["evaluate", str(tried.folder / "one"), "--data", other]) == 2
    error = capsys.readouterr().err
    assert all(fact in error for fact in OVERLAP[family])


# ---- five models, and a small one that learns from each

PAIRS = {
    "eeea-c2": ("eeea_net_c2", 64),
    "ofa595": ("ofa_595", 64),
    "chexnet": ("densenet121", 64),
    "visformer-s": ("visformer_small", 32),
    "autoformerv2-b": ("autoformer_v2_base", 32),
}
"""A teacher's architecture and the side of the images it tries here; its student sees 32 pixels."""
LITTLE = {"init": "", "epochs": "1", "precision": "float32", "threads": "1"}


def teaching(name: str) -> tuple[str, str]:
    """The recipe of a teacher and that of its student."""
    return f"nih-{name}", f"distil-{name}-to-eeea-c2"


def options_of(recipe: str) -> dict[str, Any]:
    return tomllib.loads((RECIPES / f"{recipe}.toml").read_text(encoding="utf-8"))


def placed(folder: Path, words: list[str]) -> list[str]:
    """A command of a recipe's top, with data and runs below a folder."""
    roots = {"/data/": folder, "data/": folder, "runs/": folder}
    found = [next((root for start, root in roots.items() if word.startswith(start)), None) for word in words]
    return [str(root / word.lstrip("/")) if root else word for root, word in zip(found, words, strict=True)]


def test_the_five_are_trained_alike_and_so_are_their_students() -> None:
    teachers = {name: options_of(teaching(name)[0]) for name in PAIRS}
    students = [options_of(teaching(name)[1]) for name in PAIRS]
    models = {name: one.pop("model") for name, one in teachers.items()}
    assert models == {name: model for name, (model, _) in PAIRS.items()}
    assert {one.pop("model") for one in students} == {"eeea_net_c2"}
    first = teachers["eeea-c2"]
    assert all(one == first for one in teachers.values()) and all(one == students[0] for one in students)
    distillation = {"label_weight": 0.5, "temperature": 2.0, "distil_loss": "kl", "loss": "focal", "weight_decay": 0.0}
    assert students[0] == {**first, **distillation} and first["weight_decay"] == 0.01


@pytest.mark.integration
@pytest.mark.parametrize("name", PAIRS)
def test_a_model_is_trained_and_teaches_a_small_one(name: str, tmp_path: Path) -> None:
    """The commands on top of both recipes, one after the other."""
    trees.nih(tmp_path / "data" / "ChestX-ray14")
    (model, side), number = PAIRS[name], list(PAIRS).index(name) + 1
    recipes = teaching(name)
    (bring, train, test), (teach, test_student, compare) = (commands_on_top(RECIPES / f"{one}.toml") for one in recipes)
    small = [f"--{option}={value}" for option, value in LITTLE.items()]
    numbered = [] if number > 3 else ["--export-as=dtforcxr8"]  # 4 and 5 are written for 224 pixels only
    assert cli.main(placed(tmp_path, bring)) == 0
    assert cli.main([*placed(tmp_path, train), *small, f"--size={side}", *numbered]) == 0
    assert cli.main([*placed(tmp_path, test), "--resamples=50"]) == 0
    assert cli.main([*placed(tmp_path, teach), *small, "--size=32", "--export-as=dtforcxr8"]) == 0
    assert cli.main([*placed(tmp_path, test_student), "--resamples=50"]) == 0
    beside = [word.replace("nih-eeea-c2", recipes[0]) for word in compare]  # the small one alone is not trained here
    assert cli.main([*placed(tmp_path, beside), "--resamples=50"]) == 0
    teacher, student = tmp_path / "runs" / f"nih-{name}", tmp_path / "runs" / f"distil-{name}"
    for run, said, seen in ((teacher, recipes[0], side), (student, recipes[1], 32)):
        learnt_as_it_says(run, said, seen)
    facts = json.loads((student / "bundle" / "model.json").read_text(encoding="utf-8"))
    assert [lesson["name"] for lesson in facts["training"]["teachers"]] == [model]
    written = [file.name for run in (teacher, student) for file in run.glob("*.pth")]
    assert written == [f"model{number}.pth" for _ in numbered] + [f"modeld{number}.pth"]
    shutil.rmtree(tmp_path / "runs")  # a gigabyte, of the largest


def learnt_as_it_says(run: Path, recipe: str, side: int) -> None:
    """Took its step with the options of its recipe, and was tested on patients it does not know."""
    did, says = json.loads((run / "options.json").read_text(encoding="utf-8")), options_of(recipe)
    kept = {option: value for option, value in says.items() if option not in (*LITTLE, "size")}
    assert {option: did[option] for option in kept} == kept and did["size"] == [side]
    steps = [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss" in line]
    assert [line["lr"] for line in steps] == [says["lr"]]  # a batch of 16, the other five images are left out
    assert "label_weight" not in says or steps[0]["soft"] > 0  # the teacher says something else
    found = json.loads((run / "evaluation" / "nih-test-ten-crop" / "metrics.json").read_text(encoding="utf-8"))
    assert found["ten_crop"] and not found["leak"]["found"] and (found["images"], found["patients"]) == (6, 2)
    assert {each["finding"] for each in found["findings"] if each["auroc"]["value"] is not None} == NIH


# ---- listed, shown, run


@pytest.mark.parametrize("name", recipe.recipe_names())
def test_every_recipe_has_a_title_and_its_commands(name: str) -> None:
    one = recipe.read_recipe(name)
    assert one.title and one.data and one.source and one.expected and one.cost
    assert one.training[0] in ("pretrain", "finetune", "distil", "localise")
    assert "published" in one.expected or "measured" in one.expected or "its log" in one.expected


def test_the_list_and_one_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "配 方.json"
    assert cli.main(["recipes", "--json", str(file)]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in recipe.recipe_names()) and ".8468" in said
    assert [one["name"] for one in json.loads(file.read_text(encoding="utf-8"))] == list(recipe.recipe_names())
    assert cli.main(["recipes", "show", "small-moco"]) == 0
    assert capsys.readouterr().out == (RECIPES / "small-moco.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["recipes", "show", "smal-moco"], "'small-moco'"),
        (["recipes", "show"], "NAME"),
        (["recipes", "list", "small-moco"], "recipes show small-moco"),
        (["run", "smal-moco"], "'small-moco'"),
        (["run", "small-moco", "--epohcs", "1"], "--epochs"),
        (["run", "nih-chexnet"], "/data/ChestX-ray14 "),
        (
            ["run", "rsna-frozen-ce", "--data", "."],
            "'ribcage run ce-mimic-resnet50'",
        ),
        (["run", "finetune-nih", "--data", "no where"], "no where "),
        (["run", "small-moco", "--download", "x"], "--download"),
    ],
    ids=("unknown", "which", "list", "run-unknown", "option", "data", "init", "pretrained", "download"),
)
def test_what_cannot_be_run_is_refused_in_a_line_before_anything_is_done(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1 and not list(tmp_path.iterdir())


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> list[list[str]]:
    """The commands that `ribcage run` would do."""
    assert cli.main(["run", *words, "--dry-run"]) == 0
    return [shlex.split(line[2:])[1:] for line in capsys.readouterr().out.splitlines() if line.startswith("$ ")]


def test_folders_and_options_are_those_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    found = shown(
        capsys,
        "mae-vit-s",
        "--data",
        "我 a",
        "b",
        "--out",
        "o u",
        "--epochs",
        "3",
        "--mask-ratio",
        "0.5",
        "--augment-options=",
    )
    assert [words[0] for words in found] == ["pretrain", "finetune"]
    first, second = (" ".join(words) for words in found)
    for part in ("--data 我 a b", "--out o u", "--epochs 3", "--mask-ratio 0.5", "--decoder dec512d2b", "--batch 2048"):
        assert part in first
    assert "--augment-options= " in f"{first} " or "--augment-options" not in first
    assert "--data b --out o u-nih" in second and "--init o u" in second and "--epochs 75" in second
    (only, _) = shown(capsys, "mae-vit-s", "--data", "one")
    assert "--data one" in " ".join(only)


def test_every_recipe_can_be_planned(capsys: pytest.CaptureFixture[str]) -> None:
    for name in recipe.recipe_names():
        found = shown(capsys, name, "--data", "d")
        assert found and not [words for words in found if words[0] == "import"]


def test_a_recipe_of_made_up_images_runs_whole_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one's own, from a file: import, train, test, compare with what is not there; then the same once more."""
    monkeypatch.chdir(tmp_path)
    Path("我的 r.toml").write_text(
        "# Tiny.\n#\n"
        "#   ribcage import phantom --images 120 --size 32 --out data/phantom\n"
        "#   ribcage finetune --recipe '我的 r.toml' --data data/phantom --out runs/tiny\n"
        "#   ribcage evaluate runs/tiny --data data/phantom --resamples 20\n"
        "#   ribcage compare runs/other runs/tiny\n"
        'model = "test_resnet"\nsize = [32]\nbatch = 32\nepochs = 1\nthreads = 1\n',
        encoding="utf-8",
    )
    assert cli.main(["run", "我的 r.toml", "--out", "跑 x", "--seed", "5"]) == 0
    did = json.loads(Path("跑 x/options.json").read_text(encoding="utf-8"))
    assert (did["seed"], did["epochs"], did["out"]) == (5, 1, "跑 x")
    assert Path("跑 x/evaluation/phantom-test/metrics.json").exists()
    assert has_facts(capsys.readouterr().out, "Skipped", "runs/other")
    assert cli.main(["run", "我的 r.toml", "--out", "跑 x", "--seed", "6"]) == 2
    assert "--seed 5, not with --seed 6" in capsys.readouterr().err
    assert ribcage.run("我的 r.toml", out="跑 x", seed=5) == Path("跑 x")
