"""Small files for tests, and files with one fault in them whose checksums are right around it."""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from d3codec.format import canonical
from d3codec.format.file import ClassRecord, ContentDraft, pack_classes, write_d3m
from d3codec.format.limits import VERSION
from d3codec.format.manifest import (
    TRANSFORM,
    AdaptiveLabels,
    Classes,
    ClassIdConditioning,
    DdimRecipe,
    DecodeRecipe,
    DeltaConditioning,
    EulerRecipe,
    Exact,
    GddAugmentation,
    Group,
    HardLabels,
    Images,
    NoConditioning,
    QuantizedLabels,
    RankedHeadLabels,
    Raw16Labels,
    ReinjectRecipe,
    SecondEncoder,
    SheetsRecipe,
    Start,
    StoredLatents,
    TokensConditioning,
    TopkLabels,
    VectorsConditioning,
    Window,
    WordsConditioning,
    conditioning_rows,
    label_rows,
    section_plan,
)
from d3codec.format.plan import quantized_blocks

__all__ = [
    "Pieces",
    "class_ids",
    "coded_draft",
    "delta",
    "digits_draft",
    "euler",
    "exact_digits_draft",
    "filled",
    "group",
    "kinds_draft",
    "quick_streams",
    "recipe",
    "reinject",
    "rich_draft",
    "sheets",
    "stored_draft",
    "streams",
    "tokens",
    "vectors",
    "words",
    "write_d3m",
]

MAGIC = b"\x89D3M\r\n\x1a\n"
SCHEDULE: dict[str, Any] = {
    "betas": ("scaled", 850, 12_000, 1_000),
    "guidance": 2_000_000,
    "steps": 10,
    "prediction": "eps",
    "timesteps": ("leading", 1),
}
LATENTS = StoredLatents(bits=3, shape=(4, 2, 3))
SECOND = SecondEncoder(pad_id=0, time_ids=(64, 64, 0, 0, 64, 64), width=0)


def recipe(**changes: Any) -> DdimRecipe:
    return DdimRecipe(**(SCHEDULE | {"final_alpha": "first"} | changes))


def reinject(**changes: Any) -> ReinjectRecipe:
    start = Start(a=200_000, b=900_000, stored=LATENTS)
    return ReinjectRecipe(**(SCHEDULE | {"final_alpha": "one", "start": start} | changes))


def euler(**changes: Any) -> EulerRecipe:
    values: dict[str, Any] = {"sampler": "euler", "initial": "sigma", "sigmas": "karras", "timesteps": ("linspace", 0)}
    return EulerRecipe(**(SCHEDULE | values | changes))


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


def tokens(**changes: Any) -> TokensConditioning:
    return TokensConditioning(**({"negative": "zeros", "padding": (0, 9), "rows": "image"} | changes))


def vectors(**changes: Any) -> VectorsConditioning:
    return VectorsConditioning(**({"bits": 3, "negative": "row", "rows": "image", "slots": 2, "width": 5} | changes))


def class_ids(**changes: Any) -> ClassIdConditioning:
    return ClassIdConditioning(**({"negative": 1_000} | changes))


def sheets(**changes: Any) -> SheetsRecipe:
    return SheetsRecipe(**({"format": "png", "per_sheet": 3, "columns": 2} | changes))


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


def exact_digits_draft() -> ContentDraft:
    """The same as an exact file with corrections."""
    exact = Exact(pixels=hashlib.sha256(b"pixels").digest(), corrections=3)
    return ContentDraft(Classes(authority="none", count=10), (group(),), exact)


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


def kinds_draft() -> ContentDraft:
    """Every kind of every record, in five groups of an exact file."""
    small = Images(grid=(1, 1), count=2, size=(8, 8))
    window = Window(generated=(16, 24), block=(4, 8, 12, 16))
    exact = Exact(pixels=hashlib.sha256(b"kinds").digest(), corrections=5)
    groups = (
        group(
            conditioning=delta(second=SECOND.model_copy(update={"width": 3}), width=5, bits=3, rows="image"),
            images=Images(grid=(1, 1), count=4, size=(8, 8), augmentation=GddAugmentation(copies=1)),
            labels=QuantizedLabels(step=8, width=2),
            recipe=recipe(eta=1_000_000, timesteps=("trailing", 0), prediction="v"),
        ),
        group(
            conditioning=tokens(second=SECOND),
            images=Images(grid=(2, 1), count=2, size=(8, 8), window=window),
            labels=Raw16Labels(width=5, columns="col"),
            recipe=euler(start=Start(a=1_000_000, b=500_000, stored=LATENTS)),
            outside_bytes=12_345,
        ),
        group(conditioning=vectors(), images=small, labels=QuantizedLabels(step=1, width=2), recipe=reinject()),
        group(
            conditioning=class_ids(),
            images=small,
            labels=TopkLabels(k=2, width=3, columns="col"),
            recipe=euler(sampler="euler-ancestral", initial="root", sigmas="table"),
        ),
        group(
            conditioning=words(negative="zeros", rows="image"),
            images=small,
            labels=HardLabels(),
            recipe=recipe(prediction="sample", betas=("linear", 100, 20_000, 1_000)),
        ),
    )
    return ContentDraft(Classes(authority="none", count=2), groups, exact)


def stored_draft() -> ContentDraft:
    """Three groups of an exact file: chosen candidates, stored latents that are decoded, stored images."""
    small = Images(grid=(1, 1), count=2, size=(8, 8))
    exact = Exact(pixels=hashlib.sha256(b"stored").digest(), corrections=0)
    groups = (
        group(
            images=Images(grid=(2, 2), count=3, size=(64, 64), candidates=3),
            labels=AdaptiveLabels(width=2),
            noise_key=5,
        ),
        group(conditioning=NoConditioning(), images=small, labels=HardLabels(), recipe=DecodeRecipe(latents=LATENTS)),
        group(
            conditioning=NoConditioning(),
            cast="stored",
            generator=None,
            images=small,
            labels=AdaptiveLabels(width=9, columns="col"),
            recipe=sheets(),
        ),
    )
    return ContentDraft(Classes(authority="none", count=2), groups, exact)


def coded_draft() -> ContentDraft:
    """Every section of free length but `fix` and `tok`: groups of coded rows, latents and labels, one of sheets."""
    images = Images(grid=(2, 1), count=2, size=(8, 8))
    stored = Start(a=200_000, b=900_000, stored=StoredLatents(bits=3, coding=1, shape=(4, 2, 3)))
    groups = (
        group(conditioning=delta(coded=True, width=5), images=images, labels=RankedHeadLabels(width=3)),
        group(
            conditioning=vectors(coded=True),
            images=images,
            labels=RankedHeadLabels(width=7, columns="col"),
            recipe=reinject(start=stored),
        ),
        group(
            conditioning=NoConditioning(),
            images=images,
            labels=AdaptiveLabels(width=3),
            recipe=DecodeRecipe(latents=StoredLatents(bits=0, coding=2, shape=(4, 2, 3))),
        ),
        group(
            conditioning=NoConditioning(),
            cast="stored",
            generator=None,
            images=images,
            labels=HardLabels(),
            recipe=sheets(format="webp"),
        ),
    )
    return ContentDraft(Classes(authority="none", count=3), groups)


def filled(draft: ContentDraft, seed: int = 1, *, sparse: bool = False) -> dict[tuple[str, int | None], bytes]:
    """Sections that fit a draft; sparse ones compress well. Streams of codecs are any bytes."""
    generator = random.Random(seed)
    none = draft.classes.authority == "none"
    names = [ClassRecord("" if none else f"n{number:08}", f"class {number}") for number in range(draft.classes.count)]
    sections: dict[tuple[str, int | None], bytes] = {}
    for name, number, rows, row_bytes in section_plan(draft):
        size = generator.randrange(30, 60) if rows is None else rows * (row_bytes or 0)
        if name == "cls":
            data = pack_classes(names)
        elif number is None:
            data = corrections(getattr(draft.profile, "corrections", 0), generator)
        elif name == "tok":
            data = sequences(draft.groups[number], draft.classes.count, generator)
        elif name in ("emb", "lat") and rows is not None:
            data = quantized(draft.groups[number], name, rows or 0, generator)
        elif name == "cnd":
            data = choices(draft.groups[number], rows or 0, generator)
        elif name == "ids":
            data = b"".join(struct.pack("<I", generator.randrange(1 << 31)) for _ in range(rows or 0))
        elif name == "col":
            columns = generator.sample(range(getattr(draft.groups[number].labels, "width", 0)), rows or 0)
            data = struct.pack(f"<{len(columns)}I", *columns)
        elif name == "lab" and draft.groups[number].labels.kind in ("f", "t"):
            data = halves(draft.groups[number].labels, rows or 0, generator)
        else:
            data = bytes(size) if sparse else generator.randbytes(size)
        sections[name, number] = data
    return sections


def quantized(record: Group, name: str, rows: int, generator: random.Random) -> bytes:
    """Rows of blocks of quantized numbers, scales 0.001, 0.002, ..."""
    stored = record.recipe.start.stored
    if name == "lat" and stored is not None:
        blocks = [stored.values * stored.bits]
    else:
        blocks = [size * getattr(record.conditioning, "bits", 0) for size in quantized_blocks(record)]
    return b"".join(
        struct.pack("<e", 0.001 * (1 + row)) + generator.getrandbits(bits).to_bytes(-(-bits // 8), "little")
        for row in range(rows)
        for bits in blocks
    )


def choices(record: Group, classes: int, generator: random.Random) -> bytes:
    """Rows of section `cnd`."""
    bits = record.images.sources * (record.images.candidates or 0)
    return b"".join(generator.getrandbits(bits).to_bytes(-(-bits // 8), "little") for _ in range(classes))


def streams(draft: ContentDraft) -> dict[tuple[str, int | None], bytes]:
    """Sections that fit a draft, with real streams in those of free length."""
    from d3codec import images, labels
    from d3codec.conditioning import coded, transform
    from d3codec.labels import adaptive

    sections, rng = filled(draft), np.random.default_rng(5)
    for name, number in sections:
        if number is None:
            continue
        record, classes = draft.groups[number], draft.classes.count
        stored, sources = record.recipe.start.stored, classes * record.images.sources
        if name == "emb" and getattr(record.conditioning, "coded", False):
            shape = conditioning_rows(record, classes), sum(quantized_blocks(record))
            sections[name, number] = coded.encode(rng.normal(size=shape), 40.0)
        elif name == "lat" and stored is not None and stored.coding == TRANSFORM:
            sections[name, number] = transform.encode_at(rng.normal(size=(sources, *stored.shape)), 0.5)
        elif name == "lat" and stored is not None and stored.coded:
            sections[name, number] = coded.encode(rng.normal(size=(sources, stored.values)), 40.0)
        elif name == "img" and isinstance(record.recipe, SheetsRecipe):
            tiles, per_sheet = rng.integers(0, 256, (sources, 8, 8, 3), np.uint8), record.recipe.per_sheet
            form, quality = record.recipe.format, None if record.recipe.format == "png" else 50
            files = [
                images.encode_sheet(tiles[first : first + per_sheet], record.recipe.columns, form, quality)
                for first in range(0, sources, per_sheet)
            ]
            sections[name, number] = images.join_sheets(files)
        elif name == "lab" and record.labels.kind in ("r", "a"):
            rows, width = label_rows(record, classes), getattr(record.labels, "width", 0)
            columns = np.frombuffer(sections.get(("col", number)) or np.arange(classes, dtype="<u4").tobytes(), "<u4")
            of_row = np.repeat(columns.astype(np.int64), rows // classes)
            logits = rng.normal(scale=3, size=(rows, width))
            if isinstance(record.labels, AdaptiveLabels):
                sections[name, number] = adaptive.encode(logits, of_row, step=64)
            else:
                sections[name, number] = labels.encode_logits(logits, classes=of_row, bytes_per_label=200)
    return sections


_QUICK: dict[ContentDraft, dict[tuple[str, int | None], bytes]] = {}


def quick_streams(draft: ContentDraft) -> dict[tuple[str, int | None], bytes]:
    """The same, but coded rows take the first step that comes, which is searched for in no time."""
    import pytest

    from d3codec.conditioning import coded

    def encode(values: Any, _bits: float) -> bytes:
        setting = coded._Setting(odd=True, spread=0.5, strength=0.0)
        return coded._quantize(values, 0.25, setting).written(coded.Layout(*values.shape))

    if draft not in _QUICK:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(coded, "encode", encode)
            _QUICK[draft] = streams(draft)
    return dict(_QUICK[draft])


def halves(labels: Any, rows: int, generator: random.Random) -> bytes:
    """Rows of labels of kind `f` or `t`, of at most 65,536 columns."""
    if labels.kind == "f":
        return b"".join(struct.pack("<e", generator.uniform(-9, 9)) for _ in range(rows * labels.width))
    data = b""
    for _ in range(rows):
        columns = generator.sample(range(labels.width), labels.k)
        logits = sorted((generator.uniform(0, 9) for _ in columns), reverse=True)
        data += struct.pack(f"<{labels.k}H{labels.k}e", *columns, *logits)
    return data


def sequences(record: Group, classes: int, generator: random.Random) -> bytes:
    """Rows of section `tok`."""
    assert isinstance(record.conditioning, TokensConditioning)
    data = b""
    for _ in range(conditioning_rows(record, classes)):
        length = generator.randint(1, record.conditioning.padding[1])
        data += struct.pack(f"<{length + 1}H", length, *(generator.randrange(1 << 16) for _ in range(length)))
    return data


def corrections(count: int, generator: random.Random) -> bytes:
    """Entries of section `fix`, all within the first 400 positions."""
    steps = [generator.randint(1, 400 // count) for _ in range(count)]
    low = (bytes([step]) if step < 128 else bytes([step & 0x7F | 0x80, step >> 7]) for step in steps)
    return b"".join(step + generator.randbytes(1) for step in low)


@dataclass(frozen=True)
class Pieces:
    """A file in pieces that can be changed one by one; `build` puts them together with right checksums.

    `parts` holds (codec, stored bytes). Fields that are None follow from the others.
    """

    manifest: Any
    parts: tuple[tuple[int, bytes], ...]
    manifest_bytes: bytes | None = None
    magic: bytes = MAGIC
    version: tuple[int, int] = VERSION
    features: int = 0
    reserved: int = 0
    manifest_length: int | None = None
    count: int | None = None
    file_length: int | None = None
    table: bytes | None = None
    head_crc: int | None = None
    tail: bytes = b""
    crcs: dict[int, int] = field(default_factory=dict)
    stated: dict[int, int] = field(default_factory=dict)  # stored lengths that are not those of the parts

    @classmethod
    def of(cls, data: bytes) -> Pieces:
        length, count = struct.unpack_from("<IH", data, 16)
        end = 32 + 8 * count + length
        offset, parts = end + 4, []
        for row in struct.iter_unpack("<HBBI", data[32 : 32 + 8 * count]):
            stored, codec = row[0] | row[1] << 16, row[2]
            parts.append((codec, data[offset : offset + stored]))
            offset += stored
        return cls(canonical.unpack(data[32 + 8 * count : end]), tuple(parts))

    def build(self) -> bytes:
        manifest = canonical.pack(self.manifest) if self.manifest_bytes is None else self.manifest_bytes
        table = b"".join(
            self.stated.get(number, len(stored)).to_bytes(3, "little")
            + struct.pack("<BI", codec, self.crcs.get(number, zlib.crc32(stored)))
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
