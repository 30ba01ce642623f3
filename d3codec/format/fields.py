"""Bounded types that several records use. Tuples are lists on the wire, and may be given as lists."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from d3codec.format import limits
from d3codec.format.record import MEMBER


def _clean(text: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValueError("control characters and surrogates are not allowed")
    return text


def _short(limit: int) -> AfterValidator:
    def check(text: str) -> str:
        if not 1 <= len(_clean(text).encode()) <= limit:
            raise ValueError(f"must be 1 to {limit} bytes of UTF-8")
        return text

    return AfterValidator(check)


def tagged(key: str, attribute: str) -> Discriminator:
    """Chooses the member of a union of records by one of their fields: its key on the wire, its attribute."""

    def tag(value: Any) -> str:
        if isinstance(value, dict):
            return f"{MEMBER}{value.get(key, value.get(attribute))}"
        return f"{MEMBER}{getattr(value, attribute, None)}"

    return Discriminator(tag, custom_error_type="kind", custom_error_message=f"a known {attribute}")


listed = BeforeValidator(lambda value: tuple(value) if type(value) is list else value)

Name = Annotated[str, _short(limits.NAME_BYTES)]
Text = Annotated[str, _short(limits.TEXT_BYTES)]
Digest = Annotated[bytes, Field(min_length=32, max_length=32)]
Digests = Annotated[tuple[Digest, ...], Field(min_length=1), listed]
OneOrMoreDigests = Annotated[
    Annotated[Digest, Tag("=one")] | Annotated[Digests, Tag("=more")],
    Discriminator(lambda value: f"{MEMBER}more" if isinstance(value, (list, tuple)) else f"{MEMBER}one"),
]
Millionths = Annotated[int, Field(ge=0, le=limits.MILLION)]
Side = Annotated[int, Field(ge=1, le=limits.SIDE)]
Sides = Annotated[tuple[Side, Side], listed]
Bits = Annotated[int, Field(ge=1, le=limits.BITS)]
Width = Annotated[int, Field(ge=1, le=limits.WIDTH)]
RawLength = Annotated[int, Field(ge=0, le=limits.PART_BYTES)]
FreeLength = Annotated[int, Field(ge=0, le=limits.FREE_BYTES)]
RawLengths = Annotated[tuple[RawLength, ...], Field(min_length=1), listed]


def quantized_row_bytes(values: int, bits: int) -> int:
    """Bytes of a row of quantized values: a float16 scale and the codes (spec section 5)."""
    return 2 + -(-values * bits // 8)


def check_row(values: int, bits: int) -> None:
    """Raises ValueError for a row of quantized values that no part can hold."""
    if quantized_row_bytes(values, bits) > limits.PART_BYTES:
        raise ValueError(f"a row must not be larger than a part, {limits.PART_BYTES} bytes")
