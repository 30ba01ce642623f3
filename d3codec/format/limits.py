"""Every limit of spec/d3m-1.0.md in one place. All are normative: a reader refuses what lies above them."""

from __future__ import annotations

MAGIC = b"\x89D3M\r\n\x1a\n"
VERSION = (0, 9)

HEAD_BYTES = 32  # the fixed part of the head
ENTRY_BYTES = 8  # one row of the part table
CRC_BYTES = 4
MANIFEST_BYTES = 1 << 20
PARTS = 4_096
PART_BYTES = 8 << 20  # stored and raw length of a part
WINDOW_BYTES = 8 << 20  # window of a zstd frame
CUT_BYTES = 1 << 20  # sections are cut into parts of at most this (or of one row)
FREE_BYTES = 1 << 36  # raw length of a section of free length
WHOLE_BYTES = 8 << 20  # of `cls` and `fix`, which readers hold whole
BUDGET_BYTES = 1 << 30  # default for the raw bytes of one file; a caller may set another

PACK_DEPTH = 8
PACK_NODES = 65_536
PACK_ENTRIES = 65_535

GROUPS = 16
CLASSES = 1 << 20
IMAGES_PER_CLASS = 1 << 20
COPIES = 255  # of a source image; a decoder holds the copies of eight sources at once
SIDE = 4_096
OUTSIDE_BYTES = 1 << 40
TOKENS = 1_024
TOKEN_ID = (1 << 31) - 1
TIME_ID = 65_535
CLASS_ID = (1 << 31) - 1  # of a denoiser that is conditioned by classes
SLOTS = 64
WIDTH = 8_192
BITS = 8
CHANNELS = 64
MILLION = 1_000_000
GUIDANCE = 1_000_000_000
BETA = MILLION - 1
SIGNAL = 2.0**-64  # least that the last alpha-bar may be
TRAINING_STEPS = 10_000
STEPS = 1_000
TRANSFORM_SIDE = 64  # of transform-coded latents
CANDIDATE_BITS = 16
CANDIDATES = 1 << 32  # of a class: a word of the noise's counter
SHEET_SIDE = 16_383  # in pixels: what AVIF and WebP can hold
SHEET_PIXELS = 1 << 26  # of a sheet, which readers hold whole
LABEL_STEP = 65_535
TOPK = 1_024
INDEX16_WIDTH = 65_536  # widest labels whose columns are 16-bit numbers
LABEL_ROWS = 1 << 26  # of kinds `r` and `a`, whose length says nothing about their number
ADAPTIVE_WIDTH = 64  # of kind `a`, whose work grows with it
CODED_VALUES = 1 << 32  # of a coded section, whose length says nothing about their number
NOISE_KEY = (1 << 64) - 1
CORRECTIONS = 1 << 22  # an entry has two bytes or more, the section 8 MiB
POSITION_BYTES = 9  # of a LEB128 number in the corrections: 63 bits
ONE_DIGEST_BYTES = 65_536  # critical raw bytes up to which one digest covers them all

NAME_BYTES = 64  # authorities, names of sections
TEXT_BYTES = 4_096  # strings of `about`
CLAIMS = 256
TRAINING_WEIGHT = 255
CLASS_TEXT_BYTES = 65_536  # id or name of a class
