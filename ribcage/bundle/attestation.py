"""Attestation: an HMAC with the site key, by which a server knows the ONNX file that this site exported of a model.

A digest can be written by whoever writes the file. The HMAC covers the digests of the file, the weights and model.json,
so that a graph from elsewhere, or one of another model, does not reach a runtime.
"""

import hashlib
import hmac
from pathlib import Path

from ribcage.bundle.io import WEIGHTS_FILE
from ribcage.data import site_key
from ribcage.runtime import digest, files

PURPOSE = b"ribcage export\n"
"""What no other use of the key begins with."""
LARGEST = 1 << 31
"""Bytes of an ONNX file: protobuf's own limit."""


def file_beside(exported: Path) -> Path:
    """Where the HMAC of an export is."""
    return exported.with_name(exported.name + ".hmac")


def attest(exported: Path, bundle: Path) -> None:
    """Write the HMAC of an export of this bundle; OSError or ValueError where there is no key and none can be kept."""
    code = _code(site_key.site_key(), hashlib.sha256(exported.read_bytes()).hexdigest(), bundle)
    files.write_text(file_beside(exported), code + "\n")


def attested(exported: Path, bundle: Path) -> bytes | None:
    """What an export holds, if this site made it of this bundle; makes no key."""
    key, said = site_key.existing(), file_beside(exported)
    try:
        if not key or files.regular(exported).stat().st_size > LARGEST:
            return None
        with files.regular(said).open("rb") as stream:
            expected = stream.read(65).strip()
        with exported.open("rb") as stream:
            told = hashlib.file_digest(stream, "sha256").hexdigest()
            if not hmac.compare_digest(_code(key, told, bundle).encode(), expected):
                return None
            stream.seek(0)
            return stream.read(LARGEST)
    except OSError:
        return None


def _code(key: bytes, told: str, bundle: Path) -> str:
    """The HMAC of an export with this digest and the bundle as it lies on the disk."""
    digests = (told, digest.file_digest(bundle / WEIGHTS_FILE), digest.file_digest(bundle / "model.json"))
    return hmac.new(key, PURPOSE + "\n".join(digests).encode(), hashlib.sha256).hexdigest()
