"""Does the same file give the same pixels under other kernels? -> results/identity.json

    python benchmarks/identity.py [--images 100] [--profiles exact exact-fixed reproducible fast] [--device cuda]

Every variant decodes the same images of two files with other batches, threads, memory orders, instruction sets and
libraries' code paths, in a process of its own, and is compared with the reference: batches of eight, one thread,
default kernels. `largest_before_rounding` is in levels of 0 to 255. Files: the bundled digits.d3m (100 images of
16 x 16) and a file of 100 images of 64 x 64 on the 6.9 M parameters of `networks.py`, ten steps.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results" / "identity.json"
OLD_KERNELS = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}

# name -> (environment, options of the decode)
VARIANTS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "batch 8": ({}, {}),
    "batch 1": ({}, {"batch": 1}),
    "batch 3": ({}, {"batch": 3}),
    "batch 17": ({}, {"batch": 17}),
    "reversed order": ({}, {"reverse": True}),
    "2 threads": ({}, {"threads": 2}),
    "channels_last": ({}, {"channels_last": True, "batch": 3}),
    "plain attention": ({}, {"plain": True}),
    "oneDNN off": ({}, {"onednn": False}),
    "ATEN_CPU_CAPABILITY=default": ({"ATEN_CPU_CAPABILITY": "default"}, {}),
    "ATEN_CPU_CAPABILITY=avx2": ({"ATEN_CPU_CAPABILITY": "avx2"}, {}),
    "MKL_CBWR=COMPATIBLE": ({"MKL_CBWR": "COMPATIBLE"}, {}),
    "ONEDNN_MAX_CPU_ISA=SSE41": ({"ONEDNN_MAX_CPU_ISA": "SSE41"}, {}),
    "all old kernels, batch 3, channels_last": (OLD_KERNELS, {"batch": 3, "channels_last": True}),
}
CUDA_VARIANTS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "cuda, batch 8": ({}, {"device": "cuda"}),
    "cuda, batch 1": ({}, {"device": "cuda", "batch": 1}),
    "cuda, batch 17, channels_last": ({}, {"device": "cuda", "batch": 17, "channels_last": True}),
}
# `reproducible` always computes eight images on one thread: only their order and neighbours, and the machine, vary.
# `fast` promises nothing, and bfloat16 without oneDNN's newer kernels takes hours.
MEANINGFUL = {
    "reproducible": ("batch 8", "reversed order", "2 threads", "ATEN", "MKL", "ONEDNN", "cuda, batch 8"),
    "fast": ("batch", "reversed order", "2 threads", "channels_last", "plain attention", "cuda"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--profiles", nargs="+", default=["exact", "exact-fixed", "reproducible", "fast"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda adds the variants on a GPU")
    parser.add_argument("--fixed-images", type=int, default=16, help="images of the larger network in exact-fixed")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), arguments)
    save(rows, arguments)


def measure(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row a profile and variant, values of both files together."""
    files = [(bundled_file(), None), make_file(folder)]
    variants = VARIANTS | (CUDA_VARIANTS if arguments.device == "cuda" else {})
    rows = []
    for profile in arguments.profiles:
        references = {}
        for name, (environment, options) in variants.items():
            if not any(name.startswith(known) for known in MEANINGFUL.get(profile, (name,))):
                continue
            compared = []
            for number, (file, generator) in enumerate(files):
                count = min(arguments.images, arguments.fixed_images if profile == "exact-fixed" and number else 100)
                task = {"file": str(file), "generator": generator, "profile": profile, "count": count} | options
                levels = decode_elsewhere(folder, task, environment)
                references.setdefault(number, levels)
                compared.append((references[number], levels))
            if name == "batch 8":
                continue
            rows.append({"profile": profile, "variant": name} | compare(compared))
            print(json.dumps(rows[-1]), flush=True)
    return rows


def compare(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    differing = sum(int((np.rint(one) != np.rint(other)).sum()) for one, other in pairs)
    largest = max(float(np.abs(one.astype(np.float64) - other).max()) for one, other in pairs)
    return {
        "differing": differing,
        "of": sum(one.size for one, _ in pairs),
        "images": sum(len(one) for one, _ in pairs),
        "largest_before_rounding": largest,
        "bits_equal": largest == 0.0,
        "eps": 1e-7,
    }


def decode_elsewhere(folder: Path, task: dict[str, Any], environment: dict[str, str]) -> np.ndarray:
    """The levels of the task's images, decoded in a fresh process with this environment."""
    output = folder / "levels.npy"
    command = [sys.executable, __file__, "--worker", json.dumps(task | {"output": str(output)})]
    single = {"OMP_NUM_THREADS": str(task.get("threads", 1))}
    subprocess.run(command, env={**os.environ, **single, **environment}, check=True)
    levels: np.ndarray = np.load(output)
    return levels


def work(task: dict[str, Any]) -> None:
    """Runs in its own process: decode and save the levels before rounding."""
    import contextlib

    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from d3codec.decoder.precision import compute_dtype
    from d3codec.decoder.render import Renderer
    from d3codec.format.file import D3MFile
    from d3codec.generators.load import load_generator
    from d3codec.generators.weights import find_generator

    torch.set_num_threads(task.get("threads", 1))
    file, profile = D3MFile.open(task["file"]), task["profile"]
    group = file.content.groups[0]
    folder = find_generator(group.generator, group.cast, given=task["generator"])
    generator = load_generator(folder, cast=group.cast, dtype=compute_dtype(profile), device=task.get("device", "cpu"))
    channels_last = task.get("channels_last", False)
    if channels_last:
        for network in (generator.unet, generator.vae):
            network.to(memory_format=torch.channels_last)
    renderer = Renderer(group, file.section("emb", 0), generator, profile, file.content.classes.count)
    sources = spread(file.content.classes.count, group.images.sources, task["count"])
    order = list(range(len(sources)))[:: -1 if task.get("reverse") else 1]
    levels: list[np.ndarray] = [np.zeros(0)] * len(sources)
    with contextlib.ExitStack() as stack:
        if task.get("plain"):
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if not task.get("onednn", True):
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        size = task.get("batch", 8)
        for first in range(0, len(order), size):
            places = order[first : first + size]
            batch = renderer.levels([sources[place] for place in places], channels_last=channels_last)
            for place, image in zip(places, batch, strict=True):
                levels[place] = image
    np.save(task["output"], np.stack(levels))


def spread(classes: int, sources: int, count: int) -> list[tuple[int, int]]:
    """The first `count` images, the first of every class before the second of any."""
    pairs = [(class_, source) for source in range(sources) for class_ in range(classes)]
    return sorted(pairs[:count])


# ------------------------------------------------------------------------------------------------ files


def bundled_file() -> Path:
    import d3codec

    return Path(d3codec.__file__).parent / "assets" / "digits.d3m"


def make_file(folder: Path) -> tuple[Path, str]:
    """A file of ten classes, ten images each, with random learned prompts, for the network of `networks.py`."""
    from networks import SIDE, make_network

    from d3codec.conditioning import delta
    from d3codec.format.file import ContentDraft, D3MFile, write_d3m
    from d3codec.format.manifest import HardLabels, Images
    from d3codec.format.save import save_atomically
    from d3codec.generators.weights import describe
    from d3codec.noise import normals

    pipeline = make_network(folder / "network")
    digits = D3MFile.open(bundled_file())
    group = digits.content.groups[0]
    conditioning = group.conditioning
    assert conditioning.kind == "delta"
    fields = {name: getattr(group, name) for name in type(group).model_fields}
    recipe = group.recipe
    recipe_fields = {name: getattr(recipe, name) for name in type(recipe).model_fields} | {"steps": 10}
    made = type(group)(
        **fields
        | {
            "generator": describe(pipeline, "f16").id,
            "images": Images(grid=(1, 1), count=10, size=(SIDE, SIDE)),
            "labels": HardLabels(),
            "recipe": type(recipe)(**recipe_fields),
        }
    )
    rows = normals(1, 0, 0, (10, len(conditioning.slots), conditioning.width)) * 0.5
    sections = {("cls", None): digits.section("cls"), ("emb", 0): delta.encode(rows, conditioning.bits)}
    path = folder / "network.d3m"
    save_atomically(path, write_d3m(ContentDraft(digits.content.classes, (made,)), sections))
    return path, str(pipeline)


# ------------------------------------------------------------------------------------------------ result


def save(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    import torch

    from d3codec.decoder.precision import fingerprint

    digest = hashlib.sha256(bundled_file().read_bytes()).hexdigest()
    result = {
        "question": "do other kernels give other pixels?",
        "reference": "batch 8, one thread, default kernels",
        "files": {
            "digits.d3m": digest,
            "network": "benchmarks/networks.py, random weights, 64 x 64, 10 steps with guidance",
        },
        "environment": {"fingerprint": fingerprint("cpu"), "cuda": torch.cuda.is_available()},
        "not_measured": [] if arguments.device == "cuda" else ["GPU", "processors other than this one"],
        "runs": 1,
        "rows": rows,
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--worker":
        work(json.loads(sys.argv[2]))
    else:
        main()
