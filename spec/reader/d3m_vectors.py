"""The vectors that the text states, for `python d3m_reader.py --selftest`. Those of the appendices B.1, B.2 and B.6 are
read from d3m-1.0.md itself, in the folder above; B.3 to B.5 of samplers and pixels are beyond this reader.
"""
import hashlib
import math
import re
import struct
from pathlib import Path
from typing import Any

import d3m_coding as coding
from d3m_coding import Cursor, NoVerdict, Record, Resources

SCHEDULE = ["scaled", 850, 12000, 1000]

def expect(found: Any, expected: Any) -> None:
    if found != expected:
        raise NoVerdict(f"selftest: {found} instead of {expected}")

def noise(text: str) -> None:
    for line in re.findall(r"^ {4}((?:[0-9a-f]{8} +){9}[0-9a-f]{8})$", text, re.M):
        counter, key, output = (tuple(int(word, 16) for word in line.split()[a:b]) for a, b in ((0, 4), (4, 6), (6, 10)))
        expect(coding.philox(counter, key[0] | key[1] << 32), output)
    first = [float(word) for word in re.findall(r"^ {4}((?:-?[0-9.]+ ){7}-?[0-9.]+)$", text, re.M)[0].split()]
    expect(coding.normals(0, 0, 0, 0, 8), list(struct.unpack("<8f", struct.pack("<8f", *first))))
    tensors = (struct.pack("<16384f", *coding.normals(key, 0, 0, 0, 16384)) for key in (0, 1))
    expect([hashlib.sha256(data).hexdigest() for data in tensors], re.findall(r"^ {4}([0-9a-f]{64})$", text, re.M))

def tables(text: str) -> None:
    ends, *cases = re.split(r"With the first of these schedules", text)
    bars = [[coding.alpha_bars(*betas)[i] for i in (0, 499, 999)] for betas in (SCHEDULE, ["linear", 100, 20000, 1000])]
    expect(sum(bars, []), [float.fromhex(word) for word in re.findall(r"0x\S+", ends)])
    for case in cases:
        steps, spacing = re.findall(r"(\d+) steps?, `(\w+)`", case)[0]
        recipe: Record = {"b": SCHEDULE, "n": int(steps), "t": [spacing, 1 if spacing == "leading" else 0]}
        made: list[float] = list(coding.timesteps(recipe))
        for rule in ("table", "karras"):
            euler = recipe | {"q": rule}
            sigmas, times = coding.sigmas(euler, coding.alpha_bars(*SCHEDULE), coding.timesteps(euler))
            made += times + sigmas
        words = re.split(r"\n {4}", case, maxsplit=1)[1].split()
        stated = [float.fromhex(w) if "x" in w else float(w) for w in words if re.fullmatch(r"\d+|0x\S+", w)]
        expect(sorted(made), sorted(stated))

def sections(text: str, resources: Resources) -> None:
    labels = coding.adaptive_labels(bytes.fromhex("8000025c5f9e88831ffe022dc9"), [0, 1, 0, 2], 3)
    expect([[256 * x for x in row] for row in labels],
           [[0, -1216, -1968], [-1580, 0, -1395], [0, -1580, -131], [11008, 768, 0]])
    stream = bytes.fromhex("00020d00f90033e8eafb00906e5ce398e10818bc8c")
    expect([[x * (1 << 21) for x in row] for row in coding.transform_latents(stream, 2, (1, 2, 2), resources)],
           [[3107786, -1030295, 524978, 4199478], [-6295250, 2081285, -5864, 1087898]])
    expect(list(coding.coded_rows(bytes.fromhex("05EC2C00B82E2F7D73FE0F"), 2, 6)),
           [[0.5, -1, 0, 0, -0.5, 0.5], [1, 0.5, 0, 0, -0.5, -0.5]])
    expect(list(coding.coded_rows(bytes.fromhex("04080000380040 94FE8D01"), 2, 2)), [[0.75, -0.75], [-1, 1]])
    for number, shape in ((1, (16, 4, 4)), (1, (16, 8, 8)), (2, (4, 4, 4))):
        shipped = resources.table(*coding.LATENTS)
        expect(len(coding.symbol_rows(shipped)), 56)
        expect(len(coding.shipped_statistics(shipped, number, shape).scales), math.prod(shape))
    head, data = text.split("The section has", 1)
    classes = [int(word) for word in re.findall(r"of the classes ([\d, ]+)", head)[0].split(",") if word.strip()]
    stream = bytes.fromhex("".join(re.findall(r"^ {4}([0-9a-f]+)$", data, re.M)))
    rows = list(coding.ranked_labels(stream, classes, 1000, resources))
    logits = struct.pack(f"<{1000 * len(rows)}f", *(x for row in rows for x in row))
    expect([hashlib.sha256(logits).hexdigest()], re.findall(r"`([0-9a-f]{64})`", head))

def selftest(resources: Resources) -> None:
    text = (Path(__file__).resolve().parent.parent / "d3m-1.0.md").read_text(encoding="utf-8")
    parts = re.split(r"^### B\.\d .*$", text, flags=re.M)
    expect(len(coding.normal_table()), 65536)  # its digest is checked there
    expect([p for i, p in enumerate(coding.POWERS) if not p**16 <= 1 << 384 - i < (p + 1) ** 16], [])
    expect(Cursor(b"\xa6\x02").leb128(9), 294)
    noise(parts[1])
    tables(parts[2])
    sections(parts[6].split("## Appendix C")[0], resources)
