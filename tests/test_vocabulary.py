"""The vocabulary says the truth about every importer, and what a dataset does not label is unknown under any policy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trees
from test_datasets import LAYOUTS

from ribcage.data import datasets, vocabulary
from ribcage.data.collection import Datasets
from ribcage.data.dataset_facts import Facts
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.findings import FINDINGS
from ribcage.data.image_store import ArrayStore
from ribcage.data.index import VIEWS, Index
from ribcage.data.label_policy import Policy


def index(name: str, folder: Path, build: Callable[[Path], Path]) -> Index:
    return datasets.index("phantom", images=4) if name == "phantom" else datasets.index(name, build(folder))


@pytest.mark.parametrize("name", vocabulary.public_names())
def test_a_dataset_labels_the_findings_that_it_states(name: str, tmp_path: Path) -> None:
    build = trees.builder(name)
    if build is None:
        pytest.skip(f"{name} has no synthetic tree")
    named = vocabulary.source_names(name)
    labelled = set(datasets.index(name, build(tmp_path)).findings)
    assert labelled <= set(named) and set(named) <= set(FINDINGS)
    # a tree may have only some of the tables of a dataset
    assert labelled == set(named) or name in ("medmnist", "candid_ptx")
    assert set(getattr(datasets.load_dataset(name), "VIEWS", {}).values()) <= set(VIEWS)


@pytest.mark.parametrize(("title", "name", "build"), LAYOUTS, ids=[layout[0] for layout in LAYOUTS])
def test_a_finding_that_a_dataset_does_not_label_is_unknown_under_any_policy(
    title: str, name: str, build: Callable[[Path], Path], tmp_path: Path
) -> None:
    found = index(name, tmp_path, build)
    facts = Facts(found.name, name, "", "", len(found), 0, 8, "pad", 8, 0.5, 0.2, found.findings, "")
    images = ArrayStore(np.broadcast_to(np.uint8(0), (len(found), 8, 8)))
    data = Datasets.of([DatasetFolder(tmp_path, facts, found, images)])
    away = [finding for finding in FINDINGS if finding not in found.findings]
    assert away and np.isnan(data.source_labels(away)).all()
    for policy in ("zeros,blank=zeros", f"ones,blank=zeros,{found.name}:blank=zeros", "competition"):
        labels = data.known_labels(np.arange(len(found)), [*found.findings, *away], Policy.parse(policy))
        assert np.isnan(labels[:, len(found.findings) :]).all()
        assert not np.isnan(labels[:, : len(found.findings)]).all()


def test_the_tables_name_every_finding_and_dataset() -> None:
    lines = vocabulary.finding_table().splitlines()
    assert [line.split("`")[1] for line in lines[2:]] == list(FINDINGS)
    for name in vocabulary.public_names():
        assert f"| `{name}` |" in vocabulary.source_table()
    effusion = next(line for line in lines if line.startswith("| `Effusion`"))
    assert "`chexpert` (Pleural Effusion)" in effusion and "`rsna`" in effusion.split("|")[-2]
