"""Sections of reports as they come: with and without headings, in several forms, twice, damaged and empty."""

import random
import time
import zipfile
from pathlib import Path

import pytest

from ribcage.data.radiology_reports import SECTIONS
from ribcage.data.readers.report_text import LARGEST, decoded, report_sections, texts_of

USUAL = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___F with new onset ascites  // eval for
 infection

 TECHNIQUE:  Chest PA and lateral

 COMPARISON:  None.

 FINDINGS:

 There is no focal consolidation, pleural effusion or
 pneumothorax.  The heart is normal.

 Bones are intact.

 IMPRESSION:

 No acute cardiopulmonary process.
"""


def test_a_usual_report() -> None:
    assert report_sections(USUAL) == {
        "indication": "___F with new onset ascites // eval for infection",
        "comparison": "None.",
        "technique": "CHEST (PA AND LAT)\nChest PA and lateral",
        "findings": "There is no focal consolidation, pleural effusion or pneumothorax. The heart is normal.\n"
        "Bones are intact.",
        "impression": "No acute cardiopulmonary process.",
    }


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("", {}),
        (" \n\t\n", {}),
        ("No acute process.", {"other": "No acute process."}),
        ("Heart normal.\n\nLungs clear.", {"other": "Heart normal.\nLungs clear."}),
        ("FINDINGS: Clear.", {"findings": "Clear."}),
        ("FINDINGS:\nIMPRESSION: Clear.", {"impression": "Clear."}),
        ("Findings: a.\nImpression: b.", {"findings": "a.", "impression": "b."}),
        ("CLINICAL HISTORY: cough COMPARISON: none", {"indication": "cough", "comparison": "none"}),
        ("REASON FOR EXAMINATION:  Fever.\r\n\r\nIMPRESSION:\r\n1. a\r\n2. b", {"indication": "Fever.", "impression": "1. a 2. b"}),
        ("IMPRESSION: a\n\nIMPRESSION: b", {"impression": "a\nb"}),
        ("FINDINGS/IMPRESSION: a", {"findings": "a"}),
        ("FINDINGS AND IMPRESSION: a", {"findings": "a"}),
        ("IMPRESSION AND RECOMMENDATIONS: a", {"impression": "a"}),
        ("CONCLUSION (final): a", {"impression": "a"}),
        ("INDICATION: x\n\nThe lungs are clear.\n\nIMPRESSION: ok", {"indication": "x", "findings": "The lungs are clear.", "impression": "ok"}),
        ("COMPARISON: ___\n\nSecond.\n\nFINDINGS: y", {"comparison": "___\nSecond.", "findings": "y"}),
        ("PA AND LATERAL VIEWS OF THE CHEST: Clear.", {"findings": "Clear."}),
        ("AP CHEST, 5:32 A.M., ___\n\nHISTORY: x", {"indication": "x", "other": "AP CHEST, 5:32 A.M., ___"}),
        ("NOTIFICATION: Dr. ___ at 5:32 PM.", {"other": "NOTIFICATION: Dr. ___ at 5:32 PM."}),
        ("WET READ: ___ 9:18 PM\n no ptx\n_________\n  FINAL REPORT\n FINDINGS: a", {"findings": "a", "other": "WET READ: ___ 9:18 PM no ptx"}),
        ("FINDINGS: The tube: in place. RIGHT: clear.", {"findings": "The tube: in place. RIGHT: clear."}),
        ("FINDINGS: Compared: with findings: none.", {"findings": "Compared: with findings: none."}),
        ("IMPRESSION: a\x00b\x1b[31mc\x07", {"impression": "a b [31mc"}),
        ("发现：x\nIMPRESSION: 肺炎 é", {"impression": "肺炎 é", "other": "发现：x"}),
    ],
)  # fmt: skip
def test_variants(text: str, sections: dict[str, str]) -> None:
    assert report_sections(text) == sections


def test_every_word_of_a_report_is_in_one_section() -> None:
    chance = random.Random(0)
    words = ["FINDINGS:", "IMPRESSION:", "COMPARISON:", "heart", "no", "clear.", "___", "\n", "\n\n", "FINAL REPORT\n"]
    for _ in range(200):
        text = " ".join(chance.choices(words, k=chance.randrange(40)))
        found = report_sections(text)
        assert set(found) <= set(SECTIONS)
        kept = " ".join(found.values())
        for word in ("heart", "clear."):
            assert kept.count(word) == text.count(word)


def test_long_hostile_texts_take_little_time() -> None:
    start = time.perf_counter()
    for text in ("A" * 200_000, "A " * 100_000, "IMPRESSION " * 20_000, "\n \t" * 70_000, "FINDINGS:" * 20_000):
        report_sections(text)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xef\xbb\xbfa", "a"),
        ("é".encode(), "é"),
        ("é ü".encode("latin-1"), "é ü"),
        (b"\x81\x8d", "��"),
        (b"", ""),
    ],
)
def test_text_in_any_encoding_is_decoded(data: bytes, text: str) -> None:
    assert decoded(data) == text


@pytest.mark.parametrize("packed", [False, True])
def test_reports_are_read_from_a_folder_or_an_archive(tmp_path: Path, packed: bool) -> None:
    place = tmp_path / ("reports.zip" if packed else "reports")
    texts = {
        "files/p10/p1/s5.txt": "FINDINGS: ä".encode("latin-1"),
        "files/p10/p1.csv": b"x",
        "big.txt": b" " * (LARGEST + 1),
    }
    if packed:
        with zipfile.ZipFile(place, "w") as archive:
            for name, data in texts.items():
                archive.writestr(name, data)
    else:
        for name, data in texts.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(data)
    assert list(texts_of(place, ["files/p10/p1/s5.txt", "files/p10/p1/s6.txt"])) == ["FINDINGS: ä", ""]
    with pytest.raises(ValueError, match=r"big\.txt"):
        list(texts_of(place, ["big.txt"]))


def test_reports_in_an_archive_are_those_of_the_patient(tmp_path: Path) -> None:
    """Two folders may contain the same study number, and an archive may contain a report twice."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("files/p10/p1/s5.txt", "files/p10/p2/s5.txt", "files/p10/p3/s6.txt", "old/p10/p3/s6.txt"):
            archive.writestr(name, name)
    names = ["p10/p1/s5.txt", "p10/p2/s5.txt", "p10/p3/s6.txt", "p10/p4/s5.txt", "files/p10/p3/s6.txt"]
    found = ["files/p10/p1/s5.txt", "files/p10/p2/s5.txt", "", "", "files/p10/p3/s6.txt"]
    assert list(texts_of(tmp_path / "a.zip", names)) == found


def test_a_damaged_archive_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 no")
    with pytest.raises(ValueError, match=r"a\.zip") as error:
        list(texts_of(tmp_path / "a.zip", ["a"]))
    assert "\n" not in str(error.value)
