"""`d3codec generators`: which generators there are, what lies here, and fetching one from the Hugging Face hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from d3codec.cli.console import json_option, print_hint, print_json, print_table, quiet_option

if TYPE_CHECKING:
    from d3codec.generators.hub import Plan
    from d3codec.generators.local import LocalGenerator
    from d3codec.generators.ready import ReadyConfiguration
    from d3codec.generators.weights import GeneratorRecord

cast_option = click.option(
    "--cast",
    type=click.Choice(["f16", "stored"]),
    default="f16",
    show_default=True,
    help="Weights rounded to float16 before they are identified, or as they are stored.",
)


@click.group("generators", short_help="Generators: list, look at, fetch.")
def command() -> None:
    """Generators that a file may name: which are known, which lie on this machine, and how to get one."""


# ------------------------------------------------------------------------------------------------------------- ls


@command.command("ls", short_help="Known generators and those on this machine.")
@click.option("--no-ids", is_flag=True, help="Show no ids: those of new weights take seconds a gigabyte, once.")
@cast_option
@json_option
@quiet_option
def ls(no_ids: bool, cast: str, as_json: bool, quiet: bool) -> None:
    """List the ready configurations, and the generators in the package and in the Hugging Face cache."""
    from d3codec.generators.local import local_generators
    from d3codec.generators.ready import configurations

    known, here = configurations(), local_generators()
    rows = [_local(found, None if no_ids else cast, quiet) for found in here]
    if as_json:
        print_json({"ready": [ready.as_json() for ready in known], "local": rows})
        return
    table = [
        [ready.name, ready.repository, ready.family, _giga(ready.weight_bytes("f16")), ready.licence, ready.run]
        for ready in known
    ]
    print_table(["ready", "repository", "family", "f16", "licence", ""], table, right=(3,))
    click.echo()
    shown = [
        [
            row["repository"] or row["folder"],
            (row["revision"] or "")[:12],
            row["family"],
            _giga(row["bytes"]),
            "yes" if row["complete"] else "no",
            row["id"] or row["reason"] or "",
        ]
        for row in rows
    ]
    print_table(["here", "revision", "family", "bytes", "complete", f"id (cast {cast})"], shown, right=(3,))


def _local(found: LocalGenerator, cast: str | None, quiet: bool) -> dict[str, Any]:
    from d3codec.generators.local import identities

    record: Any = None
    if cast is not None and found.complete:
        if found.bytes > 2**30:
            print_hint(f"{found.folder}: identifying {_giga(found.bytes)}", quiet)
        record = identities(found.folder, (cast,))[cast]
    reason = record if isinstance(record, str) else None
    return {
        "repository": found.repository,
        "revision": found.revision,
        "folder": str(found.folder),
        "family": found.family,
        "bytes": found.bytes,
        "complete": found.complete,
        "cast": cast,
        "id": None if record is None or reason else record.id.hex(),
        "reason": reason,
    }


# ----------------------------------------------------------------------------------------------------------- info


@command.command("info", short_help="Parts, digests, ids and sizes of one.")
@click.argument("name", metavar="NAME|FOLDER|REPO")
@json_option
@quiet_option
def info(name: str, as_json: bool, quiet: bool) -> None:
    """Show one generator: of a ready configuration, a folder, or a repository in the Hugging Face cache.

    Weights that lie here are identified under both casts. Touches no network.
    """
    from d3codec.errors import MissingGeneratorError
    from d3codec.generators.local import locate
    from d3codec.generators.ready import find

    ready, here = find(name), locate(name)
    if ready is None and not here:
        raise MissingGeneratorError(
            "neither a ready configuration, a folder nor a repository in the local Hugging Face cache",
            field="generator",
            found=name,
            hint=f"d3codec generators ls shows what there is; d3codec generators fetch {name} brings a repository.",
        )
    found = [_identified(one, quiet) for one in here]
    if as_json:
        print_json({"ready": None if ready is None else ready.as_json(), "local": found})
        return
    if ready is not None:
        _show_ready(ready)
    for number, one in enumerate(found):
        if ready is not None or number:
            click.echo()
        _show_local(one)


def _identified(found: LocalGenerator, quiet: bool) -> dict[str, Any]:
    from d3codec.generators.local import identities

    row = _local(found, None, quiet)
    if found.bytes > 2**30:
        print_hint(f"{found.folder}: identifying {_giga(found.bytes)}", quiet)
    return {name: row[name] for name in ("repository", "revision", "folder", "family", "bytes", "complete")} | {
        "casts": {cast: _record(record) for cast, record in identities(found.folder).items()}
    }


def _record(record: GeneratorRecord | str) -> dict[str, Any]:
    if isinstance(record, str):
        return {"id": None, "reason": record, "parts": {}}
    parts = {
        name: {"digest": digest.hex(), "bytes": record.bytes_by_part[name]} for name, digest in record.parts.items()
    }
    return {"id": record.id.hex(), "reason": None, "outside_bytes": record.outside_bytes, "parts": parts}


def _show_ready(ready: ReadyConfiguration) -> None:
    lines = [
        ["name", ready.name],
        ["title", ready.title],
        ["repository", ready.repository + (f" (revision {ready.revision})" if ready.revision else "")],
        ["licence", ready.licence],
        ["family", ready.family],
        ["state", ready.run],
        *([f"id (cast {cast})", known or "not known"] for cast, known in ready.ids.items()),
        *(["note", note] for note in ready.notes),
        *(
            [name, " ".join(map(str, value)) if isinstance(value, list) else str(value)]
            for name, value in ready.recipe.items()
        ),
    ]
    print_table(["", ""], lines, heading=False)
    click.echo()
    rows = [
        [name, part.class_name, f"{part.parameters:,}", _giga(4 * part.parameters), _giga(2 * part.parameters)]
        for name, part in ready.parts.items()
    ]
    rows.append(
        ["all", "", f"{ready.parameters:,}", _giga(ready.weight_bytes("f32")), _giga(ready.weight_bytes("f16"))]
    )
    print_table(["part", "class", "parameters", "f32", "f16"], rows, right=(2, 3, 4))
    click.echo()
    for name, part in ready.parts.items():
        unknown = "".join(f"; {field} not known: {why}" for field, why in part.unknown.items())
        click.echo(f"{name}: {part.source}{unknown}")


def _show_local(one: dict[str, Any]) -> None:
    click.echo(f"{one['folder']}: {one['family']}, {_giga(one['bytes'])}" + ("" if one["complete"] else ", incomplete"))
    for cast, record in one["casts"].items():
        click.echo(f"id (cast {cast}): {record['id'] or record['reason']}")
        if record["parts"]:
            rows = [[name, f"{part['bytes']:,}", part["digest"]] for name, part in record["parts"].items()]
            print_table(["part", "bytes", "digest"], rows, right=(1,))


# ---------------------------------------------------------------------------------------------------------- fetch


@command.command("fetch", short_help="Bring a generator's weights from the Hugging Face hub.")
@click.argument("repository", metavar="NAME|REPO")
@click.option("--revision", metavar="R", help="Branch, tag, commit or refs/pr/N. Default: the main branch.")
@click.option("--variant", type=click.Choice(["fp16"]), help="Take the smaller float16 weights where there are some.")
@click.option("--expect", metavar="ID|FILE", help="Fail unless the weights have this id, or are those of a .d3m file.")
@click.option("--dry-run", is_flag=True, help="Say what would be downloaded, and download nothing.")
@cast_option
@json_option
@quiet_option
def fetch(
    repository: str,
    revision: str | None,
    variant: str | None,
    expect: str | None,
    dry_run: bool,
    cast: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Bring what a generator needs into the Hugging Face cache: configurations, tokenizer, safetensors of its parts.

    NAME is a ready configuration, REPO is owner/name. Says first how much it downloads and how much room there is.
    Ctrl-C keeps what came: the same command continues there. Every file is compared with the digest that the hub
    states, and the id of the generator is shown. Needs the extra `hub`, and `decode` for the id.
    """
    from d3codec.generators import fetch as fetching
    from d3codec.generators.hub import plan as ask
    from d3codec.generators.ready import find

    ready = find(repository)
    if ready is not None and "/" not in repository:
        repository, revision = ready.repository, revision or ready.revision
    wanted = None if expect is None else fetching.expected_ids(expect, cast)
    if wanted is None and ready is not None and (known := ready.ids.get(cast)):
        wanted = [(known, cast)]
    plan = ask(repository, revision, variant)
    compared = {} if ready is None else fetching.compare(plan, ready)
    print_hint(_announcement(plan), quiet)
    for path in (path for path, same in compared.items() if not same):
        print_hint(f"warning: {path} is not the file that is recorded for {repository}", quiet)
    record = None
    if not dry_run:
        fetching.fetch(plan, lambda line: print_hint(line, quiet), bars=not quiet)
        record, cast = fetching.identify(plan.folder, wanted, cast)
    matches = None if wanted is None or record is None else True  # a mismatch was an error
    facts = plan.as_json() | {
        "dry_run": dry_run,
        "recorded": compared,
        "cast": cast,
        "id": None if record is None else record.id.hex(),
        "matches": matches,
    }
    if as_json:
        print_json(facts)
    else:
        _show_fetched(facts)


def _announcement(plan: Plan) -> str:
    licence = "" if plan.licence is None else f", licence {plan.licence}"
    return (
        f"{plan.repository} at {plan.revision[:12]}: {plan.family}{licence}\n"
        f"{len(plan.missing)} of {len(plan.files)} files to fetch, {plan.missing_bytes:,} of {plan.bytes:,} bytes "
        f"({_giga(plan.missing_bytes)}); {_giga(plan.free_bytes)} free in {plan.folder.parents[2]}"
    )


def _show_fetched(facts: dict[str, Any]) -> None:
    if facts["dry_run"]:
        rows = [[f"{file['bytes']:,}", file["path"]] for file in facts["files"]]
        print_table(["bytes", "file"], rows, right=(0,))
        click.echo(f"{facts['missing_bytes']:,} bytes to fetch" + ("" if facts["fits"] else ": they do not fit"))
        return
    click.echo(facts["folder"])
    if facts["id"] is None:
        click.echo("id: needs the extra 'decode': pip install 'd3codec[decode]'")
    else:
        compared = {True: ", the one expected", None: ", compared with nothing"}[facts["matches"]]
        click.echo(f"id (cast {facts['cast']}): {facts['id']}{compared}")


def _giga(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"
