"""The scan of usual headers: the same elements as pydicom's parser, or none."""

import sys
from io import BytesIO

import numpy as np
import pydicom
import pytest
from dicoms import dataset, lut, written
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from ribcage.imaging.dicom import level_counts
from ribcage.imaging.dicom.raw_elements import scanned_dataset


def nested(*, undefined: bool) -> Dataset:
    """A dataset with a LUT, which is read, and with sequences in a sequence, which are not."""
    inner, item = Dataset(), Dataset()
    inner.CodeMeaning = "chest"
    item.AnatomicRegionSequence = [inner]
    made = dataset(PatientName="Müller", SpecificCharacterSet="ISO_IR 100", PatientID="Ä1", WindowCenter=["1", "2"])
    made.AnatomicRegionSequence, made.VOILUTSequence = [item, item], [lut(np.arange(256), 0)]
    for each in (item["AnatomicRegionSequence"], made["AnatomicRegionSequence"], made["VOILUTSequence"]):
        assert isinstance(each.value, Sequence)
        each.is_undefined_length = each.value.is_undefined_length = undefined
        for one in each.value:
            one.is_undefined_length_sequence_item = undefined
    return made


@pytest.mark.parametrize("undefined", [False, True])
def test_elements_that_are_read_are_those_of_the_parser(undefined: bool) -> None:
    data = written(nested(undefined=undefined))
    found, parsed = scanned_dataset(data), pydicom.dcmread(BytesIO(data))
    assert found is not None and "PatientName" not in found and "AnatomicRegionSequence" not in found
    assert found.file_meta.TransferSyntaxUID == parsed.file_meta.TransferSyntaxUID
    for keyword in ("PatientID", "WindowCenter", "VOILUTSequence", "Rows", "PhotometricInterpretation"):
        assert found[keyword] == parsed[keyword] and type(found[keyword].value) is type(parsed[keyword].value)
    assert bytes(found.PixelData) == parsed.PixelData


def test_implicit_headers_are_scanned() -> None:
    made = dataset(WindowCenter="7", WindowWidth="9")
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    found = scanned_dataset(written(made))
    assert found is not None and (found.WindowCenter, found.Rows, len(found.PixelData)) == (7, 64, 8192)


def test_unusual_headers_are_left_to_the_parser() -> None:
    big = dataset()
    big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    good = written(dataset())
    assert scanned_dataset(good) is not None
    unknown = good.replace(b"\x28\0\x10\0US", b"\x28\0\x10\0ZZ")
    reversed_ = good.replace(b"\x28\0\x10\0US", b"\x27\0\x10\0US").replace(b"\x28\0\x11\0US", b"\x26\0\x11\0US")
    for data in (written(big), good[:-1], good[:400], good[132:], unknown, reversed_, b"", bytes(200)):
        assert scanned_dataset(data) is None


def test_every_pixel_is_counted_by_either_method(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = np.random.default_rng(0).integers(0, 1024, (5, 19)).astype(np.uint16)
    monkeypatch.setitem(sys.modules, "numba", sys)
    monkeypatch.setattr(level_counts, "compiled", lambda loop: loop)
    by_loop = level_counts.count_levels(levels, 10)
    monkeypatch.setattr(level_counts, "MOST_BITS", 0)
    by_opencv = level_counts.count_levels(levels, 10)
    assert np.array_equal(by_loop, by_opencv) and np.array_equal(by_loop, np.bincount(levels.ravel(), minlength=1024))
