"""The table of all files that stands in README.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

BEGIN, END = "<!-- files: made by make_vectors.py -->\n", "<!-- end of files -->\n"
INTRODUCTIONS = {
    "accept": "A reader takes all of them.",
    "unusual": "Legal, but rare: a reader takes all of them.",
    "reject": "A reader refuses all of them, with this code.",
}


def with_table(page: str, descriptions: dict[str, dict[str, Any]]) -> str:
    """The page with another table between its marks. `descriptions`: the JSON of each file, by `folder/name`."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "".join(f"{line}\n" for line in _lines(descriptions)) + END + after


def _lines(descriptions: dict[str, dict[str, Any]]) -> Iterator[str]:
    for folder, introduction in INTRODUCTIONS.items():
        some = {path.partition("/")[2]: found for path, found in descriptions.items() if path.startswith(f"{folder}/")}
        refused = folder == "reject"
        yield from ("", f"### {folder}", "", f"{len(some)} files. {introduction}", "")
        yield "| name | why | requirements |" + (" error |" if refused else "")
        yield "|---|---|---|" + ("---|" if refused else "")
        for name, found in some.items():
            reason = found["reason"].replace("|", "\\|")
            numbers = " ".join(number.removeprefix("D3M-") for number in found["requirements"])
            yield f"| `{name}` | {reason} | {numbers} |" + (f" `{found['error']}` |" if refused else "")
    yield ""
