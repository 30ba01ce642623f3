"""What a reader must find in a file: verdict, content id, sections, values of level L2, noise of level L1."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from d3codec import corrections, noise
from d3codec.conditioning import candidates, class_ids, coded, delta, tokens, vectors, words
from d3codec.decoder.labels import GroupLabels
from d3codec.decoder.latents import LatentRows
from d3codec.decoder.section_reader import SectionReader
from d3codec.decoder.verify import verify
from d3codec.errors import FormatError
from d3codec.format import wire
from d3codec.format.file import D3MFile
from d3codec.format.manifest import DecodeRecipe, Group, SheetsRecipe, conditioning_rows
from d3codec.format.plan import quantized_blocks

NORMALS = 1_024
LISTED = 64  # most sections that are listed


def verdict(data: bytes) -> D3MFile | str:
    """The file, all of it checked, or the code of the error."""
    try:
        file = D3MFile.open(data)
        verify(file)
    except FormatError as error:
        return error.code
    return file


def expectation(file: D3MFile) -> dict[str, Any]:
    """All that stands in the JSON of an accepted file besides reason and requirements."""
    found: dict[str, Any] = {"content_id": file.content_id, "bytes": file.bytes_total}
    raw = _sections(file)
    found["sections"] = [
        {"name": name, "group": number, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for (name, number), data in list(raw.items())[:LISTED]
    ]
    found["values"] = [
        {"name": key[0], "group": key[1]} | _described(numbers)
        for key, data in raw.items()
        if (numbers := _values(file, key, data)) is not None
    ]
    draws = [_first_draw(file, number, group) for number, group in enumerate(file.content.groups)]
    if noisy := [draw for draw in draws if draw is not None]:
        found["noise"] = noisy
    return found


def _sections(file: D3MFile) -> dict[tuple[str, int | None], bytes]:
    """The raw bytes of every section of a file that was verified before, in file order."""
    assert file.data is not None
    found: dict[tuple[str, int | None], list[bytes]] = {}
    for part in file.parts:
        stored = file.data[part.offset : part.offset + part.entry.stored]
        found.setdefault(part.key, []).append(wire.unpack_part(stored, part.entry, part.raw_length, part.field))
    return {key: b"".join(pieces) for key, pieces in found.items()}


def _described(numbers: np.ndarray) -> dict[str, Any]:
    kind = "int64" if numbers.dtype.kind in "iu" else "float32"
    found = {
        "dtype": kind,
        "shape": list(numbers.shape),
        "sha256": _sha256(numbers, "<i8" if kind == "int64" else "<f4"),
    }
    return found | ({"sha256_float64": _sha256(numbers, "<f8")} if numbers.dtype == np.float64 else {})


def _sha256(numbers: np.ndarray, dtype: str) -> str:
    return hashlib.sha256(np.ascontiguousarray(numbers.astype(dtype)).tobytes()).hexdigest()


def _values(file: D3MFile, key: tuple[str, int | None], raw: bytes) -> np.ndarray | None:
    """The numbers that a section stands for, None for text, pictures and ancillary bytes."""
    name, number = key
    if name == "fix":
        positions, levels = corrections.decode(raw)
        return np.stack([positions, levels.astype(np.int64)], axis=1)
    if number is None or name == "img":
        return None
    group, classes = file.content.groups[number], file.content.classes.count
    if name == "lab":
        labels = GroupLabels(file, number)
        return labels.logits(0, labels.rows, teacher_columns=True)
    if name == "lat":
        stored = group.recipe.start.stored
        assert stored is not None
        return LatentRows(stored, classes * group.images.sources, SectionReader(file, "lat", number)).run(
            0, classes * group.images.sources
        )
    if name == "cnd":
        assert group.images.candidates is not None
        return candidates.unpack(raw, classes, group.images.sources, group.images.candidates)
    if name == "col":
        return np.frombuffer(raw, "<u4").astype(np.int64)
    return _conditioning(group, conditioning_rows(group, classes), raw)


def _conditioning(group: Group, rows: int, raw: bytes) -> np.ndarray:
    record: Any = group.conditioning
    if record.kind == "class-id":
        return class_ids.decode(raw, rows)
    if record.kind == "words":
        return words.decode(raw, rows, len(record.slots))
    if record.kind == "tokens":
        return np.concatenate([[len(row), *row] for row in tokens.decode(raw, rows)])
    if record.coded:
        return coded.decode(raw, rows, sum(quantized_blocks(group)), "emb")
    if record.kind == "vectors":
        return vectors.decode(raw, rows, record.slots, record.width, record.bits).reshape(rows, -1)
    encoders = delta.decode(raw, rows, len(record.slots), record.widths, record.bits)
    return np.concatenate([values.reshape(rows, -1) for values in encoders], axis=1)


def _first_draw(file: D3MFile, number: int, group: Group) -> dict[str, Any] | None:
    """The noise of source 0 of class 0."""
    if isinstance(group.recipe, (DecodeRecipe, SheetsRecipe)):
        return None
    chosen = 0
    if (bits := group.images.candidates) is not None:
        choices = candidates.unpack(file.section("cnd", number), file.content.classes.count, group.images.sources, bits)
        chosen = int(choices[0, 0])
    return {"group": number, "candidate": chosen} | _described(noise.normals(group.noise_key, chosen, 0, (NORMALS,)))
