"""docs/cli.md from the commands themselves: `python -m d3codec.cli.reference > docs/cli.md`.

Built from the commands' parameters rather than from their help pages, whose layout changes with click.
"""

from __future__ import annotations

from collections.abc import Iterator

import click

from d3codec.cli.main import COMMANDS, main

HEAD = """# The command line

Made by `python -m d3codec.cli.reference > docs/cli.md`, which a test compares with `d3codec COMMAND --help`.

"""


def reference() -> str:
    """The whole page, Markdown."""
    pages = [HEAD + _text(main.help), *(_page(name, command) for name, command in commands())]
    return "\n\n".join(pages) + "\n"


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command and subcommand with its whole name, 'generators fetch', in the order of the page."""
    ctx = click.Context(main, info_name="d3codec")
    for name in COMMANDS:
        if (command := main.get_command(ctx, name)) is not None:
            yield from _with_subcommands(name, command)


def _with_subcommands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for own, subcommand in command.commands.items():
            yield from _with_subcommands(f"{name} {own}", subcommand)


def _page(name: str, command: click.Command) -> str:
    lines = [f"## d3codec {name}", "", f"    {_usage(name, command)}", "", _text(command.help)]
    if isinstance(command, click.Group):
        listed = [f"| `{name} {own}` | {sub.short_help or ''} |" for own, sub in command.commands.items()]
        lines += ["", "| command | |", "|---|---|", *listed]
    options = [param for param in command.params if isinstance(param, click.Option)]
    if options:
        lines += ["", "| option | |", "|---|---|", *(f"| {_names(option)} | {_cell(option)} |" for option in options)]
    return "\n".join(lines)


def _usage(name: str, command: click.Command) -> str:
    arguments = [str(param.metavar) for param in command.params if isinstance(param, click.Argument)]
    rest = ["COMMAND", "[ARGS]..."] if isinstance(command, click.Group) else arguments
    return " ".join(["d3codec", name, "[OPTIONS]", *rest])


def _text(text: str | None) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in (text or "").split("\n\n")).strip()


def _names(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in option.opts)
    if option.is_flag:
        return names
    choices = "\\|".join(option.type.choices) if isinstance(option.type, click.Choice) else None
    metavar = (option.metavar or "").replace("|", "\\|")
    return f"{names} {choices or metavar or 'VALUE'}"


def _cell(option: click.Option) -> str:
    text = (option.help or "").replace("|", "\\|")
    if option.required:
        text += " Required."
    elif option.show_default:
        default = option.default
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
        text += f" Default: {shown}."
    return text


if __name__ == "__main__":
    click.echo(reference(), nl=False)
