"""Bytes of sections, made of integers alone: the same everywhere, whatever numpy or the processor do with floats."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from d3codec import entropy, entropy_adaptive
from d3codec.conditioning import coded
from d3codec.labels import adaptive, adaptive_numbers
from d3codec.labels.adaptive_model import Model, turns
from making.pieces import drawn

SCALES = (0.03125, 0.25, 1.5, 0.0009765625, 7.0)  # of blocks, one row after the other; exact in float16

Box = tuple[int, int]


def half(*values: float) -> bytes:
    """Little-endian float16."""
    return struct.pack(f"<{len(values)}e", *values)


def words16(*values: int) -> bytes:
    """Little-endian numbers of 16 bits."""
    return struct.pack(f"<{len(values)}H", *values)


def words32(*values: int) -> bytes:
    """Little-endian numbers of 32 bits."""
    return struct.pack(f"<{len(values)}I", *values)


def numbers(seed: str, count: int, below: int) -> list[int]:
    """Integers from 0 to `below` - 1 that look random."""
    return [value % below for value in struct.unpack(f"<{count}I", drawn(seed, 4 * count))]


def packed(seed: str, bits: int) -> bytes:
    """So many bits that look random, the last byte padded with zero bits."""
    data = int.from_bytes(drawn(seed, -(-bits // 8)), "little") & ((1 << bits) - 1)
    return data.to_bytes(-(-bits // 8), "little")


def blocks(seed: str, rows: int, sizes: Sequence[int], bits: int, scales: Sequence[float] = SCALES) -> bytes:
    """Rows of blocks of so many values (spec section 5)."""
    pieces, number = [], 0
    for row in range(rows):
        for size in sizes:
            pieces.append(half(scales[number % len(scales)]) + packed(f"{seed} {row} {number}", size * bits))
            number += 1
    return b"".join(pieces)


def coded_rows(
    seed: str,
    rows: int,
    size: int,
    shape: tuple[int, int, int],
    scales: Sequence[float],
    levels: Sequence[int] | None = None,
) -> bytes:
    """Entropy-coded rows (entropy.md section 5).

    Arguments:
        shape: number of levels, a, b. scales: one, for all rows, or one a row. levels: of all values; drawn without.
    """
    layout, table = coded.Layout(rows, size), coded.Shape(*shape)
    symbols = numbers(seed, rows * size, shape[0]) if levels is None else levels
    writer = entropy.Writer(len(layout.counts), layout.lanes)
    writer.put(np.array(symbols, np.int64), entropy.Tables(table.frequencies()), 0, layout.counts)
    streams = writer.finish()
    head = struct.pack("<Bbb", *shape) + (half(-scales[0]) if len(scales) == 1 else half(*scales))
    return head + words32(*map(len, streams[:-1])) + b"".join(streams)


def adaptive_labels(
    seed: str, classes: Sequence[int], width: int, step: int, spread: int = 7, fixed: Sequence[int] = ()
) -> bytes:
    """A stream of adaptive labels (labels.md section 8): numbers near what the model expects.

    Arguments:
        classes: column of each label's class. spread: numbers lie so near. fixed: these instead, as they are coded.
    """
    streams = [
        _adaptive_block(f"{seed} {first}", classes[first : first + adaptive.BLOCK], Model(width, step), spread, fixed)
        for first in range(0, len(classes), adaptive.BLOCK)
    ]
    lengths = b"".join(len(stream).to_bytes(3, "little") for stream in streams[:-1])
    return b"".join([step.to_bytes(2, "little"), lengths, *streams])


def _adaptive_block(seed: str, classes: Sequence[int], model: Model, spread: int, fixed: Sequence[int]) -> bytes:
    writer, given = entropy_adaptive.Writer(), iter(fixed)
    shifts = iter(numbers(seed, 64 * len(classes), 2 * spread + 1))

    def code(_: int, centre: int, around: int) -> int:
        number = next(given) if fixed else centre // 16 + next(shifts) - spread
        number = max(-model.largest, min(model.largest, number))
        adaptive_numbers.write(writer, number, centre, around)
        return number

    for row in turns(classes):
        model.label(classes[row], code)
    return writer.finish()


def sequences(rows: Iterable[Sequence[int]]) -> bytes:
    """Section `tok`."""
    return b"".join(words16(len(row), *row) for row in rows)


def leb128(value: int) -> bytes:
    """An unsigned number in its shortest form, 7 bits a byte from the lowest."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def corrections(*entries: tuple[int, int]) -> bytes:
    """Section `fix`: positions, ascending, and values."""
    before, data = 0, b""
    for position, value in entries:
        data += leb128(position - before) + bytes([value])
        before = position
    return data


def top_rows(seed: str, rows: int, width: int, kept: int) -> bytes:
    """Labels of kind `t`."""
    index = words16 if width <= 65_536 else words32
    data = b""
    for row in range(rows):
        columns = sorted(range(min(width, 1_000)), key=lambda column: drawn(f"{seed} {row} {column}", 4))[:kept]
        columns = [width - 1 - column for column in columns]
        logits = sorted((value / 64 for value in numbers(f"{seed} logits {row}", kept, 640)), reverse=True)
        data += index(*columns) + half(*logits)
    return data


def half_rows(seed: str, count: int) -> bytes:
    """So many finite float16, as labels of kind `f` are: from -8 to 8."""
    return half(*((value - 1_024) / 128 for value in numbers(seed, count, 2_049)))


def classes_text(names: Iterable[str], ids: Iterable[str] | None = None) -> bytes:
    """Section `cls`."""
    some = list(names)
    return "".join(
        f"{identity}\t{name}\n" for identity, name in zip(ids or [""] * len(some), some, strict=True)
    ).encode()


# -------------------------------------------------------------------------------------------------------- sheets


def tiles(seed: str, count: int, size: Box) -> np.ndarray:
    """Small pictures, uint8 [count, height, width, 3]: gradients, each with a random square."""
    height, width = size
    found = np.zeros((count, height, width, 3), np.uint8)
    for number in range(count):
        start, step, top, left, level = drawn(f"{seed} {number}", 5)
        ramp = start + step % 9 * np.add.outer(np.arange(height), np.arange(width))
        found[number] = ramp[:, :, None] + 40 * np.arange(3)
        found[number, top % height :, left % width :] = level
    return found


def sheet_of(pictures: np.ndarray, columns: int, spare: int = 128) -> np.ndarray:
    """A contact sheet, uint8 [height, width, 3]."""
    count, height, width = pictures.shape[:3]
    rows = -(-count // columns)
    table = np.full((rows * columns, height, width, 3), spare, np.uint8)
    table[:count] = pictures
    return table.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)


def png(
    pixels: np.ndarray,
    chunks: Sequence[tuple[bytes, bytes]] = (),
    filters: Sequence[int] = (0,),
    form: bytes = b"\x08\x02\x00\x00\x00",
) -> bytes:
    """A PNG whose pixels are not compressed.

    Arguments:
        pixels: uint8 [height, width, channels]. chunks: after its head. filters: of its rows, in turn.
        form: depth, colours, compression, filter, interlace.
    """
    height, width, channels = pixels.shape
    rows, above = b"", bytes(width * channels)
    for number, row in enumerate(pixels.reshape(height, -1)):
        here, kind = row.tobytes(), filters[number % len(filters)]
        rows += bytes([kind]) + _filtered(here, above, channels, kind)
        above = here
    stored = b"".join(
        struct.pack("<BHH", at + 65_535 >= len(rows), len(piece), 0xFFFF ^ len(piece)) + piece
        for at in range(0, len(rows), 65_535)
        for piece in (rows[at : at + 65_535],)
    )
    data = b"\x78\x01" + stored + struct.pack(">I", zlib.adler32(rows))
    head = (b"IHDR", struct.pack(">II", width, height) + form)
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in (head, *chunks, (b"IDAT", data), (b"IEND", b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _filtered(row: bytes, above: bytes, channels: int, kind: int) -> bytes:
    left = bytes(channels) + row[:-channels]
    corner = bytes(channels) + above[:-channels]
    expected = [_expected(kind, *near) for near in zip(left, above, corner, strict=True)]
    return bytes((value - guess) % 256 for value, guess in zip(row, expected, strict=True))


def _expected(kind: int, left: int, above: int, corner: int) -> int:
    if kind == 4:
        near = left + above - corner
        return min((left, above, corner), key=lambda value: abs(near - value))
    return (0, left, above, (left + above) // 2)[kind]


def joined(files: Sequence[bytes]) -> bytes:
    """Section `img`."""
    return words32(*map(len, files)) + b"".join(files)
