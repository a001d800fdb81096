"""Text from files has no effect on terminals, pages, cards and spreadsheets."""

import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ribcage import cli
from ribcage.bundle.markdown import markdown_text
from ribcage.bundle.spec import SPEC_CHECKS
from ribcage.inference.prediction_table import read_predictions, save_table
from ribcage.reports import html, svg
from ribcage.reports.html import Drawing, Table
from ribcage.runtime import files, spreadsheet, terminal

HOSTILE = (
    "\x1b[2J\x1b]0;owned\x07",
    "a\rb",
    "\u202egnp.exe",
    "\u2066x\u2069",
    "zero\u200bwidth",
    "\x9b31m",
    "half \udc80",
    "\U000e0041tag",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_acts_on_a_terminal_is_shown_as_an_escape(text: str) -> None:
    shown = terminal.plain_line(text)
    assert shown != text and terminal.is_plain(shown) and shown.encode("utf-8")
    assert not terminal.is_plain(text) and terminal.plain_text(text + "\n\t").endswith("\n\t")


def test_names_of_any_language_stay_as_they_are() -> None:
    for name in ("肺炎", "Épanchement pleural", "التهاب رئوي", "می\u200cشود", "Lung Opacity – AP", "👩\u200d⚕️"):
        assert terminal.plain_line(name) == name


def test_all_that_a_command_prints_is_plain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(words: list[str]) -> int:
        print("out \x1b[31m")
        print("error \x1b[31m", file=sys.stderr)
        table = terminal.console()
        table.print("drawn \x1b[31m [red]as it is[/red] :x:")
        raise ValueError("one\nline \x1b[31m")

    monkeypatch.setattr(cli, "dispatch", said)
    before = sys.stdout
    assert cli.main(["x"]) == 2 and sys.stdout is before
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert "drawn \\x1b[31m [red]as it is[/red] :x:" in shown.out
    assert shown.err.splitlines()[-1] == "ribcage: one line \\x1b[31m"


def test_the_name_of_a_file_cannot_make_two_lines_of_an_error() -> None:
    assert cli.error_line(FileNotFoundError(2, "No such file", "a\nb\x1b")) == "a\\nb\\x1b: No such file"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_model_whose_findings_act_on_a_terminal_does_not_open(text: str) -> None:
    assert SPEC_CHECKS["findings"](["Mass", "肺炎"])
    assert (
        not SPEC_CHECKS["findings"]([text])
        and not SPEC_CHECKS["findings"](["x" * 201])
        and not SPEC_CHECKS["findings"]([""])
    )


@pytest.mark.parametrize("text", [*HOSTILE, '"><script>alert(1)</script>', "'onload='x", "](javascript:x)`|*"])
def test_pages_drawings_and_cards_hold_hostile_text_as_text(text: str) -> None:
    figure = html.gray_figure(np.zeros((2, 2), np.uint8), text)
    drawn = Table([text], [[text, Drawing(svg.plot(text, []))]])
    shown = html.render("comparison.html", names=[text], summary=text, notes=[text], models=drawn, models_note=text,
                        aurocs=drawn, differences=[(text, drawn, drawn)], difference_note=text,
                        mean_difference_note=text)  # fmt: skip
    shown += html.render("notebook.html", title=text, cards=[(text, text)], figures=[figure])
    body = shown[shown.index("<title>") :]
    assert "<script" not in body and terminal.is_plain(body.replace("\n", "")) and shown.encode("utf-8")
    assert text.count('"') == 0 or f'aria-label="{text}' not in body
    told = markdown_text(text + "\n# heading")
    assert "\n" not in told and terminal.is_plain(told) and not re.search(r"(?<!\\)[`*\[\]|]|[<>]", told)


# ---- CSV


FORMULAS = ("=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "a;=1", 'b,"=1"', "'=1", "＝1")


def test_no_cell_and_no_head_of_a_csv_is_a_formula_and_all_come_back(tmp_path: Path) -> None:
    paths = [*FORMULAS, "plain.png", "'quoted'", "it's", "-", ""]
    table = pd.DataFrame({"set": "=s", "path": paths, "patient": "+p", "=Mass": 0.5, "=Mass_label": 1.0, "lost": -2.5})
    file = tmp_path / "表 predictions.csv"
    save_table(table, file)
    plain = pd.read_csv(file, keep_default_na=False)
    cells = [*plain.columns, *plain["set"], *plain["path"], *plain["patient"]]
    assert not [cell for cell in cells if re.match(r"[=+\-@\t\r＝]", cell)]
    assert not [cell for cell in cells if re.search(r"[;,|\t\r\n\"][=+\-@]", cell)]
    assert plain["lost"].tolist() == [-2.5] * len(paths)
    read = read_predictions(file)
    assert read.images["path"].tolist() == paths and read.images["set"].tolist() == ["=s"] * len(paths)
    assert read.findings == ("=Mass",)


def test_rows_are_shielded_too_and_names_that_are_not_utf_8_do_not_stop_a_file(tmp_path: Path) -> None:
    spreadsheet.write_csv_rows(["path", "reason"], [("=x\udc80", "@y")], tmp_path / "rejected.csv")
    assert (tmp_path / "rejected.csv").read_text(encoding="utf-8") == "path,reason\n'=x\\udc80,'@y\n"
    files.write_text(tmp_path / "one.json", '{"path": "\udc80"}')
    assert (tmp_path / "one.json").read_text(encoding="utf-8") == '{"path": "\\udc80"}'
