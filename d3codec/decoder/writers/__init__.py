"""Decoded images -> a folder of PNG files, one array file, tar shards, parquet files, or a contact sheet.

Every file is written beside and renamed. An output that holds anything else than what would be written is refused
and left as it is.
"""

from __future__ import annotations

from d3codec.decoder.writers.arrays import ArrayFile
from d3codec.decoder.writers.image_folder import ImageFolder
from d3codec.decoder.writers.output import Decoding, Writer
from d3codec.decoder.writers.parquet import ParquetFolder
from d3codec.decoder.writers.promise import PixelCheck
from d3codec.decoder.writers.shard_folder import ShardFolder
from d3codec.decoder.writers.sheet import SHEET_BYTES, SHEET_CLASSES, SHEET_IMAGES, ContactSheet, contact_sheet, parted
from d3codec.decoder.writers.webdataset import WebDatasetFolder

__all__ = [
    "FORMATS",
    "SHEET_BYTES",
    "SHEET_CLASSES",
    "SHEET_IMAGES",
    "ContactSheet",
    "Decoding",
    "PixelCheck",
    "ShardFolder",
    "Writer",
    "contact_sheet",
    "parted",
]

FORMATS = {"imagefolder": ImageFolder, "npz": ArrayFile, "webdataset": WebDatasetFolder, "parquet": ParquetFolder}
