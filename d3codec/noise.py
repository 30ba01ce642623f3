"""Noise of the format: a counter in, the same normal numbers out on every machine (spec section 7).

Philox4x32-10 turns (key, counter) into words, each word's two 16-bit halves index a table of 65,536 normal
quantiles. Everything after the table is integers and one gather, so numpy and torch, CPU and GPU agree bit
for bit. No state, no order: a draw depends on its key, candidate, stream, domain and number alone.

This file draws nothing uniform and shuffles nothing. numpy's own Philox is the 4x64 variant: other numbers.

References: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox);
Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37(3), 1988.
"""

from __future__ import annotations

import hashlib
import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from d3codec.errors import D3MError

if TYPE_CHECKING:
    import torch

TABLE_SHA256 = "1cfbba1e07e34386a57626f82aeb43e6ed54ba70a3ea6b7d964dc66a841074a8"
SAMPLING, AUGMENTATION, LABELS, LOADER = 0, 1, 2, 3
"""Domains: who draws. The n-th draw of one domain never meets one of another."""

_MASK = 0xFFFFFFFF
_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LANES = 8

# Coefficients of AS 241 (PPND16), highest power first. The far tail of the algorithm (r > 5) needs p <
# 1.4e-11; the smallest p of the table is 2^-17, so its two polynomials are absent.
_CENTRE_TOP = (
    2509.0809287301226727,
    33430.575583588128105,
    67265.770927008700853,
    45921.953931549871457,
    13731.693765509461125,
    1971.5909503065514427,
    133.14166789178437745,
    3.387132872796366608,
)
_CENTRE_BOTTOM = (
    5226.495278852854561,
    28729.085735721942674,
    39307.89580009271061,
    21213.794301586595867,
    5394.1960214247511077,
    687.1870074920579083,
    42.313330701600911252,
    1.0,
)
_TAIL_TOP = (
    7.7454501427834140764e-4,
    0.0227238449892691845833,
    0.24178072517745061177,
    1.27045825245236838258,
    3.64784832476320460504,
    5.7694972214606914055,
    4.6303378461565452959,
    1.42343711074968357734,
)
_TAIL_BOTTOM = (
    1.05075007164441684324e-9,
    5.475938084995344946e-4,
    0.0151986665636164571966,
    0.14810397642748007459,
    0.68976733498510000455,
    1.6763848301838038494,
    2.05319162663775882187,
    1.0,
)
_LN2 = 0.6931471805599453

_Array = NDArray[np.float64]


def philox4x32(counter: NDArray[np.uint32], key: int) -> NDArray[np.uint32]:
    """Philox4x32-10 of many counters under one key.

    `counter` is uint32 [..., 4], `key` a 64-bit integer whose low word is key word 0. Returns uint32
    [..., 4]. Raises ValueError for another shape or dtype, or a key outside 64 bits.
    Reference: Salmon et al. 2011, section 3.3.
    """
    if counter.dtype != np.uint32 or counter.shape[-1:] != (4,):
        raise ValueError(f"counters are uint32 [..., 4], not {counter.dtype} {list(counter.shape)}")
    _in_range("key", key, 64)
    c0, c1, c2, c3 = (counter[..., word].astype(np.uint64) for word in range(4))
    m0, m1, mask, half = (np.uint64(value) for value in (*_MULTIPLIERS, _MASK, 32))
    for k0, k1 in _round_keys(key):
        p0, p1 = c0 * m0, c2 * m1  # 32 x 32 bits: never overflows 64
        c0, c2 = (p1 >> half) ^ c1 ^ np.uint64(k0), (p0 >> half) ^ c3 ^ np.uint64(k1)
        c1, c3 = p1 & mask, p0 & mask
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


@cache
def normal_table() -> NDArray[np.float32]:
    """The 65,536 normal quantiles T[i] = float32(Phi^-1((i + 1/2) / 65536)), read-only, built once a process.

    Built with + - * / alone, which IEEE 754 fixes: library logarithms and roots are not the same everywhere.
    Raises D3MError if the table is not the one of the specification.
    """
    return checked_table(_quantiles())


def checked_table(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return `table`, read-only, or raise D3MError if its SHA-256 (little-endian) is not that of the spec."""
    found = hashlib.sha256(table.astype("<f4").tobytes()).hexdigest()
    if found != TABLE_SHA256:
        raise D3MError(
            "the normal quantiles came out wrong, this machine's arithmetic is not IEEE 754's",
            field="noise table",
            found=found,
            expected=TABLE_SHA256,
        )
    table.setflags(write=False)
    return table


def normals(
    key: int, candidate: int, stream: int, shape: tuple[int, ...], domain: int = SAMPLING, n: int = 0
) -> NDArray[np.float32]:
    """Standard normal numbers of one draw, float32 of the given shape, within +-4.325.

    `key` is the group's 64-bit noise key, `candidate` and `stream` (the class position) are 32-bit, `domain`
    8-bit and `n` (0: the initial latents) 24-bit. Raises ValueError outside these ranges.

        >>> normals(0, 0, 0, (3,))
        array([ 1.3377299 , -0.25583217,  0.74442524], dtype=float32)
    """
    for name, value, bits in (("candidate", candidate, 32), ("stream", stream, 32)):
        _in_range(name, value, bits)
    size = math.prod(shape)
    counter = np.empty((-(-size // _LANES), 4), np.uint32)
    counter[:, 0] = np.arange(len(counter))
    counter[:, 1:] = candidate, stream, _draw(domain, n)
    halves = philox4x32(counter, key).astype("<u4").view("<u2")  # little-endian: low half first
    values: NDArray[np.float32] = normal_table()[halves.reshape(-1)[:size]].reshape(shape)
    return values


def normals_torch(
    key: int,
    candidates: torch.Tensor,
    streams: torch.Tensor,
    shape: tuple[int, ...],
    *,
    domain: int = SAMPLING,
    n: int = 0,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """The same numbers as `normals`, bit for bit, for a batch on a torch device: float32 [B, *shape].

    `candidates` and `streams` are int64 [B], one pair an image; the rest is as for `normals`. An image's
    numbers do not depend on the batch it is in. Raises ValueError for values out of range or batches of
    unequal length.
    """
    import torch

    _in_range("key", key, 64)
    if candidates.ndim != 1 or candidates.shape != streams.shape:
        raise ValueError(f"candidates {list(candidates.shape)} and streams {list(streams.shape)} are not both [B]")
    for name, values in (("candidate", candidates), ("stream", streams)):
        if values.dtype != torch.int64 or bool(((values < 0) | (values > _MASK)).any()):
            raise ValueError(f"{name} values are int64 from 0 to 2^32 - 1")
    size = math.prod(shape)
    blocks = torch.arange(-(-size // _LANES), device=device)
    batch, count = len(candidates), len(blocks)
    counter = (
        blocks.expand(batch, count),
        candidates.to(device)[:, None].expand(batch, count),
        streams.to(device)[:, None].expand(batch, count),
        torch.full_like(blocks, _draw(domain, n)),
    )
    words = torch.stack(_philox_torch(counter, key), dim=-1)
    halves = torch.stack([words & 0xFFFF, words >> 16], dim=-1).reshape(batch, count * _LANES)[:, :size]
    return torch.tensor(normal_table(), device=device)[halves].reshape(batch, *shape)


def _philox_torch(counter: tuple[torch.Tensor, ...], key: int) -> tuple[torch.Tensor, ...]:
    """Philox4x32-10 on int64 tensors that hold 32-bit words."""
    c0, c1, c2, c3 = counter
    for k0, k1 in _round_keys(key):
        (h0, l0), (h1, l1) = _product_torch(c0, _MULTIPLIERS[0]), _product_torch(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = h1 ^ c1 ^ k0, l1, h0 ^ c3 ^ k1, l0
    return c0, c1, c2, c3


def _product_torch(words: torch.Tensor, multiplier: int) -> tuple[torch.Tensor, torch.Tensor]:
    """High and low word of a 32 x 32 bit product."""
    # In two halves: torch has no unsigned 64-bit product, and overflow of a signed one is undefined in C++.
    low = words * (multiplier & 0xFFFF)
    high = words * (multiplier >> 16) + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


def _round_keys(key: int) -> list[tuple[int, int]]:
    low, high = key & _MASK, key >> 32
    return [((low + turn * _WEYL[0]) & _MASK, (high + turn * _WEYL[1]) & _MASK) for turn in range(_ROUNDS)]


def _draw(domain: int, n: int) -> int:
    _in_range("domain", domain, 8)
    _in_range("n", n, 24)
    return domain << 24 | n


def _in_range(name: str, value: int, bits: int) -> None:
    if not 0 <= value < 1 << bits:
        raise ValueError(f"{name} is {value}, outside 0 to 2^{bits} - 1")


def _quantiles() -> NDArray[np.float32]:
    """All quantiles of the table, by AS 241 on its lower half; the upper half is its mirror image."""
    p = (np.arange(32768) + 0.5) / 65536
    q = p - 0.5
    centre_r = 0.180625 - q * q
    centre = q * (_polynomial(_CENTRE_TOP, centre_r) / _polynomial(_CENTRE_BOTTOM, centre_r))
    tail_r = _root(_minus_log(p)) - 1.6
    tail = -(_polynomial(_TAIL_TOP, tail_r) / _polynomial(_TAIL_BOTTOM, tail_r))
    lower = np.where(q >= -0.425, centre, tail).astype(np.float32)
    return np.concatenate([lower, -lower[::-1]])


def _polynomial(coefficients: tuple[float, ...], x: _Array) -> _Array:
    value = np.zeros_like(x)
    for coefficient in coefficients:
        value = value * x + coefficient
    return value


def _minus_log(p: _Array) -> _Array:
    """-ln p for p in (0, 1): p = m 2^e with m near 1, and ln m = 2 artanh((m - 1) / (m + 1)) as a series."""
    m, e = np.frexp(p)  # exact
    small = m < 0.7071067811865476
    m, e = np.where(small, m * 2, m), np.where(small, e - 1, e)
    s = (m - 1) / (m + 1)  # |s| < 0.172, so the first term left out is below 1e-18
    series = _polynomial(tuple(2 / odd for odd in range(23, 0, -2)), s * s)
    minus_log: _Array = -(e * _LN2 + s * series)
    return minus_log


def _root(x: _Array) -> _Array:
    """Square root by Heron's rule; 7 steps reach the last bits for the x of the table (below 12)."""
    root: _Array = (x + 1) / 2
    for _ in range(7):
        root = (root + x / root) / 2
    return root
