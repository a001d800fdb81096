"""Report text: divides a free-text radiology report into its sections by the headings.

A heading is a word or a few words before a colon: in capitals at the start of a line (`FINDINGS:`, also unknown ones
such as `NOTIFICATION:`), a usual heading in any case at the start of a line (`Clinical history:`), or a usual heading
in capitals within a line. Text without a heading that follows the indication, the comparison or the technique after a
blank line describes the image; it belongs to the findings if there is no other heading for them.
"""

import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

from ribcage.data.radiology_reports import SECTIONS
from ribcage.data.readers.tables import unique_files
from ribcage.runtime.files import regular

HEADINGS = {
    "indication": "indication|indications|clinical indication|history|clinical history|clinical information|"
    "clinical data|clinical statement|patient history|reason for exam|reason for examination|reason for study|"
    "reason for the exam|reason for this examination|reason|clinical question|medical history",
    "comparison": "comparison|comparisons|comparison exam|comparison study|comparison studies|prior|prior exams|"
    "reference exam|comparison made to",
    "technique": "technique|procedure|examination|exam|study|type of examination|views|procedure comments|"
    "examination type|procedure name",
    "findings": "findings|finding|report|description|observations|chest findings|findings and impression|"
    "narrative findings|interpretation",
    "impression": "impression|impressions|conclusion|conclusions|summary|impression and findings|opinion|assessment|"
    "diagnosis|final diagnosis|impression and recommendation|impression and recommendations|"
    "provisional findings impression",
    "other": "addendum|final addendum|recommendation|recommendations|notification|wet read|preliminary report|"
    "end of impression|accession number|electronically signed|dictated by",
}
"""Section → its usual headings, in lower case and separated by '|'."""
SECTION_OF = {name: section for section, names in HEADINGS.items() for name in names.split("|")}
USUAL = sorted(SECTION_OF, key=len, reverse=True)
HEADING = re.compile(
    rf"^[ \t]*(?P<usual>(?i:{'|'.join(USUAL)}))[ \t]*(?:\([A-Za-z ]{{1,12}}\))?[ \t]*:"
    r"|^[ \t]*(?P<capitals>[A-Z][A-Z0-9 ,&/()'.-]{2,60}?)[ \t]*:(?!\d)"
    rf"|(?<=[.\s])(?P<inside>{'|'.join(USUAL).upper()})[ \t]*:",
    re.MULTILINE,
)
BANNER = re.compile(r"^[ \t_=-]*(FINAL|PRELIMINARY|UNSIGNED|RADIOLOGY)? ?REPORT[ \t_=-]*$", re.MULTILINE)
"""A line such as FINAL REPORT, which ends what stands before it."""
RULE = re.compile(r"^[ \t]*[_=-]{5,}[ \t]*$", re.MULTILINE)
"""A drawn line. A shorter one is text that was removed by de-identification."""
VIEWS = re.compile(r"\b(CHEST|VIEWS?|RADIOGRAPHS?|PORTABLE|LATERAL)\b")
"""Words of a heading that names the image, such as `PA AND LATERAL VIEWS OF THE CHEST:`; the findings follow it."""
SHORT = ("indication", "comparison", "technique")
"""Sections that end at a blank line if the findings have no heading."""
LINE_END = re.compile(r"\r\n?|[\f\v\x85\u2028\u2029]")
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
LARGEST = 1 << 20
"""Limit on the bytes of a report."""


def report_sections(text: str) -> dict[str, str]:
    """Section → its text, for the sections that are there. Lines of a paragraph are joined."""
    pieces = list(_pieces(RULE.sub("", BANNER.sub("\n\f\n", CONTROL.sub(" ", LINE_END.sub("\n", text))))))
    headed = {section for section, _ in pieces}
    found: dict[str, list[str]] = {name: [] for name in SECTIONS}
    for section, piece in pieces:
        paragraphs = [" ".join(each.split()) for each in re.split(r"\n[ \t]*\n", piece) if each.strip()]
        if section in SHORT and "findings" not in headed:
            found["findings"] += paragraphs[1:]
            paragraphs = paragraphs[:1]
        found[section] += paragraphs
    return {name: "\n".join(parts) for name, parts in found.items() if parts}


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """(section, text) of each heading and of the text without one, in order; unknown headings stay in the text."""
    for part in text.split("\f"):
        headings = list(HEADING.finditer(part))
        yield "other", part[: headings[0].start() if headings else len(part)]
        for place, match in enumerate(headings):
            end = headings[place + 1].start() if place + 1 < len(headings) else len(part)
            name = " ".join(next(filter(None, match.groups())).lower().split())
            section = SECTION_OF.get(name) or SECTION_OF.get(re.split(r" ?/ ?| and ", name)[0])
            if section is None and VIEWS.search(match[0].upper()):
                section = "findings"
            kept = section in (None, "other")
            yield section or "other", part[match.start() if kept else match.end() : end]


def decoded(data: bytes) -> str:
    """Text of a report: UTF-8 or, if it is not, Latin-1."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def texts_of(place: Path, names: Iterable[str]) -> Iterator[str]:
    """The text of each of these files in a folder or a zip archive, "" for those that are not there.

    Names are relative paths. The archive may have them below another folder; if it has several files with the folders
    and the name of a report at the end of their paths, the report is unknown, and its text is "".
    """
    if place.is_dir():
        for name in names:
            file = place / name
            yield _read(file.open("rb"), file) if file.is_file() else ""
        return
    try:
        with zipfile.ZipFile(regular(place)) as archive:
            there = archive.namelist()
            files: dict[int, dict[str, str]] = {}  # number of folders → folders and name → file
            for name in names:
                above = name.count("/")
                if above not in files:
                    files[above] = unique_files([_tail(path, above) for path in there], there)
                found = files[above].get(name)
                yield _read(archive.open(found), place / found) if found else ""
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{place} is not a readable zip archive ({' '.join(str(error).split())[:200]}).") from None


def _tail(path: str, above: int) -> str:
    """The name of a file and so many folders above it."""
    return "/".join(path.split("/")[-above - 1 :])


def _read(stream: IO[bytes], file: Path) -> str:
    with stream:
        data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"The report {file} is larger than 1 MiB.")
    return decoded(data)
