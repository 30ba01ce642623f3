"""What a sound file should not leave out, or carry, when it is published: the rules of `verify --strict`.

Every rule can be met by `d3codec edit`, `repack`, or a decode that states what the pixels are. No rule judges pixels
or labels.
"""

from __future__ import annotations

from collections.abc import Iterator

from d3codec.decoder.label_facts import CLAIM
from d3codec.format.file import D3MFile
from d3codec.format.manifest import HardLabels
from d3codec.format.rewrite import repacked

KNOWN_ANCILLARY = ("x-leaf",)
UNPROVABLE = "the file states no pixel digest, so nothing can prove its pixels"
WORTH_SHARE, WORTH_BYTES = 0.01, 16
"""Of a file: what compression must save to be worth a word. Releases of zstd differ by less."""


def findings(file: D3MFile) -> list[str]:
    """What a verified file breaks of the rules, each named first.

    - `pixels`: a reproducible file states the digest of its pixels.
    - `section`: all ancillary sections are known to the specification.
    - `licence`: licence and source are stated.
    - `claims`: claims come with the method, and claims of labels with labels.
    - `compression`: `d3codec repack` would save less than 1 % of the file, or less than 16 bytes.
    """
    return [*_pixels(file), *_sections(file), *_statements(file), *_compression(file)]


def _pixels(file: D3MFile) -> Iterator[str]:
    about = file.about
    if file.content.profile.name == "reproducible" and (about is None or about.pixels is None):
        yield f"pixels: {UNPROVABLE}"


def _sections(file: D3MFile) -> Iterator[str]:
    for entry in (file.about.ancillary if file.about else None) or ():
        if entry.name not in KNOWN_ANCILLARY:
            yield f"section: {entry.name} is not one of the specification's"


def _statements(file: D3MFile) -> Iterator[str]:
    about = file.about
    if missing := [name for name in ("licence", "source") if getattr(about, name, None) is None]:
        yield f"licence: no {' and no '.join(missing)} stated"
    if about is None or about.claims is None:
        return
    if about.method is None:
        yield "claims: no method stated that they could be about"
    hard = all(isinstance(group.labels, HardLabels) for group in file.content.groups)
    if hard and any(name.startswith(CLAIM) for name in about.claims):
        yield "claims: about labels, of a file that has none but the classes"


def _compression(file: D3MFile) -> Iterator[str]:
    saved = file.bytes_total - len(repacked(file))
    if saved >= WORTH_BYTES and saved >= WORTH_SHARE * file.bytes_total:
        yield f"compression: d3codec repack would save {saved:,} of {file.bytes_total:,} bytes"
