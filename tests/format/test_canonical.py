"""Canonical msgpack: every value has one encoding, and nothing else is read."""

from __future__ import annotations

import enum
import math
import time
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3codec.errors import FORMAT_CODES, PackError
from d3codec.format.canonical import pack, unpack

integers = st.integers(-(2**63), 2**64 - 1) | st.sampled_from(
    [sign * (2**bits + step) for bits in (5, 7, 8, 15, 16, 31, 32) for step in (-1, 0, 1) for sign in (1, -1)]
)
floats = st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: math.copysign(1, value) > 0 or value)
leaves = st.none() | st.booleans() | integers | floats | st.text(max_size=40) | st.binary(max_size=40)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=5), inner, max_size=20),
    max_leaves=30,
)


def ordered(value: Any) -> Any:
    """The same value with map keys in the order that the specification asks for."""
    if isinstance(value, dict):
        return {key: ordered(value[key]) for key in sorted(value, key=str.encode)}
    return [ordered(item) for item in value] if isinstance(value, list) else value


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(depth, inner), default=0)


@given(values.filter(lambda value: depth(value) <= 8))
def test_pack_is_msgpack_with_sorted_keys(value: Any) -> None:
    data = pack(value)
    assert data == msgpack.packb(ordered(value), use_bin_type=True)
    back = unpack(data)
    assert back == value
    assert pack(back) == data


@given(st.binary(max_size=60))
def test_what_is_read_is_canonical(data: bytes) -> None:
    try:
        value = unpack(data)
    except PackError:
        return
    assert pack(value) == data


@given(values.filter(lambda value: depth(value) <= 8), st.data())
def test_changed_bytes_are_refused_or_canonical(value: Any, data: st.DataObject) -> None:
    changed = bytearray(pack(value))
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    test_what_is_read_is_canonical.hypothesis.inner_test(bytes(changed))  # type: ignore[attr-defined]


@pytest.mark.parametrize("length", [0, 15, 16, 31, 32, 255, 256, 65_535, 65_536])
def test_headers_at_their_borders(length: int) -> None:
    for value in ("a" * length, b"a" * length):
        assert pack(value) == msgpack.packb(value)
        assert unpack(pack(value)) == value
    if length < 65_535:
        assert unpack(pack([None] * length)) == [None] * length
    if length < 32_000:
        mapping = {f"{number:05}": None for number in range(length)}
        assert pack(mapping) == msgpack.packb(mapping)
        assert unpack(pack(mapping)) == mapping


REFUSED = {
    "empty": ("", "E_PACK_TRUNC"),
    "integer cut off": ("cd01", "E_PACK_TRUNC"),
    "string cut off": ("a361", "E_PACK_TRUNC"),
    "string header cut off": ("da01", "E_PACK_TRUNC"),
    "array cut off": ("92c0", "E_PACK_TRUNC"),
    "map without value": ("81a161", "E_PACK_TRUNC"),
    "float cut off": ("cb3ff0", "E_PACK_TRUNC"),
    "string of 4 GiB": ("dbffffffff", "E_PACK_TRUNC"),
    "never used": ("c1", "E_PACK_TYPE"),
    "float32": ("ca3f800000", "E_PACK_TYPE"),
    "extension": ("d40100", "E_PACK_TYPE"),
    "timestamp": ("d6ff00000000", "E_PACK_TYPE"),
    "extension with length": ("c7010000", "E_PACK_TYPE"),
    "array32": ("dd00000001c0", "E_PACK_TYPE"),
    "map32": ("df00000001a161c0", "E_PACK_TYPE"),
    "uint8 of a fixint": ("cc7f", "E_PACK_NONMINIMAL"),
    "uint16 of a uint8": ("cd00ff", "E_PACK_NONMINIMAL"),
    "uint32 of a uint16": ("ce0000ffff", "E_PACK_NONMINIMAL"),
    "uint64 of a uint32": ("cf00000000ffffffff", "E_PACK_NONMINIMAL"),
    "int8 of a fixint": ("d0e0", "E_PACK_NONMINIMAL"),
    "int8 of a positive one": ("d001", "E_PACK_NONMINIMAL"),
    "int16 of an int8": ("d1ff80", "E_PACK_NONMINIMAL"),
    "int16 of a positive one": ("d17fff", "E_PACK_NONMINIMAL"),
    "int32 of an int16": ("d2ffff8000", "E_PACK_NONMINIMAL"),
    "int64 of an int32": ("d3ffffffff80000000", "E_PACK_NONMINIMAL"),
    "str8 of a fixstr": ("d90161", "E_PACK_NONMINIMAL"),
    "str16 of a str8": ("da0020" + "61" * 32, "E_PACK_NONMINIMAL"),
    "str32 of a str16": ("db00000100" + "61" * 256, "E_PACK_NONMINIMAL"),
    "bin16 of a bin8": ("c5000161", "E_PACK_NONMINIMAL"),
    "bin32 of a bin16": ("c600000100" + "61" * 256, "E_PACK_NONMINIMAL"),
    "array16 of a fixarray": ("dc0001c0", "E_PACK_NONMINIMAL"),
    "map16 of a fixmap": ("de0001a161c0", "E_PACK_NONMINIMAL"),
    "keys out of order": ("82a162c0a161c0", "E_PACK_ORDER"),
    "key twice": ("82a161c0a161c0", "E_PACK_ORDER"),
    "shorter key later": ("82a2616ac0a161c0", "E_PACK_ORDER"),
    "integer key": ("8101c0", "E_PACK_KEY"),
    "bytes key": ("81c40161c0", "E_PACK_KEY"),
    "not UTF-8": ("a1ff", "E_PACK_UTF8"),
    "surrogate": ("a3eda080", "E_PACK_UTF8"),
    "overlong": ("a2c080", "E_PACK_UTF8"),
    "NaN": ("cb7ff8000000000000", "E_PACK_FLOAT"),
    "infinity": ("cbfff0000000000000", "E_PACK_FLOAT"),
    "negative zero": ("cb8000000000000000", "E_PACK_FLOAT"),
    "depth 9": ("91" * 8 + "c0", "E_PACK_DEPTH"),
    "depth 9 as a key": ("91" * 7 + "81a161c0", "E_PACK_DEPTH"),
    "tail": ("c0c0", "E_PACK_TRAILING"),
}


@pytest.mark.parametrize("name", REFUSED)
# Shows D3M-033.
def test_refused(name: str) -> None:
    data, code = REFUSED[name]
    with pytest.raises(PackError) as error:
        unpack(bytes.fromhex(data))
    assert error.value.code == code


def test_every_pack_code_is_covered() -> None:
    codes = {code for code in FORMAT_CODES if code.startswith("E_PACK_")}
    assert codes == {code for _, code in REFUSED.values()} | {"E_PACK_NODES"}


# Shows D3M-029.
def test_depth_8_is_read() -> None:
    value = unpack(bytes.fromhex("91" * 7 + "c0"))
    assert pack(value) == bytes.fromhex("91" * 7 + "c0")


# Shows D3M-030.
def test_nodes_are_counted_at_the_border() -> None:
    full = [None] * 65_535
    assert unpack(pack(full)) == full
    for one_more in (b"\x92" + pack([None] * 65_533) + b"\xc0", pack([[None] * 100] * 648)):
        unpack(one_more)
    with pytest.raises(PackError, match="E_PACK_NODES"):
        unpack(b"\x92" + pack([None] * 65_534) + b"\xc0")
    with pytest.raises(PackError, match="E_PACK_NODES"):
        pack([[None] * 65_534, None])


@pytest.mark.parametrize(
    "bomb",
    [
        b"\x80" * (1 << 20),
        b"\xdc\xff\xff" * 300_000,
        b"\xdc\xff\xff" + b"\x90" * (1 << 20),
        b"\xdb\xff\xff\xff\xff" * 200_000,
        b"\xdc\xff\xff" + b"\xdc\x00\x10" * 100_000,
    ],
)
def test_bombs_stay_small(bomb: bytes) -> None:
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(PackError):
        unpack(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20
    assert time.process_time() - start < 5


class Number(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ((1, 2), "E_PACK_TYPE"),
        ({1, 2}, "E_PACK_TYPE"),
        (Number.ONE, "E_PACK_TYPE"),
        (bytearray(b"a"), "E_PACK_TYPE"),
        (2**64, "E_PACK_TYPE"),
        (-(2**63) - 1, "E_PACK_TYPE"),
        ([None] * 65_536, "E_PACK_TYPE"),
        (float("nan"), "E_PACK_FLOAT"),
        (-0.0, "E_PACK_FLOAT"),
        ({1: 2}, "E_PACK_KEY"),
        ({b"a": 2}, "E_PACK_KEY"),
        ("\ud800", "E_PACK_UTF8"),
        ({"\ud800": 1}, "E_PACK_UTF8"),
        ([[[[[[[[None]]]]]]]], "E_PACK_DEPTH"),
    ],
)
def test_values_that_cannot_be_packed(value: Any, code: str) -> None:
    with pytest.raises(PackError) as error:
        pack(value)
    assert error.value.code == code


def test_an_error_says_where() -> None:
    with pytest.raises(PackError, match="at byte 2"):
        unpack(bytes.fromhex("9201cc05"))
