"""Elements of functional groups, and values that are no numbers."""

import numpy as np
import pytest
from dicoms import dataset, read, with_text, written
from pydicom.dataset import Dataset
from refusals import has_facts

from ribcage.imaging import image_file


def test_functional_groups_of_enhanced_images_are_applied() -> None:
    """Supplement 83: one frame, whose rescaling and window stand in sequences and not beside the pixels."""
    said = {"RescaleSlope": "2", "RescaleIntercept": "-1000", "WindowCenter": "3000", "WindowWidth": "5000"}
    expected = read(dataset(**said))
    parts = {"PixelValueTransformationSequence": Dataset(), "FrameVOILUTSequence": Dataset()}
    for keyword, value in said.items():
        setattr(
            parts["PixelValueTransformationSequence" if "Rescale" in keyword else "FrameVOILUTSequence"], keyword, value
        )
    group = Dataset()
    for keyword, item in parts.items():
        setattr(group, keyword, [item])
    for where in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        made = read(dataset(NumberOfFrames=1, **{where: [group]}))
        assert np.array_equal(made.pixels, expected.pixels) and made.note_texts == expected.note_texts


def test_a_functional_group_that_cannot_be_read_does_not_spoil_the_image() -> None:
    group, macro = Dataset(), Dataset()
    group.add_new(0x00189303, "LO", "abc ")
    macro.WindowCenter, macro.WindowWidth = "2048", "4096"
    group.FrameVOILUTSequence = [macro]
    data = written(dataset(SharedFunctionalGroupsSequence=[group])).replace(b"\x18\0\x03\x93LO", b"\x18\0\x03\x93FD")
    notes = image_file.decode_image(data, "a").note_texts
    assert has_facts(notes[0], "caution: ", "functional group", "ignored") and notes[1:] == ("window 2048/4096",)


@pytest.mark.parametrize(
    ("keyword", "text"), [("RescaleSlope", "two"), ("WindowCenter", "1e999"), ("NumberOfFrames", "abc")]
)
def test_values_that_are_no_numbers_are_reported_without_their_text(keyword: str, text: str) -> None:
    notes = image_file.decode_image(with_text(keyword, text), "a").note_texts
    assert has_facts(notes[0], "caution: ", keyword, "ignored") and text not in " ".join(notes)
