"""`python -m d3codec` is `d3codec`."""

from __future__ import annotations

from d3codec.cli.main import main

if __name__ == "__main__":
    main(prog_name="d3codec")
