"""The errors of d3codec: one tree, one class a cause.

    D3MError
    ├── FormatError            the bytes break the specification            exit 3
    │   ├── HeadError          E_SHORT E_MAGIC E_VERSION E_FEATURE E_RESERVED E_LIMIT E_HEAD_CRC E_CODEC E_LENGTH
    │   │                      E_BUDGET
    │   ├── PackError          E_PACK_*: the manifest is not canonical msgpack
    │   ├── ManifestError      E_MANIFEST
    │   └── SectionError       E_SECTION_* E_ZSTD_*
    ├── PixelsError            E_PIXELS: decoded pixels differ where they must not        exit 3
    ├── StrictError            E_STRICT: sound, but not as a published file should be     exit 3
    ├── GeneratorError         E_GENERATOR: a generator that is not the one named         exit 3
    ├── MissingError           something needed is not there                              exit 4
    │   ├── MissingExtraError      E_MISSING_EXTRA: a part of the installation
    │   ├── MissingGeneratorError  E_MISSING_GENERATOR: the weights
    │   ├── MissingFileError       E_MISSING_FILE: the file itself
    │   └── RemoteError            E_REMOTE: what is behind a URL, for its server or the network
    │       └── ChangedFileError   E_CHANGED: it is another file than a moment ago
    ├── ImagesError            E_IMAGES: training or test images that cannot be used      exit 1
    ├── TeacherError           E_TEACHER: a teacher that cannot be used                   exit 1
    ├── OutputError            E_OUTPUT: the output cannot be written                     exit 1
    └── UsageError             E_USAGE: arguments that make no sense together             exit 2

Codes of FormatError are those of spec/d3m-1.0.md, section 8. Standard library only.
"""

from __future__ import annotations

from typing import Any

FORMAT_CODES = {
    "E_SHORT": "the file ends inside its head",
    "E_MAGIC": "this is not a .d3m file",
    "E_VERSION": "another version of the format",
    "E_FEATURE": "a required feature that this version does not know",
    "E_RESERVED": "a reserved field is not zero",
    "E_LIMIT": "a length or a count above its limit",
    "E_HEAD_CRC": "the head is damaged",
    "E_CODEC": "unknown codec of a part",
    "E_LENGTH": "lengths that do not fit together",
    "E_PACK_TRUNC": "the manifest ends too early",
    "E_PACK_TYPE": "a type that canonical msgpack does not have",
    "E_PACK_NONMINIMAL": "a value that is not in its shortest form",
    "E_PACK_ORDER": "map keys out of order, or twice",
    "E_PACK_KEY": "a map key that is not a string",
    "E_PACK_UTF8": "a string that is not UTF-8",
    "E_PACK_FLOAT": "a float that is not finite, or is -0.0",
    "E_PACK_DEPTH": "the manifest is nested too deeply",
    "E_PACK_NODES": "the manifest has too many values",
    "E_PACK_TRAILING": "bytes after the manifest",
    "E_MANIFEST": "the manifest does not follow its schema",
    "E_BUDGET": "more bytes than the reader allows",
    "E_SECTION_CRC": "a section is damaged",
    "E_ZSTD_HEADER": "a compressed section breaks the rules for its frame",
    "E_ZSTD_DATA": "a compressed section does not decompress",
    "E_SECTION_DIGEST": "a section does not match its digest",
    "E_SECTION_SIZE": "a section of the wrong length",
    "E_SECTION_VALUE": "an impossible value in a section",
}


class D3MError(Exception):
    """Root of everything that d3codec raises on purpose.

    `message` says what is wrong; `file`, `field`, `found` and `expected` say where and how (None: not applicable);
    `hint` says what to do. `str(error)` is the whole text for a person, `as_json()` the same for a machine.
    """

    code = "E_D3M"
    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        field: str | None = None,
        found: Any = None,
        expected: Any = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.file, self.field = message, file, field
        self.found, self.expected, self.hint = found, expected, hint

    def __str__(self) -> str:
        where = ": ".join(str(part) for part in (self.file, self.field) if part is not None)
        text = f"{where}: {self.message}" if where else self.message
        if self.found is not None:
            text += f" (found {self.found}" + (f", expected {self.expected})" if self.expected is not None else ")")
        elif self.expected is not None:
            text += f" (expected {self.expected})"
        return text + (f"\n{self.hint}" if self.hint else "")

    def as_json(self) -> dict[str, Any]:
        values = {
            "error": self.code,
            "message": self.message,
            "file": self.file,
            "field": self.field,
            "found": self.found,
            "expected": self.expected,
            "hint": self.hint,
        }
        return {
            key: value if isinstance(value, (int, float, str, list)) else str(value)
            for key, value in values.items()
            if value is not None
        }


class FormatError(D3MError):
    """Bytes that break the specification; `code` is one of FORMAT_CODES."""

    exit_code = 3

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        file: str | None = None,
        field: str | None = None,
        found: Any = None,
        expected: Any = None,
        hint: str | None = None,
    ) -> None:
        message = f"{code}: {FORMAT_CODES[code]}" + (f", {detail}" if detail else "")
        super().__init__(message, file=file, field=field, found=found, expected=expected, hint=hint)
        self.code = code


class HeadError(FormatError):
    """The fixed head or the part table."""


class PackError(FormatError):
    """The manifest's bytes are not canonical msgpack (spec section 2)."""


class ManifestError(FormatError):
    """The manifest does not follow its schema (spec section 3)."""


class SectionError(FormatError):
    """A section is missing, damaged, of the wrong size or holds impossible values (spec section 5)."""


class PixelsError(D3MError):
    """Decoded pixels differ although they must not."""

    code, exit_code = "E_PIXELS", 3


class StrictError(D3MError):
    """A sound file that leaves out, or carries, what a published one should not: `findings` lists it."""

    code, exit_code = "E_STRICT", 3

    def __init__(self, findings: list[str], *, file: str | None = None) -> None:
        super().__init__(f"sound, but not as a published file should be: {'; '.join(findings)}", file=file)
        self.findings = findings

    def as_json(self) -> dict[str, Any]:
        return super().as_json() | {"findings": self.findings}


class GeneratorError(D3MError):
    """A generator that is not the one the file names, or that the registry of families does not describe."""

    code, exit_code = "E_GENERATOR", 3


class MissingError(D3MError):
    """Something needed is not on this machine."""

    code, exit_code = "E_MISSING", 4


class MissingExtraError(MissingError):
    """A Python package of an extra is not installed."""

    code = "E_MISSING_EXTRA"

    def __init__(self, extra: str) -> None:
        super().__init__(f"this needs the extra '{extra}'", hint=f"pip install 'd3codec[{extra}]'")
        self.extra = extra


class MissingGeneratorError(MissingError):
    """No weights with the generator id of the file were found."""

    code = "E_MISSING_GENERATOR"


class MissingFileError(MissingError):
    """The file to read is not there."""

    code = "E_MISSING_FILE"


class RemoteError(MissingError):
    """A server or the network that does not give what a URL names, or gives something else than was asked for."""

    code = "E_REMOTE"


class ChangedFileError(RemoteError):
    """The file behind a URL was replaced while it was being read."""

    code = "E_CHANGED"


class ImagesError(D3MError):
    """Images or labels given by the user that cannot be used."""

    code = "E_IMAGES"


class TeacherError(D3MError):
    """A teacher that cannot be loaded or does not fit the images."""

    code = "E_TEACHER"


class OutputError(D3MError):
    """The output cannot be written: read-only, full, or it holds something else."""

    code = "E_OUTPUT"


class UsageError(D3MError):
    """Arguments that make no sense together."""

    code, exit_code = "E_USAGE", 2
