"""A slow decoder of adaptive labels, written from spec/labels.md section 8 and spec/entropy.md alone: plain integers.

It shares no code with d3codec, so that both can be held against each other. It counts symbols and watches 64 bits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache

P = [16777216, 16065917, 15384774, 14732510, 14107900, 13509772, 12937002, 12388515]
P += [11863283, 11360318, 10878678, 10417458, 9975792, 9552851, 9147841, 8760003]
M = [811, 682, 574, 482]


class Refused(Exception):
    """Bytes that the specification does not allow."""


def require(condition: bool) -> None:
    if not condition:
        raise Refused


def within_64_bits(number: int) -> int:
    assert -(2**63) <= number < 2**63
    return number


class State:
    """A stream of entropy.md section 6."""

    def __init__(self, data: bytes) -> None:
        self.data, self.left, self.x, self.symbols = data, list(data), 0, 0
        self.fill()

    def fill(self) -> None:
        while self.x < 2**16 and self.left:
            self.x = 256 * self.x + self.left.pop(0)
        assert self.x < 2**24

    def symbol(self, c: Sequence[int]) -> int:
        """`c`: c(0), c(1), .., and 4096 at last."""
        slot = self.x % 4096
        s = next(s for s in range(len(c) - 1) if c[s] <= slot < c[s + 1])
        self.x = (c[s + 1] - c[s]) * (self.x // 4096) + slot - c[s]
        self.symbols += 1
        self.fill()
        return s

    def bits(self, n: int) -> int:
        if n == 0:
            return 0
        m = min(n, 12)
        high = self.symbol([y * 2 ** (12 - m) for y in range(2**m)] + [4096])
        return high * 2 ** (n - m) + self.bits(n - m)

    def finish(self) -> None:
        require(not self.left and self.x == 256 and self.data[:1] != b"\0")


def below(d: int, i: int) -> int:
    if d < 0:
        return 2**24 - below(-d, i)
    t = (d * M[i % 4]) >> (4 + i // 4)
    return 2**48 // (2**24 + (P[t % 16] >> (t // 16)))


@cache
def table(i: int, p: int) -> list[int]:
    return [0] + [s + ((4063 * below(16 * (s - 16) - p, i)) >> 24) for s in range(1, 33)] + [4096]


def number(state: State, centre: int, i: int) -> int:
    b = max(0, (i - 21) >> 2)
    u = (centre + 8) >> (4 + b)
    s = state.symbol(table(i - 4 * b, ((centre + 8) >> b) % 16))
    u += s - 16
    if s in (0, 32):
        r = state.bits(5)
        far = 2**r + state.bits(r) - 1
        u += far if s == 32 else -far
    return within_64_bits(2**b * u + state.bits(b))


class Block:
    """Section 8.3."""

    def __init__(self, stream: bytes, width: int, step: int) -> None:
        columns = range(width)
        self.state, self.width, self.step, self.q = State(stream), width, step, (2**24 - 1) // step
        self.n, self.m = [0] * width, [16] * width
        self.s: dict[tuple[int, int], int] = defaultdict(int)
        self.total = self.coded = 0
        self.v = [(8 * (6144 // step) ** 2 * (k + 2)) // (k + 1) + 1 for k in columns]
        self.g = {(k, j): 2**24 // (j + 2) for k in columns for j in range(k)}

    def label(self, c: int) -> list[int]:
        general = (16 * self.total + 24576 // self.step) // (self.coded + 2)
        e, q = {c: 0}, [0] * self.width
        for k in range(self.width):
            if k == c:
                continue
            mean = (32 * self.s[c, k] + 16 * self.s[k, c] + 4 * general) // (2 * self.n[c] + self.n[k] + 4)
            moved = within_64_bits(sum(self.g[k, j] * e[j] for j in range(k)))
            centre = min(max(mean + (moved >> 24), -16 * self.q), 16 * self.q)
            i = within_64_bits((self.v[k] // self.m[k] + 1) ** 2).bit_length()
            q[k] = min(max(number(self.state, centre, i), -self.q), self.q)
            e[k] = min(max(16 * q[k] - centre, -(2**14)), 2**14)
            self.s[c, k] += q[k]
            self.total += q[k]
            self.v[k] += e[k] ** 2
            self.m[k] += 1
        self.n[c] += 1
        self.coded += self.width - 1
        for k, j in self.g:
            self.g[k, j] += e[k] * ((2**24 * e[j]) // self.v[j])
        return q


def logit(number: int, step: int) -> int:
    """Of another column than the class's, in 1/256 nat."""
    x = step * number
    return max(-(x + (within_64_bits(3 * max(0, x) ** 2) >> 14)), -(2**24 - 1))


def decode(data: bytes, classes: Sequence[int], width: int) -> tuple[list[list[int]], list[list[int]], int]:
    """Logits of all labels, in 1/256 nat; their numbers, 0 for the class's own column; how many symbols were read."""
    if not classes:
        require(not data)
        return [], [], 0
    blocks = (len(classes) + 4095) // 4096
    require(len(data) >= 2 + 3 * (blocks - 1))
    step = int.from_bytes(data[:2], "little")
    require(step > 0)
    place, symbols = 2 + 3 * (blocks - 1), 0
    labels: list[list[int]] = [[] for _ in classes]
    for index in range(blocks):
        stream = data[place:]
        if index < blocks - 1:
            length = int.from_bytes(data[2 + 3 * index : 5 + 3 * index], "little")
            require(length <= len(stream))
            stream = stream[:length]
            place += length
        block, rows = Block(stream, width, step), range(4096 * index, min(4096 * (index + 1), len(classes)))
        waiting = [[row for row in rows if classes[row] == c] for c in range(width)]
        while any(waiting):
            for c, queue in enumerate(waiting):
                if queue:
                    labels[queue.pop(0)] = block.label(c)
        block.state.finish()
        symbols += block.state.symbols
    return [[logit(number, step) for number in label] for label in labels], labels, symbols
