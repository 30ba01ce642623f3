"""What all records of the manifest share: strictness, keys on the wire, and errors of our own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator

from d3codec.errors import ManifestError

FROM_WIRE = {"wire": True}  # validation context: keys are the spec's letters and nothing else
MEMBER = "="  # first letter of the tags of unions


class Record(BaseModel):
    """Base of all records: strict, closed, frozen, and with errors of our own."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        revalidate_instances="always",
        populate_by_name=True,
        loc_by_alias=False,
        defer_build=True,
    )  # a file needs one validator, that of the manifest

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _manifest_error(error, type(self).__name__) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # nested records: pydantic's own way

    @model_validator(mode="before")
    @classmethod
    def _wire_keys(cls, values: Any, info: ValidationInfo) -> Any:
        if info.context is FROM_WIRE and type(values) is dict:
            known = wire_names(cls)
            for key, value in values.items():
                if key not in known:
                    raise ValueError(f"unknown key {shorten(key)}")
                if value is None and not cls._complete:
                    raise ValueError(f"{known[key]} must be absent, not nil")
            for key, name in known.items():
                if cls._complete and key not in values:
                    raise ValueError(f"{name} (key '{key}') is missing")
        return values

    _complete: ClassVar[bool] = True  # only `about` and the manifest leave keys out

    @classmethod
    def from_wire(cls, values: Any) -> Self:
        """The record of an unpacked msgpack value. Raises ManifestError naming the field."""
        try:
            return cls.model_validate(values, context=FROM_WIRE)
        except ValidationError as error:
            raise _manifest_error(error, "") from None

    def to_wire(self) -> Any:
        """The plain value that canonical.pack takes: maps with the spec's keys, lists for tuples."""
        values = {key: _wire(getattr(self, name)) for key, name in wire_names(type(self)).items()}
        return {key: value for key, value in values.items() if self._complete or value is not None}


class ListRecord(Record):
    """A record that is a list on the wire: its values in the order of its fields."""

    _open: ClassVar[bool] = False  # the items of the last field, a tuple, end the list

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, values: Any, info: ValidationInfo) -> Any:
        if info.context is not FROM_WIRE:
            return values
        names = list(cls.model_fields)
        if type(values) is not list or (len(values) < len(names) if cls._open else len(values) != len(names)):
            raise ValueError(f"must be a list of {', '.join(names)}")
        if cls._open:
            values = [*values[: len(names) - 1], values[len(names) - 1 :]]
        return dict(zip(names, values, strict=True))

    def to_wire(self) -> list[Any]:
        values = [_wire(getattr(self, name)) for name in type(self).model_fields]
        return [*values[:-1], *values[-1]] if self._open else values


def wire_names(record: type[BaseModel]) -> dict[str, str]:
    """Key on the wire -> name of the attribute."""
    return {field.alias or name: name for name, field in record.model_fields.items()}


def _wire(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_wire()
    return [_wire(item) for item in value] if isinstance(value, tuple) else value


def shorten(value: Any) -> str:
    """A value from a file for an error message: short and harmless, whatever it is."""
    if isinstance(value, str):
        text = value if len(value) <= 40 else value[:40] + "..."
        return repr(text)
    if isinstance(value, (bytes, list, tuple, dict)):
        return f"{type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "..."


def _manifest_error(error: ValidationError, root: str) -> ManifestError:
    """The first of pydantic's errors, told in the words of the specification."""
    first = error.errors(include_url=False, include_context=False)[0]
    field = (root + "".join(_steps(first["loc"]))).removeprefix(".") or "manifest"
    kind, message = first["type"], first["msg"]
    if kind == "value_error":
        return ManifestError("E_MANIFEST", message.removeprefix("Value error, "), field=field)
    if kind in ("model_type", "dict_type"):
        message = "a map"
    elif kind == "tuple_type":
        message = "a list"
    elif kind == "missing":
        return ManifestError("E_MANIFEST", "missing", field=field)
    expected = message.removeprefix("Input should ").removeprefix("be ")
    return ManifestError("E_MANIFEST", field=field, found=shorten(first["input"]), expected=expected)


def _steps(location: tuple[int | str, ...]) -> Iterator[str]:
    previous = None
    for step in location:
        if isinstance(step, int):
            yield f"[{step}]"
        elif previous == "claims":
            yield f"[{shorten(step)}]"
        elif not step.startswith(MEMBER):  # members of unions say nothing to a reader
            yield f".{step}"
        previous = step
