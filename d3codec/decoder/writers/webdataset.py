"""Tar shards as WebDataset reads them."""

from __future__ import annotations

import io
import re
import tarfile
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from d3codec.decoder.shard import Key
from d3codec.decoder.writers.labels import StoredLabels
from d3codec.decoder.writers.output import Decoding, OutputFolder
from d3codec.decoder.writers.saving import png, saved_beside, writing

TAR_BYTES = 1_000_000_000

Sample = list[tuple[str, bytes]]  # names and contents of the files of one image


class WebDatasetFolder:
    """DIR/000000.tar, DIR/000001.tar, ...: a sample an image, KEY.png, KEY.cls (its class by number) and, where the
    dataset stores logits, KEY.npy (float32 [patches, width]); KEY is 00003_000017 for image 17 of class 3.

    Samples stand in the order of the decode: group after group, then class after class. A tar ends before it would
    exceed `tar_bytes`. The bytes depend on the images alone: times and owners are zero. A tar that is there is whole.

    Raises (when made):
        OutputError: the folder holds something else than this decode.
    """

    def __init__(self, folder: Path, decoding: Decoding, tar_bytes: int = TAR_BYTES) -> None:
        self._decoding, self._folder, self._limit = decoding, folder, tar_bytes
        self._labels = StoredLabels(decoding.file)
        more = {"format": "webdataset", **decoding.selection, "tar_bytes": tar_bytes}
        self._output = OutputFolder(folder, decoding.identity | more, _is_ours)
        self._images = self._tars = self._bytes = 0
        self._open = ExitStack()
        self._tar: tarfile.TarFile | None = None

    def begin(self) -> None:
        self._output.begin(0, {"classes.json": self._decoding.classes_json()})

    def prepare(self, key: Key, image: np.ndarray) -> Sample:
        name = f"{key[1]:05d}_{self._decoding.number(key):06d}"
        sample = [(f"{name}.png", png(image)), (f"{name}.cls", str(key[1]).encode())]
        if (logits := self._labels.of(key)) is not None:
            buffer = io.BytesIO()
            np.save(buffer, logits, allow_pickle=False)
            sample.append((f"{name}.npy", buffer.getvalue()))
        return sample

    def add(self, prepared: Sample) -> None:
        size = sum(512 + -(-len(data) // 512) * 512 for _, data in prepared)
        if self._tar is not None and self._bytes + size > self._limit:
            self._close()
        if self._tar is None:
            handle = self._open.enter_context(saved_beside(self._path()))
            self._tar = self._open.enter_context(tarfile.TarFile(fileobj=handle, mode="w", format=tarfile.USTAR_FORMAT))
        with writing(self._path()):
            for name, data in prepared:
                member = tarfile.TarInfo(name)  # mode 0644, times and owners 0, no names of users
                member.size = len(data)
                self._tar.addfile(member, io.BytesIO(data))
        self._bytes += size
        self._images += 1

    def _path(self) -> Path:
        return self._folder / f"{self._tars:06d}.tar"

    def finish(self) -> None:
        self._close()
        self._output.note(self._images, finished=True)

    def abandon(self) -> None:
        """Leave the unfinished tar nowhere, whatever its end says."""
        with suppress(Exception):
            self._open.__exit__(RuntimeError, RuntimeError("abandoned"), None)

    def _close(self) -> None:
        if self._tar is not None:
            self._open.close()
            self._tar, self._bytes, self._tars = None, 0, self._tars + 1


def _is_ours(path: Path, pieces: tuple[str, ...]) -> bool:
    named = pieces[0] == "classes.json" or re.fullmatch(r"\d{6,}\.tar", pieces[0], re.ASCII) is not None
    return len(pieces) == 1 and named and path.is_file()
