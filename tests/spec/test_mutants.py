"""Both readers say the same of damaged files; `benchmarks/mutants.py` asks them about a million."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import mutants

pytestmark = pytest.mark.no_cover  # long loops in Python, which tracing doubles; other tests run these lines


def test_readers_agree_on_mutants(tmp_path: Path) -> None:
    """Verdict, code and content id (D3M-001); damage reaches the values of sections too."""
    codes, differ, without = mutants.compare(7, range(1_200), tmp_path)
    assert differ == []
    assert without < 40
    assert codes["good"] > 20
    assert {"E_HEAD_CRC", "E_MANIFEST", "E_SECTION_DIGEST", "E_SECTION_VALUE", "E_PACK_TRUNC"} <= set(codes)


def test_mutants_come_again() -> None:
    assert mutants.mutant(7, 5) == mutants.mutant(7, 5) != mutants.mutant(8, 5)
