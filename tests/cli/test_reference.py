"""docs/cli.md is made from the commands, and every command and option says what it is for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from d3codec.cli.main import COMMANDS, main
from d3codec.cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def command(name):
    return main.get_command(click.Context(main), name)


def test_the_page_is_up_to_date():
    assert PAGE.read_text("utf-8") == reference(), "python -m d3codec.cli.reference > docs/cli.md"


def test_the_program_prints_the_page():
    program = [sys.executable, "-m", "d3codec.cli.reference"]
    assert subprocess.run(program, capture_output=True, check=True).stdout.decode() == reference()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_explained(name):
    found = command(name)
    assert found.name == name
    assert found.help
    assert found.short_help
    text = PAGE.read_text("utf-8")
    assert f"## d3codec {name}\n" in text
    for option in (param for param in found.params if isinstance(param, click.Option)):
        assert option.help, option.name
        assert f"`{option.opts[-1]}`" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_json(name):
    assert "--json" in [opt for param in command(name).params for opt in param.opts]
