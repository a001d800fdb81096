"""ribcage predict: every file is predicted or reported, thresholds, unusual images, ten crops, maps, sheets."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import trees
from refusals import has_facts
from test_export import made

import ribcage
from ribcage import cli
from ribcage.bundle.io import load_classifier, save_bundle
from ribcage.bundle.spec import DetectorSpec
from ribcage.data import dataset_folder
from ribcage.data.collection import Datasets
from ribcage.data.findings import CHESTXRAY14
from ribcage.data.provenance import Provenance
from ribcage.imaging import image_file
from ribcage.inference import image_files, input_files, predictions
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.reports import prediction_lines

REAL = os.environ.get("RIBCAGE_REAL_DATA")
THREE = ["Mass", "Nodule", "Edema"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whose thresholds some of `image` 0 … 5 reach, and others do not; that of Nodule is unknown."""
    folder = tmp_path_factory.mktemp("模型 m")
    files = [image(folder / f"{number}.png", number) for number in range(6)]
    said = image_files.classified_files(load_classifier(made(folder / "m", stored=64, side=64)), files).frame()
    cuts = {"youden": (float(said["Mass"].median()), None, float(said["Edema"].median()))}
    return made(folder / "m", stored=64, side=64, thresholds=cuts)


def image(file: Path, seed: int = 0, width: int = 90, height: int = 70) -> Path:
    """Clouds and noise."""
    draw = np.random.default_rng(seed)
    clouds = cv2.resize(draw.random((6, 6)), (width, height), interpolation=cv2.INTER_CUBIC)
    pixels = (255 * (0.8 * clouds + 0.2 * draw.random((height, width))).clip(0, 1)).astype(np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix in (".png", ".jpg", ".bmp"):
        file.write_bytes(cv2.imencode(file.suffix, pixels)[1].tobytes())
    else:
        trees.dicom(file, pixels)
    return file


def changed(file: Path, **elements: Any) -> Path:
    """A DICOM file with other elements."""
    import pydicom

    data = pydicom.dcmread(file)
    for name, value in elements.items():
        setattr(data, name, value)
    pydicom.dcmwrite(file, data)
    return file


def asked(model: Path, *paths: Path | str, **options: Any) -> pd.DataFrame:
    table: pd.DataFrame = ribcage.predict(model, [Path(path) for path in paths], **options)
    return table


# ---- which files


def test_of_a_folder_all_that_begin_as_images_are_asked_about(tmp_path: Path) -> None:
    wanted = [
        image(tmp_path / name)
        for name in ("a.png", "series 1/IM000001", "series 1/1.2.840.113.7.850819", "下载/b.dcm", "z.jpg")
    ]
    image(tmp_path / "series 1" / "DICOMDIR")
    image(tmp_path / ".hidden" / "c.png")
    (tmp_path / "readme.txt").write_text("not an image at all")
    (tmp_path / "LICENSE").write_text("neither")
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"")
    absent = tmp_path / "absent.dcm"
    absent.symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")  # without an extension, it is no image, and it is not opened
    found = input_files.input_files([tmp_path])
    assert set(found.images) == {*wanted, broken, absent} and found.others == 2
    assert found.endings == ((".txt", 1), ("no ending", 1))
    line = prediction_lines.skipped_line(found)
    assert "2 files" in line and "1 × .txt" in line and "1 × no ending" in line
    assert list(found.images) == sorted(found.images)
    assert input_files.input_files([wanted[0], tmp_path, wanted[0]]).images[0] == wanted[0]
    assert len(input_files.input_files([wanted[0], tmp_path]).images) == 7


def test_patterns_are_ours_where_the_shell_leaves_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, deep = (image(tmp_path / name) for name in ("胸 片/a1.png", "胸 片/a2.png", "胸 片/deep/er/a3.png"))
    odd = image(tmp_path / "x[1].png")
    monkeypatch.chdir(tmp_path)
    assert input_files.input_files([Path("胸 片/a?.png")]).images == (Path("胸 片/a1.png"), Path("胸 片/a2.png"))
    assert input_files.input_files([tmp_path / "胸*" / "**" / "*.png"]).images == (one, other, deep)
    assert input_files.input_files([tmp_path / "*" / "deep"]).images == (deep,)
    assert input_files.input_files([odd]).images == (odd,)
    assert input_files.input_files([Path("none*.png")]).images == (Path("none*.png"),)


def test_our_own_maps_are_not_asked_about(model: Path, tmp_path: Path) -> None:
    image(tmp_path / "in" / "a.png")
    for _ in range(2):
        table = asked(model, tmp_path / "in", maps=tmp_path / "in" / "maps")
        assert len(table) == 1 and list((tmp_path / "in" / "maps").iterdir())
    assert len(asked(model, tmp_path / "in" / "maps", maps=tmp_path / "in" / "maps")) == 1


def test_a_folder_without_images_is_one_line_with_the_count_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(ValueError, match=r"1 other file"):
        input_files.input_files([tmp_path])
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "dataset.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="ribcage evaluate"):
        input_files.input_files([tmp_path / "made"])


# ---- the table


def test_findings_above_their_threshold_are_listed_and_unknown_ones_left_open(model: Path, tmp_path: Path) -> None:
    for number in range(6):
        image(tmp_path / f"{number}.png", number)
    table = asked(model, tmp_path, out=tmp_path / "表 1.csv")
    for name, cut in zip(THREE, load_classifier(model).spec.thresholds["youden"], strict=True):
        if cut is None:
            continue
        assert table[f"{name}_above_threshold"].tolist() == (table[name] >= cut).tolist()
        assert table[f"{name}_above_threshold"].nunique() == 2
    assert table["Nodule_above_threshold"].isna().all()
    again = pd.read_csv(tmp_path / "表 1.csv")
    assert (
        list(again) == list(table) and again["Mass_above_threshold"].tolist() == table["Mass_above_threshold"].tolist()
    )
    half = asked(model, tmp_path, rule="half")
    assert half["Nodule_above_threshold"].tolist() == (table["Nodule"] >= 0.5).tolist()
    table.to_parquet(tmp_path / "a.parquet")
    assert pd.read_parquet(tmp_path / "a.parquet")["Nodule_above_threshold"].isna().all()


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_dicom_is_listed_by_study_and_series_and_never_by_patient(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = changed(
        image(tmp_path / "IM1"), PatientName="SECRET^NAME", PatientID="SECRET-7", StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.3.4", PhotometricInterpretation="MONOCHROME1", AccessionNumber="SECRET8",
    )  # fmt: skip
    changed(image(tmp_path / "IM2"), StudyInstanceUID="SECRET^AGAIN")
    image(tmp_path / "p.png")
    table = asked(model, tmp_path, out=tmp_path / "t.csv", maps=tmp_path / "m", notes=True).set_index("path")
    row = table.loc[str(file)]
    assert (row["study"], row["series"], row["view"]) == ("1.2.3", "1.2.3.4", "PA")
    assert "inverted (MONOCHROME1)" in row["notes"]
    assert (table.loc[str(tmp_path / "p.png"), ["study", "series", "view", "notes"]] == "").all()
    written = [tmp_path / "t.csv", *(tmp_path / "m").rglob("*.png")]
    assert len(written) > 3 and not [one for one in written if b"SECRET" in one.read_bytes()]
    assert "SECRET" not in capsys.readouterr().out


def test_unusual_images_are_marked_beside_the_predictions(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lateral = changed(image(tmp_path / "l.dcm"), ViewPosition="LL", Modality="CT")
    table = asked(model, lateral, image(tmp_path / "p.png"))
    assert "lateral" in table["image_warnings"][0] and "CT" in table["image_warnings"][0]
    assert table["Mass"].notna().all()
    said = capsys.readouterr().out
    assert has_facts(said, "warning", "Not a plain radiograph") and has_facts(said, 1, "with warnings")


def test_an_image_in_memory_is_read_as_the_file_is(model: Path, tmp_path: Path) -> None:
    opened = load_classifier(model)
    data = image(tmp_path / "a.jpg", width=200, height=300).read_bytes()
    of_bytes = image_files.model_input(image_file.decode_image(data, "a.jpg", min_side=64), opened.spec)
    of_file = image_files.show(tmp_path / "a.jpg", opened.spec)
    assert of_bytes.image is not None and of_file.image is not None
    assert torch.equal(of_bytes.image, of_file.image) and of_bytes.size == of_file.size == (200, 300)


@pytest.mark.parametrize("loss", ["bce", "cross-entropy"])
def test_ten_crops_are_those_of_evaluate(loss: str, tmp_path: Path) -> None:
    folder = made(tmp_path / "m", stored=64, side=32, loss=loss, temperature=(1.3, 1.3, 1.3))
    for number in range(5):
        image(tmp_path / "files" / "one" / f"{number}.png", number)
    words = ["import", "folder", str(tmp_path / "files"), "--out", str(tmp_path / "data"), "--size", "64"]
    assert cli.main(words) == 0
    opened, data = load_classifier(folder), dataset_folder.open(tmp_path / "data")
    ways = {}
    for ten in (False, True):
        said = predictions.predict(
            opened.method, Datasets.of([data]), np.arange(5), model=opened.spec, ten_crop=ten, threads=1
        )
        expected = said.probabilities(opened.spec.temperature)
        table = asked(folder, tmp_path / "files", ten_crop=ten, batch=3).set_index("path")
        order = [str(tmp_path / "files" / path) for path in data.index.table["path"]]
        np.testing.assert_allclose(table.loc[order, THREE].to_numpy(), expected, atol=1e-6)
        ways[ten] = expected
    assert np.abs(ways[True] - ways[False]).max() > 0.01


def test_names_that_are_not_utf8_and_control_characters_stop_nothing(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Path(os.fsdecode(raw)).write_bytes(image(tmp_path / "a.png").read_bytes())
    (tmp_path / "b\x1b[31m.png").write_bytes((tmp_path / "a.png").read_bytes())
    table = asked(model, tmp_path, out=tmp_path / "t.parquet", maps=tmp_path / "m")
    assert (table["error"] == "").all() and table["path"].str.contains("caf\\xe9", regex=False).sum() == 1
    assert "\x1b" not in capsys.readouterr().out
    assert len(list((tmp_path / "m").iterdir())) >= 3


# ---- what is printed


def many(folder: Path) -> Path:
    """A model of fourteen findings, of which one has no threshold."""
    torch.manual_seed(1)
    method = Supervised(Backbone("test_resnet", size=(64, 64)), CHESTXRAY14).eval()
    torch.nn.init.normal_(method.head.weight, std=1.0)
    facts = load_classifier(made(folder / "three", stored=64, side=64)).spec
    cuts = (None, *np.linspace(0.05, 0.95, 13).tolist())
    kept = replace(facts, findings=method.findings, temperature=(), thresholds={"youden": cuts})
    save_bundle(folder / "many", method, kept, Provenance.nothing())
    return folder / "many"


def test_of_many_findings_the_crossed_and_the_next_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = asked(many(tmp_path), image(tmp_path / "a.png"))
    line, star, unknown, end, bare = capsys.readouterr().out.splitlines()
    crossed = [name for name in CHESTXRAY14 if bool(table[f"{name}_above_threshold"].fillna(False)[0])]
    assert crossed and line.count("*") == len(crossed)
    assert all(f"{name} {table[name][0]:.3f}*" in line for name in crossed)
    assert line.endswith(f"… {14 - len(crossed) - prediction_lines.NEXT} more")
    assert star.startswith("*") and "youden" in star and "Atelectasis" in unknown
    assert "1 of 1 file " in end and "OOD" in bare


def test_of_a_long_table_the_first_are_shown_and_all_that_is_wrong(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = image(tmp_path / "files" / "000.png").read_bytes()
    for number in range(1, 24):
        (tmp_path / "files" / f"{number:03}.png").write_bytes(data if number != 22 else b"broken")
    asked(model, tmp_path / "files", out=tmp_path / "t.csv")
    shown = capsys.readouterr()
    assert shown.out.count(".png  Mass") == prediction_lines.SHOWN and has_facts(shown.out, "022.png", "not an image")
    assert has_facts(shown.out, "3 more files", tmp_path / "t.csv")
    assert "23 of 24 files" in shown.out and "1 of 24 files" in shown.out
    assert "predict 24/24" in shown.err


def test_a_model_without_thresholds_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = made(tmp_path / "m", thresholds={})
    table = asked(bare, image(tmp_path / "a.png"))
    assert table[[f"{name}_above_threshold" for name in THREE]].isna().all(axis=None)
    assert "--rule half" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--rule", "best", "--map-findings", "Mas"], ["--rule best", "youden, half", "--map-findings", "--maps", "'Mass'"]),
        (["--min-score", "0.5", "--out", "x.txt"], ["--min-score", "--out x.txt", ".csv", ".parquet"]),
        (["--sheet", "a.svg"], ["--sheet a.svg", "2 images"]),
        (["--sheet", "a.png"], ["--sheet a.png", ".svg"]),
        (["--batch", "0"], ["--batch 0"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(
    words: list[str], says: list[str], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(image(tmp_path / name)) for name in ("a.png", "b.png")]
    assert cli.main(["predict", str(model), *paths, *words]) == 2
    said = capsys.readouterr().err
    assert all(part in said for part in says) and said.count("\n") == 1


# ---- maps and sheets


def test_maps_are_of_the_files_own_pixels_and_none_takes_anothers_place(model: Path, tmp_path: Path) -> None:
    one, other = image(tmp_path / "in" / "甲" / "x.png", 1, 300, 200), image(tmp_path / "in" / "b c" / "x.png", 2)
    (tmp_path / "in" / "broken.png").write_bytes(b"no")
    asked(model, tmp_path / "in", maps=tmp_path / "图", map_findings=("Mass", "Edema"))
    made = {str(path.relative_to(tmp_path / "图")): cv2.imread(str(path)) for path in (tmp_path / "图").rglob("*.png")}
    assert set(made) == {f"{folder}/x.png-{name}.png" for folder in ("甲", "b c") for name in ("Mass", "Edema")}
    for folder, file in (("甲", one), ("b c", other)):
        for name in ("Mass", "Edema"):
            drawn = made[f"{folder}/x.png-{name}.png"]
            assert drawn.shape[:2] == image_file.read_image(file).pixels.shape
    assert not list((tmp_path / "图").rglob("*.part"))


def test_maps_are_of_the_crossed_findings_else_of_the_likeliest(model: Path, tmp_path: Path) -> None:
    for number in range(6):
        image(tmp_path / "in" / f"{number}.png", number)
    table = asked(model, tmp_path / "in", maps=tmp_path / "m")
    for row in table.to_dict("records"):
        crossed = [name for name in THREE if row[f"{name}_above_threshold"] is True]
        likeliest = max(THREE, key=lambda name, row=row: row[name])
        names = {f"{Path(row['path']).name}-{name}.png" for name in crossed or [likeliest]}
        assert {one.name for one in (tmp_path / "m").glob(f"{Path(row['path']).name}-*")} == names
    assert (
        table["Mass_above_threshold"].nunique() == 2
        and (~table["Mass_above_threshold"] & ~table["Edema_above_threshold"]).any()
    )


def test_sheets_go_to_one_file_or_into_a_folder(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image(tmp_path / "in" / "a.png"), image(tmp_path / "in" / "下" / "b.dcm")
    asked(model, tmp_path / "in", sheet=tmp_path / "all")
    assert sorted(str(one.relative_to(tmp_path / "all")) for one in (tmp_path / "all").rglob("*.svg")) == [
        "a.png.svg",
        "下/b.dcm.svg",
    ]
    table = asked(model, tmp_path / "in" / "a.png", sheet=tmp_path / "一 张.svg")
    text = (tmp_path / "一 张.svg").read_text(encoding="utf-8")
    assert f"Wrote {tmp_path / '一 张.svg'}." in capsys.readouterr().out
    assert text.count("<image ") == 4 and f"{100 * table['Mass'][0]:.1f} %" in text and "Edema" in text


def test_a_detectors_boxes_are_drawn(tmp_path: Path) -> None:
    folder = made(tmp_path / "m", stored=64, side=64, detector=DetectorSpec("cam"), thresholds={})
    file = image(tmp_path / "a.png", 3, 200, 150)
    table = asked(folder, file, maps=tmp_path / "boxes", min_score=0.0)
    found = {name: (tmp_path / "boxes" / f"a.png-{name}.png") for name in table["finding"].unique()}
    assert found and all(one.is_file() for one in found.values())
    row = table.iloc[0]
    drawn = cv2.imread(str(found[row["finding"]]))
    assert drawn.shape == (150, 200, 3) and (drawn != drawn[..., :1]).any()
    assert cli.main(["predict", str(folder), str(file), "--sheet", "s", "--ten-crop"]) == 2


def test_dependence_of_maps_on_weights_is_reported(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked(model, image(tmp_path / "a.png"), image(tmp_path / "b.png", 5), check_maps=True)
    said = capsys.readouterr().out
    assert "2 images and 5 random" in said
    assert [line.split()[0] for line in said.splitlines() if line.startswith((*THREE,))] == THREE
    assert "trained weights" in said or said.count("! ") == 1


# ---- real files


@pytest.mark.skipif(not REAL, reason="RIBCAGE_REAL_DATA does not name a folder of real data")
def test_every_real_dicom_is_answered_or_fails_alone(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(str(REAL)) / "dicom"
    table = asked(model, folder, notes=True)
    names = table["path"].map(lambda path: Path(path).name)
    broken = names[table["error"] != ""]
    assert len(table) == 30 and len(broken) == 2
    assert sum("TransferSyntax_1.2.840.10008.1.2.4.5" in name for name in broken) == 2
    answered = table[table["error"] == ""]
    assert answered[THREE].notna().all(axis=None) and (table.loc[broken.index, THREE].isna()).all(axis=None)
    notes = dict(zip(names, table["notes"], strict=True))
    assert (
        "inverted (MONOCHROME1)" in notes["Fake_MONOHR1.dcm"]
        and "window 2725/5310" in notes["JPEG2KLossless_1s_1f_u_16_16.dcm"]
    )
    said = capsys.readouterr().out
    assert "28 of 30 files" in said and said.count("    decoding: ") == 28


# ---- the exit code


@pytest.mark.parametrize(("allowed", "code"), [("0", 3), ("1", 0), ("40%", 3), ("50%", 0), ("all", 0)])
def test_unread_files_end_with_a_code_of_their_own_unless_they_are_allowed(
    model: Path, tmp_path: Path, allowed: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"broken")
    assert cli.main(["predict", str(model), str(tmp_path), "--allow-unread", allowed]) == code
    said = capsys.readouterr().out
    assert "1 of 2 files" in said and has_facts(said, "exit code", 3) == (code == 3)


def test_options_that_make_no_sense_are_refused_before_anything_is_read(model: Path, tmp_path: Path) -> None:
    file = image(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"--allow-unread 'some'.*--window '9,0'"):
        asked(model, file, allow_unread="some", window="9,0")


def test_a_lateral_ct_is_unusual_and_its_window_can_be_chosen(model: Path, tmp_path: Path) -> None:
    from dicoms import dataset, written

    file = tmp_path / "a.dcm"
    made = dataset(PatientOrientation=["R", "F"], WindowCenter=["900", "2000"], WindowWidth=["1000", "3000"])
    made.WindowCenterWidthExplanation = ["SOFT", "LUNG"]
    file.write_bytes(written(made))
    assert "Mirrored (PatientOrientation R/F)." in asked(model, file)["image_warnings"][0]
    assert "window 2000/3000 (LUNG" in asked(model, file, window="LUNG")["notes"][0]
