"""`d3codec diff`: what differs between two files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from d3codec.cli.console import json_option, print_json, print_table

if TYPE_CHECKING:
    from d3codec.decoder.compare import Comparison
    from d3codec.format.compare import SectionDifference

WIDEST = 40  # characters of a value


@click.command("diff", short_help="What differs between two files.")
@click.argument("one", metavar="A")
@click.argument("other", metavar="B")
@click.option("-y", "--yes", is_flag=True, help="Decode the labels however much they are.")
@json_option
def command(one: str, other: str, yes: bool, as_json: bool) -> int:
    """Say what differs between the files A and B (paths or URLs): fields, sections and their rows, labels in nats.

    Exit code 0: nothing but, perhaps, compression. 1: something does. No pixel is decoded: files of one content id
    have the same ones.
    """
    from d3codec.dataset import open_file
    from d3codec.decoder.compare import compare

    found = compare(open_file(one), open_file(other), bounded=not yes)
    if as_json:
        print_json(found.as_json())
    else:
        _show(found)
    return 0 if found.same else 1


def _show(found: Comparison) -> None:
    if found.same:
        click.echo(f"{found.files[0]} and {found.files[1]}: nothing differs, content id {found.content_ids[0]}")
        return
    same = found.content_ids[0] == found.content_ids[1]
    ids = f"one content id, {found.content_ids[0]}" if same else "two content ids, {} and {}".format(*found.content_ids)
    click.echo(f"{found.files[0]} and {found.files[1]}: {ids}")
    rows = [
        [f"{kind} {field.path}", *(_value(value) for value in field.values)]
        for kind, fields in (("content", found.content), ("about", found.about))
        for field in fields
    ]
    if rows:
        click.echo()
        print_table(["", "A", "B"], rows)
    click.echo()
    lines = [[section.title, _section(section)] for section in found.sections]
    lines += [
        [
            f"labels of group {labels.group}",
            f"{labels.different:,} of {labels.labels:,} differ, by at most {labels.largest_nats:.3g} nats",
        ]
        for labels in found.labels
    ]
    print_table(["", ""], lines, heading=False)


def _value(value: Any) -> str:
    from d3codec.format.compare import ABSENT

    text = "nothing" if value is ABSENT or value is None else str(value)
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def _section(section: SectionDifference) -> str:
    if section.verdict != "different":
        return section.verdict
    if section.rows is None:
        sizes = "{:,} and {:,} bytes".format(*section.bytes)
        return f"different: {sizes}, the first difference at byte {section.first_byte:,}"
    named = ", ".join(_row(row) for row in section.named)
    rest = ", ..." if section.rows > len(section.named) else ""
    return f"different: {section.rows:,} rows, {named}{rest}"


def _row(row: dict[str, Any]) -> str:
    if "a" in row or "b" in row:
        return f"class {row['row']} ({row.get('a', 'nothing')} / {row.get('b', 'nothing')})"
    where = [f"{name} {row[name]}" for name in ("class", "image", "source", "patch") if row.get(name) is not None]
    return f"{row['row']} ({', '.join(where) or 'unconditional'})"
