"""Site key: the secret with which patients of unpublished data are hashed, so that hashes do not reveal them.

It is the text of RIBCAGE_SITE_KEY, else 32 random bytes in `ribcage/site.key` of the user's configuration folder,
generated on first use. With the same key, sites can compare patients; with the key and a bundle, names can be guessed
and checked.
"""

import contextlib
import hashlib
import os
import secrets
from pathlib import Path

VARIABLE = "RIBCAGE_SITE_KEY"
LENGTH = 32


def site_key() -> bytes:
    """32 bytes; the same for all data and bundles of a user, or of all who set the same variable."""
    said = os.environ.get(VARIABLE, "")
    return (
        hashlib.blake2b(said.encode("utf-8", "surrogateescape"), digest_size=LENGTH).digest()
        if said
        else _kept(key_file())
    )


def existing() -> bytes | None:
    """The key if there is one; none is generated."""
    try:
        return site_key() if os.environ.get(VARIABLE) or key_file().is_file() else None
    except (OSError, ValueError):
        return None


def identity() -> str:
    """Name of the key, recorded in bundles, from which the key cannot be derived."""
    return hashlib.blake2b(site_key(), digest_size=8, person=b"ribcage site id").hexdigest()


def key_file() -> Path:
    """Path of the key file."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    try:
        return (Path(home) if Path(home).is_absolute() else Path.home() / ".config") / "ribcage" / "site.key"
    except RuntimeError:
        raise OSError(
            f"The key for hashing patient identifiers cannot be stored, because there is no home folder. Set "
            f"{VARIABLE} to a secret value."
        ) from None


def _kept(place: Path) -> bytes:
    """The key in this file, generated if missing; of several processes, the first to write it wins."""
    try:
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = place.with_name(f"site.key.{os.getpid()}.{secrets.token_hex(4)}")
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(secrets.token_bytes(LENGTH))
            try:
                with contextlib.suppress(FileExistsError):
                    os.link(part, place)
            finally:
                part.unlink()
        found = place.read_bytes()
    except OSError as error:
        raise OSError(
            f"The key for hashing patient identifiers cannot be saved to {place} ({error.strerror}). Set {VARIABLE} to "
            "a secret value."
        ) from None
    if len(found) != LENGTH:
        raise ValueError(
            f"{place} is not a valid key for hashing patient identifiers: the file has {len(found)} bytes, not "
            f"{LENGTH}. Set {VARIABLE}, or "
            "delete the file."
        )
    return found
