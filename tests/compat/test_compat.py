"""Files of earlier versions: while the major version is 0 they are refused, and the refusal names both versions."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import d3codec
from d3codec.cli.main import main
from d3codec.errors import HeadError
from d3codec.format.file import D3MFile

HERE = Path(__file__).parent
ASSETS = Path(d3codec.__file__).parent / "assets"


@pytest.mark.parametrize("version", ["0.1", "0.2", "0.3", "0.4"])
# Shows D3M-003.
def test_the_bundled_file_of_an_earlier_version_is_refused(version: str) -> None:
    path = HERE / f"digits-{version}.d3m"
    major, minor = map(int, version.split("."))
    assert path.read_bytes()[8:12] == major.to_bytes(2, "little") + minor.to_bytes(2, "little")
    with pytest.raises(HeadError) as caught:
        D3MFile.open(path)
    error = caught.value
    assert (error.code, error.file, error.found, error.expected) == ("E_VERSION", str(path), version, "0.9")
    assert "The release of d3codec that wrote it reads it." in str(error)
    result = CliRunner().invoke(main, ["info", str(path)])
    assert result.exit_code == 3
    assert version in result.output
    assert "0.9" in result.output
