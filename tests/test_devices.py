"""Copies to a GPU and the side stream, with a stand-in for CUDA's streams: no GPU is needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ribcage.imaging import augment
from ribcage.imaging.augment import gpu
from ribcage.runtime.devices import SideStream, choose_kernels, compute_dtype, on_device, settings_restored

CPU = torch.device("cpu")


class Stream:
    """Notes what is asked of it."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def record_event(self, event: Any) -> Any:
        self.log.append(f"{self.name} records")
        return event

    def wait_stream(self, other: "Stream") -> None:
        self.log.append(f"{self.name} waits for {other.name}")


def test_a_batch_is_made_on_the_side_stream_and_the_current_one_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    current, side = Stream("current", log), Stream("side", log)
    times = iter([SimpleNamespace(elapsed_time=lambda after: after.at), SimpleNamespace(at=250.0, synchronize=int)])

    @contextmanager
    def using(stream: Stream) -> Iterator[None]:
        log.append(f"on {stream.name}")
        yield
        log.append("back")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: side)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(torch.cuda, "stream", using)
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: next(times))
    recorded: list[Any] = []
    tensor: Any = SimpleNamespace(is_cuda=True, record_stream=recorded.append)
    made, wait = SideStream(CPU).run(lambda: log.append("make") or tensor, lambda made: [made, torch.zeros(1)])
    assert log == ["current records", "on side", "make", "back", "current waits for side", "current records"]
    assert made is tensor and recorded == [current]
    assert wait.seconds() == 0.25


@pytest.mark.parametrize(
    ("capability", "native", "expected"),
    [((9, 0), True, torch.bfloat16), ((7, 5), False, torch.float16), ((6, 1), False, torch.float32)],
)
def test_a_gpu_computes_in_the_precision_that_it_is_fast_in(
    capability: tuple[int, int], native: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert compute_dtype("auto", torch.device("cuda")) == expected
    assert compute_dtype("float32", torch.device("cuda")) == torch.float32


def test_tf32_and_the_search_for_convolutions_are_on_for_a_gpu_unless_float32_is_asked_for() -> None:
    cudnn = torch.backends.cudnn

    def flags() -> tuple[str, bool, bool]:
        return torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark

    before = flags()
    try:
        choose_kernels(CPU, "auto")
        assert flags() == before
        choose_kernels(torch.device("cuda"), "auto")
        assert flags() == ("high", True, True)
        choose_kernels(torch.device("cuda"), "float32")
        assert flags() == ("highest", False, False)
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32, cudnn.benchmark = before[1:]


@pytest.mark.parametrize("own", [None, "ieee", "tf32"])
def test_settings_of_the_user_are_restored_after_a_training(own: str | None) -> None:
    """Also those of the newer names in torch, which contradict the older ones."""
    backends = torch.backends
    owners = (backends.cuda.matmul, backends.mkldnn.matmul, backends.cudnn.conv, backends.cudnn.rnn)
    if own and not hasattr(backends.cudnn, "conv"):
        pytest.skip("this version of torch has one name for each setting")

    def flags() -> list[object]:
        return [backends.cudnn.benchmark, *(getattr(owner, "fp32_precision", None) for owner in owners)]

    with settings_restored(CPU):
        if own:
            backends.cudnn.conv.fp32_precision = own
            backends.cuda.matmul.fp32_precision = own
        before = flags()
        torch.manual_seed(1)
        state = torch.get_rng_state()
        for precision in ("auto", "float32"):
            with settings_restored(CPU):
                choose_kernels(torch.device("cuda"), precision)
                torch.manual_seed(2)
                assert flags() != before
            assert flags() == before and torch.equal(torch.get_rng_state(), state)
        if not own:
            assert torch.get_float32_matmul_precision() and backends.cudnn.allow_tf32 is not None


def test_an_array_arrives_as_it_was() -> None:
    strided = np.arange(12.0).reshape(3, 4).T
    assert np.array_equal(on_device(strided, CPU).numpy(), strided)


def test_views_need_only_numbers_of_each_image_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sampling grid alone is 392 kB for each image of 224 pixels; it is computed where the images are."""
    sent: list[int] = []

    def counted(array: np.ndarray, device: torch.device) -> torch.Tensor:
        sent.append(array.nbytes)
        return on_device(array, device)

    monkeypatch.setattr(gpu, "on_device", counted)
    view = augment.View(224, crop=(0.3, 0.9), flip=0.5, rotation=10, brightness=0.1, contrast=0.2, gamma=0.2, erase=(0.1, 0.3), erase_probability=1.0,
                        blur=(0.1, 2.0), blur_probability=1.0, noise=0.05)  # fmt: skip
    numbers = augment.draw_numbers(view, 0, 0, np.arange(8), 0, 64)
    augment.apply_torch(torch.zeros((8, 64, 64), dtype=torch.uint8), numbers, 0.5, 0.25)
    assert len(sent) > 5 and sum(sent) / 8 < 400
