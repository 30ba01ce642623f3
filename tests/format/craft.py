"""Small files for tests, and files with one fault in them whose checksums are right around it."""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from d3codec.format import canonical
from d3codec.format.file import ClassRecord, ContentDraft, pack_classes, write_d3m
from d3codec.format.manifest import (
    Classes,
    DeltaConditioning,
    Group,
    HardLabels,
    Images,
    QuantizedLabels,
    Recipe,
    WordsConditioning,
    section_plan,
)

__all__ = ["Pieces", "delta", "digits_draft", "filled", "group", "recipe", "rich_draft", "words", "write_d3m"]

MAGIC = b"\x89D3M\r\n\x1a\n"


def recipe(**changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "betas": ("scaled", 850, 12_000, 1_000),
        "final_alpha": "first",
        "guidance": 2_000_000,
        "steps": 10,
        "prediction": "eps",
        "timesteps": ("leading", 1),
    }
    return Recipe(**(values | changes))


def delta(**changes: Any) -> DeltaConditioning:
    values: dict[str, Any] = {
        "template": (1, 17, 23, 9, 40, 41, 2),
        "negative": (1, 2),
        "padding": (0, 16),
        "slots": (4,),
        "initial_token": 42,
        "bits": 2,
        "width": 64,
    }
    return DeltaConditioning(**(values | changes))


def words(**changes: Any) -> WordsConditioning:
    values: dict[str, Any] = {"template": (1, 300, 301, 2), "negative": None, "padding": (0, 16), "slots": (1, 2)}
    return WordsConditioning(**(values | changes))


def group(**changes: Any) -> Group:
    values: dict[str, Any] = {
        "conditioning": delta(),
        "cast": "f16",
        "generator": hashlib.sha256(b"generator").digest(),
        "images": Images(grid=(2, 2), count=1, size=(64, 64)),
        "noise_key": 0x0123456789ABCDEF,
        "labels": QuantizedLabels(step=8, width=10),
        "recipe": recipe(),
    }
    return Group(**(values | changes))


def digits_draft() -> ContentDraft:
    """Ten classes, one collage a class: the shape of the bundled digits file."""
    return ContentDraft(Classes(authority="none", count=10), (group(),))


def rich_draft() -> ContentDraft:
    """Two groups, both kinds of conditioning and of labels, and more than 64 KiB of raw bytes."""
    learned = group(
        images=Images(grid=(2, 2), count=40, size=(32, 32)),
        labels=QuantizedLabels(step=8, width=30),
        conditioning=delta(bits=3, width=5),
    )
    named = group(
        conditioning=words(),
        labels=HardLabels(),
        noise_key=7,
        cast="stored",
        images=Images(grid=(1, 2), count=3, size=(32, 64)),
        recipe=recipe(guidance=1_000_000),
    )
    return ContentDraft(Classes(authority="wordnet-3.0", count=30), (learned, named))


def filled(draft: ContentDraft, seed: int = 1, *, sparse: bool = False) -> dict[tuple[str, int | None], bytes]:
    """Sections of the right size for a draft; sparse ones compress well."""
    generator = random.Random(seed)
    none = draft.classes.authority == "none"
    sections: dict[tuple[str, int | None], bytes] = {
        ("cls", None): pack_classes(
            [ClassRecord("" if none else f"n{number:08}", f"class {number}") for number in range(draft.classes.count)]
        )
    }
    for name, number, rows, row_bytes in section_plan(draft)[1:]:
        assert number is not None
        assert rows is not None
        assert row_bytes is not None
        conditioning = draft.groups[number].conditioning
        if name == "emb" and isinstance(conditioning, DeltaConditioning):
            bits = len(conditioning.slots) * conditioning.width * conditioning.bits
            sections[name, number] = b"".join(
                struct.pack("<e", 0.001 * (1 + row)) + generator.getrandbits(bits).to_bytes(row_bytes - 2, "little")
                for row in range(rows)
            )
        else:
            sections[name, number] = bytes(rows * row_bytes) if sparse else generator.randbytes(rows * row_bytes)
    return sections


@dataclass(frozen=True)
class Pieces:
    """A file in pieces that can be changed one by one; `build` puts them together with right checksums.

    `parts` holds (codec, stored bytes). Fields that are None follow from the others.
    """

    manifest: Any
    parts: tuple[tuple[int, bytes], ...]
    manifest_bytes: bytes | None = None
    magic: bytes = MAGIC
    version: tuple[int, int] = (0, 1)
    features: int = 0
    reserved: int = 0
    manifest_length: int | None = None
    count: int | None = None
    file_length: int | None = None
    table: bytes | None = None
    head_crc: int | None = None
    tail: bytes = b""
    zeros: dict[int, tuple[int, int]] = field(default_factory=dict)
    crcs: dict[int, int] = field(default_factory=dict)
    stated: dict[int, int] = field(default_factory=dict)  # stored lengths that are not those of the parts

    @classmethod
    def of(cls, data: bytes) -> Pieces:
        length, count = struct.unpack_from("<IH", data, 16)
        end = 32 + 12 * count + length
        offset, parts = end + 4, []
        for stored, codec, *_ in struct.iter_unpack("<IBBHI", data[32 : 32 + 12 * count]):
            parts.append((codec, data[offset : offset + stored]))
            offset += stored
        return cls(canonical.unpack(data[32 + 12 * count : end]), tuple(parts))

    def build(self) -> bytes:
        manifest = canonical.pack(self.manifest) if self.manifest_bytes is None else self.manifest_bytes
        table = b"".join(
            struct.pack(
                "<IBBHI",
                self.stated.get(number, len(stored)),
                codec,
                *self.zeros.get(number, (0, 0)),
                self.crcs.get(number, zlib.crc32(stored)),
            )
            for number, (codec, stored) in enumerate(self.parts)
        )
        table = table if self.table is None else self.table
        body = b"".join(stored for _, stored in self.parts)
        total = 36 + len(table) + len(manifest) + len(body)
        head = (
            self.magic
            + struct.pack(
                "<HHIIHHQ",
                *self.version,
                self.features,
                _given(self.manifest_length, len(manifest)),
                _given(self.count, len(self.parts)),
                self.reserved,
                _given(self.file_length, total),
            )
            + table
            + manifest
        )
        return head + struct.pack("<I", _given(self.head_crc, zlib.crc32(head))) + body + self.tail

    def but(self, **changes: Any) -> Pieces:
        return replace(self, **changes)

    def redigested(self, raw: Iterable[bytes]) -> Pieces:
        """The same with the one digest over these raw parts, stored as they are."""
        parts = tuple(raw)
        manifest = canonical.unpack(canonical.pack(self.manifest))
        manifest["c"]["h"] = hashlib.sha256(b"".join(parts)).digest()
        return replace(self, manifest=manifest, parts=tuple((0, part) for part in parts))


def _given(value: int | None, default: int) -> int:
    return default if value is None else value
