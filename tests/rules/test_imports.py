"""The directions of docs/design/architecture.md in the source: who imports whom, and which libraries."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import d3codec
from d3codec.cli.main import EXTRAS

PACKAGE = Path(d3codec.__file__).parent
ARCHITECTURE = PACKAGE.parent / "docs" / "design" / "architecture.md"
SOURCES = sorted(PACKAGE.rglob("*.py"))

LEAVES = {
    *("errors", "format", "noise", "grid", "images", "sources", "portable", "corrections", "entropy"),
    *("entropy_adaptive", "remote"),
}
DECODING = LEAVES | {"labels", "conditioning", "generators", "decoder"} - {"sources"}
MAY_IMPORT = {
    "errors": set(),
    "format": {"errors"},
    "noise": {"errors"},
    "grid": {"errors"},
    "images": {"errors"},
    "portable": set(),
    "corrections": {"errors"},
    "entropy": {"errors"},
    "entropy_adaptive": {"errors"},
    "sources": {"errors"},
    "labels": {
        "errors",
        "entropy",
        "entropy_adaptive",
    },  # and format nothing of labels: dataset.py and encoder/pack.py join them
    "conditioning": {"errors", "entropy", "entropy_adaptive"},
    "generators": {"errors", "format", "portable"},
    "decoder": DECODING - {"decoder", "sources"},
    "remote": {"errors"},
    "groups": {"format"},
    "torch_dataset": set(),
    "augmented": {"errors", "grid", "noise"},
    "mixing": {"errors", "noise"},
    "patch_labels": {"errors", "decoder", "labels", "groups", "dataset"},
    "dataset": DECODING | {"augmented", "groups", "mixing", "patch_labels", "torch_dataset"},
    "encoder": DECODING | LEAVES,
    "methods": DECODING | LEAVES | {"encoder", "training"},  # training: for teachers named by file or module
    "training": DECODING | LEAVES | {"encoder", "dataset"},
    "cli": {"errors", "format", "sources", "dataset", "decoder", "encoder", "generators", "methods", "training"},
    "__main__": {"cli"},
}
DATASET = {"augmented", "groups", "mixing", "patch_labels", "torch_dataset"}
"""Parts of `dataset` in the picture."""

TORCH = {"torch", "diffusers", "transformers", "safetensors"}
LIBRARIES = {
    "errors": set(),
    "format": {"msgpack", "zstandard", "pydantic"},
    "noise": {"numpy", "torch"},
    "grid": {"numpy"},
    "images": {"numpy", "PIL"},
    "portable": set(),
    "corrections": {"numpy"},
    "entropy": {"numpy"},
    "entropy_adaptive": {"numpy"},
    "sources": {"numpy", "PIL", "pyarrow", "sklearn"},
    "labels": {"numpy"},
    "conditioning": {"numpy"},
    "generators": {"numpy", "platformdirs", "filelock", "huggingface_hub", *TORCH},
    "decoder": {"numpy", "PIL", "pyarrow", "filelock", "torch"},
    "remote": {"fsspec", "aiohttp"},
    "groups": set(),
    "mixing": {"numpy"},
    "patch_labels": {"numpy"},
    "torch_dataset": {"numpy", "torch"},
    "augmented": {"numpy", "PIL", "torch"},
    "dataset": {"numpy"},
    "encoder": {"numpy", "PIL", "filelock", "torch"},
    "methods": {"numpy", "torch"},
    "training": {"numpy", "PIL", "matplotlib", "zstandard", "torch", "safetensors"},
    "cli": {"click", "rich"},
    "__main__": set(),
}
WITH_TORCH = {  # import it at module level
    *(
        f"generators/{name}.py"
        for name in (
            *(
                "autoencoder",
                "autoencoder_alone",
                "dit",
                "embedding",
                "latent",
                "latent_diffusion",
                "parts",
                "stable_diffusion",
            ),
            *("stable_diffusion_xl", "text", "unet"),
        )
    ),
    *("augmented.py", "decoder/fixed.py", "torch_dataset.py", "training"),
}


class Import(NamedTuple):
    """A dotted name; whether it is imported only inside a function, and only for types."""

    name: str
    late: bool
    for_types: bool


def imports(path: Path) -> list[Import]:
    return list(_walk(ast.parse(path.read_text("utf-8")), late=False, for_types=False))


def _walk(node: ast.AST, *, late: bool, for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        inside = late or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
        typed = for_types or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, inside, typed) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            names = [f"{child.module}.{alias.name}" for alias in child.names]
            yield from (Import(name, inside, typed) for name in names)
        else:
            yield from _walk(child, late=inside, for_types=typed)


def unit(path: Path) -> str:
    """The folder or module of the package that a source file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def own(name: str) -> str | None:
    """The unit that an import names, None for the package itself (its version) and for libraries."""
    parts = name.split(".")
    if parts[0] != "d3codec" or parts[-1] == "__version__" or len(parts) < 2:
        return None
    return parts[1]


def identifier(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("path", [path for path in SOURCES if unit(path) != "__init__"], ids=identifier)
def test_imports_point_one_way(path):
    here = unit(path)
    assert here in MAY_IMPORT, f"say in this test what {here} may import"
    for found in imports(path):
        other = own(found.name)
        assert other in (None, here) or other in MAY_IMPORT[here], f"{identifier(path)} imports {found.name}"


@pytest.mark.parametrize("path", SOURCES, ids=identifier)
def test_libraries_stay_where_they_belong(path):
    here = unit(path)
    allowed = LIBRARIES.get(here, set())
    for found in imports(path):
        library = found.name.partition(".")[0]
        if library in sys.stdlib_module_names or library == "d3codec":
            continue
        assert library in allowed, f"{identifier(path)} imports {found.name}"
        if library in TORCH and not (found.late or found.for_types):
            assert {here, identifier(path)} & WITH_TORCH, f"{identifier(path)} imports {library} at once"


def test_the_tests_have_every_optional_library():
    """The extra `dev` brings all extras that a command can ask for."""
    root = PACKAGE.parent
    extras = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    reached, waiting = {"dev"}, ["dev"]
    while waiting:
        for needed in extras[waiting.pop()]:
            if found := re.fullmatch(r"d3codec\[([\w,]+)\]", needed):
                waiting += set(found[1].split(",")) - reached
                reached.update(found[1].split(","))
    assert reached >= set(EXTRAS.values()) == {"decode", "encode", "demo", "remote", "hub"}
    pinned = re.findall(r"^([\w-]+)==", (root / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert {"torch", "huggingface_hub"} <= set(pinned)


def test_the_rules_are_those_of_the_picture():
    """Every permission points to the left in the chain of the architecture document."""
    chain = re.search(r"^errors\s*<-[^`]*", ARCHITECTURE.read_text("utf-8"), re.MULTILINE)
    assert chain is not None
    steps = [set(re.findall(r"\w+", step)) for step in chain[0].split("<-")]
    level = {name: number for number, step in enumerate(steps) for name in step}
    assert set(level) == set(MAY_IMPORT) - DATASET - {"__main__"}
    for here, others in MAY_IMPORT.items():
        if here in level:
            for other in others - DATASET:
                assert level[other] < level[here] or (here, other) == ("methods", "training"), (here, other)


def test_every_unit_stands_in_the_architecture_document():
    text = ARCHITECTURE.read_text("utf-8")
    for here in {unit(path) for path in SOURCES} - {"__init__", "__main__"}:
        assert f"`{here}.py`" in text or f"`{here}/" in text, f"{here} is not in the table of modules"


@pytest.mark.parametrize("path", SOURCES, ids=identifier)
def test_nothing_runs_code_from_a_file(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            place, called = f"{identifier(path)}:{node.lineno}", ast.unparse(node.func)
            assert called not in ("torch.load", "eval", "exec"), f"{place} {called}"
            pickles = [keyword.value for keyword in node.keywords if keyword.arg == "allow_pickle"]
            assert all(ast.unparse(value) == "False" for value in pickles), place
    assert not {found.name.partition(".")[0] for found in imports(path)} & {"pickle", "marshal", "shelve"}


def test_public_names_are_the_listed_ones():
    """At run time, for type checkers and in `dir` there are the same names, and each of them is there."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    for_types = {
        found.name.rpartition(".")[2]: found.name.rpartition(".")[0]
        for found in _walk(tree, late=False, for_types=False)
        if found.for_types
    }
    assert for_types == d3codec._HOMES
    assert set(d3codec.__all__) == {*d3codec._HOMES, "__version__"} == set(dir(d3codec))
    for name in d3codec.__all__:
        assert getattr(d3codec, name) is not None
    assert d3codec.decode.__name__ == "decode"  # and not a module of that name
    with pytest.raises(AttributeError, match="nothing"):
        _ = d3codec.nothing
