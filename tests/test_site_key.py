"""Hashes of private patients use the site's key, and folders of other sites are reported as not comparable."""

import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from refusals import has_facts

from ribcage.data import dataset_folder, fingerprint_table, site_key
from ribcage.data import index as indexes
from ribcage.data.collection import Datasets
from ribcage.data.dataset_facts import Facts
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.fingerprint_table import Fingerprints
from ribcage.data.index import Index
from ribcage.data.provenance import Provenance
from ribcage.evaluation import leakage
from ribcage.imaging import fingerprint


def linked(dataset: str, patients: list[str], **options: object) -> DatasetFolder:
    """A folder of which nothing but the patients is known."""
    paths = [f"{place}.png" for place in range(len(patients))]
    table = indexes.index_table(pd.DataFrame({"path": paths, "patient": patients, "split": "test"}))
    index = Index("ward", table)
    facts = Facts(
        "ward", dataset, "", "", len(patients), 0, 32, "pad", 8, 0.0, 1.0, (), "", linked=True, options=options
    )
    return DatasetFolder(Path(), facts, index, dataset_folder.open_images(Path(), facts, index))


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without the variable, whose folders are empty."""
    monkeypatch.delenv(site_key.VARIABLE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "ribcage" / "site.key"


def test_the_key_is_made_once_for_the_user_alone(kept: Path) -> None:
    first = site_key.site_key()
    assert len(first) == 32 and site_key.site_key() == first and kept.read_bytes() == first
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600 and [each.name for each in kept.parent.iterdir()] == ["site.key"]
    assert first.hex() not in site_key.identity() and len(site_key.identity()) == 16
    kept.unlink()
    assert site_key.site_key() != first


def test_a_variable_gives_several_users_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(site_key.VARIABLE, "our secret")
    key = site_key.site_key()
    assert site_key.site_key() == key
    monkeypatch.setenv(site_key.VARIABLE, "another")
    assert site_key.site_key() != key


def test_a_broken_or_unwritable_key_is_one_line(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"short")
    with pytest.raises(ValueError, match=f"5 bytes.*{site_key.VARIABLE}"):
        site_key.site_key()
    (kept.parent / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(kept.parent / "file"))
    with pytest.raises(OSError, match=site_key.VARIABLE):
        site_key.site_key()


def test_numbers_of_private_patients_cannot_be_tried_without_the_key() -> None:
    """Seven digits are tried in seconds where there is no key."""
    private, public = (linked(name, ["1234567"]).fingerprints.patients[0] for name in ("folder", "nih"))
    assert public == fingerprint.patient_fingerprint("ward", "1234567") != private
    assert private == fingerprint.patient_fingerprint("ward", "1234567", site_key.site_key())
    assert linked("folder", ["1234567"], published_patients=True).fingerprints.patients[0] == public


def test_a_folder_keeps_no_hashes_of_patients(tmp_path: Path) -> None:
    prints = Fingerprints(
        np.ones((2, fingerprint.VARIANTS, 4), np.uint64), np.ones(2, np.uint64), np.ones(2, np.uint64)
    )
    prints.save(tmp_path / "fingerprints.parquet")
    again = Fingerprints.load(tmp_path / "fingerprints.parquet")
    assert (again.prints == prints.prints).all() and not again.patients.any()


def test_patients_match_within_a_site_and_across_sites_a_warning_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ward, rows = linked("folder", ["7", "8"]), np.arange(2)
    seen = Provenance.of(Datasets.of([ward]), rows, rows[:0])
    again = linked("folder", ["08", "9"])
    assert leakage.find_leak(seen, again.fingerprints).images == 1 and not seen.of_other_sites
    monkeypatch.setenv(site_key.VARIABLE, "another site")
    elsewhere = linked("folder", ["08", "9"])
    assert not leakage.find_leak(seen, elsewhere.fingerprints) and seen.of_other_sites
    assert has_facts(leakage._of_other_sites(seen, [elsewhere]), "ward", "not be compared")
    assert leakage._of_other_sites(seen, [linked("nih", ["8"])]) == ""


def test_bundles_of_older_versions_hashed_without_a_key_and_are_still_understood() -> None:
    ward = linked("folder", ["7", "8"])
    old = replace(
        Provenance.of(Datasets.of([ward]), np.arange(2), np.arange(0)),
        patients=np.sort(fingerprint_table.patient_hashes(ward.index)),
    )
    assert (
        leakage.find_leak(replace(old, keys=np.empty(0, np.str_)), linked("folder", ["7"]).fingerprints).patients == 1
    )


def test_prints_of_older_versions_have_fewer_crops_and_open(tmp_path: Path) -> None:
    old = np.arange(1, 33, dtype=np.uint64).reshape(2, 4, 4)
    wide = fingerprint.with_all_variants(old)
    assert wide.shape == (2, fingerprint.VARIANTS, 4) and (wide[:, :4] == old).all() and not wide[:, 4:].any()
    none = np.empty(0, np.uint64)
    with (tmp_path / "provenance.npz").open("wb") as stream:
        np.savez(stream, patients=none, pixels=old[:, 0, 0], prints=old, role=np.zeros(2, np.uint8))
    assert (Provenance.load(tmp_path / "provenance.npz").prints == wide).all()
