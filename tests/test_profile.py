"""ribcage profile prints the cost of models; counts are printed exactly."""

import json
from pathlib import Path

import pytest
from refusals import has_facts

import ribcage
from ribcage import cli
from ribcage.bundle import cost
from ribcage.bundle.io import load_classifier, save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.commands import finetune
from ribcage.data.provenance import Provenance
from ribcage.methods.supervised import Supervised
from ribcage.models import catalogue
from ribcage.models.backbone import Backbone
from ribcage.runtime import flags


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("模型 runs") / "one"
    method = cost.built(cost.Subject("test_resnet", 3, 1, (32, 48)))
    facts = TrainingRecord(images=1, patients=1, selection=1)
    model = ModelSpec("test_resnet", method.findings, (32, 48), 48, "pad", 0.5, 0.25, training=facts)
    save_bundle(folder / "bundle", method, model, Provenance.nothing())
    return folder


def test_a_name_is_profiled_as_asked_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["test_resnet", "--classes", "1000", "--size", "32", "64", "--no-latency", "--json"]
    assert cli.main(["profile", *words, str(tmp_path / "new" / "costs.json")]) == 0
    shown = capsys.readouterr().out
    written = json.loads((tmp_path / "new" / "costs.json").read_text())
    (one,) = written["models"]
    expected = cost.count_operations(cost.Subject("test_resnet", 1000, 3, (32, 64)))
    assert (one["parameters"], one["thop"]) == (expected.parameters, expected.thop)
    assert f"{expected.parameters:,}" in shown
    assert f"{expected.thop:,}" in shown
    assert "32 × 64" in shown
    assert one["latency"] == []
    assert one["memory"]["training"] > one["memory"]["inference"] > 3 * 32 * 64 * 4
    assert {"processor", "versions", "threads"} < set(written)


def test_a_run_is_profiled_as_it_is(run: Path) -> None:
    (one,) = ribcage.profile(run, latency=False)["models"]
    assert (one["name"], one["classes"], one["channels"], one["size"]) == ("test_resnet", 3, 1, [32, 48])
    assert one["parameters"] == sum(value.numel() for value in load_classifier(run).method.parameters())


def test_a_run_is_counted_as_it_pools(tmp_path: Path) -> None:
    """Two ways of pooling beside each other give twice the features, and the last layer twice the weights."""
    method = Supervised(Backbone("test_resnet", pool="catavgmax"), ("Mass", "Edema"))
    facts = TrainingRecord(images=1, patients=1, selection=1)
    model = ModelSpec("test_resnet", method.findings, (32, 32), 32, "pad", 0.5, 0.25, pool="catavgmax", training=facts)
    save_bundle(tmp_path / "bundle", method, model, Provenance.nothing())
    pooled = cost.count_operations(cost.Subject.of(tmp_path))
    plain = cost.count_operations(cost.Subject("test_resnet", 2, 1, (32, 32)))
    assert pooled.parameters == sum(value.numel() for value in method.parameters())
    assert pooled.multiply_adds - plain.multiply_adds == method.head.weight.numel() // 2


def test_all_shows_the_famous_ones_and_measures_each_body_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cost.subject, "FAMOUS", (("test_resnet", 14), ("test_vit", 14), ("test_vit", 1000)))
    result = ribcage.profile("test_resnet", baselines=True, size=64, latency=False)
    rows = [(one["name"], one["classes"], one["channels"]) for one in result["models"]]
    three = [("test_resnet", 14, 3), ("test_vit", 14, 3), ("test_vit", 1000, 3)]
    assert rows == [*three, ("test_resnet", 14, 1), ("test_vit", 14, 1)]
    assert [one["memory"] is not None for one in result["models"]] == [True, True, False, True, True]
    shown = capsys.readouterr().out
    assert all(f"{one['thop']:,}" in shown for one in result["models"])


def test_times_are_shown_beside_each_other_and_a_missing_one_is_a_dash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = tuple(cost.Latency(batch, ms, None, "pip install x") for batch, ms in ((1, 12.34), (16, 99.5)))
    monkeypatch.setattr(cost, "latency", lambda *_: times)
    ribcage.profile("test_resnet", size=32, threads=1)
    shown = capsys.readouterr().out
    assert [word for word in shown.split() if word in ("12.3", "99.5", "–")] == ["12.3", "–", "99.5", "–"]
    assert has_facts(shown, "!", "test_resnet", "ONNX", "pip install x")
    assert "1 thread of" in shown


def test_all_faults_are_named_at_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile", str(run), "densnet121", "--classes", "0", "--runs", "0", "--size", "1", "2", "3"]) == 2
    text = capsys.readouterr().err
    for part in ("densenet121", "--classes", "--runs", "--size", str(run)):
        assert part in text


def test_what_applies_to_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(["profile", "--baselines", "--classes", "5", "--channels", "1", "--no-latency", "--threads", "1"]) == 2
    )
    text = capsys.readouterr().err
    for flag in ("--classes", "--channels"):
        assert flag in text
    assert "--threads" in text and "--no-latency" in text and text.count("\n") == 1


def test_brackets_and_colons_of_a_folder_are_shown_as_they_are(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a[").mkdir()
    (tmp_path / "a[" / "b]:x:").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    ribcage.profile("a[/b]:x:", latency=False)
    assert capsys.readouterr().out.count("a[/b]:x:") == 2  # counts, and what they take


def test_a_missing_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile", str(tmp_path / "none")]) == 1
    assert has_facts(capsys.readouterr().err, f"ribcage: {tmp_path / 'none'} ")


def test_nothing_asked_for_is_a_question_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile"]) == 2
    assert "--baselines" in capsys.readouterr().err


def test_architectures_are_listed_by_parts_of_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile", "--list", "resnet18_s", "eeea"]) == 0
    assert capsys.readouterr().out.split() == ["eeea_net_c1", "eeea_net_c2", "resnet18_slim", "resnet18_small"]
    assert cli.main(["profile", "--list", "no_such_net"]) == 2
    assert "no_such_net" in capsys.readouterr().err


def test_the_help_of_model_names_architectures_that_exist() -> None:
    text = flags.field_texts(finetune)["model"]
    examples = ("resnet18", "densenet121", "eeea_net_c2", "resnet18_small")
    assert all(name in text and catalogue.is_known(name) for name in examples) and "profile --list" in text
