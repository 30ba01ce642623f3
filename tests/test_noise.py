"""Noise: known answers, the counter layout of spec section 7, numpy and torch bit for bit."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from d3codec import noise
from d3codec.errors import D3MError

WORD = st.integers(0, 2**32 - 1)
KEY = st.integers(0, 2**64 - 1)
DOMAIN = st.integers(0, 255)
NUMBER = st.integers(0, 2**24 - 1)
SHAPE = st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple)

# tests/kat_vectors of the Random123 library, philox4x32 with 10 rounds: counter, key words, output.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
FIRST_EIGHT = [
    "1.33772993",
    "-0.255832165",
    "0.744425237",
    "1.17757046",
    "0.448329508",
    "0.630175591",
    "1.07481968",
    "0.267548025",
]
DIGESTS = {
    0: "b9d61b0e135054d6f062855d5f073c139d6f8d65ffd4668c0678476ba4be1992",
    1: "cc861870acc395dd528c57bf5b71c364608383911408372457cb7786a1e913eb",
}


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def philox_one(counter: list[int], key: int) -> list[int]:
    """Philox4x32-10 of one counter in Python integers, as in the paper: the independent reading."""
    c, k = list(counter), [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def normal_one(key: int, candidate: int, stream: int, domain: int, n: int, element: int) -> np.float32:
    """One number, straight from the sentence of the specification."""
    lane = element % 8
    word = philox_one([element // 8, candidate, stream, domain << 24 | n], key)[lane // 2]
    return noise.normal_table()[word >> 16 if lane % 2 else word & 0xFFFF]


def twin(
    key: int, candidates: list[int], streams: list[int], shape: tuple[int, ...], domain: int = 0, n: int = 0
) -> np.ndarray:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    return noise.normals_torch(
        key,
        torch.tensor(candidates, dtype=torch.int64),
        torch.tensor(streams, dtype=torch.int64),
        shape,
        domain=domain,
        n=n,
    ).numpy()


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS)
# Shows D3M-105.
def test_philox_gives_the_published_words(counter: str, key: str, output: str) -> None:
    low, high = words(key)
    found = noise.philox4x32(np.array(words(counter), np.uint32), high << 32 | low)
    assert found.tolist() == words(output)
    assert found.dtype == np.uint32


@settings(deadline=None)
@given(st.lists(st.tuples(WORD, WORD, WORD, WORD), min_size=1, max_size=12), KEY)
def test_philox_of_many_counters_is_philox_of_each(counters: list[tuple[int, ...]], key: int) -> None:
    found = noise.philox4x32(np.array(counters, np.uint32).reshape(1, -1, 4), key)
    assert found[0].tolist() == [philox_one(list(counter), key) for counter in counters]


@pytest.mark.parametrize("counter", [np.zeros((2, 3), np.uint32), np.zeros((2, 4), np.int64)])
def test_philox_refuses_other_counters(counter: np.ndarray) -> None:
    with pytest.raises(ValueError, match="counters are uint32"):
        noise.philox4x32(counter, 0)


# Shows D3M-107.
def test_table_is_the_one_of_the_specification() -> None:
    table = noise.normal_table()
    assert hashlib.sha256(table.astype("<f4").tobytes()).hexdigest() == noise.TABLE_SHA256
    assert noise.TABLE_SHA256 == "1cfbba1e07e34386a57626f82aeb43e6ed54ba70a3ea6b7d964dc66a841074a8"
    assert table.shape == (65536,)
    assert table.dtype == np.float32


def test_table_inverts_the_normal_distribution() -> None:
    table = noise.normal_table().astype(np.float64)
    back = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in table[::97].tolist()])
    # float32 rounding moves x by at most 2^-24 |x|, and the density times |x| is at most 0.242
    assert np.abs(back - (np.arange(65536)[::97] + 0.5) / 65536).max() < 0.25 * 2.0**-24


def test_table_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        noise.normal_table()[0] = 0.0


@pytest.mark.parametrize("place", [0, 32767, 65535])
def test_a_table_that_is_off_in_one_last_bit_is_refused(place: int) -> None:
    wrong = noise.normal_table().copy()
    wrong[place] = np.nextafter(wrong[place], np.float32(0))
    with pytest.raises(D3MError, match="noise table"):
        noise.checked_table(wrong)


def test_first_normals() -> None:
    expected = [np.float32(text) for text in FIRST_EIGHT]
    assert noise.normals(0, 0, 0, (8,)).tolist() == expected
    assert twin(0, [0], [0], (8,))[0].tolist() == expected


@pytest.mark.parametrize("key", [0, 1])
def test_digest_of_16384_normals(key: int) -> None:
    shape = (4, 64, 64)  # counter word 0 runs over 0..2047
    for values in (noise.normals(key, 0, 0, shape), twin(key, [0], [0], shape)):
        assert hashlib.sha256(values.astype("<f4").tobytes()).hexdigest() == DIGESTS[key]


@settings(deadline=None)
@given(KEY, WORD, WORD, SHAPE, DOMAIN, NUMBER, st.data())
# Shows D3M-105, D3M-106.
def test_every_element_comes_from_its_counter(
    key: int, candidate: int, stream: int, shape: tuple[int, ...], domain: int, n: int, data: st.DataObject
) -> None:
    found = noise.normals(key, candidate, stream, shape, domain, n)
    element = data.draw(st.integers(0, found.size - 1))
    assert found.shape == shape
    assert found.dtype == np.float32
    assert found.reshape(-1)[element] == normal_one(key, candidate, stream, domain, n, element)


@settings(deadline=None)
@given(KEY, st.lists(st.tuples(WORD, WORD), max_size=5), SHAPE, DOMAIN, NUMBER)
@example(2**64 - 1, [(2**32 - 1, 2**32 - 1)], (3, 3), 255, 2**24 - 1)
@example(2**63, [(0, 0), (1, 0)], (1,), 0, 0)
def test_torch_twin_is_equal_in_every_bit(
    key: int, pairs: list[tuple[int, int]], shape: tuple[int, ...], domain: int, n: int
) -> None:
    candidates, streams = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found = twin(key, candidates, streams, shape, domain, n)
    assert found.shape == (len(pairs), *shape)
    for image, (candidate, stream) in zip(found, pairs, strict=True):
        assert image.tobytes() == noise.normals(key, candidate, stream, shape, domain, n).tobytes()


def test_torch_twin_on_a_gpu() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    pairs = torch.tensor([[0, 0], [5, 3], [2**32 - 1, 7]])
    found = noise.normals_torch(2**63 + 5, pairs[:, 0], pairs[:, 1], (4, 33, 31), device="cuda")
    assert found.is_cuda
    assert found.cpu().numpy().tobytes() == twin(2**63 + 5, *pairs.T.tolist(), (4, 33, 31)).tobytes()


def test_no_two_draws_share_their_numbers() -> None:
    draws = [
        noise.normals(*arguments)
        for arguments in [
            (0, 0, 0, (64,)),
            (1, 0, 0, (64,)),
            (1 << 32, 0, 0, (64,)),
            (0, 1, 0, (64,)),
            (0, 0, 1, (64,)),
            (0, 0, 0, (64,), noise.AUGMENTATION),
            (0, 0, 0, (64,), noise.LABELS),
            (0, 0, 0, (64,), noise.LOADER),
            (0, 0, 0, (64,), noise.SAMPLING, 1),
        ]
    ]
    assert len({draw.tobytes() for draw in draws}) == len(draws)


def test_numbers_are_normal_and_uncorrelated() -> None:
    values = np.stack([noise.normals(9, image, 2, (4, 32, 32)) for image in range(64)]).astype(np.float64)
    count = values.size
    assert abs(values.mean()) < 5 / math.sqrt(count)
    assert abs(values.var() - 0.99998) < 5 * math.sqrt(2 / count)
    assert abs((values[1:] * values[:-1]).mean()) < 5 / math.sqrt(count)
    assert abs((values[..., 1:] * values[..., :-1]).mean()) < 5 / math.sqrt(count)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((-1, 0, 0, (1,)), "key"),
        ((2**64, 0, 0, (1,)), "key"),
        ((0, -1, 0, (1,)), "candidate"),
        ((0, 2**32, 0, (1,)), "candidate"),
        ((0, 0, 2**32, (1,)), "stream"),
        ((0, 0, 0, (1,), 256), "domain"),
        ((0, 0, 0, (1,), 0, 2**24), "n"),
        ((0, 0, 0, (1,), 0, -1), "n"),
    ],
)
def test_values_out_of_range_are_refused(arguments: tuple, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is "):
        noise.normals(*arguments)


def test_torch_twin_refuses_what_numpy_refuses() -> None:
    with pytest.raises(ValueError, match="key is"):
        twin(2**64, [0], [0], (1,))
    with pytest.raises(ValueError, match="candidate values"):
        twin(0, [2**32], [0], (1,))
    with pytest.raises(ValueError, match="stream values"):
        twin(0, [0], [-1], (1,))
    with pytest.raises(ValueError, match="are not both"):
        twin(0, [0, 1], [0], (1,))


def test_import_leaves_torch_alone() -> None:
    code = "import sys, d3codec.noise as n; n.normals(0, 0, 0, (3,)); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
