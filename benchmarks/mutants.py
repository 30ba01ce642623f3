"""Do both readers say the same of damaged files? Verdict, error code and content id of mutants of the corpus.

    python benchmarks/mutants.py --count 1000000 -o benchmarks/results/mutants.json

Mutant number n is drawn from the seed and n alone, so a disagreement is made again by its number (`--first N --count 1
--keep FOLDER`). A third of the mutants are damaged as they lie; in a third the manifest is damaged and the head's CRC
repaired; in a third the raw bytes of a part are, and length, CRC and digest are repaired, so that damage reaches the
values. Both readers are asked in this process; an exception that is not theirs ends the run. About 90 mutants a
second and process, beside other work.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

from d3codec.format import canonical

SPEC = Path(__file__).resolve().parent.parent / "spec"
LARGEST = 3_000  # bytes of a file that is mutated: larger ones only cost time
CHUNK = 2_000  # mutants that are handed to a process at once
WORK = 1 << 27  # of the independent reader; what takes more has no verdict there
UNDECODED = ("avif", "webp")
Verdict = tuple[str, str]
"""Content id or "", error code or ""."""


@cache
def modules() -> tuple[ModuleType, ModuleType, ModuleType]:
    """The independent reader, its coding part, and the maker of the corpus."""
    for folder in (SPEC / "reader", SPEC / "vectors"):
        sys.path.insert(0, str(folder))
    import d3m_coding
    import d3m_reader
    import make_vectors

    return d3m_reader, d3m_coding, make_vectors


def ours(data: bytes) -> Verdict:
    """What d3codec says, all values checked."""
    found = modules()[2].verdict(data)
    return ("", found) if isinstance(found, str) else (found.content_id, "")


def independent(path: Path) -> Verdict | None:
    """What the independent reader says of a file; None if it takes more work than it is given, or if it would take a
    codec that the reader does not have."""
    reader, coding, _ = modules()
    try:
        found = reader.read(path, 2, reader.BUDGET, coding.Resources(SPEC / "data", WORK))
    except coding.D3mError as error:
        return "", str(error).split()[0].rstrip(":")
    except coding.NoVerdict:
        return None
    if any(value.get("format") in UNDECODED for value in found["values"]):
        return None
    return found["content_id"], ""


@cache
def corpus() -> tuple[bytes, ...]:
    """Good files that are small."""
    paths = sorted(path for kind in ("accept", "unusual") for path in (SPEC / "vectors" / "1.0" / kind).glob("*.d3m"))
    return tuple(data for path in paths if len(data := path.read_bytes()) <= LARGEST)


def mutant(seed: int, number: int) -> bytes:
    """Mutant `number` of a seed."""
    rng = random.Random(f"{seed} {number}")
    data = rng.choice(corpus())
    return (_as_it_lies, _manifest, _part)[number % 3](data, rng)


def _changed(data: bytes, rng: random.Random) -> bytes:
    """One to three changes: a bit, a byte, a run of bytes copied, removed or put in."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at, kind = rng.randrange(len(out) + 1), rng.randrange(6)
        run = slice(at, at + rng.choice((1, 1, 2, 4, 8)))
        if kind < 2 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 2 and at < len(out):
            out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xC0, 0xFF, rng.randrange(256)))
        elif kind == 3:
            del out[run]
        elif kind == 4:
            source = rng.randrange(len(out) + 1)
            out[run] = out[source : source + run.stop - run.start]
        else:
            out[at:at] = rng.randbytes(run.stop - run.start)
    return bytes(out)


def _as_it_lies(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))] if rng.random() < 0.2 else _changed(data, rng)


def _taken_apart(data: bytes) -> Any:
    """The file as `Pieces` of the corpus's maker."""
    from making.pieces import Pieces

    length, count = struct.unpack_from("<IH", data, 16)
    end, parts = 32 + 8 * count + length, []
    offset = end + 4
    for row in struct.iter_unpack("<HBBI", data[32 : 32 + 8 * count]):
        size = row[0] | row[1] << 16
        parts.append((row[2], data[offset : offset + size]))
        offset += size
    return Pieces(None, tuple(parts), manifest_bytes=data[32 + 8 * count : end])


def _manifest(data: bytes, rng: random.Random) -> bytes:
    pieces = _taken_apart(data)
    damaged: bytes = pieces.but(manifest_bytes=_changed(pieces.manifest_bytes, rng)).build()
    return damaged


def _part(data: bytes, rng: random.Random) -> bytes:
    """Another raw part, stored as it is, with the digest and the stated length that belong to it."""
    import zstandard

    pieces = _taken_apart(data)
    raws = [zstandard.decompress(stored) if codec else stored for codec, stored in pieces.parts]
    at = rng.randrange(len(raws))
    before, after = raws[at], _changed(raws[at], rng)
    if rng.random() < 0.7:  # of the same length, as sections of fixed rows are
        after = (after + bytes(len(before)))[: len(before)]
    raws[at] = after
    manifest = pieces.manifest_bytes
    for old, new in ((b"".join([*raws[:at], before, *raws[at + 1 :]]), b"".join(raws)), (before, after)):
        manifest = manifest.replace(hashlib.sha256(old).digest(), hashlib.sha256(new).digest())
    if len(after) != len(before):
        manifest = manifest.replace(canonical.pack(len(before)), canonical.pack(len(after)))
    damaged: bytes = pieces.but(manifest_bytes=manifest).with_part(at, after).build()
    return damaged


def compare(seed: int, numbers: Sequence[int], folder: Path) -> tuple[Counter[str], list[dict[str, Any]], int]:
    """(codes that d3codec gave, disagreements, files on which the independent reader gave up)."""
    codes: Counter[str] = Counter()
    differ, without = [], 0
    path = folder / f"mutant-{numbers[0]}.d3m"
    for number in numbers:
        data = mutant(seed, number)
        path.write_bytes(data)
        first, second = ours(data), independent(path)
        codes[first[1] or "good"] += 1
        if second is None:
            without += 1
        elif first != second:
            differ.append({"number": number, "d3codec": first, "reader": second})
    path.unlink()
    return codes, differ, without


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write the mutants that the readers differ on")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    import tempfile

    last, began = args.first + args.count, time.monotonic()
    chunks = [range(start, min(start + CHUNK, last)) for start in range(args.first, last, CHUNK)]
    codes: Counter[str] = Counter()
    differ: list[dict[str, Any]] = []
    without = done = 0
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(args.processes) as pool:
        work: Callable[..., Any] = partial(compare, args.seed, folder=Path(folder))
        for found, differing, gave_up in pool.map(work, chunks) if args.processes > 1 else map(work, chunks):
            codes += found
            differ += differing
            without += gave_up
            done += found.total()
            rate = done / (time.monotonic() - began)
            print(f"\r{done:,} mutants, {len(differ)} disagreements, {rate:.0f} a second", end="", file=sys.stderr)
    print(file=sys.stderr)
    for case in differ:
        print(json.dumps(case))
        if args.keep:
            args.keep.mkdir(parents=True, exist_ok=True)
            (args.keep / f"{case['number']}.d3m").write_bytes(mutant(args.seed, case["number"]))
    result = {
        "what": "mutants of the corpus: do d3codec and the independent reader agree on verdict, code and content id?",
        "seed": args.seed,
        "first": args.first,
        "mutants": done,
        "disagreements": len(differ),
        "without_verdict": without,
        "codes": dict(sorted(codes.items())),
        "differing": differ[:100],
    }
    if args.output:
        args.output.write_text(json.dumps(result, indent=1) + "\n")
    raise SystemExit(bool(differ))


if __name__ == "__main__":
    main()
