"""Attestation: an HMAC with the site key, by which a server recognises an ONNX file that was exported at this site from
this model.

Anyone who writes a file can write its digest, too. The HMAC covers the digests of the file, the weights and model.json,
so that a graph from elsewhere, or of another model, does not reach a runtime.
"""

import hashlib
import hmac
from pathlib import Path

from ribcage.bundle.spec import WEIGHTS_FILE
from ribcage.data import site_key
from ribcage.runtime import digest, files

PURPOSE = b"ribcage export\n"
"""Prefix that separates this use of the key from others."""
LARGEST = 1 << 31
"""Maximum size of an ONNX file in bytes: the limit of protobuf."""


def file_beside(exported: Path) -> Path:
    """The file of the HMAC of an export."""
    return exported.with_name(exported.name + ".hmac")


def attest(exported: Path, bundle: Path) -> None:
    """Write the HMAC of an export of this bundle; OSError or ValueError if there is no key and none can be stored."""
    code = _code(site_key.site_key(), hashlib.sha256(exported.read_bytes()).hexdigest(), bundle)
    files.write_text(file_beside(exported), code + "\n")


def attested(exported: Path, bundle: Path) -> bytes | None:
    """The content of an export, if it was made at this site from this bundle; else None. Does not create a key."""
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
    """The HMAC of an export with this digest and of the bundle on disk."""
    digests = (told, digest.file_digest(bundle / WEIGHTS_FILE), digest.file_digest(bundle / "model.json"))
    return hmac.new(key, PURPOSE + "\n".join(digests).encode(), hashlib.sha256).hexdigest()
