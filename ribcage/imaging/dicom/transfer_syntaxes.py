"""Transfer syntaxes: the encodings of DICOM pixels and their decoders."""

from ribcage.imaging.dicom.elements import safe_text

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
    from pydicom.uid import UID

    known = UID(uid).name
    return f"{NEWER.get(uid, 'an unknown transfer syntax') if known == uid else known} ({safe_text(uid[:64])})"
