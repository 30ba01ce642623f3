"""docs/cli.md from the commands themselves: `python -m d3codec.cli.reference > docs/cli.md`.

Built from the commands' parameters rather than from their help pages, whose layout changes with click.
"""

from __future__ import annotations

import click

from d3codec.cli.main import COMMANDS, main

HEAD = """# The command line

Made by `python -m d3codec.cli.reference > docs/cli.md`, which a test compares with `d3codec COMMAND --help`.

"""


def reference() -> str:
    """The whole page, Markdown."""
    ctx = click.Context(main, info_name="d3codec")
    pages = [HEAD + _text(main.help)]
    for name in COMMANDS:
        command = main.get_command(ctx, name)
        if command is not None:
            pages.append(_page(name, command))
    return "\n\n".join(pages) + "\n"


def _page(name: str, command: click.Command) -> str:
    arguments = [str(param.metavar) for param in command.params if isinstance(param, click.Argument)]
    options = [param for param in command.params if isinstance(param, click.Option)]
    usage = " ".join(["d3codec", name, "[OPTIONS]", *arguments])
    rows = [f"| {_names(option)} | {_cell(option)} |" for option in options]
    return "\n".join(
        [f"## d3codec {name}", "", f"    {usage}", "", _text(command.help), "", "| option | |", "|---|---|", *rows]
    )


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
