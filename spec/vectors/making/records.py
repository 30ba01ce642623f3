"""Records that the files of the corpus share, a sound file before it is bytes, and what a vector is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from d3codec.format.file import ContentDraft
from d3codec.format.limits import ONE_DIGEST_BYTES
from d3codec.format.manifest import (
    REPRODUCIBLE,
    About,
    AncillaryEntry,
    Classes,
    ClassIdConditioning,
    Content,
    DdimRecipe,
    DeltaConditioning,
    EulerRecipe,
    Group,
    HardLabels,
    Images,
    NoConditioning,
    Profile,
    QuantizedLabels,
    ReinjectRecipe,
    SecondEncoder,
    SheetsRecipe,
    TokensConditioning,
    VectorsConditioning,
    WordsConditioning,
)
from d3codec.format.plan import planned_parts, section_plan
from making.pieces import Part, Pieces, plain
from making.streams import classes_text

Key = tuple[str, int | None]
MILLION = 1_000_000

SCHEDULE: dict[str, Any] = {
    "betas": ("scaled", 850, 12_000, 1_000),
    "guidance": 2 * MILLION,
    "steps": 10,
    "prediction": "eps",
    "timesteps": ("leading", 1),
}
SECOND = SecondEncoder(pad_id=0, time_ids=(64, 64, 0, 0, 64, 64), width=0)


def digest(text: str) -> bytes:
    """32 bytes that stand for a generator or for pixels which nobody has."""
    return hashlib.sha256(text.encode()).digest()


def ddim(**changes: Any) -> DdimRecipe:
    return DdimRecipe(**(SCHEDULE | {"final_alpha": "first"} | changes))


def reinject(**changes: Any) -> ReinjectRecipe:
    return ReinjectRecipe(**(SCHEDULE | {"final_alpha": "one"} | changes))


def euler(sampler: str = "euler", **changes: Any) -> EulerRecipe:
    values = {"sampler": sampler, "initial": "sigma", "sigmas": "table", "timesteps": ("trailing", 0)}
    return EulerRecipe(**(SCHEDULE | values | changes))


def sheets(**changes: Any) -> SheetsRecipe:
    return SheetsRecipe(**({"format": "png", "per_sheet": 4, "columns": 2} | changes))


def delta(**changes: Any) -> DeltaConditioning:
    values: dict[str, Any] = {
        "template": (49406, 320, 1125, 539, 265, 49407),
        "negative": (49406, 49407),
        "padding": (49407, 77),
        "slots": (4,),
        "initial_token": 1929,
        "bits": 2,
        "width": 4,
    }
    return DeltaConditioning(**(values | changes))


def words(**changes: Any) -> WordsConditioning:
    values: dict[str, Any] = {"template": (49406, 0, 0, 49407), "negative": (49406, 49407), "padding": (49407, 77)}
    return WordsConditioning(**(values | {"slots": (1, 2)} | changes))


def tokens(**changes: Any) -> TokensConditioning:
    return TokensConditioning(**({"negative": "zeros", "padding": (49407, 77)} | changes))


def vectors(**changes: Any) -> VectorsConditioning:
    return VectorsConditioning(**({"bits": 6, "negative": "row", "rows": "image", "slots": 2, "width": 8} | changes))


def class_ids(**changes: Any) -> ClassIdConditioning:
    return ClassIdConditioning(**({"negative": 1_000} | changes))


def images(count: int = 1, size: tuple[int, int] = (64, 64), grid: tuple[int, int] = (1, 1), **changes: Any) -> Images:
    return Images(grid=grid, count=count, size=size, **changes)


def group(**changes: Any) -> Group:
    """A group of D3M's kind: learned prompts, hard labels."""
    values: dict[str, Any] = {
        "conditioning": delta(),
        "cast": "f16",
        "generator": digest("a generator"),
        "images": images(),
        "noise_key": 0x0123456789ABCDEF,
        "labels": HardLabels(),
        "recipe": ddim(),
    }
    return Group(**(values | changes))


def stored_group(**changes: Any) -> Group:
    """A group whose images themselves are stored."""
    values: dict[str, Any] = {"conditioning": NoConditioning(), "cast": "stored", "generator": None, "recipe": sheets()}
    return group(**(values | {"images": images(size=(8, 8))} | changes))


@dataclass(frozen=True)
class Sound:
    """A file that follows every rule, before it is bytes.

    `sections`: raw bytes of the critical sections but `cls`; `names`, `ids` and `authority`: of the classes.
    `pack`: how parts are stored; `frames`: of some parts, by number, the frames themselves. `text`: another `cls` than
    that of names and ids.
    """

    names: tuple[str, ...]
    groups: tuple[Group, ...]
    sections: Mapping[Key, bytes] = field(default_factory=dict)
    authority: str = "none"
    ids: tuple[str, ...] | None = None
    profile: Profile = REPRODUCIBLE
    about: Mapping[str, Any] | None = None
    ancillary: Mapping[str, bytes] = field(default_factory=dict)
    pack: Callable[[bytes], Part] = plain
    frames: Mapping[int, bytes] = field(default_factory=dict)
    text: bytes | None = None

    @property
    def draft(self) -> ContentDraft:
        return ContentDraft(Classes(authority=self.authority, count=len(self.names)), self.groups, self.profile)

    def raw_sections(self) -> dict[Key, bytes]:
        """The critical sections in file order."""
        text = classes_text(self.names, self.ids) if self.text is None else self.text
        found = {("cls", None): text, **self.sections}
        return {(part.name, part.group): found.pop((part.name, part.group)) for part in section_plan(self.draft)}

    def pieces(self) -> Pieces:
        plan, sections = section_plan(self.draft), self.raw_sections()
        unknown = set(self.sections) - set(sections)
        assert not unknown, unknown
        lengths = tuple(len(sections[part.name, part.group]) for part in plan if part.rows is None)
        raw, at = [], dict.fromkeys(sections, 0)
        for part, length in planned_parts(plan, lengths):
            key = part.name, part.group
            raw.append(sections[key][at[key] : at[key] + length])
            at[key] += length
        assert all(end == len(sections[key]) for key, end in at.items()), at
        content = Content(
            classes=self.draft.classes, groups=self.groups, digests=digests(raw), profile=self.profile, lengths=lengths
        )
        manifest = {"c": content.to_wire()}
        if (about := self.stated()) is not None:
            manifest = {"a": about.to_wire(), **manifest}
        raw += self.ancillary.values()
        parts = [(1, self.frames[n]) if n in self.frames else self.pack(part) for n, part in enumerate(raw)]
        return Pieces(manifest, tuple(parts))

    def stated(self) -> About | None:
        """`about` with the ancillary sections."""
        if self.about is None and not self.ancillary:
            return None
        extra = {}
        if self.ancillary:
            entries = [AncillaryEntry(name=name, raw_lengths=(len(raw),)) for name, raw in self.ancillary.items()]
            extra = {"ancillary": entries, "digest": hashlib.sha256(b"".join(self.ancillary.values())).digest()}
        return About(**(self.about or {}), **extra)

    def build(self) -> bytes:
        return self.pieces().build()

    def but(self, **changes: Any) -> Sound:
        """The same with other fields."""
        return replace(self, **changes)

    def with_section(self, name: str, number: int | None, raw: bytes) -> Sound:
        """The same with other bytes in one section, under digests and lengths that are right."""
        return replace(self, sections={**self.sections, (name, number): raw})

    def patched(self, name: str, number: int | None, at: int, raw: bytes) -> Sound:
        """The same with some bytes of a section changed in place, from `at` on (from the end: below 0)."""
        whole = bytearray(self.sections[name, number])
        at %= len(whole)
        whole[at : at + len(raw)] = raw
        return self.with_section(name, number, bytes(whole))


def digests(parts: list[bytes]) -> bytes | tuple[bytes, ...]:
    """The critical digest of raw parts, or one a part."""
    if sum(map(len, parts)) <= ONE_DIGEST_BYTES:
        return hashlib.sha256(b"".join(parts)).digest()
    return tuple(hashlib.sha256(part).digest() for part in parts)


def pixel_digest(pictures: Any) -> bytes:
    """Pixel digest of images, uint8 [n, height, width, 3], in order of class and image."""
    return hashlib.sha256(b"".join(hashlib.sha256(picture.tobytes()).digest() for picture in pictures)).digest()


def leaves(pictures: Any, length: int) -> bytes:
    """Section `x-leaf` of these images."""
    return b"".join(hashlib.sha256(picture.tobytes()).digest()[:length] for picture in pictures)


@dataclass(frozen=True)
class Vector:
    """A file of the corpus: why it is there, in a line, the topics (topics.py) that it shows, and for a refused one the
    code. `same_content_as`: the name of a file with the same content id."""

    name: str
    reason: str
    topics: str
    file: Sound | Pieces | bytes
    error: str | None = None
    same_content_as: str | None = None

    @cached_property
    def data(self) -> bytes:
        return self.file if isinstance(self.file, bytes) else self.file.build()


LABELS_Q3 = QuantizedLabels(step=8, width=3)
