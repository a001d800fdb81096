"""Small models for tests: really trained for a few steps, and saved as a bundle."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ribcage.bundle.io import save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TrainingRecord
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.loader import Loader
from ribcage.data.provenance import Provenance
from ribcage.evaluation.calibration import fit_on_validation
from ribcage.imaging.augment import gentle_view
from ribcage.inference import predictions
from ribcage.methods.supervised import Supervised
from ribcage.metrics.evaluation_context import TrainingData
from ribcage.models.backbone import Backbone
from ribcage.training import optim, trainer


def trained(
    folder: Path, dataset: DatasetFolder, findings: Sequence[str] = (), side: int = 32, loss: str = "bce"
) -> Path:
    """A run folder with a bundle: `test_resnet` after one epoch of the store's training images."""
    torch.manual_seed(0)
    findings = tuple(findings or dataset.index.findings)
    method = Supervised(Backbone("test_resnet", size=(side, side)), findings, loss=loss)  # type: ignore[arg-type]
    train, chosen = Datasets.of([dataset]).rows_of("train"), Datasets.of([dataset]).rows_of("val")
    scale = (dataset.mean, dataset.std)
    loader = Loader([dataset], [gentle_view(side)], batch=16, rows=train, findings=findings, normalise=scale, threads=1)
    rates = optim.Rates(3e-3, len(loader))
    for _ in trainer.Trainer(
        method, loader, optim.optimizer(method), rates, epochs=1, device=torch.device("cpu")
    ).fit():
        pass
    facts = TrainingRecord(images=len(train), patients=1, selection=len(chosen))
    data = (TrainingData(dataset.facts.name, dataset.facts.source, dataset.facts.licence),)
    model = ModelSpec(
        "test_resnet",
        findings,
        (side, side),
        dataset.size,
        dataset.facts.fit,
        *scale,
        loss=loss,
        data=data,
        training=facts,
    )
    said = predictions.predict(method, Datasets.of([dataset]), chosen, model=model, threads=1)
    labels = Datasets.of([dataset]).source_labels(findings)[said.rows]
    known = np.where(labels < 0, np.nan, labels)
    temperature, thresholds = fit_on_validation(said.logits, known, exclusive=said.exclusive)
    model = replace(model, temperature=temperature, thresholds=thresholds)
    save_bundle(folder / "bundle", method, model, Provenance.of(Datasets.of([dataset]), train, chosen))
    return folder
