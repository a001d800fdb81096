"""Teachers: predictions at their own input size, and predictions from tables matched to images."""

import gzip
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from dataset_folders import make_store
from refusals import has_facts

from ribcage.bundle.io import Classifier, save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.loader import Loader
from ribcage.data.provenance import Provenance
from ribcage.evaluation import own_predictions
from ribcage.imaging import augment
from ribcage.inference import predictions
from ribcage.inference.prediction_table import PredictionTable
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.training.teachers import live, opening, stored, tables, weighting
from ribcage.training.teachers.live import LiveTeacher
from ribcage.training.teachers.stored import StoredTeacher

nan = np.nan
CPU = torch.device("cpu")
SCALE = (0.4, 0.2)
"""Of the student."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    return make_store(tmp_path_factory.mktemp("teachers"), count=24, size=64)


def opened(
    findings: Sequence[str] = ("Edema", "Hernia", "Mass"), channels: int = 1, side: int = 48, **facts: Any
) -> Classifier:
    """A model with a will of its own, at a size and scale of its own."""
    torch.manual_seed(1)
    method = Supervised(Backbone("test_resnet", channels=channels, size=(side, side)), findings).eval()
    torch.nn.init.normal_(method.head.weight, std=0.5)
    model = ModelSpec(
        "test_resnet", tuple(findings), (side, side), 64, "pad", 0.55, 0.3, channels=channels,
        temperature=(1.5, 1.0, 0.7), **facts,
    )  # fmt: skip
    return Classifier(Path(), model, method, Provenance.nothing())


def asked(
    bundle: Classifier, dataset: DatasetFolder, findings: Sequence[str], channels: int = 1, exclusive: bool = False
) -> tuple[np.ndarray, torch.Tensor]:
    """Rows, and what it says of them as a student of 32 pixels shows them, plain."""
    shown = [augment.plain_view(32), augment.plain_view(bundle.spec.size)]
    loader = Loader([dataset], shown, batch=24, together=True, channels=channels, normalise=SCALE, threads=1)
    batch = next(loader.epoch(0))
    live = LiveTeacher(
        bundle, findings, torch.ones(len(findings)), view=1, scale=SCALE, device=CPU, exclusive=exclusive
    )
    return batch.rows.numpy(), live(batch, batch.views, False).logits


# ---- models


@pytest.mark.parametrize(("own", "students"), [(1, 1), (1, 3), (3, 1), (3, 3)])
def test_a_teacher_predicts_as_at_its_own_size_scale_and_channels(
    own: int, students: int, dataset: DatasetFolder
) -> None:
    bundle, findings = opened(channels=own), ("Mass", "Nodule", "Edema")
    rows, said = asked(bundle, dataset, findings, students)
    alone = predictions.predict(bundle.method, Datasets.of([dataset]), np.arange(24), model=bundle.spec, threads=1)
    by_itself = torch.from_numpy(alone.logits[rows])
    expected = torch.stack([by_itself[:, 2] / 0.7, torch.full((24,), nan), by_itself[:, 0] / 1.5], 1)
    assert expected[:, [0, 2]].std(0).min() > 0.01
    torch.testing.assert_close(said, expected, equal_nan=True, atol=1e-3, rtol=1e-3)
    told = stored.predicted_logits(bundle, Datasets.of([dataset]), np.arange(0, 24, 2), findings, threads=1)
    assert np.isnan(told[1::2]).all()
    np.testing.assert_allclose(told[::2], expected[np.argsort(rows)].numpy()[::2], rtol=1e-4, atol=1e-5)


def test_features_and_maps_come_only_when_asked_for(dataset: DatasetFolder) -> None:
    bundle = opened()
    live = LiveTeacher(bundle, ("Mass",), torch.ones(1), view=0, scale=SCALE, device=CPU)
    batch = next(Loader([dataset], [augment.plain_view(48)], batch=4, threads=1).epoch(0))
    plain, inside = (live(batch, batch.views, each) for each in (False, True))
    assert plain.features is None and plain.maps is None
    assert inside.features is not None and inside.maps is not None
    assert inside.features.shape == (4, live.dim) and inside.maps.shape[:2] == (4, live.dim)
    assert torch.equal(plain.logits, inside.logits) and not plain.logits.requires_grad


@pytest.mark.parametrize("whose", ["bce", "cross-entropy"])
@pytest.mark.parametrize("exclusive", [False, True])
def test_a_student_of_either_kind_reads_the_teachers_probabilities(whose: str, exclusive: bool) -> None:
    """Its sigmoid, or its softmax, of what it is told; softened by a temperature after, not before."""
    z = torch.tensor([[2.0, -1.0, 0.5], [-30.0, 60.0, 1.0]])
    model = ModelSpec("test_resnet", ("a", "b", "c"), (32, 32), 32, "pad", 0.5, 0.2, loss=whose, temperature=(2.0,) * 3)
    p = (z / 2).softmax(1) if whose == "cross-entropy" else (z / 2).sigmoid()
    told = live.calibrated_logits(z, model, exclusive)
    assert told.isfinite().all()
    torch.testing.assert_close(told.exp() if exclusive else told.sigmoid(), p)


@pytest.mark.parametrize("exclusive", [False, True])
def test_of_a_teacher_of_more_findings_the_student_hears_its_own(exclusive: bool, dataset: DatasetFolder) -> None:
    bundle = opened(loss="cross-entropy")
    rows, said = asked(bundle, dataset, ("Mass", "Edema"), exclusive=exclusive)
    alone = predictions.predict(bundle.method, Datasets.of([dataset]), np.arange(24), model=bundle.spec, threads=1)
    p = alone.probabilities(bundle.spec.temperature)[rows][:, [2, 0]]
    np.testing.assert_allclose((said.exp() if exclusive else said.sigmoid()).numpy(), p, rtol=1e-3, atol=1e-4)


def test_stored_answers_are_those_of_the_rows(dataset: DatasetFolder) -> None:
    answers = np.arange(48, dtype=np.float32).reshape(24, 2)
    batch = next(Loader([dataset], [augment.plain_view(32)], batch=10, threads=1).epoch(0))
    said = StoredTeacher(answers, torch.ones(2))(batch, batch.views, True)
    assert np.array_equal(said.logits.numpy(), answers[batch.rows.numpy()]) and said.features is said.maps is None


def test_of_a_teacher_without_fingerprints_it_is_known_that_nothing_is(tmp_path: Path) -> None:
    save_bundle(tmp_path, opened().method, replace(opened().spec, training=TrainingRecord(images=1, patients=1, selection=1)),
                Provenance.nothing())  # fmt: skip
    assert opening.teacher_provenance(str(tmp_path)).unknown.tolist() == ["test_resnet"]
    assert opening.teacher_provenance(str(tmp_path / "答案.csv")).unknown.tolist() == ["答案.csv"]


def test_a_teacher_that_answers_no_number_is_named(dataset: DatasetFolder) -> None:
    broken = replace(opened(), folder=Path("runs/broken"))
    with torch.no_grad():
        broken.method.head.weight[2] = nan
    with pytest.raises(ValueError, match=r"runs/broken .*NaN or infinity"):
        stored.predicted_logits(broken, Datasets.of([dataset]), np.arange(4), ("Mass",), threads=1)
    stored.predicted_logits(broken, Datasets.of([dataset]), np.arange(4), ("Edema",), threads=1)
    live = LiveTeacher(broken, ("Mass", "Nodule"), torch.ones(2), view=0, scale=SCALE, device=CPU)
    batch = next(Loader([dataset], [augment.plain_view(48)], batch=4, threads=1).epoch(0))
    assert not live.nonfinite
    said = live(batch, batch.views, False).logits
    assert live.nonfinite and live.name == "runs/broken" and said[:, 0].isinf().all() and said[:, 1].isnan().all()


# ---- weights


def test_several_teachers_count_by_how_far_above_chance_they_were() -> None:
    aurocs = [np.array([0.9, 0.5, nan, 0.3]), np.array([0.7, nan, 0.6, nan])]
    assert [one.tolist() for one in weighting.teacher_weights(aurocs, "mean")] == [[1] * 4] * 2
    first, second = weighting.teacher_weights(aurocs, "auroc")
    torch.testing.assert_close(first, torch.tensor([0.4, 1.0, 0.1, 1.0]))
    torch.testing.assert_close(second, torch.tensor([0.2, 1.0, 0.1, 1.0]))


def test_the_validation_of_a_model_is_its_score(dataset: DatasetFolder) -> None:
    model = opened(metrics={"validation": {"auroc": 0.8, "auroc_Mass": 0.75}}).spec
    np.testing.assert_array_equal(weighting.validation_aurocs(model, ("Edema", "Mass")), [nan, 0.75])
    np.testing.assert_array_equal(weighting.validation_aurocs(replace(model, metrics={}), ("Mass",)), [nan])


def test_a_table_is_scored_on_its_predictions_of_the_validation_split(dataset: DatasetFolder) -> None:
    rows, labels = Datasets.of([dataset]).rows_of("val"), dataset.index.table[["Mass", "Edema"]].to_numpy(np.float32)
    answers = np.full((24, 3), nan, np.float32)
    answers[:, 0] = np.where(labels[:, 0] == 1, 1.0, -1.0)
    answers[:, 1] = np.where(labels[:, 1] == 1, -1.0, 1.0)
    answers[rows[:2]] = nan
    found = weighting.stored_aurocs(answers, Datasets.of([dataset]), rows, ("Mass", "Edema", "Nodule"))
    np.testing.assert_array_equal(found, [1.0, 0.0, nan])
    assert np.isnan(
        weighting.stored_aurocs(answers, Datasets.of([dataset]), rows[:2], ("Mass", "Edema", "Nodule"))
    ).all()


# ---- tables


def frame(dataset: DatasetFolder, **more: Any) -> pd.DataFrame:
    """A foreign table: names of files and probabilities."""
    p = np.linspace(0.05, 0.95, len(dataset))
    return pd.DataFrame({"Image Index": dataset.index.table["path"].astype("str"), "prob_Mass": p, **more})


def odds(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p)).astype(np.float32)


@pytest.mark.parametrize("name", ["他们 说.CSV", "said.csv.gz", "said.tsv", "said.PARQUET"])
def test_foreign_tables_are_read_whatever_their_form(name: str, dataset: DatasetFolder, tmp_path: Path) -> None:
    rows, file = frame(dataset, prob_Pleural_Thickening=0.25).sample(frac=1, random_state=0), tmp_path / name
    if name.endswith(".PARQUET"):
        rows.to_parquet(file)
    else:
        rows.to_csv(file, index=False, sep="\t" if name.endswith(".tsv") else ",")
    assert tables.is_table(str(file))
    said = tables.table_logits(
        tables.read_teacher_table(file), Datasets.of([dataset]), ("Edema", "Mass", "Pleural_Thickening")
    )
    np.testing.assert_allclose(said[:, 1], odds(np.linspace(0.05, 0.95, 24)), rtol=1e-4)
    assert np.isnan(said[:, 0]).all() and said[:, 2] == pytest.approx(np.log(1 / 3))
    assert stored.count_predicted(said, np.arange(5)) == 5


@pytest.mark.parametrize("name", ["predictions.parquet", "predictions.csv"])
def test_our_own_tables_are_read_by_their_probabilities_with_findings_of_anybodys(
    name: str, dataset: DatasetFolder, tmp_path: Path
) -> None:
    """Not by their logits, which are from before the temperature, and not by their labels."""
    findings, p = ("Mass", "尖锐_角"), np.stack([np.linspace(0.1, 0.9, 24), np.linspace(0.6, 0.2, 24)], 1)
    about, labels = predictions.row_context(Datasets.of([dataset]), np.arange(24)), np.tile([[1.0, 0.0]], (24, 1))
    PredictionTable(about, findings, p, labels, 5 * odds(p)).save(tmp_path / name)
    np.testing.assert_allclose(
        tables.table_logits(tables.read_teacher_table(tmp_path / name), Datasets.of([dataset]), ("尖锐_角", "Mass")),
        odds(p)[:, ::-1],
        rtol=1e-4,
    )


def test_labels_beside_probabilities_are_not_taken_for_answers(dataset: DatasetFolder, tmp_path: Path) -> None:
    frame(dataset, Mass=1, Atelectasis=0).to_csv(tmp_path / "both.csv", index=False)
    said = tables.table_logits(
        tables.read_teacher_table(tmp_path / "both.csv"), Datasets.of([dataset]), ("Mass", "Atelectasis")
    )
    np.testing.assert_allclose(said[:, 0], odds(np.linspace(0.05, 0.95, 24)), rtol=1e-4)
    assert np.isnan(said[:, 1]).all()


def test_a_student_with_a_softmax_reads_log_p(dataset: DatasetFolder, tmp_path: Path) -> None:
    frame(dataset, prob_Mass=0.7, prob_Edema=0.3).to_csv(tmp_path / "two.csv", index=False)
    said = torch.from_numpy(
        tables.table_logits(
            tables.read_teacher_table(tmp_path / "two.csv"),
            Datasets.of([dataset]),
            ("Mass", "Edema"),
            exclusive=True,
        )
    )
    torch.testing.assert_close(said.softmax(1), torch.tensor([[0.7, 0.3]]).expand(24, 2))


def test_what_is_missing_stays_unknown_and_what_is_certain_is_nearly_so(dataset: DatasetFolder, tmp_path: Path) -> None:
    rows = frame(dataset)
    rows["prob_Mass"] = ["0", "1", "", "n/a", *["0.5"] * 20]
    rows[:-3].to_csv(tmp_path / "gaps.csv", index=False)
    said = tables.table_logits(tables.read_teacher_table(tmp_path / "gaps.csv"), Datasets.of([dataset]), ("Mass",))[
        :, 0
    ]
    assert np.isnan(said[[2, 3, 21, 22, 23]]).all() and (said[4:21] == 0).all()
    assert -14 < said[0] < -13 and 13 < said[1] < 14


def test_images_are_known_by_their_file_or_its_name_whatever_its_ending(dataset: DatasetFolder, tmp_path: Path) -> None:
    rows = frame(dataset)
    rows["Image Index"] = ["C:\\片子\\" + path.removesuffix(".png") + ".dcm" for path in rows["Image Index"]]
    rows.to_csv(tmp_path / "other.csv", index=False)
    said = tables.table_logits(tables.read_teacher_table(tmp_path / "other.csv"), Datasets.of([dataset]), ("Mass",))[
        :, 0
    ]
    np.testing.assert_allclose(said, odds(np.linspace(0.05, 0.95, 24)), rtol=1e-4)


def placed(dataset: DatasetFolder, paths: Sequence[str], name: str = "made up") -> DatasetFolder:
    """The same images elsewhere, under the name of another set."""
    table = dataset.index.table.assign(path=list(paths))
    return replace(dataset, index=replace(dataset.index, table=table, name=name))


def test_a_name_that_two_have_is_nobodys(dataset: DatasetFolder, tmp_path: Path) -> None:
    """Neither two images of the data, nor two lines of the table: a prediction must not be assigned by a guess."""
    paths = ["a/1.png", "b/1.png", "c/2.png", *(f"d/{n}.png" for n in range(3, 24))]
    data = placed(dataset, paths)
    table = {
        "path": ["1.png", "2.png", "e/3.png", "3.jpg", "d/4.png", "e/4.png", "5.png"],
        "Mass": np.arange(1, 8) / 10,
    }
    pd.DataFrame(table).to_csv(tmp_path / "names.csv", index=False)
    said = tables.table_logits(tables.read_teacher_table(tmp_path / "names.csv"), Datasets.of([data]), ("Mass",))[:, 0]
    expected = np.full(24, nan, np.float32)
    expected[[2, 3, 4, 5]] = odds(np.array([0.2, 0.4, 0.5, 0.7]))  # of 3 the other line names another folder
    np.testing.assert_allclose(said, expected, rtol=1e-5)


def test_several_sets_with_the_same_paths_are_told_apart_by_their_names(dataset: DatasetFolder, tmp_path: Path) -> None:
    paths = list(dataset.index.table["path"].astype("str"))
    both = Datasets.of([placed(dataset, paths, "甲"), placed(dataset, paths, "乙")])
    p = np.linspace(0.05, 0.95, 48)[:, None]
    about = predictions.row_context(both, np.arange(48))
    PredictionTable(about, ("Mass",), p, np.ones((48, 1)), odds(p)).save(tmp_path / "p.parquet")
    np.testing.assert_allclose(
        tables.table_logits(tables.read_teacher_table(tmp_path / "p.parquet"), both, ("Mass",)), odds(p), rtol=1e-4
    )
    np.testing.assert_allclose(
        tables.table_logits(tables.read_teacher_table(tmp_path / "p.parquet"), both[1:], ("Mass",)),
        odds(p)[24:],
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    ("theirs", "own", "wanted"),
    [
        ("/data/nih/images_001/images/1.png", "images_001/images/1.png", True),
        ("images/1.png", "images_001/images/1.png", True),
        ("C:\\片子\\1.DCM", "片子/1.png", True),
        ("./1.jpg", "images/1.png", True),
        ("a/study1/1.png", "b/study1/1.png", False),
        ("x/1.png", "images/1.png", False),
        ("view1_frontal.jpg", "p1/study1/view1_frontal.jpg", False),
        ("study1/view1_frontal.jpg", "p1/study1/view1_frontal.jpg", True),
        ("view1_frontal.jpg", "view1_frontal.jpg", True),
    ],
)
def test_paths_agree_from_their_ends_as_far_as_both_go(
    theirs: str, own: str, wanted: bool, dataset: DatasetFolder, tmp_path: Path
) -> None:
    data = placed(dataset, [own, *(f"other/{n}_x.png" for n in range(23))])
    pd.DataFrame({"path": [theirs, "other/22_x.png"], "Mass": [0.3, 0.5]}).to_csv(tmp_path / "p.csv", index=False)
    said = tables.table_logits(tables.read_teacher_table(tmp_path / "p.csv"), Datasets.of([data]), ("Mass",))[:, 0]
    assert said[23] == 0 and np.isnan(said[0]) != wanted and np.isnan(said[1:23]).all()


def test_names_of_files_are_matched_within_their_dataset(dataset: DatasetFolder, tmp_path: Path) -> None:
    paths = [f"{n}_x.png" for n in range(24)]
    data, rows = [placed(dataset, paths, "甲")], pd.DataFrame({"path": paths, "Mass": 0.5})
    for sets, wanted in ((["甲"] * 24, 24), (["train"] * 24, 24), (["乙"] * 20 + ["甲"] * 4, 4), ([""] * 24, 24)):
        rows.assign(set=sets).to_csv(tmp_path / "s.csv", index=False)
        said = tables.table_logits(tables.read_teacher_table(tmp_path / "s.csv"), data, ("Mass",))
        assert stored.count_predicted(said, np.arange(24)) == wanted
    rows.assign(set="乙").to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(ValueError, match=r"'乙'.*'0_x\.png'.*'甲'"):
        tables.table_logits(tables.read_teacher_table(tmp_path / "s.csv"), data, ("Mass",))


def test_what_was_not_understood_of_a_table_is_noted(tmp_path: Path) -> None:
    rows = {"path": ["1.png", "1.png", "2.png"], "prob_Mass": ["1", "0", "unsure"], "prob_Atelectassis": [0.1] * 3}
    pd.DataFrame(rows | {"quality": "good"}).to_csv(tmp_path / "n.csv", index=False)
    notes = tables.read_teacher_table(tmp_path / "n.csv").notes
    facts = ("'unsure'", "0 or 1", "2 ", "prob_Atelectassis")
    assert len(notes) == len(facts) and all(fact in note for fact, note in zip(facts, notes, strict=True))
    assert has_facts(notes[-1], "prob_Atelectassis", "Atelectasis")
    pd.DataFrame({"path": ["1.png", "2.png"], "Mass": [0.0, 0.2], "view": "PA"}).to_csv(tmp_path / "y.csv", index=False)
    assert tables.read_teacher_table(tmp_path / "y.csv").notes == ()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("no.csv", b"path,Mass_prob,Mass_pred\nx.png,1,0\n", "Mass_prob and Mass_pred "),
        ("no.csv", "path,Mass,肿块\nx.png,1,0\n".encode(), "Mass and 肿块 "),
        ("no.csv", b"path,Mass\n\xe5\x9b\xbe 0.png,1.5\n", "1.5 to 1.5"),
        ("no.csv", b"path,Mass\nx.png,-0.1\n", "-0.1 to -0.1"),
        ("no.csv", b"path,Mass\nx.png,inf\n", "inf to inf"),
        ("no.csv", b'path,Mass\nx.png,"0,5"\n', " Mass"),
        ("no.csv", b"path,Mass\nx.png,0.5\n", "'x.png'"),
        ("no.csv", b"path,quality\nx.png,0.5\n", ": path, quality"),
        ("no.csv", b"Mass,Edema\n0.1,0.5\n", "image names"),
        ("no.csv", b"path,Mass\n", "no rows"),
        ("no.csv", b"", "empty"),
        ("no.csv", b"path,Mass\nx.png,0.5,9\n", "3 cells in line 2"),
        ("no.csv", bytes(range(256)) * 4, "no.csv"),
        ("no.csv.gz", gzip.compress(b"path,Mass\nx.png,0.5\n" * 99, mtime=0)[:-20], "is damaged"),
        ("no.csv.gz", b"plain text", "is damaged"),
        ("no.parquet", b"PAR1 and no more", "cannot be read"),
        ("no.parquet", b"", "cannot be read"),
    ],
)
def test_what_is_no_table_of_predictions_is_one_line(
    name: str, content: bytes, says: str, dataset: DatasetFolder, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as error:
        tables.table_logits(tables.read_teacher_table(tmp_path / name), Datasets.of([dataset]), ("Mass",))
    assert says in str(error.value) and str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


def test_columns_of_other_types_are_no_predictions(dataset: DatasetFolder, tmp_path: Path) -> None:
    strange = {"Edema": [[0.5]] * 24, "Nodule": [pd.Timestamp(0)] * 24, "Fibrosis": [True] * 24, "Mass": [0.5] * 24}
    pd.DataFrame({"path": dataset.index.table["path"], **strange}).to_parquet(tmp_path / "x.parquet")
    said = tables.table_logits(
        tables.read_teacher_table(tmp_path / "x.parquet"), Datasets.of([dataset]), ("Edema", "Nodule", "Mass")
    )
    assert np.isnan(said[:, :2]).all() and (said[:, 2] == 0).all()
    with pytest.raises(ValueError, match="Edema, Nodule"):
        pd.DataFrame({"path": ["x"], "Edema": [[0.5]], "Nodule": [pd.Timestamp(0)]}).to_parquet(tmp_path / "y.parquet")
        tables.table_logits(tables.read_teacher_table(tmp_path / "y.parquet"), Datasets.of([dataset]), ("Edema",))


def test_a_table_that_was_cut_off_is_one_line(dataset: DatasetFolder, tmp_path: Path) -> None:
    frame(dataset).to_parquet(tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    for length in (len(whole) // 2, len(whole) - 4):
        (tmp_path / "torn.parquet").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"torn\.parquet cannot be read"):
            tables.table_logits(tables.read_teacher_table(tmp_path / "torn.parquet"), Datasets.of([dataset]), ("Mass",))


def test_a_folder_is_no_table_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "run.csv").mkdir()
    assert not tables.is_table(str(tmp_path / "run.csv")) and not tables.is_table("runs/chexnet")


@pytest.mark.parametrize("column", ["Mass_prediction", "score_Mass", "MASS prob", "p_Mass", "Mass_score"])
def test_columns_of_probabilities_are_named_as_compare_reads_them(column: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(f"path,{column}\na.png,0.25\nb.png,0.75\n", encoding="utf-8")
    assert tables.read_teacher_table(file).findings == ("Mass",)
    assert own_predictions.read_own_predictions(file)[0].findings == ("Mass",)
