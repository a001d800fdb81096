import time

import numpy as np
import pytest

from ribcage.runtime import rng

# From the authors' own table for philox4x32 with 10 rounds: counter, key, answer.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def numbers(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_gives_the_published_answers(counter: str, key: str, answer: str) -> None:
    k0, k1 = numbers(key)
    mixed = rng.philox(np.array(numbers(counter), np.uint64)[:, None], (k0, k1))
    assert mixed[:, 0].tolist() == numbers(answer)


def philox_one(counter: list[int], key: list[int]) -> list[int]:
    """The paper's round, ten times, in whole Python numbers."""
    for _ in range(10):
        left, right = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
        counter = [right >> 32 ^ counter[1] ^ key[0], right % 2**32, left >> 32 ^ counter[3] ^ key[1], left % 2**32]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    return counter


def test_an_address_is_a_counter_of_row_epoch_stream_and_block() -> None:
    seed, epoch, row, stream = 7 << 40 | 5, 12, 3 << 32 | 9, 2
    drawn = rng.random_words(seed, epoch, np.array([row]), stream, 6)[0].tolist()
    blocks = [philox_one([9, 3, epoch, stream << 16 | block], [5, 7 << 8]) for block in (0, 1)]
    assert drawn == (blocks[0] + blocks[1])[:6]


def test_a_row_draws_the_same_alone_and_in_company() -> None:
    rows = np.array([5, 70_000, 3, 1 << 40])
    together = rng.uniform(1, 2, rows, 0, 21)
    for place, row in enumerate(rows):
        assert np.array_equal(rng.uniform(1, 2, np.array([row]), 0, 21)[0], together[place])
    assert np.array_equal(rng.uniform(1, 2, rows, 0, 5), together[:, :5])


@pytest.mark.parametrize("other", [(2, 2, 0), (1, 3, 0), (1, 2, 1)])
def test_seed_epoch_and_stream_each_change_the_numbers(other: tuple[int, int, int]) -> None:
    rows = np.arange(100)
    seed, epoch, stream = other
    assert not np.isin(rng.random_words(1, 2, rows, 0, 4), rng.random_words(seed, epoch, rows, stream, 4)).any()


def test_uniform_numbers_are_uniform_and_uncorrelated() -> None:
    drawn = rng.uniform(0, 0, np.arange(20_000), 0, 8)
    assert drawn.min() >= 0 and drawn.max() < 1
    assert np.abs(drawn.mean(0) - 0.5).max() < 0.01
    assert np.abs(drawn.var(0) - 1 / 12).max() < 0.002
    assert np.abs(np.corrcoef(drawn.T) - np.eye(8)).max() < 0.03
    assert np.abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.03


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000])
def test_a_permutation_holds_every_place_once(count: int) -> None:
    assert sorted(rng.permutation(3, 1, count)) == list(range(count))


def test_a_permutation_never_changes_between_versions() -> None:
    assert rng.permutation(0, 0, 12).tolist() == [5, 7, 0, 3, 11, 9, 1, 6, 2, 4, 8, 10]
    assert rng.permutation(0, 1, 12).tolist() != rng.permutation(0, 0, 12).tolist()


def test_every_place_is_first_equally_often() -> None:
    first = [rng.permutation(0, epoch, 5)[0] for epoch in range(1000)]
    assert np.abs(np.bincount(first, minlength=5) - 200).max() < 60


def test_a_million_rows_are_ordered_in_well_under_half_a_second() -> None:
    rng.permutation(0, 0, 1000)
    start = time.process_time()
    rng.permutation(0, 0, 1_000_000)
    assert time.process_time() - start < 0.5


def test_every_number_of_a_batch_has_an_order_of_its_own_which_no_company_changes() -> None:
    chance = rng.whole(0, 0, np.arange(3000), rng.METHOD)
    orders = rng.random_orders(chance, 6)
    assert (np.sort(orders, axis=1) == np.arange(6)).all() and (rng.random_orders(chance[7:9], 6) == orders[7:9]).all()
    assert np.bincount(orders[:, 0]) == pytest.approx(np.full(6, 500), abs=100)


def test_choices_follow_the_weights() -> None:
    drawn = rng.choices(0, 0, np.array([0.0, 1.0, 3.0, 0.0]), 40_000)
    share = np.bincount(drawn, minlength=4) / len(drawn)
    assert share[0] == share[3] == 0
    assert abs(share[2] - 0.75) < 0.01


@pytest.mark.parametrize("weights", [[], [0, 0], [1, -1], [1, np.nan], [np.inf]])
def test_impossible_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match=r"[Ww]eights"):
        rng.choices(0, 0, np.array(weights), 3)


@pytest.mark.parametrize(
    ("seed", "epoch", "stream", "word"), [(-1, 0, 0, "seed"), (0, -1, 0, "epoch"), (0, 0, -1, "view")]
)
def test_an_address_outside_the_counter_is_refused(seed: int, epoch: int, stream: int, word: str) -> None:
    with pytest.raises(ValueError, match=f"{word} .*-1"):
        rng.uniform(seed, epoch, np.arange(2), stream, 1)
