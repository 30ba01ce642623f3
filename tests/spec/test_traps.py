"""Traps of the libraries that a reader stands on, each by its code in the project's list, and that ours avoids it.

Z zstandard, M msgpack, P pydantic, N numpy, S safetensors, T torch, I Pillow, R random numbers. Every hostile file has
right checksums around its one fault. What is bounded is what Python allocates (tracemalloc).
"""

from __future__ import annotations

import ast
import enum
import hashlib
import io
import json
import re
import shutil
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from format.craft import Pieces, coded_draft, digits_draft, filled, kinds_draft, quick_streams, sheets, write_d3m
from format.craft import group as craft_group
from PIL import Image

import d3codec
from d3codec import images, noise
from d3codec.decoder.verify import verify
from d3codec.errors import D3MError, FormatError, GeneratorError, ManifestError, MissingGeneratorError, PackError
from d3codec.format import canonical, limits
from d3codec.format.file import ContentDraft, D3MFile
from d3codec.format.manifest import About, Classes, Content, HardLabels, Images, Manifest, NoConditioning
from d3codec.format.record import Record

PACKAGE = Path(d3codec.__file__).parent
READING = ("format", "labels", "conditioning", "decoder", "generators")  # folders that a reader runs
DIGITS = write_d3m(digits_draft(), filled(digits_draft(), sparse=True), None, {"x-note": bytes(1_000)})
PIECES = Pieces.of(DIGITS)
NOTE = len(PIECES.parts) - 1  # the ancillary part of 1,000 bytes


def code(call: Callable[[], Any]) -> str | None:
    """The code of the refusal, None if there is none; foreign exceptions pass."""
    try:
        call()
    except FormatError as error:
        return error.code
    return None


def refusal(data: bytes) -> str | None:
    return code(lambda: verify(D3MFile.open(data)))


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Python allocates no more than so many bytes at a time."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------------------------------------- zstandard


def with_frame(stored: bytes, raw: bytes = bytes(1_000), compressed: int = 1) -> bytes:
    """The file with other stored bytes for the note, whose raw bytes are stated as `raw`."""
    manifest = canonical.unpack(canonical.pack(PIECES.manifest))
    manifest["a"]["x"][0][1] = len(raw)
    manifest["a"]["h"] = hashlib.sha256(raw).digest()
    return PIECES.but(manifest=manifest, parts=(*PIECES.parts[:NOTE], (compressed, stored))).build()


def frame(descriptor: int, header: bytes, payload: bytes) -> bytes:
    """A zstd frame by hand: one raw block."""
    return b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + header + struct.pack("<I", len(payload) << 3 | 1)[:3] + payload


def packed(raw: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(raw)


NOISE = np.random.default_rng(0).bytes(1_000)
SHORT = packed(bytes(1_000))
HOSTILE_FRAMES = {
    "Z1": (packed(b"A" * 1_000_000), "E_ZSTD_HEADER"),  # its size would be allocated, whatever limit is given
    "Z2": (frame(0xE0, struct.pack("<Q", 1 << 60), b"")[:13], "E_ZSTD_HEADER"),  # 2^60 bytes: MemoryError
    "Z3": (SHORT + b"JUNK", "E_ZSTD_DATA"),
    "Z4": (SHORT + SHORT, "E_ZSTD_DATA"),
    "Z5": (b"\x28\xb5\x2f\xfd\x20\x00\xff\xff\xff\xff junk", "E_ZSTD_HEADER"),  # states 0 bytes: b"" without a look
    "Z7": (frame(0x40, bytes([17 << 3]) + struct.pack("<H", 1_000 - 256), bytes(9)), "E_ZSTD_HEADER"),  # 2^27
    "Z7 dictionary": (frame(0x61, b"\x07" + struct.pack("<H", 1_000 - 256), bytes(9)), "E_ZSTD_HEADER"),
    "Z8": (packed(bytes(2_000)), "E_ZSTD_HEADER"),  # one segment, which no limit of windows bounds
    "Z9": (SHORT[:-3], "E_ZSTD_DATA"),
    "Z11": (struct.pack("<II", 0x184D2A50, 4) + b"evil" + SHORT, "E_ZSTD_HEADER"),
    "Z11 length": (struct.pack("<II", 0x184D2A50, 1_000) + SHORT, "E_ZSTD_HEADER"),  # read as the content's size
}


def test_a_good_frame_is_read() -> None:
    """So what is refused below is refused for its fault."""
    assert refusal(with_frame(SHORT)) is None
    assert refusal(with_frame(packed(bytes(1_000), write_checksum=True))) is None


@pytest.mark.parametrize("trap", HOSTILE_FRAMES)
def test_z_frames(trap: str) -> None:
    stored, expected = HOSTILE_FRAMES[trap]
    with at_most(1 << 20):
        assert refusal(with_frame(stored)) == expected


def test_z5_nothing_is_never_compressed() -> None:
    assert refusal(with_frame(packed(b""), raw=b"")) == "E_LENGTH"
    assert refusal(with_frame(b"", raw=b"", compressed=0)) is None


def test_z6_a_flipped_bit_in_a_block_is_found_twice() -> None:
    """A frame has no checksum unless it is asked for one: CRC and digest are ours."""
    raw = NOISE + bytes(1_000)
    stored = bytearray(packed(raw))
    stored[40] ^= 1
    assert zstandard.ZstdDecompressor().decompress(bytes(stored)) != raw  # silently
    flipped = with_frame(bytes(stored), raw)
    assert refusal(flipped) == "E_SECTION_DIGEST"
    assert refusal(flipped[:-20] + bytes([flipped[-20] ^ 1]) + flipped[-19:]) == "E_SECTION_CRC"


def test_z8_no_part_is_larger_than_8_mib() -> None:
    raw = bytes(limits.PART_BYTES + 1)
    assert refusal(with_frame(packed(raw), raw)) == "E_MANIFEST"


def test_z10_compression_is_no_identity() -> None:
    raw = np.random.default_rng(0).bytes(3_000) * 8
    whole = write_d3m(digits_draft(), filled(digits_draft()), None, {"x-note": raw})
    base = Pieces.of(whole)
    ids = set()
    for level in (1, 3, 19):
        parts = (*base.parts[:-1], (1, packed(raw, level=level)))
        ids.add(D3MFile.open(base.but(parts=parts).build()).content_id)
    assert ids == {D3MFile.open(whole).content_id}


def test_z12_a_budget_is_counted_in_raw_bytes() -> None:
    """1.1 GiB in 40 KB: refused before a byte is decompressed."""
    size = limits.PART_BYTES
    stored = packed(bytes(size), level=19)
    manifest = canonical.unpack(canonical.pack(PIECES.manifest))
    manifest["a"]["x"] = [[f"x-{number:03}", size] for number in range(140)]
    data = PIECES.but(manifest=manifest, parts=(*PIECES.parts[:NOTE], *[(1, stored)] * 140)).build()
    assert 140 * size / len(data) > 10_000
    with at_most(8 << 20):
        assert refusal(data) == "E_BUDGET"


# --------------------------------------------------------------------------------------------------- msgpack


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\x01"


PACKED = {
    "M1": (b"\x82\xa1a\x01\xa1a\x02", "E_PACK_ORDER"),  # the last one would win
    "M2 integer": (b"\xcf" + bytes(7) + b"\x01", "E_PACK_NONMINIMAL"),
    "M2 signed": (b"\xd0\x05", "E_PACK_NONMINIMAL"),
    "M2 string": (b"\xdb\0\0\0\x01a", "E_PACK_NONMINIMAL"),
    "M2 array": (b"\xdc\0\x01\x01", "E_PACK_NONMINIMAL"),
    "M2 long array": (b"\xdd\0\0\0\x01\x01", "E_PACK_TYPE"),
    "M3 extension": (b"\xd4\x05\0", "E_PACK_TYPE"),
    "M3 timestamp": (b"\xd6\xff\0\0\0\x01", "E_PACK_TYPE"),
    "M4": (b"\x81\xc4\x01a\x02", "E_PACK_KEY"),
    "M5 NaN": (b"\xcb\x7f\xf8" + bytes(6), "E_PACK_FLOAT"),
    "M5 infinity": (b"\xcb\x7f\xf0" + bytes(6), "E_PACK_FLOAT"),
    "M5 minus zero": (b"\xcb\x80" + bytes(7), "E_PACK_FLOAT"),
    "M5 float32": (b"\xca\x3f\x80\0\0", "E_PACK_TYPE"),
    "M6 nine": (nested(9), "E_PACK_DEPTH"),
    "M6 1,025": (nested(1_025), "E_PACK_DEPTH"),
    "M6 all": (nested(limits.MANIFEST_BYTES - 1), "E_PACK_DEPTH"),
    "M7": (b"\x92" + (b"\xdc\x80\0" + b"\x80" * 32_768) * 2, "E_PACK_NODES"),  # maps, each of which would be an object
    "M7 long array": (b"\xdd" + struct.pack(">I", 1_000_000) + b"\x80" * 1_000_000, "E_PACK_TYPE"),
    "M8": (b"\xdc\xff\xff" * 1_000 + b"\xc0" * 10_000, "E_PACK_DEPTH"),
    "M9": (b"\x92\x01", "E_PACK_TRUNC"),
    "M9 string": (b"\xdb\xff\xff\xff\xffa", "E_PACK_TRUNC"),
    "M10 two values": (b"\x01\x02", "E_PACK_TRAILING"),
    "M10 text": (b"\xa1\xff", "E_PACK_UTF8"),
    "M10 surrogate": (b"\xa3\xed\xa0\x80", "E_PACK_UTF8"),
    "M10 list as a key": (b"\x81\x91\x01\x02", "E_PACK_KEY"),
    "M12": (b"\x81\xa1a\xd6\xff\0\0\0\x01", "E_PACK_TYPE"),  # packing again and comparing would let it pass
}


@pytest.mark.parametrize("trap", PACKED)
def test_m_what_is_not_canonical(trap: str) -> None:
    data, expected = PACKED[trap]
    file = PIECES.but(manifest_bytes=data).build()
    with at_most((8 << 20) + 4 * len(file)):
        assert code(lambda: D3MFile.open(file)) == expected
    with pytest.raises(PackError):
        canonical.unpack(data)


def test_m11_what_is_written_is_sorted_and_plain() -> None:
    assert canonical.pack({"b": 1, "a": 2}) == canonical.pack({"a": 2, "b": 1}) == b"\x82\xa1a\x02\xa1b\x01"
    for value in (enum.IntEnum("Kind", "A").A, np.float64(0.5), np.int64(1), (1,), bytearray(b"a"), {1: 1}, -0.0):  # type: ignore[attr-defined]
        with pytest.raises(PackError):
            canonical.pack(value)


# -------------------------------------------------------------------------------------------------- pydantic


def records(kind: type[Record] = Record) -> list[type[Record]]:
    return [each for own in kind.__subclasses__() for each in (own, *records(own))]


def fields(schema: Any) -> Iterator[dict[str, Any]]:
    """Every map of a JSON schema."""
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from fields(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from fields(value)


def altered(path: str, value: Any) -> bytes:
    """The file with another value in its manifest: `path` in keys of the wire."""
    manifest = canonical.unpack(canonical.pack(PIECES.manifest))
    *steps, last = path.split(".")
    place = manifest
    for step in steps:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[last] = value
    return PIECES.but(manifest=manifest).build()


@pytest.mark.parametrize("value", ["10", 10.0, True, b"10", "1_0", None, [10], -1, 1 << 63])
def test_p1_p2_nothing_is_taken_for_an_integer(value: Any) -> None:
    assert code(lambda: D3MFile.open(altered("c.c.n", value))) == "E_MANIFEST"
    assert code(lambda: D3MFile.open(altered("c.g.0.r.n", value))) == "E_MANIFEST"  # deep inside


def test_p1_p6_every_record_is_strict_by_itself() -> None:
    """Strictness is not inherited by the records inside a record, so each has it."""
    assert len(records()) > 30
    for record in records():
        config = record.model_config
        assert config["strict"] is True
        assert config["extra"] == "forbid"
        assert config["frozen"] is True
        assert config["allow_inf_nan"] is False
        assert config["revalidate_instances"] == "always"
    for path in ("zz", "a.zz", "c.zz", "c.c.zz", "c.g.0.zz", "c.g.0.c.zz", "c.g.0.i.zz", "c.g.0.l.zz", "c.g.0.r.zz"):
        assert code(lambda path=path: D3MFile.open(altered(path, 1))) == "E_MANIFEST"  # type: ignore[misc]


def test_p2_p3_every_number_is_a_bounded_integer() -> None:
    schema = Manifest.model_json_schema()
    numbers = [field for field in fields(schema) if field.get("type") == "integer"]
    assert len(numbers) > 30
    for field in numbers:
        assert {"minimum", "exclusiveMinimum", "const"} & set(field), field
        assert {"maximum", "exclusiveMaximum", "const"} & set(field), field
    assert not [field for field in fields(schema) if field.get("type") == "number"]
    with pytest.raises(ManifestError):
        Classes(authority="none", count=10**400)


@pytest.mark.parametrize("text", ["a\0b", "\x1b[31m", "line\nbreak", "\x7f", "\x85", "", "x" * 4_097])
def test_p4_texts_are_clean_and_short(text: str) -> None:
    manifest = canonical.unpack(canonical.pack(PIECES.manifest))
    manifest["a"]["l"] = text
    assert code(lambda: D3MFile.open(PIECES.but(manifest=manifest).build())) == "E_MANIFEST"
    with pytest.raises(ManifestError):
        About(licence=text)
    with pytest.raises(ManifestError):
        About(licence="\ud800")


def test_p5_a_constant_is_no_bool_and_no_float() -> None:
    """Literal[1] would take True and 1.0: no field of ours is one of numbers."""
    for field in fields(Manifest.model_json_schema()):
        for constant in [field["const"]] if "const" in field else field.get("enum", []):
            assert constant is None or isinstance(constant, str), field


def test_p7_records_made_without_checks_get_nowhere() -> None:
    draft = digits_draft()
    with pytest.raises(Exception, match="frozen"):
        draft.classes.count = 11
    bad = Classes.model_construct(authority="none", count=-3)
    for wrong in (bad, draft.classes.model_copy(update={"count": -3})):
        with pytest.raises(ManifestError):
            Content(classes=wrong, groups=draft.groups, digests=bytes(32), lengths=(60, 40))
        with pytest.raises(D3MError):
            write_d3m(ContentDraft(wrong, draft.groups), filled(draft))


def test_p8_there_is_no_json_in_the_container() -> None:
    for path in (PACKAGE / "format").glob("*.py"):
        assert not re.search(r"import json|model_validate_json", path.read_text("utf-8")), path.name


def test_p9_errors_are_short_whatever_is_in_the_file() -> None:
    data = altered("c.c.a", "A" * 900_000)
    with pytest.raises(ManifestError) as error:
        D3MFile.open(data)
    assert len(str(error.value)) < 500
    assert len(json.dumps(error.value.as_json())) < 500


# ----------------------------------------------------------------------------------------------------- numpy


def sources() -> list[Path]:
    """What a reader runs."""
    return [*PACKAGE.glob("*.py"), *(path for folder in READING for path in (PACKAGE / folder).rglob("*.py"))]


def using(text: str) -> list[str]:
    """Sources of a reader that have this text."""
    return [path.name for path in sources() if text in path.read_text("utf-8")]


@pytest.mark.parametrize(
    ("name", "number"), [("emb", 0), ("lab", 0), ("lat", 1), ("lat", 2), ("img", 3), ("cls", None)]
)
def test_n1_bytes_behind_the_last_are_no_part_of_a_section(name: str, number: int | None) -> None:
    """`frombuffer` with a count would not see them."""
    sections = streams_once()
    for data in (sections[name, number] + b"\0", sections[name, number] + bytes(2), sections[name, number][:-1]):
        with pytest.raises(FormatError) as error:
            verify(D3MFile.open(write_d3m(coded_draft(), sections | {(name, number): data})))
        assert error.value.code in ("E_SECTION_VALUE", "E_SECTION_SIZE")


@cache
def streams_once() -> dict[tuple[str, int | None], bytes]:
    return quick_streams(coded_draft())


def test_n1_rows_of_a_fixed_length_are_counted_by_the_records() -> None:
    sections = filled(kinds_draft())
    for key in (("lab", 0), ("lab", 1), ("col", 1), ("ids", 3), ("tok", 1), ("fix", None)):
        with pytest.raises(FormatError) as error:
            write_d3m(kinds_draft(), sections | {key: sections[key] + b"\0"})
        assert error.value.code in ("E_SECTION_VALUE", "E_SECTION_SIZE")


def test_n2_no_dtype_comes_from_a_file() -> None:
    """Only dtypes that stand in the source."""
    found = 0
    for path in sources():
        if "frombuffer" not in (text := path.read_text("utf-8")):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("frombuffer"):
                found += 1
                dtype = node.args[1]
                own = ast.unparse(dtype).startswith("_index(")  # of topk.py: one of two
                assert own or isinstance(dtype, (ast.Constant, ast.Attribute)), f"{path.name}:{node.lineno}"
    assert found > 10
    assert not using("fromstring") + using("np.fromfile")


def test_n3_sizes_do_not_wrap() -> None:
    """2^20 classes of 2^20 images of 2^24 patches: 2^64 labels, 0 in 64 bits."""
    most = {"c.c.n": 1 << 20, "c.g.0.i.n": 1 << 20, "c.g.0.i.g": [4_096, 4_096], "c.g.0.i.s": [4_096, 4_096]}
    manifest = canonical.unpack(canonical.pack(PIECES.manifest))
    for path, value in most.items():
        *steps, last = path.split(".")
        place = manifest
        for step in steps:
            place = place[int(step)] if isinstance(place, list) else place[step]
        place[last] = value
    manifest["c"]["g"][0]["l"] = {"k": "q", "m": None, "s": 8, "w": 1 << 20}
    manifest["c"]["h"] = [bytes(32)]
    with at_most(1 << 20):
        assert code(lambda: D3MFile.open(PIECES.but(manifest=manifest).build())) == "E_MANIFEST"  # as many digests


def test_n4_n5_no_booleans_no_npy_and_no_pickle_in_a_file() -> None:
    assert not using('"?"') + using("import pickle") + using("np.loadtxt") + using("np.genfromtxt")
    assert using("np.load(") == ["arrays.py"]  # compares an npz that a decode is about to replace


def test_n6_r1_r2_r3_noise_is_not_numpys() -> None:
    assert not using("random.Philox")
    for counter, key, expected in (
        (0, 0, ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]),
        (0xFFFFFFFF, (1 << 64) - 1, ["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"]),
    ):
        words = noise.philox4x32(np.full((1, 4), counter, np.uint32), key)[0]
        assert [f"{word:08x}" for word in words] == expected
    assert noise.TABLE_SHA256 == "1cfbba1e07e34386a57626f82aeb43e6ed54ba70a3ea6b7d964dc66a841074a8"
    assert noise.normal_table().shape == (65_536,)  # checked against it


# ---------------------------------------------------------------------------------------------- safetensors, torch


def tensor_file(path: Path, head: dict[str, Any] | bytes, data: bytes = b"") -> Path:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def spans(first: int, last: int, shape: list[int] | None = None) -> dict[str, Any]:
    return {"dtype": "U8", "shape": [last - first] if shape is None else shape, "data_offsets": [first, last]}


S1 = {
    "overlap": ({"a": spans(0, 4), "b": spans(2, 6)}, b"abcdef"),
    "hole": ({"a": spans(0, 2), "b": spans(4, 6)}, b"abcdef"),
    "tail": ({"a": spans(0, 4)}, b"abcdX"),
    "short": ({"a": spans(0, 4)}, b"abc"),
    "size": ({"a": spans(0, 4, [3])}, b"abcd"),
    "overflow": ({"a": spans(0, 4, [1 << 40, 1 << 40])}, b"abcd"),
    "no JSON": (b"nothing at all", b""),
}


@pytest.mark.parametrize("trap", S1)
def test_s1_weights_that_do_not_fit_their_head(trap: str, tmp_path: Path) -> None:
    from d3codec.generators.files import read_tensors

    with pytest.raises(GeneratorError, match="cannot read the weights"):
        list(read_tensors(tensor_file(tmp_path / "x.safetensors", *S1[trap]), "stored"))


def test_s2_s5_what_safetensors_lets_pass_names_nothing(tmp_path: Path) -> None:
    """Names are names, never paths; an impossible shape of no bytes takes no memory."""
    from d3codec.generators.files import little_endian, read_tensors

    path = tensor_file(tmp_path / "x.safetensors", {"../../x": spans(0, 4), "b": spans(4, 4, [0, 1 << 62])}, b"abcd")
    before = sorted(tmp_path.parent.rglob("*"))
    found = {name: (tuple(tensor.shape), little_endian(tensor)) for name, tensor in read_tensors(path, "stored")}
    assert found == {"../../x": ((4,), b"abcd"), "b": ((0, 1 << 62), b"")}
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_s3_s4_a_generator_is_known_by_its_numbers_alone(tmp_path: Path) -> None:
    """One bit of a weight makes another generator; metadata and the order of tensors do not."""
    from d3codec.generators.weights import bundled_generator, describe

    folder = shutil.copytree(bundled_generator(), tmp_path / "generator")
    known = describe(folder, "f16", trust_records=False).id
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    head = json.loads(data[8 : 8 + size])
    turned = dict(reversed(head.items())) | {"__metadata__": {"url": "https://example.org/x"}}
    tensor_file(path, turned, data[8 + size :])
    assert describe(folder, "f16", trust_records=False).id == known
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert describe(folder, "f16", trust_records=False).id != known


def test_t1_t2_t3_pickled_weights_are_never_read(tmp_path: Path) -> None:
    from d3codec.generators.weights import bundled_generator, describe

    folder = shutil.copytree(bundled_generator(), tmp_path / "generator")
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    with pytest.raises(MissingGeneratorError, match="never reads pickled weights"):
        describe(folder, "f16", trust_records=False)
    assert not using("torch.load(")


# ---------------------------------------------------------------------------------------------------- Pillow


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    right = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", right if crc is None else crc)


def png(width: int, height: int, pixels: bytes = b"", crc: int | None = None) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(pixels), crc) + chunk(b"IEND", b"")


def of_sheet(sheet: bytes) -> bytes:
    """A file whose two images of 8 x 8 pixels are on this sheet of 8 x 16."""
    group = craft_group(
        conditioning=NoConditioning(),
        cast="stored",
        generator=None,
        images=Images(grid=(1, 1), count=1, size=(8, 8)),
        labels=HardLabels(),
        recipe=sheets(per_sheet=2),
    )
    draft = ContentDraft(Classes(authority="none", count=2), (group,))
    return write_d3m(draft, {("cls", None): b"\ta\n\tb\n", ("img", 0): images.join_sheets([sheet])})


GOOD = png(16, 8, (b"\0" + bytes(48)) * 8)


def gif() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 8)).save(stream, "GIF")
    return stream.getvalue()


HOSTILE_SHEETS = {
    "I1 81 megapixels": png(9_000, 9_000),  # Pillow says nothing
    "I1 100 megapixels": png(10_000, 10_000),
    "I1 196 megapixels": png(14_000, 14_000),
    "I1 2^62": png((1 << 31) - 1, (1 << 31) - 1),
    "I2 CRC": png(16, 8, (b"\0" + bytes(48)) * 8, crc=0),
    "I2 tail": GOOD + b"PK junk",
    "I2 no end": GOOD[:-12],
    "I2 cut": GOOD[:-14],
    "I3 another format": gif(),
    "I3 in front": b"junk" + GOOD,
}


def test_a_good_sheet_is_read() -> None:
    assert refusal(of_sheet(GOOD)) is None


@pytest.mark.parametrize("trap", HOSTILE_SHEETS)
def test_i_sheets(trap: str) -> None:
    data = of_sheet(HOSTILE_SHEETS[trap])
    with at_most(1 << 20):
        assert refusal(data) == "E_SECTION_VALUE"


def test_i2_pixels_that_do_not_fill_the_sheet_are_found_when_they_are_decoded() -> None:
    file = D3MFile.open(of_sheet(png(16, 8, b"\0" + bytes(40))))
    assert code(lambda: verify(file)) is None  # heads alone
    from d3codec.decoder.renderers import sheet_renderer

    assert code(lambda: sheet_renderer(file, 0).tiles([0])) == "E_SECTION_VALUE"


def test_a_file_glued_to_another_is_neither() -> None:
    """A zip is read from its end, a PNG from its front."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x", "y")
    assert refusal(DIGITS + stream.getvalue()) == "E_LENGTH"
    assert refusal(GOOD + DIGITS) == refusal(stream.getvalue() + DIGITS) == "E_MAGIC"
