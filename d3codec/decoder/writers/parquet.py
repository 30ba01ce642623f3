"""Parquet files in the layout of a Hugging Face dataset."""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from d3codec.decoder.shard import Key
from d3codec.decoder.writers.labels import StoredLabels
from d3codec.decoder.writers.output import Decoding, OutputFolder
from d3codec.decoder.writers.saving import png, saved_beside, writing
from d3codec.errors import MissingExtraError
from d3codec.format.file import ClassRecord

FILE_BYTES = 500_000_000  # of pixels, more than those of PNG files
ROWS = 100  # a row group: what a viewer of images reads at once
_PATCH_LOGITS = {"feature": {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"}}


class ParquetFolder:
    """DIR/data/train-00000-of-00001.parquet and README.md, as `datasets.load_dataset(DIR)` reads them: `image`
    (a struct of PNG bytes and a name), `label` (the class by number, named in the metadata of the schema) and, where
    the dataset stores logits, `patch_logits` (lists of float32 [patches, width]).

    Rows stand in the order of the decode: group after group, then class after class. A file that is there is whole.

    Raises (when made):
        MissingExtraError: pyarrow is not installed. OutputError: the folder holds something else than this decode.
    """

    def __init__(self, folder: Path, decoding: Decoding) -> None:
        if find_spec("pyarrow") is None:
            raise MissingExtraError("encode")
        self._decoding, self._folder = decoding, folder
        self._labels = StoredLabels(decoding.file)
        images = decoding.plan.images
        groups = decoding.file.content.groups
        pixels = sum(3 * groups[group].images.size[0] * groups[group].images.size[1] for group, _, _ in images)
        files = max(1, -(-pixels // FILE_BYTES))
        self._ends = [(number + 1) * len(images) // files for number in range(files)]  # in images
        more = {"format": "parquet", **decoding.selection}
        self._output = OutputFolder(folder, decoding.identity | more, _is_ours)
        self._with_logits = any(groups[group].labels.kind != "h" for group in {group for group, _, _ in images})
        self._rows: list[dict[str, Any]] = []
        self._done = self._file = 0
        self._open = ExitStack()
        self._writer: Any = None

    def begin(self) -> None:
        self._output.begin(0, {"README.md": dataset_card(self._decoding).encode()})

    def prepare(self, key: Key, image: np.ndarray) -> dict[str, Any]:
        name = f"{key[1]:05d}_{self._decoding.number(key):06d}.png"
        row: dict[str, Any] = {"image": {"bytes": png(image), "path": name}, "label": key[1]}
        if self._with_logits:
            logits = self._labels.of(key)
            row["patch_logits"] = None if logits is None else list(logits)
        return row

    def add(self, prepared: dict[str, Any]) -> None:
        self._rows.append(prepared)
        self._done += 1
        last = self._done == self._ends[self._file]
        if last or len(self._rows) == ROWS:
            self._write()
        if last:
            self._close()

    def finish(self) -> None:
        if self._done == 0:  # an empty table is one too
            self._write()
            self._close()
        self._output.note(self._done, finished=True)

    def abandon(self) -> None:
        with suppress(Exception):
            self._open.__exit__(RuntimeError, RuntimeError("abandoned"), None)

    def _write(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = self._schema()
        path = self._folder / "data" / f"train-{self._file:05d}-of-{len(self._ends):05d}.parquet"
        with writing(path):
            if self._writer is None:
                handle = self._open.enter_context(saved_beside(path))
                self._writer = self._open.enter_context(pq.ParquetWriter(handle, schema))
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema))
        self._rows = []

    def _close(self) -> None:
        self._open.close()
        self._writer, self._file = None, self._file + 1

    def _schema(self) -> Any:
        import pyarrow as pa

        columns = [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())]
        names = unique_names(self._decoding.records)
        features: dict[str, Any] = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        if self._with_logits:
            columns.append(("patch_logits", pa.list_(pa.list_(pa.float32()))))
            features["patch_logits"] = _PATCH_LOGITS | {"_type": "Sequence"}
        information = json.dumps({"info": {"features": features}}, ensure_ascii=False)
        return pa.schema(columns).with_metadata({"huggingface": information})


def unique_names(records: list[ClassRecord]) -> list[str]:
    """Names of the classes; of those that are not unique (ImageNet has two cranes) each carries its id or position."""
    often = Counter(record.name for record in records)
    names = [
        record.name if often[record.name] == 1 else f"{record.name} ({record.id or number})"
        for number, record in enumerate(records)
    ]
    return names if len(set(names)) == len(names) else [f"{number} {name}" for number, name in enumerate(names)]


def dataset_card(decoding: Decoding) -> str:
    """A minimal card: where the data is, what it was decoded from, and what its author says of it."""
    file, about = decoding.file, decoding.file.about
    images, classes = len(decoding.plan.images), len({class_ for _, class_, _ in decoding.plan.images})
    facts = [
        ("Content id", file.content_id),
        ("Decode profile", decoding.profile),
        ("Method", about.method if about else None),
        ("Licence", about.licence if about else None),
        ("Source", about.source if about else None),
        ("Citation", about.citation if about else None),
    ]
    lines = [f"- {name}: {' '.join(value.split())}" for name, value in facts if value]
    head = [
        "---",
        "task_categories:",
        "- image-classification",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        "    path: data/train-*",
        "---",
        "",
        "# A distilled dataset",
        "",
        f"{images:,} images of {classes:,} classes, decoded by d3codec from a `.d3m` file.",
        "",
    ]
    return "\n".join([*head, *lines]) + "\n"


def _is_ours(path: Path, pieces: tuple[str, ...]) -> bool:
    if pieces in (("README.md",), ("data",)):
        return path.is_file() != (pieces == ("data",))
    return (
        len(pieces) == 2
        and pieces[0] == "data"
        and re.fullmatch(r"train-\d{5}-of-\d{5}\.parquet", pieces[1], re.ASCII) is not None
        and path.is_file()
    )
