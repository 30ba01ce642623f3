"""Damage and malice: a changed file is refused, with an error of ours, or means exactly the same."""

from __future__ import annotations

import random

import pytest
from format.craft import Pieces, coded_draft, digits_draft, filled, kinds_draft, streams
from hypothesis import given, settings
from hypothesis import strategies as st

from d3codec.decoder.verify import verify
from d3codec.errors import FormatError
from d3codec.format.canonical import pack, unpack
from d3codec.format.file import D3MFile, write_d3m

pytestmark = pytest.mark.no_cover  # long loops in Python, which tracing doubles; other tests run these lines

DRAFT = digits_draft()
DATA = write_d3m(DRAFT, filled(DRAFT, sparse=True), None, {"x-leaf": bytes(20)})
PIECES = Pieces.of(DATA)
CONTENT_ID = D3MFile.open(DATA).content_id
KINDS = write_d3m(kinds_draft(), filled(kinds_draft()))
KIND_RAW = filled(kinds_draft())
KIND_PIECES = Pieces.of(KINDS)
STREAMS = streams(coded_draft())
STREAM_FILE = write_d3m(coded_draft(), STREAMS)
STREAM_PIECES = Pieces.of(STREAM_FILE)
FILES = pytest.mark.parametrize("whole", [DATA, KINDS], ids=["digits", "kinds"])


def accepted(data: bytes) -> D3MFile | None:
    """The verified file, or None when it is refused in the way that a refusal must have. Codecs are asked too."""
    refusal = None
    try:
        file = D3MFile.open(data)
        verify(file)
    except FormatError as error:
        refusal = error
    if refusal is None:
        return file
    assert refusal.file == "<memory>"
    return None


@FILES
@pytest.mark.parametrize("flip", [0x01, 0x10, 0x80, 0xFF])
def test_every_changed_byte_is_noticed(whole: bytes, flip: int) -> None:
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= flip
        assert accepted(bytes(changed)) is None, f"byte {position}"


@FILES
def test_every_truncation_and_tail_is_noticed(whole: bytes) -> None:
    for length in range(len(whole)):
        assert accepted(whole[:length]) is None, f"{length} bytes"
    for tail in (b"\0", b"\n", whole, bytes(4_096)):
        assert accepted(whole + tail) is None


def test_every_swap_of_parts_is_noticed() -> None:
    for first in range(len(PIECES.parts)):
        for second in range(first):
            parts = list(PIECES.parts)
            parts[first], parts[second] = parts[second], parts[first]
            assert accepted(PIECES.but(parts=tuple(parts)).build()) is None


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    assert accepted(data) is None
    assert accepted(DATA[:24] + data) is None


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 2**32), st.sampled_from([PIECES, KIND_PIECES]))
def test_changed_manifests_with_right_checksums(seed: int, pieces: Pieces) -> None:
    """What is accepted has the content that its bytes say, in their one encoding."""
    generator = random.Random(seed)
    manifest = bytearray(pack(pieces.manifest))
    for _ in range(generator.randrange(1, 4)):
        at = generator.randrange(len(manifest))
        action = generator.randrange(3)
        if action == 0:
            manifest[at] = generator.randrange(256)
        elif action == 1:
            manifest[at : at + generator.randrange(4)] = b""
        else:
            manifest[at:at] = generator.randbytes(generator.randrange(1, 4))
    file = accepted(pieces.but(manifest_bytes=bytes(manifest)).build())
    if file is not None:
        assert pack(file.manifest.to_wire()) == bytes(manifest)
        same = pack(file.content.to_wire()) == pack(PIECES.manifest["c"])
        assert (file.content_id == CONTENT_ID) == same


@settings(deadline=None, max_examples=400)
@given(st.data())
def test_any_bytes_in_a_stream_with_right_checksums(data: st.DataObject) -> None:
    """Coded rows and labels that no encoder wrote, cut off or with more behind them: refused, or decoded in bounds."""
    key = data.draw(st.sampled_from([key for key, raw in STREAMS.items() if key[0] != "cls"]))
    raw = bytearray(STREAMS[key])
    action = data.draw(st.sampled_from(["change", "cut", "add", "other"] if key[0] != "col" else ["change"]))
    if action == "change":
        for _ in range(data.draw(st.integers(1, 4))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    elif action == "cut":
        del raw[data.draw(st.integers(0, len(raw))) :]
    else:
        raw = (raw if action == "add" else bytearray()) + data.draw(st.binary(max_size=200))
    new = STREAMS | {key: bytes(raw)}
    manifest = unpack(pack(STREAM_PIECES.manifest))
    manifest["c"]["s"] = [len(one) for name, one in new.items() if name[0] != "col"]
    file = accepted(STREAM_PIECES.but(manifest=manifest).redigested(new.values()).build())
    if file is not None:
        assert file.section(*key) == bytes(raw)


def test_every_changed_byte_of_a_stream_is_noticed() -> None:
    for position in range(len(STREAM_FILE)):
        changed = bytearray(STREAM_FILE)
        changed[position] ^= 0x10
        assert accepted(bytes(changed)) is None, f"byte {position}"
    assert accepted(STREAM_FILE) is not None


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_bytes_in_a_section_with_right_checksums(data: st.DataObject) -> None:
    """Values that no writer wrote: they are refused, or read as they are."""
    key = data.draw(st.sampled_from(list(KIND_RAW)))
    raw = bytearray(KIND_RAW[key])
    free = key in (("cls", None), ("fix", None), ("tok", 1))
    if free and data.draw(st.booleans()):
        raw = bytearray(data.draw(st.binary(max_size=40)))
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    new = KIND_RAW | {key: bytes(raw)}
    manifest = unpack(pack(KIND_PIECES.manifest))
    manifest["c"]["s"] = [len(new[name]) for name in (("cls", None), ("fix", None), ("tok", 1))]
    file = accepted(KIND_PIECES.but(manifest=manifest).redigested(new.values()).build())
    if file is not None:
        assert file.section(*key) == bytes(raw)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32))
def test_changed_frames_with_right_checksums(seed: int) -> None:
    """The decompressor meets bytes that no compressor wrote; what passes has the right digest."""
    generator = random.Random(seed)
    compressed = [number for number, (codec, _) in enumerate(PIECES.parts) if codec == 1]
    assert compressed
    number = generator.choice(compressed)
    frame = bytearray(PIECES.parts[number][1])
    for _ in range(generator.randrange(1, 4)):
        frame[generator.randrange(len(frame))] = generator.randrange(256)
    parts = list(PIECES.parts)
    parts[number] = (1, bytes(frame))
    file = accepted(PIECES.but(parts=tuple(parts)).build())
    if file is not None:
        original = D3MFile.open(DATA)
        assert all(file.section(*part.key) == original.section(*part.key) for part in file.parts)
