"""Values <-> canonical msgpack, as spec/d3m-1.0.md section 2 says: one value has exactly one encoding.

An own decoder, because msgpack's takes duplicate keys, long forms, extension types, NaN and deep nesting, and
reports what it does refuse as five unrelated exceptions. Bytes are checked from front to back.
"""

from __future__ import annotations

import math
import struct
from typing import Any, NoReturn

from d3codec.errors import PackError
from d3codec.format.limits import PACK_DEPTH, PACK_ENTRIES, PACK_NODES

Value = Any  # None | bool | int | float | str | bytes | list[Value] | dict[str, Value]

# Forms of a header: longest length, code, bytes of the length.
_STR = ((31, 0xA0, 0), (0xFF, 0xD9, 1), (0xFFFF, 0xDA, 2), (0xFFFFFFFF, 0xDB, 4))
_BIN = ((0xFF, 0xC4, 1), (0xFFFF, 0xC5, 2), (0xFFFFFFFF, 0xC6, 4))
_ARRAY = ((15, 0x90, 0), (PACK_ENTRIES, 0xDC, 2))
_MAP = ((15, 0x80, 0), (PACK_ENTRIES, 0xDE, 2))
_LENGTH_BYTES = {0xD9: 1, 0xDA: 2, 0xDB: 4, 0xC4: 1, 0xC5: 2, 0xC6: 4, 0xDC: 2, 0xDE: 2}
_SHORTER = {0xD9: 31, 0xDA: 0xFF, 0xDB: 0xFFFF, 0xC4: -1, 0xC5: 0xFF, 0xC6: 0xFFFF, 0xDC: 15, 0xDE: 15}
_UNSIGNED_FLOOR = (0x80, 0x100, 0x10000, 0x100000000)  # below it a shorter form exists; by log2 of the width
_SIGNED_CEILING = (-0x20, -0x80, -0x8000, -0x80000000)


def pack(value: Value) -> bytes:
    """The canonical bytes of a value made of None, bool, int, float, str, bytes, list and dict with str keys.

    Types are taken literally: subclasses (IntEnum, numpy scalars) and tuples are refused. Raises PackError.
    """
    writer = _Writer()
    writer.put(value, 1)
    return bytes(writer.out)


def unpack(data: bytes) -> Value:
    """The value of canonical bytes; raises PackError for all others. Time and memory follow their length."""
    reader = _Reader(data)
    value = reader.value(1)
    if reader.at != len(data):
        reader.fail("E_PACK_TRAILING", reader.at)
    return value


class _Writer:
    def __init__(self) -> None:
        self.out = bytearray()
        self.nodes = 0

    def put(self, value: Value, depth: int) -> None:
        self.nodes += 1
        if self.nodes > PACK_NODES:
            raise PackError("E_PACK_NODES")
        if depth > PACK_DEPTH:
            raise PackError("E_PACK_DEPTH")
        kind = type(value)
        if value is None or kind is bool:
            self.out.append({None: 0xC0, False: 0xC2, True: 0xC3}[value])
        elif kind is int:
            self._integer(value)
        elif kind is float:
            if not _plain_float(value):
                raise PackError("E_PACK_FLOAT", found=value)
            self.out += b"\xcb" + struct.pack(">d", value)
        elif kind is str:
            self._block(_encode(value), _STR)
        elif kind is bytes:
            self._block(value, _BIN)
        elif kind is list:
            self._header(len(value), _ARRAY)
            for item in value:
                self.put(item, depth + 1)
        elif kind is dict:
            self._map(value, depth)
        else:
            raise PackError("E_PACK_TYPE", found=kind.__name__)

    def _map(self, value: dict[str, Value], depth: int) -> None:
        if wrong := [key for key in value if type(key) is not str]:
            raise PackError("E_PACK_KEY", found=type(wrong[0]).__name__)
        self._header(len(value), _MAP)
        for key in sorted(value, key=_encode):
            self.put(key, depth + 1)
            self.put(value[key], depth + 1)

    def _integer(self, value: int) -> None:
        if -0x20 <= value < 0x80:
            self.out += value.to_bytes(1, "big", signed=value < 0)
            return
        if not -(1 << 63) <= value < 1 << 64:
            raise PackError("E_PACK_TYPE", "an integer of more than 64 bits")
        if value >= 0:
            size = sum(value >= floor for floor in _UNSIGNED_FLOOR) - 1
        else:
            size = sum(value < ceiling for ceiling in _SIGNED_CEILING) - 1
        self.out.append((0xCC if value >= 0 else 0xD0) + size)
        self.out += value.to_bytes(1 << size, "big", signed=value < 0)

    def _block(self, data: bytes, forms: tuple[tuple[int, int, int], ...]) -> None:
        self._header(len(data), forms)
        self.out += data

    def _header(self, length: int, forms: tuple[tuple[int, int, int], ...]) -> None:
        for longest, code, width in forms:
            if length <= longest:
                self.out += bytes([code]) + length.to_bytes(width, "big") if width else bytes([code | length])
                return
        raise PackError("E_PACK_TYPE", "too many entries or bytes", found=length)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.nodes = data, 0, 0

    def fail(self, code: str, at: int) -> NoReturn:
        raise PackError(code, f"at byte {at}")

    def take(self, length: int) -> bytes:
        if length > len(self.data) - self.at:
            self.fail("E_PACK_TRUNC", len(self.data))
        self.at += length
        return self.data[self.at - length : self.at]

    def code(self, depth: int) -> int:
        """Counts one node at this depth and returns its first byte."""
        self.nodes += 1
        if self.nodes > PACK_NODES:
            self.fail("E_PACK_NODES", self.at)
        if depth > PACK_DEPTH:
            self.fail("E_PACK_DEPTH", self.at)
        return self.take(1)[0]

    def value(self, depth: int) -> Value:
        code = self.code(depth)
        if code < 0x80:
            return code
        if code >= 0xE0:
            return code - 0x100
        if code in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[code]
        if 0xA0 <= code < 0xC0 or 0xD9 <= code <= 0xDB:
            return self.text(code)
        if 0xC4 <= code <= 0xC6:
            return self.take(self.length(code))
        if 0x90 <= code < 0xA0 or code == 0xDC:
            return [self.value(depth + 1) for _ in range(self.length(code))]
        if code < 0x90 or code == 0xDE:
            return self.map(code, depth)
        if 0xCC <= code <= 0xD3:
            return self.integer(code)
        if code == 0xCB:
            return self.float()
        return self.fail("E_PACK_TYPE", self.at - 1)  # never used, extension types, float32, array32, map32

    def length(self, code: int) -> int:
        start = self.at - 1
        if code not in _LENGTH_BYTES:
            return code & (0x1F if code >= 0xA0 else 0x0F)
        length = int.from_bytes(self.take(_LENGTH_BYTES[code]), "big")
        if length <= _SHORTER[code]:
            self.fail("E_PACK_NONMINIMAL", start)
        return length

    def integer(self, code: int) -> int:
        start, signed = self.at - 1, code >= 0xD0
        size = code & 3
        value = int.from_bytes(self.take(1 << size), "big", signed=signed)
        if value >= _SIGNED_CEILING[size] if signed else value < _UNSIGNED_FLOOR[size]:
            self.fail("E_PACK_NONMINIMAL", start)
        return value

    def float(self) -> float:
        start = self.at - 1
        value: float = struct.unpack(">d", self.take(8))[0]
        if not _plain_float(value):
            self.fail("E_PACK_FLOAT", start)
        return value

    def text(self, code: int) -> str:
        start = self.at - 1
        data = self.take(self.length(code))
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            self.fail("E_PACK_UTF8", start)

    def map(self, code: int, depth: int) -> dict[str, Value]:
        result: dict[str, Value] = {}
        previous = None
        for _ in range(self.length(code)):
            start = self.at
            code = self.code(depth + 1)
            if not (0xA0 <= code < 0xC0 or 0xD9 <= code <= 0xDB):
                self.fail("E_PACK_KEY", start)
            key = self.text(code)
            raw = key.encode()
            if previous is not None and raw <= previous:
                self.fail("E_PACK_ORDER", start)
            result[key], previous = self.value(depth + 1), raw
        return result


def _plain_float(value: float) -> bool:
    return math.isfinite(value) and not (value == 0 and math.copysign(1, value) < 0)


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise PackError("E_PACK_UTF8") from None
