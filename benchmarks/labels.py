"""Bytes a label against divergence, linear students and time on real ImageNet logits -> results/labels*.json

    python benchmarks/labels.py rate     DATA    # results/labels_rate.json      bars of divergence, about 10 minutes
    python benchmarks/labels.py linear   DATA    # results/labels_linear.json    linear students, about 20 minutes
    python benchmarks/labels.py speed    DATA    # results/labels_speed.json     40,000 labels beside np.load
    python benchmarks/labels.py teacher  DATA    # results/labels_teacher.json   a teacher that the statistics never met
    python benchmarks/labels.py statistics DATA  # writes the statistics that come with the package

DATA holds `imagenet_patch_logits_fit.npz` and `imagenet_patch_logits_eval.npz`: logits of 1,000 classes of random crops
of photographs, split by image. Statistics and choices come from fit alone, figures from eval. All bytes are counted as
a reader needs them; the statistics that come with the package are stated beside. A divergence is the mean of
KL(teacher || decoded) over labels in nat, at T = 1, 4 and 20; its ratios are to top-k labels on the same rows (k
probabilities at T = 1 as fp16 and k indices of two bytes, the rest shared evenly).
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d3codec.labels import decode_logits, encode_logits, label_cost, statistics, topk
from d3codec.labels.corrections import TEMPERATURES, divergences
from d3codec.labels.views import apply

ROOT = Path(__file__).parent
AXES, STEP = 150, 0.093  # of the shipped statistics: the largest that fit 36 KiB, chosen on a part of fit
AT_SCALE = 40_000
CURVE = (3, 3.5, 4, 4.5, 5, 6, 7.5, 10, 16, 24, 26, 27, 28, 30, 38, 50)
TOP = (1, 3, 5, 10, 20, 50, 100)
SMALL, SMALL_DRAWS = 400, 5
EPOCHS, BATCH, RATE, SEEDS = 30, 100, 3e-3, (0, 1, 2)  # of linear students, fixed before any figure
STUDENT_SIZES = (3.5, 6, 8, 10, 13, 16, 20, 24, 30)
MASKS = (10, 20, 50, 100)
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    try:
        fit, evaluation = (Logits(arguments.data / f"imagenet_patch_logits_{name}.npz") for name in ("fit", "eval"))
    except FileNotFoundError as error:
        print(f"error: {error.filename} is needed: see benchmarks/README.md", file=sys.stderr)
        sys.exit(4)
    start = time.perf_counter()
    result = PARTS[arguments.part](fit, evaluation)
    if result is not None:
        from d3codec.training.demo import environment

        result = {"question": __doc__.splitlines()[0], "part": arguments.part} | result
        result["environment"] = environment() | {"seconds": round(time.perf_counter() - start)}
        path = arguments.output or ROOT / "results" / f"labels_{arguments.part}.json"
        path.write_text(json.dumps(result, indent=1) + "\n")


class Logits:
    """A split: logits float32 [N, 1000] with rows of mean 0, labels, images and features of the teacher [N, 96]."""

    def __init__(self, path: Path) -> None:
        arrays = np.load(path)
        logits = arrays["logits"].astype(np.float32)
        self.logits = logits - logits.mean(axis=1, keepdims=True)
        self.classes = arrays["label"].astype(np.int64)
        self.images = arrays["image"].astype(np.int64)
        self.features = arrays["feat96"].astype(np.float32) / 24


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- divergence ------------------------------------------------------------------------------------------------------


def rate(fit: Logits, evaluation: Logits) -> Row:
    """The bars of divergence: shipped statistics at full size, no statistics in small archives."""
    z, classes = evaluation.logits, evaluation.classes
    top = {size: divergences(z, _top(z, size)) for size in TOP}
    rivals = [{"k": size, "bytes": 4 * size, "divergence": found.tolist()} for size, found in top.items()]
    curve = [_measured(z, classes, size, "shipped", top) for size in CURVE]
    bars = {
        "a: top-10 (40 bytes)": _least(curve, "ratio to top-10") | {"bar": 7.5, "stretch": 6.0, "moonshot": 4.5},
        "b: top-50 (200 bytes)": _least(curve, "ratio to top-50") | {"bar": 38.0, "stretch": 32.0, "moonshot": 26.0},
        "c: 400 labels, no statistics, top-10": _small(z, classes) | {"bar": 16.0},
    }
    uniform = divergences(z, np.zeros_like(z)).tolist()
    own = [_measured(z, classes, size, "file", top) for size in (7.5, 38)]
    return {
        "labels": len(z),
        "temperatures": TEMPERATURES,
        "shipped statistics": {"bytes": len(statistics.shipped_bytes()), "sha256": statistics.shipped_digest()},
        "bars": bars,
        "curve": curve,
        "statistics in the file": own,
        "best of each image (lowest cross-entropy with its class)": _selected(evaluation),
        "uniform label": uniform,
        "top-k": rivals,
        "one run": "encoding and decoding are deterministic on a machine",
    }


def _measured(
    z: NDArray[np.float32], classes: NDArray[np.int64], size: float, source: str, top: dict[int, NDArray[np.float64]]
) -> Row:
    data = encode_logits(z, classes=classes, bytes_per_label=size, statistics=source)  # type: ignore[arg-type]
    decoded = decode_logits(data, classes=classes)
    cost = label_cost(data)
    found = divergences(z, decoded)
    row = {
        "asked": size,
        "bytes a label": round(len(data) / len(z), 4),
        f"bytes a label at {AT_SCALE}": round(cost["payload"] / len(z) + cost["side"] / AT_SCALE, 4),
        **cost,
        "divergence": [round(value, 7) for value in found.tolist()],
        "same argmax": float((decoded.argmax(axis=1) == z.argmax(axis=1)).mean()),
    }
    for k in (10, 50):
        row[f"ratio to top-{k}"] = [round(value, 4) for value in (found / top[k]).tolist()]
    say(f"{size:6} {source:8} {row['bytes a label']:8.3f} B  {row['ratio to top-10']}  {row['ratio to top-50']}")
    return row


def _least(curve: list[Row], ratio: str) -> Row:
    """The smallest size at which all three ratios are at most 1."""
    good = [row for row in curve if max(row[ratio]) <= 1]
    best = min(good, key=lambda row: row["bytes a label"])
    return {"met with": best["bytes a label"], "asked": best["asked"], "ratio": best[ratio]}


def _small(z: NDArray[np.float32], classes: NDArray[np.int64]) -> Row:
    """Archives of 400 labels that need nothing but themselves: the smallest size that is no worse than top-10."""
    draws = []
    for seed in range(SMALL_DRAWS):
        rows = np.random.default_rng(seed).permutation(len(z))[:SMALL]
        some, reference = z[rows], divergences(z[rows], _top(z[rows], 10))
        for size in (8, 9, 10, 11, 12, 14, 16):
            data = encode_logits(some, classes=classes[rows], bytes_per_label=size, statistics="none")
            ratio = divergences(some, decode_logits(data, classes=classes[rows])) / reference
            if ratio.max() <= 1:
                break
        draws.append({"seed": seed, "bytes a label": round(len(data) / SMALL, 3), "ratio": ratio.round(4).tolist()})
        say(f"400 labels: {draws[-1]}")
    return {"met with": max(draw["bytes a label"] for draw in draws), "draws": draws}


def _selected(evaluation: Logits) -> Row:
    """Labels as a collage of selected patches has them: of every image the crop that suits its class best."""
    own = evaluation.logits[np.arange(len(evaluation.logits)), evaluation.classes]
    loss = np.log(np.exp(evaluation.logits).sum(axis=1)) - own
    order = np.lexsort((loss, evaluation.images))
    rows = order[np.unique(evaluation.images[order], return_index=True)[1]]
    z, classes = evaluation.logits[rows], evaluation.classes[rows]
    top = {size: divergences(z, _top(z, size)) for size in (10, 50)}
    return {"labels": len(z), "rows": [_measured(z, classes, size, "shipped", top) for size in (5, 7.5, 26, 30, 38)]}


def _top(z: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Top-k labels in float16 as logits, "rest uniform"."""
    data = topk.encode(z, size)
    return topk.decode(data, len(z), z.shape[1], size)


# --- linear students -------------------------------------------------------------------------------------------------


def linear(fit: Logits, evaluation: Logits) -> Row:
    """Students: softmax regression on the teacher's features, trained on decoded labels of fit, accuracy on eval.

    Adam, cosine schedule, T^2-weighted cross-entropy at the temperature of the row; nothing is chosen on eval: the
    view of a layout at a temperature is the best on a fifth of the images of fit, one seed.
    """
    z, classes = fit.logits, fit.classes
    held = fit.images % 5 == 0
    layouts: list[tuple[str, float, NDArray[np.float32], tuple[str, ...]]] = []
    masks = tuple(f"mr-{k}" for k in MASKS)
    layouts.append(("raw logits (fp16)", 2000.0, z, ("logits", *masks, "mr-200")))
    for k in (3, 10, 50):
        views = ("logits", f"mr-{k}")
        layouts.extend((f"top-{k}, {_NAMES[view[:2]]}", 4.0 * k, _top(z, k), (view,)) for view in views)
    for size in STUDENT_SIZES:
        data = encode_logits(z, classes=classes, bytes_per_label=size)
        layouts.append(("ranked head", len(data) / len(z), decode_logits(data, classes=classes), ("logits", *masks)))
    rows = []
    for name, size, decoded, views in layouts:
        row: Row = {"layout": name, "bytes a label": round(size, 3), "students": {}}
        for temperature in (20, 1):
            tried = {view: _student(fit, apply(decoded, view), held, temperature) for view in views if len(views) > 1}
            view = max(tried, key=lambda key: tried[key]) if tried else views[0]
            found = [_accuracy(fit, apply(decoded, view), evaluation, temperature, seed) for seed in SEEDS]
            row["students"][f"T = {temperature}"] = {
                "view": view,
                "validation": {key: round(value, 2) for key, value in tried.items()},
                "accuracy": round(fmean(found), 2),
                "standard deviation": round(stdev(found), 2),
                "seeds": [round(value, 2) for value in found],
            }
        say(f"{name:24} {size:8.2f} B  " + str({t: (s["view"], s["accuracy"]) for t, s in row["students"].items()}))
        rows.append(row)
    binomial = 100 * float(np.sqrt(0.4 * 0.6 / len(evaluation.classes)))
    return {
        "rows": rows,
        "recipe": {"epochs": EPOCHS, "batch": BATCH, "rate": RATE, "optimiser": "Adam, cosine", "loss": "T^2 CE"},
        "accuracy": "top-1 against the class of the photograph, 4,000 rows of eval, per cent",
        "binomial standard error": round(binomial, 2),
        "seeds": list(SEEDS),
    }


_NAMES = {"lo": "rest uniform", "mr": "MR-k"}


def _student(fit: Logits, target: NDArray[np.float32], held: NDArray[np.bool_], temperature: float) -> float:
    """Accuracy on the images of fit that were held out, seed 0."""
    return _trained(fit.features[~held], target[~held], fit.features[held], fit.classes[held], temperature, 0)


def _accuracy(fit: Logits, target: NDArray[np.float32], evaluation: Logits, temperature: float, seed: int) -> float:
    return _trained(fit.features, target, evaluation.features, evaluation.classes, temperature, seed)


def _trained(
    features: NDArray[np.float32],
    target: NDArray[np.float32],
    test_features: NDArray[np.float32],
    test_classes: NDArray[np.int64],
    temperature: float,
    seed: int,
) -> float:
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    x, test = torch.from_numpy(features), torch.from_numpy(test_features)
    probabilities = torch.softmax(torch.from_numpy(target) / temperature, 1)
    student = torch.nn.Linear(x.shape[1], target.shape[1])
    torch.nn.init.normal_(student.weight, std=0.01)
    torch.nn.init.zeros_(student.bias)
    optimizer = torch.optim.Adam(student.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * (len(x) // BATCH))
    for _ in range(EPOCHS):
        order = torch.randperm(len(x))
        for first in range(0, len(x) - BATCH + 1, BATCH):
            rows = order[first : first + BATCH]
            scores = functional.log_softmax(student(x[rows]) / temperature, 1)
            loss = -(probabilities[rows] * scores).sum(1).mean() * temperature**2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    found = student(test).argmax(1).numpy()
    return 100 * float((found == test_classes).mean())


# --- another teacher -------------------------------------------------------------------------------------------------


def teacher(fit: Logits, evaluation: Logits) -> Row:
    """Teachers that the shipped statistics never met, made from eval: other temperatures, another shape, noise, and
    columns in another order. Bars (a) and (b) on each, statistics as the encoder chooses them."""
    z, classes = evaluation.logits, evaluation.classes
    generator = np.random.default_rng(0)
    order = generator.permutation(z.shape[1])
    cubed = np.sign(z) * np.abs(z) ** 1.25
    made: dict[str, tuple[NDArray[np.float32], NDArray[np.int64]]] = {
        "logits times 0.6": (z * 0.6, classes),
        "logits times 1.6": (z * 1.6, classes),
        "logits to the power 1.25": (cubed, classes),
        "noise of 0.5 nat": (z + generator.normal(0, 0.5, z.shape), classes),
        "columns in another order": (z[:, order], np.argsort(order)[classes]),
    }
    rows = []
    for name, (logits, columns) in made.items():
        logits = (logits - logits.mean(axis=1, keepdims=True)).astype(np.float32)
        top = {size: divergences(logits, _top(logits, size)) for size in (10, 50)}
        measured = [_measured(logits, columns, size, "auto", top) for size in (5, 7.5, 30, 38)]
        rows.append({"teacher": name, "rows": measured})
    return {"teachers": rows, "labels": len(z)}


# --- time ------------------------------------------------------------------------------------------------------------


def speed(fit: Logits, evaluation: Logits) -> Row:
    """40,000 labels, those of both splits repeated and sorted by class, beside np.load of the same logits in fp16."""
    rows = np.arange(AT_SCALE) % (len(fit.logits) + len(evaluation.logits))
    classes = np.concatenate([fit.classes, evaluation.classes])[rows]
    rows = rows[np.argsort(classes, kind="stable")]
    classes = np.concatenate([fit.classes, evaluation.classes])[rows]
    z = np.concatenate([fit.logits, evaluation.logits])[rows]
    result: Row = {"labels": AT_SCALE, "pairs": 5, "rows": []}
    plain = io.BytesIO()
    np.save(plain, z.astype(np.float16))
    for size in (7.5, 30):
        start, cpu = time.perf_counter(), time.process_time()
        data = encode_logits(z, classes=classes, bytes_per_label=size)
        encoding = time.perf_counter() - start, time.process_time() - cpu
        pairs = [
            (_timed(lambda data=data: decode_logits(data, classes=classes)), _timed(lambda: _load(plain)))
            for _ in range(5)
        ]
        tracemalloc.start()
        decoded = decode_logits(data, classes=classes)
        memory = tracemalloc.get_traced_memory()[1] - decoded.nbytes
        tracemalloc.stop()
        row = {
            "bytes a label": round(len(data) / AT_SCALE, 3),
            "encode": {"seconds": round(encoding[0], 1), "CPU seconds": round(encoding[1], 1)},
            "decode": {
                "seconds": [round(pair[0][0], 3) for pair in pairs],
                "CPU seconds": [round(pair[0][1], 3) for pair in pairs],
                "median seconds": round(median(pair[0][0] for pair in pairs), 3),
            },
            "np.load of fp16 to float32": {"median seconds": round(median(pair[1][0] for pair in pairs), 3)},
            "decode / np.load": round(median(pair[0][0] / pair[1][0] for pair in pairs), 2),
            "memory beyond the result": memory,
            "one class": round(median(_timed(lambda data=data: _one_class(data, classes))[0] for _ in range(5)), 4),
        }
        say(str(row))
        result["rows"].append(row)
    return result


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


def _load(plain: io.BytesIO) -> NDArray[np.float32]:
    plain.seek(0)
    return np.load(plain).astype(np.float32)


def _one_class(data: bytes, classes: NDArray[np.int64]) -> NDArray[np.float32]:
    from d3codec.labels import ranked_head

    first, last = np.searchsorted(classes, [500, 501])
    return ranked_head.decode(data, classes, 1000, slice(int(first), int(last)))


# --- the statistics of the package -----------------------------------------------------------------------------------


def write_statistics(fit: Logits, evaluation: Logits) -> None:
    """Fit the statistics that come with the package and write both copies. Another machine's eigenvectors may round
    to other integers: then the digest differs, and files made with it need it."""
    data = statistics.pack(statistics.fit(fit.logits, AXES, STEP))
    for folder in (ROOT.parent / "d3codec" / "labels", ROOT.parent / "spec" / "data"):
        folder.mkdir(exist_ok=True)
        (folder / statistics.SHIPPED).write_bytes(data)
    say(f"{len(data)} bytes")


PARTS: dict[str, Callable[[Logits, Logits], Row | None]] = {
    "rate": rate,
    "linear": linear,
    "speed": speed,
    "teacher": teacher,
    "statistics": write_statistics,
}

if __name__ == "__main__":
    main()
