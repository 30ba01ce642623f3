"""`d3codec info`: what a file holds, from its head alone (and with --labels from its labels). No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from d3codec.cli.console import fetched, json_option, print_json, print_table

if TYPE_CHECKING:
    from d3codec.dataset import Dataset
    from d3codec.format.file import D3MFile

NAMES_SHOWN = 12


@click.command("info", short_help="What a file holds.")
@click.argument("file", metavar="FILE")
@json_option
@click.option("--bytes", "every_byte", is_flag=True, help="Explain every byte of the file.")
@click.option(
    "--labels",
    "about_labels",
    is_flag=True,
    help="Decode the labels: bytes each, entropy, agreement with the classes, and what encode recorded of their loss.",
)
def command(file: str, as_json: bool, every_byte: bool, about_labels: bool) -> None:
    """Show what FILE (a path or a URL) holds: sizes, classes, images, generator, recipe, labels.

    Reads and checks the head; the sections are checked by `verify`.
    """
    from d3codec.dataset import load

    if every_byte and about_labels:
        raise click.UsageError("--bytes and --labels show different things; give one of them")
    dataset = load(file)
    if every_byte:
        _explain(dataset.file, as_json)
    elif about_labels:
        _labels(dataset, as_json)
    elif as_json:
        print_json(_facts(dataset))
    else:
        _show(dataset)


def _facts(dataset: Dataset) -> dict[str, Any]:
    from dataclasses import asdict

    file, about = dataset.file, dataset.about
    said = {
        name: getattr(about, name, None)
        for name in ("method", "licence", "source", "teacher", "citation", "claims", "fingerprint")
    }
    pixels = getattr(file.content.profile, "pixels", None) or (about and about.pixels)
    return {
        "file": dataset.path,
        "bytes": dataset.bytes,
        "sizes": _sizes(dataset),
        "head_bytes": file.head_bytes,
        "content_id": dataset.content_id,
        "version": ".".join(map(str, file.version)),
        "profile": file.content.profile.name,
        "corrections": getattr(file.content.profile, "corrections", 0),
        "classes": file.content.classes.count,
        "authority": file.content.classes.authority,
        "images_per_class": dataset.images_per_class,
        "images": len(dataset),
        "label_kind": dataset.labels.kind,
        "weights": dataset.weights,
        **said,
        "pixel_digest": pixels.hex() if pixels else None,
        "sections": file.section_sizes(),
        "groups": [asdict(group) for group in dataset.groups],
        "fetched": fetched(file),
    }


def _sizes(dataset: Dataset) -> dict[str, Any]:
    """The three sizes of a distilled dataset: the file, it and what is its own outside, the shared generators."""
    return {
        "file": dataset.bytes,
        "file_and_outside": dataset.bytes + sum(group.outside_bytes for group in dataset.groups),
        "generators": [*dict.fromkeys(group.generator for group in dataset.groups if group.generator)],
    }


def _explain(file: D3MFile, as_json: bool) -> None:
    rows = file.explain()
    if as_json:
        print_json([{"offset": offset, "length": length, "text": text} for offset, length, text in rows])
    else:
        shown = [[str(offset), str(length), text] for offset, length, text in rows]
        print_table(["offset", "bytes", "what"], shown, right=(0, 1))


def _labels(dataset: Dataset, as_json: bool) -> None:
    from dataclasses import asdict

    from d3codec.decoder.label_facts import label_facts, recorded_divergences

    file, recorded = dataset.file, recorded_divergences(dataset.file)
    groups = [label_facts(file, group.number) for group in dataset.groups]
    if as_json:
        facts = [asdict(group) | {"bytes_per_label": group.bytes_per_label()} for group in groups]
        print_json({"file": dataset.path, "groups": facts, "kl_nats": recorded})
        return
    rows = []
    for group in groups:
        mark = f" {group.group}" if len(groups) > 1 else ""
        each = group.bytes_per_label()
        rows += [
            [f"labels{mark}", f"{group.labels:,} of the codec {group.codec}"],
            [
                f"bytes a label{mark}",
                f"{each['payload'] + each['side']:.2f}: payload {each['payload']:.2f}, side information "
                f"{each['side']:.2f}; statistics shipped with the package: {each['shipped']:.2f}",
            ],
            [f"entropy{mark}", f"{group.entropy_nats:.4g} nats, mean at T = 1"],
            [f"agreement{mark}", f"{100 * group.agreement:.1f} % have their class on top"],
        ]
    rows += [[f"KL at T = {temperature}", f"{text} nats, says the encoder"] for temperature, text in recorded.items()]
    print_table(["", ""], rows, heading=False)


def _show(dataset: Dataset) -> None:
    facts = _facts(dataset)
    click.echo(
        f"{facts['file']}: {facts['bytes']:,} bytes, version {facts['version']}, "
        f"{facts['classes']} classes x {facts['images_per_class']} images"
    )
    sections = facts["sections"]
    lone = all(section["group"] in (None, 0) for section in sections)
    rows = [["head", "", f"{facts['head_bytes']:,}", ""]]
    rows += [
        [
            section["name"],
            "" if lone or section["group"] is None else str(section["group"]),
            f"{section['bytes']:,}",
            f"{section['raw_bytes']:,}",
        ]
        for section in sections
    ]
    click.echo()
    print_table(["section", "group", "bytes", "raw"], rows, right=(2, 3))
    click.echo()
    print_table(["", ""], [*_lines(dataset, facts)], heading=False)


def _lines(dataset: Dataset, facts: dict[str, Any]) -> list[list[str]]:
    lines = [["classes", _names(dataset)]]
    for group in dataset.groups:
        mark = f" {group.number}" if len(dataset.groups) > 1 else ""
        height, width = group.size
        logits = f", {group.label_width} logits a patch" if group.label_width else ""
        if group.teacher_columns != group.label_width:
            logits += f" (of {group.teacher_columns} of the teacher)"
        lines += [
            [
                f"images{mark}",
                f"{group.images_per_class} a class, {height}x{width} pixels, {group.grid[0]}x{group.grid[1]} patches"
                + (f", of each source {group.copies} augmented copies" if group.copies else "")
                + (f", each with one of {group.candidates} noises" if group.candidates > 1 else ""),
            ],
            [f"labels{mark}", group.label_kind + logits],
            *([[f"prompts{mark}", group.conditioning]] if group.conditioning != "none" else []),
            [f"recipe{mark}", group.recipe],
            [f"generator{mark}", f"{group.generator} (cast {group.cast})" if group.generator else "none is needed"],
        ]
    if dataset.weights is not None:
        lines.append(["weights", f"{' : '.join(map(str, dataset.weights))}, of the groups in a training batch"])
    sizes = facts["sizes"]
    lines += [
        ["profile", _profile(facts)],
        ["content id", facts["content_id"]],
        ["size (a)", f"{sizes['file']:,} bytes, the file"],
        ["size (b)", f"{sizes['file_and_outside']:,} bytes, with this dataset's own weights outside the file"],
        ["size (c)", _shared(len(sizes["generators"]))],
    ]
    said = ("method", "licence", "source", "teacher", "citation")
    lines += [[name, str(facts[name])] for name in said if facts.get(name)]
    if (traffic := fetched(dataset.file)) is not None:  # now, with what the names of the classes took
        lines.append(["fetched", f"{traffic['bytes']:,} bytes in {traffic['requests']} requests"])
    return lines


def _shared(generators: int) -> str:
    if generators > 1:
        return "the shared generators, named above"
    return "the shared generator, named above" if generators else "no generator: all images are stored in the file"


def _profile(facts: dict[str, Any]) -> str:
    digest = f", pixels {facts['pixel_digest']}" if facts["pixel_digest"] else ""
    corrections = f", {facts['corrections']} corrections" if facts["profile"] == "exact" else ""
    return f"{facts['profile']}{corrections}{digest}"


def _names(dataset: Dataset) -> str:
    from d3codec.errors import FormatError

    try:
        names = [info.name for info in dataset.classes[:NAMES_SHOWN]]
    except FormatError:
        return "not readable: d3codec verify says why"
    return ", ".join(names) + (", ..." if len(dataset.classes) > len(names) else "")
