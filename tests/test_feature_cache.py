"""Cached features of a frozen backbone equal fresh ones, in new and resumed runs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from dataset_folders import make_store
from refusals import has_facts

from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.loader import Loader
from ribcage.imaging import augment
from ribcage.imaging.augment import View, plain_view
from ribcage.methods.detect import Detect
from ribcage.models.backbone import Backbone
from ribcage.runtime import distributed, launcher
from ribcage.training import feature_cache, optim, trainer
from ribcage.training.feature_cache import cache_features, why_uncached

CPU = torch.device("cpu")
FLIPS = replace(plain_view(32), flip=0.5)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DatasetFolder:
    return make_store(tmp_path_factory.mktemp("cache"), count=20)


def made(freeze: bool = True, model: str = "test_resnet") -> Detect:
    torch.manual_seed(0)
    return Detect(Backbone(model, size=(32, 32)), ("Mass",), freeze=freeze, width=16, depth=1).train()


def loader(dataset: DatasetFolder, view: View = FLIPS, **more: object) -> Loader:
    options = {"batch": 8, "rows": np.arange(1, 19), "findings": ("Mass",), "policy": "zeros", "threads": 1, **more}
    return Loader([dataset], [view], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["test_resnet", "test_vit"])
def test_the_loss_is_the_one_without_a_cache(dataset: DatasetFolder, tmp_path: Path, model: str) -> None:
    method, shown, cached = made(model=model), loader(dataset), loader(dataset)
    flips = set()
    for kind, near in (("float32", 0.0), ("float16", 2e-3), ("bfloat16", 2e-2)):
        cached.cached = cache_features(method, cached, tmp_path / kind, kind=kind)  # type: ignore[arg-type]
        for epoch in range(2):
            for one, two in zip(shown.epoch(epoch), cached.epoch(epoch), strict=True):
                assert torch.equal(one.rows, two.rows) and torch.equal(one.boxes[0], two.boxes[0])
                assert torch.equal(one.labels.nan_to_num(9), two.labels.nan_to_num(9))
                assert torch.equal(one.dropped, two.dropped)
                assert two.views[0].shape == (len(one), 0, 32, 32) and not one.maps
                flips |= set(augment.draw_numbers(FLIPS, 0, epoch, one.rows.numpy(), 0, 48).flipped.tolist())
                uncached, found = method(one).loss.item(), method(two).loss.item()
                assert found == pytest.approx(uncached, rel=near or 1e-5)
                if not near:
                    for ours, theirs in zip(two.maps, method.maps(one.views[0]), strict=True):
                        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert flips == {False, True}


def test_images_that_stay_as_they_are_are_kept_once(dataset: DatasetFolder, tmp_path: Path) -> None:
    for view, times in ((plain_view(32), 1), (replace(plain_view(32), flip=1.0), 1), (FLIPS, 2)):
        source = loader(dataset, view)
        kept = cache_features(made(), source, tmp_path / f"{view.flip}", kind="float32")
        assert len(kept.maps[0]) == 18 * times
        batch = next(source.epoch(0))
        taken = kept.take(batch.rows.numpy(), augment.draw_numbers(view, 0, 0, batch.rows.numpy(), 0, 48).flipped)
        for ours, theirs in zip(taken, made().maps(batch.views[0]), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def trained(source: Loader, losses: list[float], stop: int = 6, state: dict | None = None) -> trainer.Trainer:
    method = made()
    run = trainer.Trainer(
        method, source, optim.optimizer(method), optim.Rates(1e-3, 6), epochs=2, device=CPU, precision="float32"
    )
    if state:
        run.restore(state)
    for log in run.fit():
        losses.append(log.loss)
        if log.step == stop:
            break
    return run


def test_a_run_on_kept_maps_is_the_run_on_images_and_goes_on_to_the_bit(dataset: DatasetFolder, tmp_path: Path) -> None:
    def source(folder: str = "") -> Loader:
        made_of = loader(dataset)
        made_of.cached = cache_features(made(), made_of, tmp_path / folder, kind="float32") if folder else None
        return made_of

    plainly, kept, halves = list[float](), list[float](), list[float]()
    trained(source(), plainly)
    whole = trained(source("one"), kept)
    half = trained(source("other"), halves, stop=4)
    feature_cache.discard(tmp_path / "other")  # made once more when the run goes on
    again = trained(source("other"), halves, state=half.state())
    assert kept == pytest.approx(plainly, rel=1e-4) and halves == kept and len(kept) == 6
    for name, value in whole.method.state_dict().items():
        assert torch.equal(value, again.method.state_dict()[name]), name


def test_files_are_read_again_only_when_all_is_as_it_was(
    dataset: DatasetFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method, source = made(), loader(dataset)

    def computed(method: Detect, source: Loader) -> str:
        """The progress of the computation; "" where the files are used."""
        cache_features(method, source, tmp_path, label="maps")
        return capsys.readouterr().err

    assert has_facts(computed(method, source), "36/36")  # 18 images, each plain and mirrored
    assert not computed(method, source)
    for other, otherwise in (
        (method, loader(dataset, plain_view(32))),
        (method, loader(dataset, rows=np.arange(10))),
        (method, loader(dataset, normalise=(0.5, 0.1))),
    ):
        assert computed(other, otherwise)
    cache_features(method, source, tmp_path)
    with torch.no_grad():
        next(method.backbone.parameters()).add_(0.1)
    assert computed(method, source)
    for harm in (lambda file: file.write_bytes(file.read_bytes()[:100]), lambda file: file.unlink()):
        harm(tmp_path / "0.bin")  # type: ignore[no-untyped-call]
        assert computed(method, source)
    feature_cache.discard(tmp_path)
    assert not tmp_path.exists()


def test_what_prevents_a_cache_is_reported(dataset: DatasetFolder) -> None:
    source = loader(dataset)
    needed = feature_cache.cache_bytes(made(), source, "float16")
    assert needed == 2 * 18 * 2 * sum(c * h * w for c, h, w in made().shapes(torch.zeros(1, 1, 32, 32)))
    assert why_uncached(made(), source, "float16", 1.0) == ""
    assert "trained" in why_uncached(made(freeze=False), source, "float16", 1.0)
    assert "(rotation, contrast)" in why_uncached(
        made(), loader(dataset, replace(FLIPS, rotation=3, contrast=0.1)), "float16", 1.0
    )
    assert "18 images" in why_uncached(made(), source, "float16", 1e-6)


def keep_a_part(folder: Path) -> None:
    with launcher.started():
        dataset = make_store(folder / f"rank {distributed.rank()}", count=20)
        kept = feature_cache.cache_features(made(), loader(dataset), folder / "maps", kind="float32")
        assert len(kept.maps[0]) == 36


@pytest.mark.slow
def test_processes_make_their_part_each(dataset: DatasetFolder, tmp_path: Path) -> None:
    one = cache_features(made(), loader(dataset), tmp_path / "one", kind="float32")
    processes.together(keep_a_part, tmp_path, said=tmp_path / "said")
    for number, maps in enumerate(one.maps):
        written = np.fromfile(tmp_path / "maps" / f"{number}.bin", np.float32).reshape(maps.shape)
        np.testing.assert_allclose(written, maps.numpy(), rtol=1e-5, atol=1e-6)
