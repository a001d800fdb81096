"""Shutters, orientation and the shape of pixels."""

import numpy as np
import pytest
from dicoms import RAMP, dataset, read
from refusals import has_facts

from ribcage.imaging import gray_image
from ribcage.imaging.dicom import place

SHUTTERS = {
    "RECTANGULAR": {
        "ShutterLeftVerticalEdge": 11, "ShutterRightVerticalEdge": 50, "ShutterUpperHorizontalEdge": 11,
        "ShutterLowerHorizontalEdge": 50,
    },
    "CIRCULAR": {"CenterOfCircularShutter": [31, 31], "RadiusOfCircularShutter": 20},
    "POLYGONAL": {"VerticesOfThePolygonalShutter": [11, 11, 11, 50, 50, 50, 50, 11]},
}  # fmt: skip


def test_a_circular_shutter_is_a_circle_also_of_pixels_that_are_not_square() -> None:
    made = dataset(ShutterShape="CIRCULAR", CenterOfCircularShutter=[20, 33], RadiusOfCircularShutter=15)
    for tall in (1, 2):
        made.PixelAspectRatio = [str(tall), "1"]
        open_, _, _ = place.shutter(made, 64, 48)
        expected = [
            [((row - 20) * tall) ** 2 + (column - 33) ** 2 <= 15**2 for column in range(1, 65)] for row in range(1, 49)
        ]
        assert np.array_equal(open_, expected)


@pytest.mark.parametrize(("side", "applied"), [(16, True), (14, False)])
def test_a_shutter_that_leaves_less_than_a_twentieth_is_not_believed(side: int, applied: bool) -> None:
    made = dataset(
        ShutterShape="RECTANGULAR",
        ShutterLeftVerticalEdge=1,
        ShutterRightVerticalEdge=side,
        ShutterUpperHorizontalEdge=1,
        ShutterLowerHorizontalEdge=side,
    )
    open_, _, notes = place.shutter(made, 64, 64)
    assert (open_ is not None) == applied and notes[-1].caution != applied


def test_a_shutter_is_at_most_white() -> None:
    made = dataset(ShutterShape="CIRCULAR", **SHUTTERS["CIRCULAR"])
    made.add_new("ShutterPresentationValue", "UL", 100_000)
    assert place.shutter(made, 64, 64)[1] == 1.0


@pytest.mark.parametrize("shape", SHUTTERS)
def test_what_a_shutter_covers_is_black_and_does_not_count(shape: str) -> None:
    pixels = RAMP // 4 + np.uint16(1000)
    covered = pixels.copy()
    covered[:8] = 60000
    covered[30, 30] = pixels[30, 30]
    plain, shut = (read(dataset(each, 16, ShutterShape=shape, **SHUTTERS[shape])) for each in (pixels, covered))
    assert np.array_equal(plain.pixels, shut.pixels) and plain.note_texts == shut.note_texts
    assert plain.pixels[:8].max() == 0 < plain.pixels[30, 30]
    assert has_facts(plain.note_texts[-1], f"{shape.lower()} shutter")
    white = read(dataset(pixels, 16, ShutterShape=shape, ShutterPresentationValue=65535, **SHUTTERS[shape]))
    assert white.pixels[:8].min() == 65535


def test_a_shutter_that_makes_no_sense_is_not_applied_and_noted() -> None:
    for elements in ({"ShutterShape": "RECTANGULAR"}, {"ShutterShape": "CIRCULAR", "RadiusOfCircularShutter": 1}):
        image = read(dataset(**elements))
        assert np.array_equal(image.pixels, read(dataset()).pixels) and has_facts(
            image.note_texts[-1], gray_image.CAUTION, "shutter"
        )


@pytest.mark.parametrize(
    ("elements", "told"),
    [
        ({"PatientOrientation": ["R", "F"]}, ("mirrored", "PatientOrientation R/F")),
        ({"PatientOrientation": ["R", "H"]}, ("upside down", "PatientOrientation R/H")),
        ({"PatientOrientation": ["L", "H"]}, ("mirrored", "PatientOrientation L/H")),
        ({"PatientOrientation": ["F", "R"]}, ("90 degrees", "PatientOrientation F/R")),
        ({"PatientOrientation": ["F", "L"]}, ("90 degrees", "mirrored", "PatientOrientation F/L")),
        ({"PatientOrientation": ["H", "R"]}, ("90 degrees", "mirrored", "PatientOrientation H/R")),
        ({"PixelSpacing": ["0.2", "0.1"]}, ("PixelSpacing", "2 times")),
        ({"PixelAspectRatio": ["2", "1"]}, ("not square", "PixelAspectRatio")),
        ({"BurnedInAnnotation": "YES"}, ("burned",)),
        ({"PresentationIntentType": "FOR PROCESSING"}, ()),
    ],
)
def test_what_is_not_corrected_in_an_image_is_noted(elements: dict, told: tuple[str, ...]) -> None:
    notes = read(dataset(**elements)).note_texts
    assert any(note.startswith(gray_image.CAUTION) and has_facts(note, *told) for note in notes)
    assert not any("Orientation" in note for note in read(dataset(PatientOrientation=["RX", "F"])).note_texts)
    upright = {"PatientOrientation": ["L", "F"], "PixelSpacing": ["0.143", "0.143"], "BurnedInAnnotation": "NO"}
    assert not any(note.startswith(gray_image.CAUTION) for note in read(dataset(**upright)).note_texts)
