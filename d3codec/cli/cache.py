"""`d3codec cache`: what decodes keep so that they can continue."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from d3codec.cli.console import json_option, print_hint, print_json, print_table, quiet_option

if TYPE_CHECKING:
    from d3codec.decoder.cache import CacheEntry


@click.command("cache", short_help="Look at and clear what decodes keep.")
@click.argument("action", metavar="ls|rm|path", type=click.Choice(["ls", "rm", "path"]))
@click.argument("content_id", metavar="[CONTENT_ID]", required=False)
@click.option("--all", "everything", is_flag=True, help="With rm: remove all datasets.")
@json_option
@quiet_option
def command(action: str, content_id: str | None, everything: bool, as_json: bool, quiet: bool) -> None:
    """The cache of decoded units: list it (ls), remove a dataset by the beginning of its content id (rm), or say where
    it lies (path).

    It may be removed at any time: what is missing is decoded again. Its size is bounded by D3CODEC_CACHE_GB (10 unless
    set); D3CODEC_HOME moves it.
    """
    if action != "rm" and (content_id is not None or everything):
        raise click.UsageError(f"{action} takes no CONTENT_ID and no --all")
    if action == "rm" and (content_id is None) != everything:
        raise click.UsageError("say what to remove: the beginning of a content id, or --all")
    from d3codec.decoder.cache import cache_entries, cache_limit, home, remove_cached

    if action == "path":
        path = str(home() / "decoded")
        if as_json:
            print_json({"path": path, "limit_bytes": cache_limit()})
        else:
            click.echo(path)
        return
    entries = remove_cached(home(), content_id) if action == "rm" else cache_entries(home())
    if as_json:
        rows = [
            {
                "content_id": entry.content_id,
                "profile": entry.profile,
                "units": entry.units,
                "bytes": entry.bytes,
                "last_used": _time(entry.last_used),
            }
            for entry in entries
        ]
        print_json({"removed" if action == "rm" else "entries": rows, "bytes": sum(entry.bytes for entry in entries)})
    elif action == "rm":
        click.echo(f"removed {sum(entry.units for entry in entries):,} units, {_size(entries)}")
    elif entries:
        columns = ["content id", "profile", "units", "MB", "last use"]
        print_table(
            columns,
            [
                [
                    entry.content_id[:16],
                    entry.profile,
                    f"{entry.units:,}",
                    f"{entry.bytes / 1e6:,.1f}",
                    _time(entry.last_used),
                ]
                for entry in entries
            ],
            right=(2, 3),
        )
    else:
        print_hint("The cache is empty.", quiet)


def _size(entries: list[CacheEntry]) -> str:
    from d3codec.cli.decode import size

    return size(sum(entry.bytes for entry in entries))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
