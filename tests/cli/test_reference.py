"""docs/cli.md is made from the commands, and every command and option says what it is for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from d3codec.cli.main import COMMANDS
from d3codec.cli.reference import commands, reference

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
FOUND = dict(commands())
LEAVES = [name for name, command in FOUND.items() if not isinstance(command, click.Group)]


def test_subcommands_are_found():
    """Every command, and whatever is below one, each before the next."""
    assert [name for name in FOUND if " " not in name] == list(COMMANDS)
    assert {"generators ls", "generators info", "generators fetch"} <= set(LEAVES)
    assert "generators" not in LEAVES


def test_the_page_is_up_to_date():
    assert PAGE.read_text("utf-8") == reference(), "python -m d3codec.cli.reference > docs/cli.md"


def test_the_program_prints_the_page():
    program = [sys.executable, "-m", "d3codec.cli.reference"]
    assert subprocess.run(program, capture_output=True, check=True).stdout.decode() == reference()


@pytest.mark.parametrize("name", FOUND)
def test_every_command_and_option_is_explained(name):
    found = FOUND[name]
    assert found.name == name.split()[-1]
    assert found.help
    assert found.short_help
    page = PAGE.read_text("utf-8").split(f"## d3codec {name}\n")[1].split("\n## ")[0]
    assert f"    d3codec {name} [OPTIONS]" in page
    for option in (param for param in found.params if isinstance(param, click.Option)):
        assert option.help, option.name
        assert f"`{option.opts[-1]}`" in page
    for own in getattr(found, "commands", {}):
        assert f"| `{name} {own}` |" in page


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_takes_json(name):
    assert "--json" in [opt for param in FOUND[name].params for opt in param.opts]
