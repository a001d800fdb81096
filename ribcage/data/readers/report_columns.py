"""Report columns: the columns of a user's table that contain the text of radiology reports.

A column is recognised by its name or, under any other name, by its cells: most of them are sentences. Messages name the
columns and never show their cells.
"""

import logging
import re
from collections.abc import Sequence

import pandas as pd

from ribcage.data.radiology_reports import SECTIONS, no_reports, reports_of_images
from ribcage.data.readers.columns import among, column_named
from ribcage.data.readers.report_text import report_sections
from ribcage.runtime.spelling import did_you_mean

log = logging.getLogger("ribcage")

NAMES = {
    "indication": "indication clinical_indication clinical_history clinical_information reason_for_exam 临床诊断 "
    "检查目的 临床病史",
    "comparison": "comparison comparisons 对比",
    "technique": "technique 检查方法 检查技术",
    "findings": "findings_text report_findings findings_section section_findings radiology_findings 影像所见 检查所见 "
    "影像表现 影像学表现 所见",
    "impression": "impression impressions impression_text report_impression section_impression conclusion conclusions "
    "影像诊断 诊断意见 检查结论 影像学诊断 印象 结论",
    "": "report report_text radiology_report reports full_report report_body 报告 报告内容 检查报告 报告文本 诊断报告",
}
"""Section → usual names of its column; "" stands for the whole report."""
SENTENCE = re.compile(r"[.。!?！？](\s|$|(?=[\u4e00-\u9fff]))")
WORD = re.compile(r"[^\W\d_]{3,}")
WORDS, LETTERS = 5, 10
"""A report has at least so many words of three letters or, in Chinese, so many letters."""


def report_columns(rows: pd.DataFrame, taken: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    """Column → its section, "" for a whole report; those given (as COLUMN or SECTION=COLUMN), else those recognised."""
    if list(given) == ["none"]:
        return {}
    if given:
        return _given(list(rows.columns), given)
    free = [name for name in rows.columns if name not in taken and _has_text(rows[name])]
    named = {column: section for section, names in NAMES.items() if (column := column_named(free, names))}
    # a column named 'findings' may also be a list of labels: its cells decide
    usual = {name: section_of(name) for name in free if name not in named and _is_prose(rows[name])}
    found = {name: (named | usual)[name] for name in rows.columns if name in named or name in usual}
    if found:
        said = ", ".join(f"{column!r} ({section or 'divided by headings'})" for column, section in found.items())
        log.warning(
            "Columns recognised as radiology reports: %s. To choose other columns, pass --report-columns. With "
            "--report-columns none, these columns are imported as ordinary text.",
            said,
        )
    return found


def section_of(name: str) -> str:
    """The section in a column of this name, "" if it may have several."""
    for section, names in NAMES.items():
        if column_named([name], f"{section} {names}" if section else names):
            return section
    return ""


def reports_in_columns(rows: pd.DataFrame, keys: pd.Series, chosen: dict[str, str], language: str) -> pd.DataFrame:
    """The table of reports of images; `keys` tells whose images share a report."""
    if not chosen:
        return no_reports()
    parts: dict[str, list[str]] = {name: [""] * len(rows) for name in SECTIONS}
    for column, section in chosen.items():
        for place, text in enumerate(rows[column]):
            for name, piece in ({section: " ".join(text.split())} if section else report_sections(text)).items():
                parts[name][place] = "\n".join(filter(None, (parts[name][place], piece)))
    texts = pd.DataFrame(parts, rows.index)
    key = keys + "\0" + texts.agg("\0".join, axis=1)
    return reports_of_images(key, texts.set_axis(key), language)


def _given(header: list[str], given: Sequence[str]) -> dict[str, str]:
    found = {}
    for word in given:
        section, equals, column = word.partition("=")
        if word in header or not equals:
            section, column = section_of(word), word
        if column not in header or section not in (*SECTIONS, ""):
            hint = did_you_mean(column, header) if section in (*SECTIONS, "") else f" Sections: {', '.join(SECTIONS)}."
            raise ValueError(
                f"--report-columns {word!r} is neither a column nor of the form SECTION=COLUMN.{hint} {among(header)}"
            )
        found[column] = section
    return found


def _has_text(cells: pd.Series) -> bool:
    return bool((cells.str.strip() != "").any())


def _is_prose(cells: pd.Series) -> bool:
    """Whether at least half of the cells that are not blank are sentences."""
    filled = cells[cells.str.strip() != ""]
    shown = filled.drop_duplicates().head(1000)
    sentences = [
        bool(SENTENCE.search(text))
        and (len(WORD.findall(text)) >= WORDS or len(re.findall(r"[\u4e00-\u9fff]", text)) >= LETTERS)
        for text in shown
    ]
    return 2 * sum(sentences) >= len(sentences) > 0
