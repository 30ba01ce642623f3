"""d3codec: a distilled dataset as one tiny file.

    import d3codec
    dataset = d3codec.load("digits.d3m")

Names load on first use (PEP 562): importing d3codec needs the standard library alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["D3MError", "Dataset", "__version__", "decode", "encode", "load", "verify"]

_HOMES = {
    "D3MError": "d3codec.errors",
    "Dataset": "d3codec.dataset",
    "decode": "d3codec.decoder.decode",
    "encode": "d3codec.methods.d3m",
    "load": "d3codec.dataset",
    "verify": "d3codec.decoder.verify",
}

if TYPE_CHECKING:
    from d3codec.dataset import Dataset, load
    from d3codec.decoder.decode import decode
    from d3codec.decoder.verify import verify
    from d3codec.errors import D3MError
    from d3codec.methods.d3m import encode


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'd3codec' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
