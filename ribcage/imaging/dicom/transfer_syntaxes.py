"""Transfer syntaxes: the encodings of DICOM pixels and their decoders."""

import re

IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, JPEG_BASELINE, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.5"
UNCOMPRESSED = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED)
JPEG_EXTENDED, JPEG_LOSSLESS = "1.2.840.10008.1.2.4.51", ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
# pydicom plugin for each transfer syntax and the package it needs. They are named, since pydicom's own first choice
# (GDCM) corrupts memory on some damaged files.
PLUGINS = {
    RLE: ("pydicom", ""),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (80, 81)), ("pyjpegls", "pyjpegls")),
    **dict.fromkeys(
        (f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203)), ("pylibjpeg", "pylibjpeg pylibjpeg-openjpeg")
    ),
}
# Syntaxes that pydicom has no name for.
NEWER = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
RETIRED = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (*range(52, 57), *range(58, 67)))
READ = (*UNCOMPRESSED, JPEG_BASELINE, JPEG_EXTENDED, *JPEG_LOSSLESS, *PLUGINS)


def syntax_name(uid: str) -> str:
    """Name and UID of a transfer syntax."""
    name, valid = known_name(uid) or NEWER.get(uid, "an unknown transfer syntax"), valid_uid(uid)
    return f"{name} ({valid})" if valid else name


def known_name(uid: str) -> str:
    """The standard's name of a UID; "" without one."""
    from pydicom.uid import UID

    name = UID(valid_uid(uid)).name
    return "" if name == uid else name


def valid_uid(text: str) -> str:
    """The text if it is a UID, else "": an element of a damaged file may hold any text, such as a patient's name."""
    return text if re.fullmatch(r"[0-9.]{1,64}", text, re.ASCII) else ""
