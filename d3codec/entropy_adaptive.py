"""Symbols to bytes and back where every symbol has frequencies of its own (spec/entropy.md section 6): one rANS state.

For few symbols whose frequencies follow from the symbols before them. It costs one to two bytes above what the symbols
need. Integers only: encoder and decoder agree bit by bit on every machine.
"""

from __future__ import annotations

from d3codec.errors import SectionError

PRECISION = 12
TOTAL = 1 << PRECISION

_FULL = 1 << 16  # a state below it reads the next byte, as long as there is one
_LAST = 1 << 8  # the state after the last symbol: as far below as costs nothing, and far enough from 0 for a check


class Writer:
    """Symbols, in the order in which they will be read, to one stream."""

    def __init__(self) -> None:
        self._symbols: list[tuple[int, int]] = []

    def put(self, first: int, frequency: int) -> None:
        """Add a symbol: the sum of the frequencies before its own, and its own, of a total of 4096.

        Raises ValueError unless 0 <= first, 1 <= frequency and first + frequency <= 4096.
        """
        if not 0 <= first < first + frequency <= TOTAL:
            raise ValueError(f"a symbol of the slots from {first}, {frequency} of them, does not fit {TOTAL}")
        self._symbols.append((first, frequency))

    def put_bits(self, value: int, count: int) -> None:
        """Add `count` bits, a number from 0 to 2^count - 1, all equally likely: 12 at a time, the highest first."""
        if not 0 <= value < 1 << count:
            raise ValueError(f"{value} does not fit {count} bits")
        while count:
            part = min(count, PRECISION)
            count -= part
            frequency = TOTAL >> part
            self.put((value >> count) % (1 << part) * frequency, frequency)

    def finish(self) -> bytes:
        """The stream, at least two bytes."""
        state, out = _LAST, bytearray()  # the last byte first
        for first, frequency in reversed(self._symbols):
            while state >= frequency << PRECISION:
                out.append(state & 255)
                state >>= 8
            quotient, rest = divmod(state, frequency)
            state = (quotient << PRECISION) + rest + first
        while state:
            out.append(state & 255)
            state >>= 8
        out.reverse()
        return bytes(out)


class Reader:
    """A stream back to symbols; each takes one step, whatever the stream holds, and none fails before `finish`.

    Of each symbol `slot` is looked up in its table, and `take` is told which symbol that is.
    """

    def __init__(self, data: bytes, *, field: str = "stream") -> None:
        self._data, self._field, self._read, self._state = data, field, 0, 0
        self._fill()

    @property
    def slot(self) -> int:
        """A number from 0 to 4095; the next symbol is the one with first <= slot < first + frequency."""
        return self._state & (TOTAL - 1)

    def take(self, first: int, frequency: int) -> None:
        """Go on to the next symbol, from one that has these numbers."""
        self._state = frequency * (self._state >> PRECISION) + (self._state & (TOTAL - 1)) - first
        if self._state < _FULL:
            self._fill()

    def take_bits(self, count: int) -> int:
        """The reverse of `put_bits`."""
        value = 0
        while count:
            part = min(count, PRECISION)
            count -= part
            shift = PRECISION - part
            bits = self.slot >> shift
            self.take(bits << shift, 1 << shift)
            value = value << part | bits
        return value

    def finish(self) -> None:
        """Check that the stream ends here. Raises SectionError (`E_SECTION_VALUE`), naming the field, if not."""
        if self._read != len(self._data):
            raise self._damaged("has bytes left over")
        if self._state != _LAST:
            raise self._damaged("ends in another state")
        if self._data[:1] == b"\0":
            raise self._damaged("begins with a byte 0")

    def _fill(self) -> None:
        while self._state < _FULL and self._read < len(self._data):
            self._state = self._state << 8 | self._data[self._read]
            self._read += 1

    def _damaged(self, what: str) -> SectionError:
        return SectionError("E_SECTION_VALUE", f"the stream {what}", field=self._field)
