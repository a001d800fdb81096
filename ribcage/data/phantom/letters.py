"""Side letters and burned-in text, drawn as strokes without a font file, identical on every machine."""

import numpy as np

from ribcage.data.phantom.plate import Points

# Strokes on a grid 4 wide and 6 high, x and y as digits.
_STROKES = {
    "A": ("0620", "2046", "1434"),
    "B": ("0006", "00304133", "03334506", "0333"),
    "D": ("0006", "002042442606"),
    "E": ("400006", "0333", "0646"),
    "H": ("0006", "4046", "0343"),
    "I": ("2026",),
    "J": ("40452616", "1605"),
    "K": ("0006", "4003", "0346"),
    "L": ("000646",),
    "M": ("0600244046",),
    "N": ("06004640",),
    "O": ("103041453616050110",),
    "P": ("0600304142330333", "0333"),
    "R": ("06003041423303", "2346"),
    "S": ("4130100102134344453616", "1605"),
    "T": ("0040", "2026"),
    "U": ("000516364540",),
    "W": ("0016233640",),
}


def strokes(text: str, x: float, y: float, height: float, mirrored: bool = False, angle: float = 0.0) -> list[Points]:
    """Lines that write this text, its top left corner at (x, y), one text line under the other."""
    lines = []
    for row, words in enumerate(text.split("\n")):
        for column, letter in enumerate(words):
            for stroke in _STROKES.get(letter, ()):
                digits = np.array([int(digit) for digit in stroke], np.float64).reshape(-1, 2)
                lines.append(digits + np.array((5.6 * column, 9 * row)))
    flip = -1.0 if mirrored else 1.0
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return [(line * (flip, 1)) @ turn * (height / 6) + (x, y) for line in lines]
