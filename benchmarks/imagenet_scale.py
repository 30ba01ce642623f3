"""Does a distilled ImageNet-1k of full size fit a file of one megabyte, and is it quick? -> results/imagenet_scale.json

    python benchmarks/imagenet_scale.py DATA -o FOLDER

Writes FOLDER/imagenet.d3m and checks what reading it costs: 1,000 classes (WordNet ids, names), 10 images a class of
2 x 2 patches, 40,000 labels. The labels are real: logits of crops of photographs, each class's own rows repeated until
there are 40. Prompts and generator are not: the learned rows are drawn from a normal distribution, the generator id is
zeros (nothing was generated, so there is no pixel digest). Both take the bytes that real ones take; the file says so.

DATA (or the variable D3CODEC_DATA) holds `imagenet_patch_logits_fit.npz` and `imagenet_patch_logits_eval.npz`. About
3 minutes. Exits with 1 if a check fails, 4 without the data.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy; the child processes inherit it

import numpy as np

from d3codec.conditioning import coded, delta
from d3codec.encoder.labels import LabelChoice, StoredLabels, store_labels
from d3codec.encoder.pack import class_section
from d3codec.errors import D3MError, MissingFileError, UsageError
from d3codec.format.file import ContentDraft, D3MFile, save_atomically, write_d3m
from d3codec.format.manifest import About, Classes, DeltaConditioning, Group, Images, Window
from d3codec.generators import ready

RESULTS = Path(__file__).parent / "results" / "imagenet_scale.json"
SPLITS = ("fit", "eval")
CLASSES, IPC, GRID, SIDE = 1000, 10, 2, 256
LABELS_A_CLASS = IPC * GRID * GRID
LABELS = CLASSES * LABELS_A_CLASS
LABEL_BYTES = 7.5
WIDTH, BITS, SPREAD, SEED = 768, 2, 0.03, 0  # of the learned rows; SPREAD: their standard deviation
NOISE_KEY = 1
FAKE_GENERATOR = bytes(32)
BEGIN, END, STAR = 49406, 49407, 265  # tokens of CLIP's vocabulary
TEMPLATE = (BEGIN, 320, 1125, 539, STAR, END)  # a photo of *
TEACHER = "MobileNetEdgeTPU 1.0 at 224 pixels (mlcommons/mobile_models v0_7)"
ABOUT = (
    "A file to measure sizes and times with, not a dataset: the learned prompts are synthetic (normal distribution, "
    f"seed {SEED}), the generator id is a placeholder (zeros), no image was generated. The labels are real logits of "
    "photographs, repeated: each class's own crops until there are 40."
)
CHOSEN = (0, 25, 999)  # classes that are read alone; the labels of class 25 lie in two blocks
RUNS = 5
LIMITS = {"bytes": 1_000_000, "info_s": 0.3, "verify_s": 10, "memory": 120_000_000}
Facts = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", default=os.environ.get("D3CODEC_DATA"), metavar="DATA")
    parser.add_argument("-o", "--output", type=Path, default=Path("imagenet.work"), help="folder of imagenet.d3m")
    parser.add_argument("--result", type=Path, default=RESULTS, help="the JSON file")
    arguments = parser.parse_args()
    if arguments.data is None:
        raise MissingFileError("no folder of logits", field="DATA", hint="name it, or set D3CODEC_DATA")
    start, load = time.perf_counter(), os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    source = Source.read(Path(arguments.data))
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "imagenet.d3m"
    made = make(source, path)
    facts = made | measure(path, source)
    result = {
        "question": "does a distilled ImageNet-1k of full size fit a file of one megabyte, and is it quick?",
        "content": ABOUT,
        "seeds": {"learned rows": SEED, "noise key": NOISE_KEY},
        **facts,
        "checks": checks(facts),
        "beside": beside(facts),
        "beside_is": "bytes alone: these datasets are trained on in other ways and reach other accuracies",
        "environment": environment() | {"load_before": load, "seconds": round(time.perf_counter() - start)},
    }
    save_atomically(arguments.result, (json.dumps(result, indent=1) + "\n").encode())
    show(result)
    return 0 if all(check["ok"] for check in result["checks"]) else 1


# ------------------------------------------------------------------------------------------------------ the file


@dataclass(frozen=True)
class Source:
    """Teacher logits float16 [N, 1000], the class of each row, ids and names of the classes, and the files' digests."""

    logits: np.ndarray
    classes: np.ndarray
    ids: list[str]
    names: list[str]
    digests: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> Source:
        paths = [folder / f"imagenet_patch_logits_{split}.npz" for split in SPLITS]
        for path in paths:
            if not path.is_file():
                raise MissingFileError("no such file", file=str(path), hint="DATA is the folder of both logits files")
        splits = [np.load(path) for path in paths]
        logits, classes, images = (
            np.concatenate([split[key] for split in splits]) for key in ("logits", "label", "image_name")
        )
        ids, names = class_list(classes, images)
        digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
        return cls(logits, classes.astype(np.int64), ids, names, digests)

    def tiled(self) -> np.ndarray:
        """Logits float32 [40,000, 1000]: of each class its rows, repeated until there are 40."""
        rows = [np.resize(np.flatnonzero(self.classes == number), LABELS_A_CLASS) for number in range(CLASSES)]
        return self.logits[np.concatenate(rows)].astype(np.float32)


def class_list(classes: np.ndarray, images: np.ndarray) -> tuple[list[str], list[str]]:
    """WordNet ids and names of all classes, from images that are called `a:n01440764_tench`.

    Classes of the same name (two cranes, two maillots) have their id behind it. UsageError if a class is missing.
    """
    stated = {
        int(number): name.decode().removeprefix("a:").split("_", 1)
        for number, name in zip(classes, images, strict=True)
        if name.startswith(b"a:")
    }
    if sorted(stated) != list(range(CLASSES)):
        raise UsageError("not a named image of every class", field="image_name", found=len(stated), expected=CLASSES)
    ids = [stated[number][0] for number in range(CLASSES)]
    names = [stated[number][1].replace("_", " ") for number in range(CLASSES)]
    uses = Counter(names)
    return ids, [name if uses[name] == 1 else f"{name} ({id_})" for id_, name in zip(ids, names, strict=True)]


def make(source: Source, path: Path) -> Facts:
    """Writes the file; what went into it."""
    logits, classes = source.tiled(), np.repeat(np.arange(CLASSES), LABELS_A_CLASS)
    started = time.perf_counter(), time.process_time()
    labels = store_labels(logits, classes, LabelChoice("ranked-head", bytes=LABEL_BYTES))
    seconds = time.perf_counter() - started[0], time.process_time() - started[1]
    is_coded, rows, prompts = learned_rows()
    group = Group(
        conditioning=DeltaConditioning(
            template=TEMPLATE,
            negative=(BEGIN, END),
            padding=(END, 77),
            slots=(TEMPLATE.index(STAR),),
            initial_token=STAR,
            bits=BITS,
            coded=is_coded,
            width=WIDTH,
        ),
        cast="f16",
        generator=FAKE_GENERATOR,
        noise_key=NOISE_KEY,
        recipe=stable_diffusion().sampling(),
        images=Images(
            grid=(GRID, GRID), count=IPC, size=(SIDE, SIDE), window=Window(generated=(512, 512), block=(0, 0, 512, 512))
        ),
        labels=labels.record,
    )
    sections = {("cls", None): class_section(source.names, source.ids, "wordnet-3.0"), ("emb", 0): rows}
    sections |= {(name, 0): data for name, data in labels.sections.items()}
    about = About(claims=labels.claims(), method="size benchmark", source=ABOUT, teacher=TEACHER)
    draft = ContentDraft(Classes(authority="wordnet-3.0", count=CLASSES), (group,))
    data = write_d3m(draft, sections, about)
    save_atomically(path, data)
    file = D3MFile.open(path)
    return {
        "data": {
            "files": source.digests,
            "rows": len(source.logits),
            "rows_a_class": {"least": int(np.bincount(source.classes).min()), "used": LABELS_A_CLASS},
        },
        "file": {
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "content_id": file.content_id,
            "head": file.head_bytes,
            "sections": {size["name"]: {k: size[k] for k in ("bytes", "raw_bytes")} for size in file.section_sizes()},
        },
        "prompts": prompts,
        "labels": label_facts(labels, logits)
        | {"encode_and_divergences": {"wall_s": round(seconds[0], 1), "cpu_s": round(seconds[1], 1)}},
    }


def stable_diffusion() -> ready.ReadyConfiguration:
    known = ready.find("sd-1.5")
    assert known is not None
    return known


def learned_rows() -> tuple[bool, bytes, Facts]:
    """Section `emb` of synthetic rows in the shorter form, whether that is the entropy-coded one, and both forms."""
    values = np.random.default_rng(SEED).normal(0, SPREAD, (CLASSES, WIDTH))
    forms = {False: delta.encode(values[:, None], BITS), True: coded.encode(values, BITS)}
    decoded = {
        False: delta.decode(forms[False], CLASSES, 1, [WIDTH], BITS)[0][:, 0],
        True: coded.decode(forms[True], CLASSES, WIDTH, "emb"),
    }
    power = np.square(values).sum()
    facts = {
        name: {
            "bytes": len(forms[form]),
            "relative_squared_error": round(float(np.square(values - decoded[form]).sum() / power), 4),
        }
        for form, name in ((False, "blocks"), (True, "entropy-coded"))
    }
    chosen = len(forms[True]) < len(forms[False])
    return chosen, forms[chosen], {"bits_a_value": BITS, "taken": "entropy-coded" if chosen else "blocks", **facts}


def label_facts(labels: StoredLabels, logits: np.ndarray) -> Facts:
    """Bytes, statistics, mean KL divergence by temperature, and whether the argmax is the teacher's."""
    from d3codec.labels import decode_logits, label_cost
    from d3codec.labels.ranked_head import stated

    data = labels.sections["lab"]
    stored = decode_logits(data, classes=np.repeat(np.arange(CLASSES), LABELS_A_CLASS))
    top = np.take_along_axis(logits, stored.argmax(1)[:, None], 1)[:, 0]
    return {
        "labels": LABELS,
        "bytes_a_label": round(len(data) / LABELS, 3),
        **label_cost(data),
        "statistics": ("none", "in the file", "shipped with the package")[stated(data)[2]],
        "kl_nats": {str(temperature): round(value, 7) for temperature, value in labels.divergences.items()},
        "kl_is_of": "the labels of this file; the shipped statistics come from the fit split, which is among them",
        "largest_logit_kept": float((top == logits.max(1)).mean()),
    }


# ------------------------------------------------------------------------------------------------- what reading costs


def measure(path: Path, source: Source) -> Facts:
    """Times of whole processes, then times within one, then memory, each in a process of its own."""
    load = f"import d3codec; dataset = d3codec.load({str(path)!r})"
    commands = {
        "bare interpreter": ["-c", "pass"],
        "info": ["-m", "d3codec", "info", str(path)],
        "load": ["-c", load],
        "load, labels of one class": ["-c", f"{load}; dataset.subset(classes=[{source.ids[0]!r}]).labels.logits()"],
        "load, all labels": ["-c", f"{load}; dataset.labels.logits()"],
        "verify": ["-m", "d3codec", "verify", str(path)],
    }
    found: dict[str, list[Seconds]] = {name: [] for name in commands}
    for _ in range(RUNS):
        for name, command in commands.items():
            found[name].append(timed(lambda command=command: run(command)))
    times = {name: summary(seconds) for name, seconds in found.items()}
    above = [info[1] - bare[1] for info, bare in zip(found["info"], found["bare interpreter"], strict=True)]
    times["info"]["cpu_above_bare_s"] = {"median": round(median(above), 3), "low": round(min(above), 3)}
    with tempfile.TemporaryDirectory() as folder:
        array = Path(folder) / "logits.npy"
        np.save(array, source.tiled().astype(np.float16))
        reading = json.loads(run([__file__, "--worker", "reading", str(path), str(array)]))
    memory = {how: json.loads(run([__file__, "--worker", how, str(path)])) for how in ("traced", "resident")}
    return {"processes": times, "reading": reading, "memory_beyond_the_array": memory}


Seconds = tuple[float, float]  # wall, CPU (all threads and finished child processes)


def timed(function: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    function()
    return time.perf_counter() - wall, sum(os.times()[:4]) - cpu


def summary(seconds: Sequence[Seconds]) -> Facts:
    walls = [wall for wall, _ in seconds]
    return {
        "wall_s": round(median(walls), 4),
        "low": round(min(walls), 4),
        "high": round(max(walls), 4),
        "cpu_s": round(median(cpu for _, cpu in seconds), 4),
        "runs": len(seconds),
    }


def run(arguments: list[str]) -> str:
    return subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def read_file(path: str, array: str) -> Facts:
    """Within one process: some classes alone with the blocks that they took, all labels beside `np.load`."""
    from d3codec.entropy import Reader
    from d3codec.labels import ranked_head

    class Counted(Reader):
        blocks = 0

        def __init__(self, streams: Sequence[bytes], *others: Any, **named: Any) -> None:
            Counted.blocks += len(streams)
            super().__init__(streams, *others, **named)

    ranked_head.Reader = Counted  # type: ignore[misc]  # the decoder of labels opens every block with it
    dataset = _dataset(path)
    alone, table = {}, {}
    for number in CHOSEN:
        view = dataset.subset(classes=[number])
        Counted.blocks = 0
        table[number] = view.labels.logits()
        touched = LABELS_A_CLASS * np.array([number, number + 1]) - (0, 1)
        alone[dataset.classes[number].name] = {
            "blocks_decoded": Counted.blocks,
            "blocks_needed": int(np.ptp(touched // ranked_head.BLOCK)) + 1,
            **summary([timed(view.labels.logits) for _ in range(RUNS)]),
        }
    Counted.blocks = 0
    every = dataset.labels.logits().reshape(CLASSES, IPC, GRID * GRID, CLASSES)
    blocks, same = Counted.blocks, all(np.array_equal(every[number], table[number]) for number in CHOSEN)
    del every
    ours, halves, singles = [], [], []
    for _ in range(RUNS):
        ours.append(timed(dataset.labels.logits))
        halves.append(timed(lambda: np.load(array)))
        singles.append(timed(lambda: np.load(array).astype(np.float32)))
    return {
        "labels of one class": alone,
        "one class is equal to its part of all": same,
        "all labels": summary(ours) | {"blocks_decoded": blocks, "cores": os.cpu_count()},
        "np.load of fp16": summary(halves) | {"bytes": Path(array).stat().st_size},
        "np.load of fp16, to float32": summary(singles),
        "all labels / np.load": _ratio(ours, halves),
        "all labels / np.load to float32": _ratio(ours, singles),
    }


def _dataset(path: str) -> Any:
    import d3codec

    return d3codec.load(path)


def _ratio(ours: list[Seconds], theirs: list[Seconds]) -> float:
    return round(median(our[0] / their[0] for our, their in zip(ours, theirs, strict=True)), 2)


def traced_memory(path: str) -> Facts:
    """Peak of Python's and numpy's allocations while all labels are decoded, without the array that is returned."""
    import tracemalloc

    dataset = _dataset(path)
    dataset.subset(classes=[0]).labels.logits()  # imports
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    logits = dataset.labels.logits()
    return {"bytes": tracemalloc.get_traced_memory()[1] - before - logits.nbytes, "array": logits.nbytes}


def resident_memory(path: str) -> Facts:
    """The same of the pages of the process, where the system tells (Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return {"bytes": None}

    def stated(name: str) -> int:
        return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))

    dataset = _dataset(path)
    dataset.subset(classes=[0]).labels.logits()
    before = stated("VmRSS")
    logits = dataset.labels.logits()
    return {"bytes": stated("VmHWM") - before - logits.nbytes, "array": logits.nbytes}


WORKERS: dict[str, Callable[..., Facts]] = {"reading": read_file, "traced": traced_memory, "resident": resident_memory}


# ------------------------------------------------------------------------------------------------------ the result


def checks(facts: Facts) -> list[Facts]:
    reading, commands = facts["reading"], facts["processes"]
    alone = reading["labels of one class"].values()
    memory = max(found["bytes"] or 0 for found in facts["memory_beyond_the_array"].values())
    rows: list[tuple[str, Any, Any, bool]] = [
        ("bytes of the file", found := facts["file"]["bytes"], f"< {LIMITS['bytes']}", found < LIMITS["bytes"]),
        (
            "info, CPU seconds above a bare interpreter (least of the runs)",
            found := commands["info"]["cpu_above_bare_s"]["low"],
            f"< {LIMITS['info_s']}",
            found < LIMITS["info_s"],
        ),
        (
            "blocks of labels decoded for one class",
            [each["blocks_decoded"] for each in alone],
            [each["blocks_needed"] for each in alone],
            all(each["blocks_decoded"] == each["blocks_needed"] for each in alone),
        ),
        (
            "one class is equal to its part of all",
            found := reading["one class is equal to its part of all"],
            True,
            found,
        ),
        ("largest logit kept, share", found := facts["labels"]["largest_logit_kept"], 1.0, found == 1),
        (
            "verify, seconds",
            found := commands["verify"]["wall_s"],
            f"< {LIMITS['verify_s']}",
            found < LIMITS["verify_s"],
        ),
        (
            "bytes of memory beyond the array, all labels",
            memory,
            f"< {LIMITS['memory']}",
            0 < memory < LIMITS["memory"],
        ),
    ]
    return [{"what": what, "found": found, "expected": expected, "ok": ok} for what, found, expected, ok in rows]


def beside(facts: Facts) -> list[Facts]:
    """Bytes at IPC 10 by the published rules of others. Images of theirs are pixels; the generator is shared."""
    images, epochs, kept = CLASSES * IPC, 300, 0.1
    prompts, half = 2 * CLASSES * WIDTH, 2 * LABELS * CLASSES
    d3m = {
        "computed_from": "one row of 768 numbers a class, one soft label a patch, 2 x 2 patches an image; fp16 is ours "
        "(the paper names no type); one seed an image (40,000 bytes as u32) left out",
        "source": "D3M, arXiv 2403.07142, section 3.3; no table states bytes",
        "needs": "the generator",
    }
    fkd = 2 * CLASSES + 16 + 1 + 8
    rows = [
        {
            "name": "this file",
            "labels": facts["file"]["sections"]["lab"]["bytes"],
            "rest": facts["file"]["bytes"] - facts["file"]["sections"]["lab"]["bytes"],
            "computed_from": "measured",
            "needs": f"the generator (Stable Diffusion 1.5: {stable_diffusion().weight_bytes('f16'):,} bytes in fp16, "
            f"shared by all datasets) and the package, {facts['labels']['shipped']:,} bytes of statistics among it",
        },
        {"name": "D3M, fp16 labels", "labels": half, "rest": prompts, **d3m},
        {"name": "D3M, ten largest of each label", "labels": LABELS * 10 * (2 + 2), "rest": prompts, **d3m},
        {
            "name": "SRe2L",
            "labels": round(images * epochs * fkd),
            "rest": 150_000_000,
            "computed_from": f"a label an image and epoch ({epochs}): 1,000 fp16 logits, crop 16, flip 1, partner 8 "
            "bytes; files' own overhead left out; images as published",
            "source": "SRe2L, arXiv 2306.13092 (relabel code of VILA-Lab/SRe2L); 5.67 GB (2^30 bytes) of labels and "
            "0.15 GB of images: LPLD, arXiv 2410.15919, tables 'Previous Soft Labels vs Ours' and 'Distilled Image "
            "Dataset' of its README",
            "published_labels_gb": 5.67,
            "needs": "nothing",
        },
    ]
    for k, factor, published in ((100, 40, 0.13), (50, 80, 0.07), (10, 200, 0.03)):
        rows.append(
            {
                "name": f"LPQLD {factor}x ({k} largest)",
                "labels": round(images * epochs * kept) * (4 * k + 10),
                "rest": 150_000_000,
                "computed_from": f"a tenth of SRe2L's labels, each with the {k} largest logits (fp16) and their "
                "indices (int16), crop 8, flip 1, partner 1 bytes; files' own overhead left out; images as published",
                "source": "LPQLD, arXiv 2604.18135, table 'Previous Soft Labels vs. Ours (LPQLD)' of its README; "
                "images: LPLD as above",
                "published_labels_gb": published,
                "needs": "nothing",
            }
        )
    return [{"name": row["name"], "bytes": row["labels"] + row["rest"], **row} for row in rows]


def environment() -> Facts:
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        **{name: version(name) for name in ("d3codec", "numpy", "zstandard", "pydantic")},
    }


def show(result: Facts) -> None:
    file, reading, commands = result["file"], result["reading"], result["processes"]
    print(f"imagenet.d3m: {file['bytes']:,} bytes, {CLASSES} classes x {IPC} images, {LABELS:,} labels\n")
    for name, size in [("head", file["head"]), *((n, s["bytes"]) for n, s in file["sections"].items())]:
        print(f"  {name:44}{size:>16,}")
    print(f"\n  {'seconds, median':46}{'wall':>10}{'CPU':>10}")
    times = {f"process: {name}": row for name, row in commands.items()}
    times |= {f"labels of one class: {name}": row for name, row in reading["labels of one class"].items()}
    times |= {name: row for name, row in reading.items() if isinstance(row, dict) and "wall_s" in row}
    for name, row in times.items():
        print(f"  {name:46}{row['wall_s']:>10.3f}{row['cpu_s']:>10.3f}")
    print(f"  all labels / np.load of fp16: {reading['all labels / np.load']}, to float32: ", end="")
    print(reading["all labels / np.load to float32"], "\n")
    print(f"  {'bytes at 10 images a class':36}{'labels':>16}{'rest':>14}{'together':>16}  published labels")
    for row in result["beside"]:
        published = f"{row['published_labels_gb']:>10} GB" if "published_labels_gb" in row else ""
        print(f"  {row['name']:36}{row['labels']:>16,}{row['rest']:>14,}{row['bytes']:>16,}  {published}")
    print()
    for check in result["checks"]:
        print(f"  {'ok  ' if check['ok'] else 'FAIL'}  {check['what']}: {check['found']} ({check['expected']})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(WORKERS[sys.argv[2]](*sys.argv[3:])))
        raise SystemExit(0)
    try:
        raise SystemExit(main())
    except D3MError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
