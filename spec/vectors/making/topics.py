"""What the vectors are about, in words, and the numbered requirements of the specification that say it.

A topic names sentences of the text, and each must stand in exactly one requirement: numbers that move, or a sentence
that goes, are noticed when the corpus is made.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

SPEC = Path(__file__).resolve().parents[2]
PAGES = ("d3m-1.0", "entropy", "labels", "latents", "generators")

_KINDS = "Keys of every kind, and their types and ranges"
_RECIPES = "Keys of every recipe, and their types and ranges"
TOPICS: dict[str, tuple[str, ...]] = {
    # The container.
    "layout": ("| the parts | back to back, in table order",),
    "magic": ("| magic | `89 44 33 4D",),
    "version": ("| minor version |",),
    "features": ("| required feature bits |",),
    "limits": ("| manifest length `m` |", "| number of parts `n` |"),
    "reserved": ("| u16 | reserved |",),
    "file-length": ("| file length | the size of the file",),
    "head-crc": ("| head CRC |",),
    "sum": ("| the parts | back to back, in table order",),
    "short": ("A file that ends before the head does",),
    "codec": ("The codec is 0 (raw) or 1 (zstd)",),
    "stored-length": ("A stored length above 8 MiB",),
    "count": ("The number of parts MUST be the one that follows",),
    "parts": ("| number of parts `n` |", "A part of codec 0 stores exactly its raw length"),
    "raw-length": ("A part of codec 0 stores exactly its raw length",),
    "zstd-length": ("A part of codec 1 MUST be stored in fewer bytes",),
    "part-crc": ("The CRC-32 of the stored bytes of a part MUST",),
    "frame": ("MUST begin with the header of a zstd frame", "The frame MUST be the only one of the part"),
    "frame-header": ("MUST begin with the header of a zstd frame",),
    "frame-size": ("The frame MUST state its content size",),
    "frame-window": ("The frame MUST NOT name a dictionary",),
    "frame-data": ("The frame MUST be the only one of the part",),
    "budget": ("The budget of step 15 is 1 GiB",),
    "bomb": ("MUST NOT decompress a part before", "taken without overflow"),
    "order": ("MUST make the checks in this order", "Of two faults that one step finds"),
    "content-id": ("The content id is the SHA-256 of the 14 bytes",),
    "digests": ("| critical digest | SHA-256",),
    "digest": ("The raw bytes of the critical parts MUST have the digest",),
    "cut": ("A section of fixed rows is cut into parts",),
    "ancillary": ("| ancillary | array of", "A reader MAY leave `x-` sections alone"),
    "ancillary-parts": ("An `x-` section has one part",),
    "leaf": ("Another length is `E_SECTION_SIZE`",),
    # Canonical msgpack.
    "pack-truncated": ("Bytes that end within a value", "Bytes are checked from front to back"),
    "pack-type": ("All other first bytes",),
    "pack-shortest": ("Integers and lengths MUST be in their shortest form", "Bytes are checked from front to back"),
    "pack-order": ("The keys of a map MUST be strictly ascending", "Bytes are checked from front to back"),
    "pack-key": ("The keys of a map are str", "Bytes are checked from front to back"),
    "pack-utf-8": ("A str MUST be valid UTF-8",),
    "pack-float": ("A float64 MUST be finite",),
    "pack-depth": ("Depth is at most 8", "Bytes are checked from front to back"),
    "pack-nodes": ("There are at most 65,536 nodes", "Bytes are checked from front to back"),
    "pack-trailing": ("Bytes after the outermost value",),
    "depth": ("Depth is at most 8",),
    # Records.
    "manifest": ("A record MUST have exactly the keys of its table",),
    "records": ("A record MUST have exactly the keys of its table",),
    "content": ("Classes, groups and profile are as the table says",),
    "lengths": ("| lengths | array of the raw lengths",),
    "text": ("A str has no control characters",),
    "classes": ("Classes, groups and profile are as the table says", "A str has no control characters"),
    "groups": ("Classes, groups and profile are as the table says", "File order: `cls`, `fix`"),
    "profile": ("Classes, groups and profile are as the table says",),
    "profile-about": ("`about` MUST NOT have pixel digest",),
    "group": ("Cast, noise key and outside bytes of a group",),
    "generator": ("| generator id | bin 32",),
    "images": ("Copies, grid and size of images",),
    "count-of-images": ("| count | images a class",),
    "copies": ("| count | images a class", "Copies, grid and size of images"),
    "candidates": ("| candidates | nil", "a choice of b bits a source"),
    "window": ("| window | nil",),
    "conditioning": (_KINDS,),
    "padding": ("| padding | `[id, length]`",),
    "negative": ("| negative | the unconditional branch",),
    "delta": (_KINDS, "`emb`, `delta`: a block of slots * width values"),
    "words": (_KINDS, "| padding | `[id, length]`"),
    "tokens": ("| padding | `[id, length]`", "counts are 1 to the padded length"),
    "vectors": (_KINDS, "| negative | the unconditional branch"),
    "class-id": ("| negative | the unconditional branch", "`ids`: every number is at most 2^31 - 1"),
    "second": ("| second encoder | nil",),
    "row-8-mib": ("MUST fit a part of 8 MiB", "more than 2^32 values"),
    "recipe": (_RECIPES,),
    "betas": ("| betas | `[rule, first, last, count]`", "a table whose last value is below 2^-64"),
    "steps": ("| steps | `stored`",),
    "timesteps": ("| timesteps | `[spacing, offset]`",),
    "start": ("| start | `[a, b, stored]`", "a = 0 if and only if stored is nil"),
    "ddim": (_RECIPES, "| betas | `[rule", "| timesteps | `[spacing, offset]`"),
    "euler": (_RECIPES, "| timesteps | `[spacing, offset]`"),
    "reinject": ("| steps | `stored`", "`ddim-reinject` needs stored latents"),
    "decode": ("A group has the conditioning `none` exactly if",),
    "stored": (
        "A group has the conditioning `none` exactly if",
        "| generator id | bin 32",
        "with the recipe `stored` the cast",
    ),
    "latents": ("| start | `[a, b, stored]`", "a row has the values of (C, h, w)"),
    "sheet-limits": ("The sheets of a group, rows = ceil(n / columns)",),
    "lossy": ("stores its images as `avif` or `webp`",),
    "noise": ("The words of a draw are those of Philox4x32-10", "Element e of a (C, h, w) tensor"),
    "labels": ("Keys of every kind, and the ranges of n, s and w",),
    "labels-columns": ("| columns | nil: column = class position",),
    "labels-h": ("Keys of every kind, and the ranges of n, s and w",),
    "labels-2-26": ("A group has at most 2^26 labels",),
    "weights": ("| weights | array of an integer a group",),
    "about": ("Types, lengths and pairs of keys are as the table says",),
    "names": ("use them as names of files or folders",),
    # Sections.
    "block": ("A scale MUST be finite", "The padding bits MUST be zero", "The value of a code is"),
    "scale": ("A scale MUST be finite",),
    "padding-bits": ("The padding bits MUST be zero",),
    "cls": ("exactly as many lines as there are classes",),
    "cls-line": ("and no other control character",),
    "cls-id": ("The id is empty if and only if",),
    "cls-twice": ("No two names are equal",),
    "fix": ("It has exactly so many entries",),
    "fix-distance": ("The distance is unsigned LEB128",),
    "fix-position": ("Distances after the first are at least 1",),
    "tok": ("counts are 1 to the padded length",),
    "tok-filled": ("counts are 1 to the padded length",),
    "ids": ("`ids`: every number is at most 2^31 - 1",),
    "columns": ("| columns | nil: column = class position", "the teacher's column of each class, below w"),
    "coded": (
        *("`emb` and `lat`, entropy-coded", "`rows` rows of `size` numbers each", "the weight of a level is"),
        *("Where tables are stated as weights w(s)", "L initial states, u32 each"),
    ),
    "coded-shape": ("N = 0, and N = 1 with a or b other than 0",),
    "coded-size": ("Bytes that end before the streams are `E_SECTION_SIZE`",),
    "stream": ("a stream that is shorter than its initial states",),
    "transform": (
        *("A transform-coded section `lat` is", "are ordered by max(v, u)", "Every image has a state S"),
        *("The coefficient is x_d", "*Channels*, if the statistics have matrices", "L initial states, u32 each"),
    ),
    "transform-shipped": ("The file [data/latents.stats]",),
    "transform-own": ("For all other latents",),
    "transform-checks": ("J above 8191, as `E_SECTION_VALUE`",),
    "img": ("The lengths are there, and the files fill",),
    "img-lengths": ("The lengths are there, and the files fill",),
    "img-size": ("Another format or size is `E_SECTION_VALUE`",),
    "img-png": ("8 bits of red, green and blue",),
    "pixel-digest": ("The digest of an image is the SHA-256",),
    "labels-q": ("w int8 values q",),
    "labels-f": ("w float16 values, finite",),
    "labels-t": ("n numbers of columns, u16 if w <= 65,536",),
    "labels-r": (
        *("`lab`, `r` and `a`: the bytes", "A section `lab` of kind `r` is", "The planes of a block, in this order"),
        *("A label has *factors* f_i", "Where a row stands for a table of S symbols", "L initial states, u32 each"),
    ),
    "labels-r-own": ("What is known of a teacher before any label", "W (A + 1)"),
    "labels-r-shipped": ("Shipped statistics are the file [data/imagenet",),
    "labels-r-checks": ("another N or W than the reader expects",),
    "labels-a": (
        *("`lab`, `r` and `a`: the bytes", "A block is 4,096 labels", "Q = (2^24 - 1) div step"),
        *(
            "A label of class c has a *number* q_k",
            "is a cell of 2^b numbers",
            "Tables are those of section 1; what they are",
        ),
    ),
    "labels-a-checks": (
        "bytes without labels; bytes that end before the lengths do",
        "what after the last symbol has bytes left",
    ),
}


@cache
def requirements() -> dict[str, str]:
    """The text of every requirement, by its number, with single spaces."""
    found: dict[str, str] = {}
    for page in PAGES:
        text = (SPEC / f"{page}.md").read_text("utf-8")
        places = list(re.finditer(r"\*\*(D3M-\d{3})\*\*", text))
        for number, place in enumerate(places):
            start = text.rfind("\n", 0, place.start()) + 1
            if text.startswith("|", start):
                said = text[start : text.index("\n", start)]
            else:
                end = places[number + 1].start() if number + 1 < len(places) else len(text)
                said = re.sub(r"^\|.*$", "", text[place.end() : end], flags=re.MULTILINE)
            found[place[1]] = " ".join(said.split())
    return found


def numbers(topics: str) -> list[str]:
    """The requirements of some topics, in order. Raises ValueError for a sentence that none has, or several."""
    found = set()
    for topic in topics.split():
        for sentence in TOPICS[topic]:
            stated = [number for number, said in requirements().items() if sentence in said]
            if len(stated) != 1:
                raise ValueError(f"topic {topic}: {sentence!r} stands in {stated or 'no requirement'}")
            found.add(stated[0])
    return sorted(found)
