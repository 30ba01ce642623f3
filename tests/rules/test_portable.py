"""Noise, tables and the output stage use no function of a library whose last bit differs between machines.

+ - * / and `math.sqrt` are fixed by IEEE 754; exp, log, sin, cos, powers and the roots of numpy and torch are not
(torch.sqrt is not even correctly rounded).
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent.parent / "d3codec"
PORTABLE = (
    "noise.py",
    "portable.py",
    "decoder/schedules.py",
    "decoder/samplers.py",
    "decoder/output.py",
    "generators/embedding.py",
)
UNSAFE = {
    *("sqrt", "rsqrt", "cbrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "pow", "power", "sin", "cos"),
    *("tan", "sinh", "cosh", "tanh", "sigmoid", "softmax", "erf", "erfinv", "ndtri", "arctan", "atan", "hypot", "norm"),
    *("linspace", "logspace", "geomspace", "std", "var", "addcmul", "addcdiv", "lerp", "quantile"),
}


def unsafe_calls(source: str) -> list[str]:
    """Calls of functions that are not portable, as 'line: owner.name'; those of `portable` and of decimal
    contexts (correctly rounded) and math.sqrt are."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in UNSAFE:
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else "?"
            if owner not in ("portable", "_CONTEXT", "_DIGITS") and (owner, node.func.attr) != ("math", "sqrt"):
                found.append(f"{node.lineno}: {owner}.{node.func.attr}")
    return found


@pytest.mark.parametrize("module", PORTABLE)
def test_no_call_depends_on_the_machine(module):
    assert unsafe_calls((PACKAGE / module).read_text()) == []


@pytest.mark.parametrize("root", ["torch.sqrt(x)", "np.sqrt(x)", "x.sqrt()", "np.exp(0.5 * np.log(x))"])
def test_a_planted_root_is_found(root):
    source = (PACKAGE / "noise.py").read_text()
    planted = source.replace("root: _Array = (x + 1) / 2", f"root: _Array = {root}")
    assert planted != source
    assert unsafe_calls(planted)
