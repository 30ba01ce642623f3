"""Conditioning rows -> what the denoiser is given: token ids, learned vectors or class ids through the text encoders.

Rows are encoded once, in blocks of eight that do not depend on what is asked for (spec section 7), so a row's
bits are the same in every decode under one fingerprint.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from d3codec.conditioning import class_ids, coded, delta, quantized, tokens, vectors, words
from d3codec.decoder.precision import operators, settings
from d3codec.errors import GeneratorError, SectionError
from d3codec.format.limits import MILLION
from d3codec.format.manifest import (
    ClassIdConditioning,
    DeltaConditioning,
    Group,
    NoConditioning,
    TokensConditioning,
    VectorsConditioning,
    WordsConditioning,
)
from d3codec.generators.condition import Condition, Generator
from d3codec.generators.weights import require_torch

BLOCK_ROWS = 8
KEPT_BLOCKS = 16  # the blocks of the units that are being decoded, and some to spare

Text = DeltaConditioning | WordsConditioning | TokensConditioning


class ConditioningRows:
    """The rows of one group, ready for its generator.

    Arguments:
        group: its records. data: the raw bytes of its `emb`, `wrd`, `tok` or `ids` section.
        generator: loaded in the profile's dtype. classes: of the dataset.

    Attributes:
        by_class: whether there is a row a class, not one a source.
        unconditional: what guidance steers away from, a batch of one, or None.

    Raises:
        GeneratorError: a generator that cannot use this conditioning.
        SectionError: bytes that break the specification.
    """

    def __init__(self, group: Group, data: bytes, generator: Generator, profile: str, classes: int) -> None:
        self._generator, self._profile = generator, profile
        conditioning = group.conditioning
        assert not isinstance(conditioning, NoConditioning)
        self.by_class = conditioning.rows == "class"
        self._count = classes * (1 if self.by_class else group.images.sources)
        self._blocks: OrderedDict[int, Condition] = OrderedDict()
        self._rows: _Rows
        if isinstance(conditioning, ClassIdConditioning):
            self._rows = _ClassIds(conditioning, data, self._count, generator)
        elif isinstance(conditioning, VectorsConditioning):
            self._rows = _Vectors(conditioning, data, self._count, generator)
        else:
            self._rows = _Prompts(conditioning, data, self._count, generator)
        self.unconditional = self._unconditional() if group.recipe.guidance != MILLION else None

    def __call__(self, rows: np.ndarray) -> Condition:
        """The conditions of some rows, int64 [batch], in that order."""
        torch = require_torch()
        blocks = sorted({int(row) // BLOCK_ROWS for row in rows})
        first = {block: place * BLOCK_ROWS for place, block in enumerate(blocks)}
        places = [first[int(row) // BLOCK_ROWS] + int(row) % BLOCK_ROWS for row in rows]
        return Condition.cat([self._block(block) for block in blocks])[torch.tensor(places)]

    def _block(self, block: int) -> Condition:
        if block not in self._blocks:
            rows = np.minimum(np.arange(block * BLOCK_ROWS, (block + 1) * BLOCK_ROWS), self._count - 1)
            with settings(self._profile, self._generator.device.type), operators(self._profile):
                self._blocks[block] = self._rows.encode(rows)
            while len(self._blocks) > KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(block)
        return self._blocks[block]

    def _unconditional(self) -> Condition:
        first = self._block(0)[slice(0, 1)]
        with settings(self._profile, self._generator.device.type), operators(self._profile):
            found = self._rows.encode_negative()
        return first.zeroed() if found is None else found


class _Rows(Protocol):
    """Rows of one kind of conditioning."""

    def encode(self, rows: np.ndarray) -> Condition:
        """The conditions of some rows, int64 [batch], ascending."""

    def encode_negative(self) -> Condition | None:
        """The unconditional branch, a batch of one; None: zeros in the place of a row's values."""


class _ClassIds:
    def __init__(self, record: ClassIdConditioning, data: bytes, count: int, generator: Generator) -> None:
        _check(generator, "conditioning class-id", "text encoders", len(generator.text_widths), 0)
        self._negative, self._generator = record.negative, generator
        self._ids = class_ids.decode(data, count)

    def encode(self, rows: np.ndarray) -> Condition:
        return self._generator.encode_classes(self._ids[rows])

    def encode_negative(self) -> Condition:
        return self._generator.encode_classes(np.array([self._negative], np.int64))


class _Vectors:
    def __init__(self, record: VectorsConditioning, data: bytes, count: int, generator: Generator) -> None:
        _check(generator, "conditioning vectors", "width", record.width, generator.hidden_width)
        self._record, self._generator, self._data, self._count = record, generator, data, count

    def encode(self, rows: np.ndarray) -> Condition:
        first, last = int(rows[0]), int(rows[-1])
        return self._generator.encode_vectors(self._stored(first, last)[rows - first])

    def encode_negative(self) -> Condition | None:
        if self._record.negative != "row":
            return None
        return self._generator.encode_vectors(self._stored(self._count, self._count))

    def _stored(self, first: int, last: int) -> np.ndarray:
        slots, width, bits = self._record.slots, self._record.width, self._record.bits
        if self._record.coded:
            stored, count = self._count + (self._record.negative == "row"), last - first + 1
            found = coded.decode(self._data, stored, slots * width, "emb", first=first, count=count)
            return found.reshape(count, slots, width)
        part = rows_of(self._data, quantized.row_bytes(slots * width, bits), first, last)
        return vectors.decode(part, last - first + 1, slots, width, bits)


class _Prompts:
    """Token ids by row, and for learned embeddings vectors of each text encoder, decoded when they are asked for."""

    def __init__(self, record: Text, data: bytes, count: int, generator: Generator) -> None:
        encoders = 1 if record.second is None else 2
        _check(generator, f"conditioning {record.kind}", "text encoders", encoders, len(generator.text_widths))
        self._record, self._generator, self._data, self._count = record, generator, data, count
        self._sequences = tokens.decode(data, count) if isinstance(record, TokensConditioning) else []
        if isinstance(record, DeltaConditioning):
            _check(generator, "conditioning delta", "width", record.widths, tuple(generator.text_widths))
            self._initial = [
                generator.token_embedding(record.initial_token, encoder) for encoder in range(len(record.widths))
            ]

    def encode(self, rows: np.ndarray) -> Condition:
        record, first, last = self._record, int(rows[0]), int(rows[-1])
        if isinstance(record, TokensConditioning):
            return self._through_encoders([self._sequences[row] for row in rows], (), None)
        template, slots, count = np.array(record.template, np.int64), record.slots, last - first + 1
        if isinstance(record, WordsConditioning):
            part = rows_of(self._data, 2 * len(slots), first, last)
            ids = np.repeat(template[None], len(rows), axis=0)
            ids[:, slots] = words.decode(part, count, len(slots))[rows - first]
            return self._through_encoders(list(ids), (), None)
        learned = self._differences(record, first, last)
        sums = [start + values[rows - first] for start, values in zip(self._initial, learned, strict=True)]
        return self._through_encoders([template] * len(rows), slots, sums)

    def encode_negative(self) -> Condition | None:
        negative = self._record.negative
        if not isinstance(negative, tuple):
            return None
        # In a batch of the usual size: another one could have other bits.
        return self._through_encoders([np.array(negative, np.int64)] * BLOCK_ROWS, (), None)[slice(0, 1)]

    def _differences(self, record: DeltaConditioning, first: int, last: int) -> list[np.ndarray]:
        """Those of some rows, both ends included, for each text encoder: float64 [rows, slots, width]."""
        slots, count = len(record.slots), last - first + 1
        if record.coded:
            ends = np.cumsum([slots * width for width in record.widths])
            found = coded.decode(self._data, self._count, int(ends[-1]), "emb", first=first, count=count)
            return [part.reshape(count, slots, -1) for part in np.split(found, ends[:-1], axis=1)]
        part = rows_of(self._data, delta.row_bytes(slots, record.widths, record.bits), first, last)
        return delta.decode(part, count, slots, record.widths, record.bits)

    def _through_encoders(
        self, ids: Sequence[np.ndarray], slots: tuple[int, ...], learned: list[np.ndarray] | None
    ) -> Condition:
        second, (pad, length) = self._record.second, self._record.padding
        pads = [pad] + ([] if second is None else [second.pad_id])
        padded = [np.stack([np.pad(row, (0, length - len(row)), constant_values=end) for row in ids]) for end in pads]
        ends = np.array([len(row) - 1 for row in ids], np.int64)
        time_ids = None if second is None else second.time_ids
        return self._generator.encode_text(padded, slots, learned, ends=ends, time_ids=time_ids)


def rows_of(data: bytes, row_bytes: int, first: int, last: int) -> bytes:
    """The bytes of some rows of a section of fixed rows, both ends included; SectionError if they are not there."""
    part = data[first * row_bytes : (last + 1) * row_bytes]
    if len(part) != (last + 1 - first) * row_bytes:
        raise SectionError("E_SECTION_SIZE", field=f"rows {first} to {last}", found=f"{len(part)} bytes")
    return part


def _check(generator: Generator, kind: str, field: str, found: object, expected: object) -> None:
    if found != expected:
        raise GeneratorError(
            f"the {kind} does not fit the generator",
            file=str(generator.folder),
            field=field,
            found=found,
            expected=expected,
        )
