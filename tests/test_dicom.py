"""DICOM files: tags, real files, and what is refused."""

import logging
import os
import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicoms import RAMP, dataset, encapsulated, jpeg_frame, lut, read, refused, written
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
)
from refusals import has_facts

from ribcage.bundle.ood.warnings import image_warnings
from ribcage.imaging import dicom, image_file
from ribcage.imaging.dicom import terms
from ribcage.imaging.dicom.decoders import short_error
from ribcage.imaging.dicom.transfer_syntaxes import syntax_name
from ribcage.imaging.image_file import Limits, UnreadableError

# -- What is refused --------------------------------------------------------------------------------------------------


def test_several_frames_are_refused_with_their_number() -> None:
    pixels = np.zeros((30, 8, 8), np.uint8)
    made = dataset(pixels[0], 8, NumberOfFrames=30)
    made.PixelData = pixels.tobytes()
    assert has_facts(refused(made), "a.dcm", "30 frames")


def test_a_dicom_without_an_image_is_named_by_its_kind() -> None:
    made = dataset(PixelData=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1")
    assert has_facts(refused(made), "a.dcm", "no pixels", "Encapsulated PDF Storage")


def test_absurd_sizes_are_refused_before_anything_is_allocated() -> None:
    assert has_facts(refused(dataset(Rows=65535, Columns=65535)), "65535 x 65535 pixels", "limit")
    large = encapsulated(jpeg_frame(np.zeros((600, 600), np.uint8)), JPEGBaseline8Bit, np.zeros((8, 8), np.uint8), 8)
    assert has_facts(refused(large), "compressed")


def test_a_deflated_bomb_is_refused() -> None:
    data = written(dataset(np.zeros((2000, 2000), np.uint16)))
    made = dataset(np.zeros((2000, 2000), np.uint16))
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    small = written(made)
    assert len(small) < len(data) / 100
    with pytest.raises(UnreadableError, match=r"a\.dcm .*1 MB"):
        image_file.decode_image(small, "a.dcm", limits=Limits(max_bytes=1e6))


@pytest.mark.parametrize("elements", [{"Rows": None}, {"BitsAllocated": None}, {"Columns": 0}])
def test_missing_elements_are_named(elements: dict) -> None:
    assert has_facts(refused(dataset(**elements)), "no", next(iter(elements)))


def test_other_than_8_to_16_bits_are_refused() -> None:
    assert has_facts(refused(dataset(RAMP.astype(np.uint32), 32)), "32 bits", 32)


def test_cut_pixels_are_refused() -> None:
    data = written(dataset())
    for length in (len(data) - 1, len(data) - 4000, 400, 140):
        refused(data[:length])
    frame = jpeg_frame(RAMP.astype(np.uint8))
    assert "truncated" in refused(encapsulated(frame[: len(frame) // 2], JPEGBaseline8Bit, RAMP.astype(np.uint8), 8))


def test_a_retired_syntax_and_an_unknown_one_are_named() -> None:
    made = encapsulated(b"\xff\xd8\xff\xd9", pydicom.uid.UID("1.2.840.10008.1.2.4.55"), RAMP, 12)
    assert "JPEG Full Progression" in (line := refused(made)) and "retired" in line
    video = encapsulated(b"\xff\xd8\xff\xd9", pydicom.uid.MPEG2MPML, RAMP, 12)
    assert has_facts(refused(video), "MPEG2 Main Profile")


def test_a_missing_decoder_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made = dataset()
    made.compress(JPEGLSLossless, generate_instance_uid=False)
    data = written(made)
    monkeypatch.setitem(sys.modules, "jpeg_ls", None)
    told = refused(data)
    assert has_facts(told, "JPEG-LS", "1.2.840.10008.1.2.4.80", "pip install pyjpegls")


def test_mutated_files_only_ever_raise_unreadable() -> None:
    chance = np.random.default_rng(2)
    compressed = dataset()
    compressed.compress(JPEG2000Lossless, generate_instance_uid=False)
    for good in (written(dataset(WindowCenter="9", WindowWidth="9")), written(compressed)):
        for _ in range(150):
            bad = np.frombuffer(good, np.uint8).copy()
            places = chance.integers(130, 700, chance.integers(1, 8))
            bad[places] = chance.integers(0, 256, len(places))
            try:
                assert image_file.decode_image(bad.tobytes(), "a").pixels.ndim == 2
            except UnreadableError as error:
                assert "\n" not in str(error)


# -- What is printed ---------------------------------------------------------------------------------------------------

SECRET = 'O\'SECRET "JANE"'
"""A patient's name that ends both kinds of quotation."""


def told(data: bytes) -> str:
    """Everything that is printed about a file: its error, or its notes and warnings."""
    try:
        image = image_file.decode_image(data, "a.dcm")
    except UnreadableError as error:
        return str(error)
    return " ".join([*image.note_texts, *image_warnings(None, image.pixels, image.tags, image.notes)])


@pytest.mark.parametrize("keyword", ["SOPClassUID", "Modality", "BodyPartExamined", "PhotometricInterpretation"])
def test_a_damaged_length_shows_no_name_of_a_patient(keyword: str) -> None:
    """The element then contains those after it, such as the patient's name."""
    data = written(
        dataset(PatientName=SECRET, Modality="DX", BodyPartExamined="CHEST", AdditionalPatientHistory=SECRET * 9)
    )
    tag = pydicom.datadict.tag_for_keyword(keyword)
    at = data.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF) + pydicom.datadict.dictionary_VR(tag).encode())
    for bit in range(16):
        length = int.from_bytes(data[at + 6 : at + 8], "little") ^ 1 << bit
        text = told(data[: at + 6] + length.to_bytes(2, "little") + data[at + 8 :])
        assert "SECRET" not in text and "JANE" not in text and len(text) < 600


@pytest.mark.parametrize("keyword", ["Rows", "BitsStored", "HighBit", "SamplesPerPixel", "PixelRepresentation"])
def test_text_in_place_of_a_number_is_not_printed(keyword: str) -> None:
    made = dataset()
    made[keyword] = pydicom.DataElement(keyword, "LO", SECRET)
    assert keyword in refused(made) and "SECRET" not in refused(made) and "JANE" not in refused(made)


def test_names_of_terms_and_uids_are_printed_only_if_they_can_be_such() -> None:
    for text in (told(written(dataset(PhotometricInterpretation="JANE DOE"))), syntax_name("JANE^SECRET")):
        assert "JANE" not in text
    assert "1.2.3.4" in syntax_name("1.2.3.4") and "1.2.3.4" in refused(dataset(PixelData=None, SOPClassUID="1.2.3.4"))
    for modality in ("CT\x10PNSECRET", "SECRET^JANE"):
        assert "SECRET" not in " ".join(image_warnings(None, RAMP.astype(np.uint8), {"modality": modality}))
    error = short_error(ValueError(f"invalid number: {SECRET!r}"))
    assert "SECRET" not in error and "JANE" not in error and "invalid number" in error


def test_messages_of_libraries_reach_no_log_of_the_program() -> None:
    read(dataset())
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        logging.getLogger("pydicom").warning("an element has the value SECRET")
    finally:
        logging.getLogger().removeHandler(handler)
    assert heard == []


# -- Tags -------------------------------------------------------------------------------------------------------------


def test_tags_are_those_of_the_index() -> None:
    made = dataset(
        PatientID="P 7",
        StudyInstanceUID="1.2.9",
        SeriesInstanceUID="1.2.9.1",
        ViewPosition="LL",
        PatientSex="F",
        PatientAge="045Y",
        Manufacturer="FUJIFILM Corporation",
        Modality="DX",
        BodyPartExamined="CHEST",
    )
    assert read(made).tags == {
        "patient": "P 7",
        "study": "1.2.9",
        "series": "1.2.9.1",
        "view": "LATERAL",
        "sex": "F",
        "age": "45",
        "manufacturer": "Fujifilm",
        "modality": "DX",
        "body": "CHEST",
        "transfer_syntax": ExplicitVRLittleEndian,
    }


@pytest.mark.parametrize("text", ["JANE DOE", "DOE1966"])
def test_free_text_of_a_file_is_in_no_note_and_no_tag_but_those_of_the_patient(text: str) -> None:
    made = dataset(Manufacturer=text, Modality=text.upper()[:16], BodyPartExamined=text.upper()[:16], ViewPosition=text)
    made.WindowCenter, made.WindowWidth = ["2000", "1000"], ["3000", "2000"]
    made.WindowCenterWidthExplanation = [text, "NORMAL"]
    table = lut(np.arange(4096), 0, 12)
    table.LUTExplanation = text
    for tables in ([], [table, table]):
        made.VOILUTSequence = tables
        image = read(made)
        told = " ".join(
            [*image.note_texts, *image.tags.values(), *image_warnings(None, image.pixels, image.tags)]
        ).upper()
        assert "ONE OF 2" in told and not any(word in told for word in re.findall(r"\w+", text.upper()))


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("", ""),
        ("knee", "KNEE"),
        ("C SPINE", "CSPINE"),
        ("KNEE LEFT", "KNEE"),
        ("Portable chest", "CHEST"),
        ("胸部", "CHEST"),
        ("JANE", "OTHER"),
    ],
)
def test_body_parts_are_defined_terms(text: str, term: str) -> None:
    assert terms.body_part(text) == terms.body_part(term) == term


@pytest.mark.parametrize(
    ("elements", "age"),
    [
        ({"PatientAge": "010M"}, "0.8333"),
        ({"PatientAge": "62"}, "62"),
        ({"PatientAge": "412Y"}, ""),
        ({"PatientBirthDate": "19400305", "StudyDate": "20040304"}, "63"),
        ({"PatientBirthDate": "19400305", "StudyDate": "20040305"}, "64"),
        ({"PatientAge": "", "PatientBirthDate": ""}, ""),
        ({"PatientBirthDate": "20040304", "StudyDate": "20040304"}, ""),
        ({"PatientBirthDate": "19000101", "StudyDate": "20040304"}, ""),
        ({"PatientBirthDate": "19400305"}, ""),
        ({"StudyDate": "20040304"}, ""),
    ],
)
@pytest.mark.filterwarnings("ignore:.*PatientAge|.*value representation|Invalid value")
def test_age_is_in_years(elements: dict, age: str) -> None:
    assert read(dataset(**elements)).tags["age"] == age


def test_views_are_recognised_also_by_their_code() -> None:
    views = {"PA": "PA", "AP": "AP", "RL": "LATERAL", "LLD": "", "": ""}
    views |= {"AP ERECT": "AP", "XTABLE LATERAL": "LATERAL", "PA LLD": "", "AP AXIAL": "", "PA LATERAL": ""}
    for said, view in views.items():
        assert read(dataset(ViewPosition=said)).tags["view"] == view
    code = Dataset()
    code.CodeMeaning = "postero-anterior"
    assert read(dataset(ViewCodeSequence=[code])).tags["view"] == "PA"
    assert read(dataset(ViewCodeSequence=[code], ViewPosition="LPO")).tags["view"] == ""


def test_a_name_in_other_letters_is_no_obstacle(tmp_path: Path) -> None:
    file = tmp_path / "胸部 X 光.png"  # nor is a wrong ending
    file.write_bytes(written(dataset()))
    assert image_file.read_image(file).pixels.shape == (64, 64)


def test_what_libraries_find_odd_is_not_printed() -> None:
    """Python prints the warnings of a logger that nobody listens to."""
    log = logging.getLogger("pydicom")
    before, log.handlers = log.handlers, []
    try:
        for _ in range(2):
            dicom._quieten()
            assert [type(one) for one in log.handlers] == [logging.NullHandler]
    finally:
        log.handlers = before


def test_recognises_dicom_only() -> None:
    assert dicom.is_dicom(written(dataset()))
    for other in (b"", b"hello, world", b"\x08\x00", zlib.compress(b"x"), bytes(200)):
        assert not dicom.is_dicom(other)


# -- Real files -------------------------------------------------------------------------------------------------------

REAL = Path(os.environ.get("RIBCAGE_REAL_DATA") or "/nowhere") / "dicom"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="RIBCAGE_REAL_DATA names no folder with real DICOM files")


@needs_real
def test_ten_lossless_syntaxes_agree_lossy_ones_nearly_and_retired_ones_are_named() -> None:
    expected = image_file.read_image(REAL / "syntaxes/CTImage.dcm", depth=16).pixels
    same, far, told = 0, [], []
    for file in sorted((REAL / "syntaxes").iterdir()):
        try:
            difference = np.abs(image_file.read_image(file, depth=16).pixels.astype(int) - expected)
            same += difference.max() == 0
            far.append(difference.mean())
        except UnreadableError as error:
            told.append(str(error))
    assert same == 10 and len(far) == 14 and max(far) < 65535 * 0.02
    assert [line.count("retired") for line in told] == [1, 1]


@needs_real
def test_an_inverted_twin_is_read_as_the_exact_negative() -> None:
    twin = image_file.read_image(next(REAL.glob("1.2.276*"))).pixels  # the same stored pixels, labelled MONOCHROME2
    assert np.array_equal(image_file.read_image(REAL / "Fake_MONOHR1.dcm").pixels, 255 - twin)


@needs_real
def test_known_odd_files() -> None:
    odd = image_file.read_image(REAL / "JPEG2KLossless_1s_1f_u_16_16.dcm")
    assert has_facts(odd.note_texts[0], "window 2725/5310", "saturate") and odd.pixels.std() > 20
    assert odd.note_texts[1].startswith("range 32744 to 47410.9 of")  # its letters reach 65535
    fixed, twin = (
        image_file.read_image(REAL / name).pixels.astype(int) for name in ("RG2_JPLY_fixed.dcm", "RG2_JLSN.dcm")
    )
    broken = image_file.read_image(
        REAL / "RG2_JPLY.dcm"
    )  # its scan header is empty, which is all that is wrong with it
    assert np.array_equal(broken.pixels, fixed) and "scan header" in broken.note_texts[0]
    assert (
        image_file.read_image(REAL / "JPEGLosslessP14SV1_1s_1f_u_16_16.dcm").note_texts[0]
        == "an empty modality LUT was ignored"
    )
    assert np.abs(fixed - twin).mean() < 2  # one radiograph, compressed by two lossy methods
    assert image_file.read_image(REAL / "vlut_04.dcm").note_texts == ("VOI LUT",)


# ---- the header alone


def test_tags_are_those_of_the_image_whatever_the_pixels_are(tmp_path: Path) -> None:
    made = dataset(PatientID="病人 7", PatientSex="F", PatientAge="051Y", ViewPosition="PA", StudyInstanceUID="1.2.9")
    made.SpecificCharacterSet = "ISO_IR 192"
    file = tmp_path / "胸片 x"
    pydicom.dcmwrite(file, made, enforce_file_format=True)
    assert image_file.read_tags(file) == image_file.read_image(file).tags
    assert image_file.read_tags(file)["patient"] == "病人 7" and image_file.read_tags(file)["age"] == "51"
    file.write_bytes(file.read_bytes()[:-5000])  # half of the pixels are gone
    with pytest.raises(UnreadableError):
        image_file.read_image(file)
    assert image_file.read_tags(file)["patient"] == "病人 7"


def test_tags_of_a_deflated_file_are_read_and_a_bomb_is_not(tmp_path: Path) -> None:
    made = dataset(PatientID="P7")
    made.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    file = tmp_path / "a.dcm"
    pydicom.dcmwrite(file, made, enforce_file_format=True)
    assert image_file.read_tags(file)["patient"] == "P7"
    assert image_file.read_tags(file, limits=Limits(max_bytes=4000)) == {}


@pytest.mark.parametrize(
    "content", [b"", b"DICM", bytes(128) + b"DICM", bytes(128) + b"DICM" + b"\x02\x00" * 50, b"\x89PNG"]
)
def test_tags_of_what_is_no_dicom_are_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.dcm"
    file.write_bytes(content)
    assert not any(value for name, value in image_file.read_tags(file).items() if name != "transfer_syntax")
    assert image_file.read_tags(tmp_path / "gone.dcm") == {} == image_file.read_tags(tmp_path)
