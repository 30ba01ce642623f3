"""Makes the files of the conformance corpus, their JSON and the table in README.md.

    python spec/vectors/make_vectors.py            everything anew; the same bytes, whenever and wherever it runs
    python spec/vectors/make_vectors.py --given    first other bytes in making/given, by the encoders of this machine

The version in the files is that of d3codec. A file on which d3codec's verdict is another than the one written down in
`making/` ends the script.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from making import corpus, given, table, topics  # noqa: E402
from making.expected import expectation, verdict  # noqa: E402
from making.records import Vector  # noqa: E402

SET = "1.0"
README = HERE / "README.md"


def describe(vector: Vector) -> dict[str, Any]:
    """The JSON of a file. Raises ValueError where d3codec judges otherwise."""
    found = verdict(vector.data)
    code = found if isinstance(found, str) else None
    if code != vector.error:
        raise ValueError(f"{vector.name}: {code or 'accepted'}, where {vector.error or 'accepted'} is written down")
    stated: dict[str, Any] = {"reason": vector.reason, "requirements": topics.numbers(vector.topics)}
    if isinstance(found, str):
        return stated | {"error": found}
    return stated | expectation(found)


def make() -> tuple[dict[str, bytes], dict[str, dict[str, Any]]]:
    """All files by `folder/name.d3m` and `folder/name.json`, and what the JSON says by `folder/name`."""
    files: dict[str, bytes] = {}
    found: dict[str, dict[str, Any]] = {}
    for folder in corpus.FOLDERS:
        for vector in corpus.vectors(folder):
            path = f"{folder}/{vector.name}"
            if path in found:
                raise ValueError(f"two vectors are called {path}")
            found[path] = described = describe(vector)
            if vector.same_content_as is not None:
                described["same_content_as"] = vector.same_content_as
            files |= {f"{path}.d3m": vector.data, f"{path}.json": written(described).encode()}
    contents = {path.partition("/")[2]: described.get("content_id") for path, described in found.items()}
    for path, described in found.items():
        other = described.get("same_content_as")
        if other is not None and contents[other] != described["content_id"]:
            raise ValueError(f"{path} and {other} have different content ids")
    return files, found


def save(files: dict[str, bytes], folder: Path) -> None:
    """Puts the files into a folder, in which no others stay."""
    old = {path for path in folder.rglob("*") if path.is_file()}
    for name, data in files.items():
        path = folder / name
        if path not in old or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    for path in old - {folder / name for name in files}:
        path.unlink()


def written(described: dict[str, Any]) -> str:
    """JSON, with an entry a line."""
    lines = []
    for key, value in described.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n" + ",\n".join(f"  {json.dumps(entry, ensure_ascii=False)}" for entry in value) + "\n ]"
        lines.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the files of the conformance corpus.")
    parser.add_argument("--given", action="store_true", help="make the bytes of encoders and libraries anew, too")
    if parser.parse_args().given:
        given.make()
    files, found = make()
    save(files, HERE / SET)
    README.write_text(table.with_table(README.read_text("utf-8"), found), "utf-8")
    print(f"{len(found)} files, with their JSON {sum(map(len, files.values())):,} bytes")


if __name__ == "__main__":
    main()
