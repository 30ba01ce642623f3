"""How long does a decode take beside diffusers' own pipeline? -> results/decode_speed.json

    python benchmarks/decode_speed.py [--quick] [--parts networks processes first-image] [--device cuda]

Every figure is the median of five pairs that alternate within one run, `low` and `high` are the smallest and the
largest. `what` of a row ends with the meaning of its ratio: speed (times faster, more is better) or time (times longer,
less is better). Against the pipeline of diffusers: batch 8, the same steps, guidance and size, on one thread; on the
CPU both are measured in CPU time, since other programs may take the core away, and wall time stands beside. Both have
run once before, and the decoder has by then encoded its prompts, which it does once a row.

With `--device cuda` the network has the size of Stable Diffusion 1.5 (random weights, about 10 GB of disk, 30 GB of
memory) and wall time is measured.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results" / "decode_speed.json"
BATCH = 8
BATCHES = (4, 8, 16, 32)  # in which diffusers is tried
SPREAD = 2  # images of a class in the unit that is timed
IMPORTS = "import torch, diffusers, transformers"
SIDE, TOKENS = 512, 77
TEXT = {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072, "num_attention_heads": 12}
UNET, VAE = (320, 640, 1280, 1280), (128, 256, 512, 512)
Clock = Callable[[], float]
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["networks", "processes", "first-image"])
    parser.add_argument("--profiles", nargs="+", default=["reproducible", "exact", "exact-fixed", "fast"])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--units", type=int, default=3, help="that each process decodes in one timing")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="two pairs of the bundled file: does it run?")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.pairs, arguments.units = 2, 1
    calm()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), arguments)
    save(rows, arguments)


def measure(folder: Path, arguments: argparse.Namespace) -> list[Row]:
    from identity import bundled_file, make_file

    rows = []
    if arguments.device == "cuda":
        return network_rows("a network of the size of Stable Diffusion 1.5", *make_large(folder), arguments)
    if "networks" in arguments.parts:
        rows += network_rows("digits.d3m", bundled_file(), None, arguments)
        if not arguments.quick:
            rows += network_rows("6.9 M network", *make_file(folder), arguments)
    if "processes" in arguments.parts:
        rows += process_rows(bundled_file(), arguments)
    if "first-image" in arguments.parts:
        rows += first_image_rows(bundled_file(), folder, arguments)
    return rows


def row(what: str, against: str, ratios: list[float], **more: Any) -> Row:
    """One row of the result, printed as it is made."""
    import torch

    from d3codec.decoder.precision import fingerprint

    device = more.pop("device", "cpu")
    found = {
        "what": what,
        "against": against,
        "ratio": round(median(ratios), 3),
        "low": round(min(ratios), 3),
        "high": round(max(ratios), 3),
        "pairs": len(ratios),
        "machine": fingerprint(device),
        "threads": torch.get_num_threads(),
    } | more
    print(json.dumps(found), flush=True)
    return found


def calm() -> None:
    """One thread, and nothing printed between the rows."""
    import torch

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in ("diffusers", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)


# ---------------------------------------------------------------------------------------- against the pipeline


def network_rows(name: str, file: Path, generator: str | None, arguments: argparse.Namespace) -> list[Row]:
    """Each profile against the pipeline in float32, `fast` against bfloat16 too."""
    import torch

    cuda = arguments.device == "cuda"
    rows = []
    if cuda:  # the setting of profile `reproducible`
        torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.conv.fp32_precision = "ieee"
    for dtype in ("float32", "bfloat16"):
        profiles = [profile for profile in arguments.profiles if dtype == "float32" or profile == "fast"]
        profiles = [profile for profile in profiles if not (cuda and profile == "exact-fixed")]
        if not profiles:
            continue
        theirs, steps = pipeline(file, generator, dtype, arguments.device)
        best = best_batch(theirs, arguments)
        against = f"diffusers {dtype}, batch {BATCH}"
        for profile in profiles:
            ours = renderer(file, generator, profile, arguments.device)
            pairs = alternate(ours, partial(theirs, BATCH), arguments.pairs, cuda)
            rows += compared(name, profile, against, pairs, cuda, dtype, steps, best)
            del ours
        if cuda and dtype == "bfloat16":
            compiled, _ = pipeline(file, generator, dtype, arguments.device, compiled=True)
            ours = renderer(file, generator, "fast", arguments.device)
            pairs = alternate(ours, partial(compiled, BATCH), arguments.pairs, cuda)
            rows += compared(name, "fast", f"{against}, compiled", pairs, cuda, dtype, steps, None)
    return rows


Pair = tuple[tuple[float, float], tuple[float, float]]  # of ours and theirs: CPU seconds, wall seconds


def compared(
    name: str,
    profile: str,
    against: str,
    pairs: list[Pair],
    cuda: bool,
    dtype: str,
    steps: int,
    best: dict[str, Any] | None,
) -> list[Row]:
    """A row: `reproducible` and `fast` are to be faster, the others may take longer."""
    from d3codec.decoder.precision import compute_dtype

    faster = profile in ("reproducible", "fast")

    def ratios(clock: int) -> list[float]:
        return [(theirs[clock] / ours[clock]) if faster else (ours[clock] / theirs[clock]) for ours, theirs in pairs]

    clock = 1 if cuda else 0
    more: dict[str, Any] = {"clock": "wall" if cuda else "cpu", "ratio_by_wall_time": round(median(ratios(1)), 3)}
    if best is not None:
        share = best["seconds_an_image"]
        more["best_batch_of_diffusers"] = best
        more["ratio_against_best_batch"] = round(median(ratios(clock)) * (share if faster else 1 / share), 3)
    return [
        row(
            f"{profile}, {name}: {'speed' if faster else 'time'}",
            against,
            ratios(clock),
            dtype=str(compute_dtype(profile)).removeprefix("torch."),
            dtype_against=dtype,
            batch=BATCH,
            steps=steps,
            seconds_an_image=round(median(ours[clock] for ours, _ in pairs) / BATCH, 4),
            device="cuda" if cuda else "cpu",
            **more,
        )
    ]


def renderer(file: Path, generator: str | None, profile: str, device: str) -> Callable[[], object]:
    """A function that decodes eight images with the package."""
    from d3codec.decoder.plan import Unit
    from d3codec.decoder.renderers import Renderers
    from d3codec.format.file import D3MFile

    opened = D3MFile.open(file)
    made = Renderers(opened, profile, device, generator, True, None).of(0)
    places = range(BATCH)
    unit = Unit(0, -1, tuple(place // SPREAD for place in places), tuple(place % SPREAD for place in places))
    return lambda: made.render(unit)


def pipeline(
    file: Path, generator: str | None, dtype: str, device: str, compiled: bool = False
) -> tuple[Callable[[int], object], int]:
    """A function that makes a batch with diffusers, from a prompt a picture to values 0 to 1, and its steps."""
    import torch
    from diffusers import StableDiffusionPipeline

    from d3codec.format.file import D3MFile
    from d3codec.format.limits import MILLION
    from d3codec.generators.weights import find_generator

    group = D3MFile.open(file).content.groups[0]
    folder = find_generator(group.generator, group.cast, given=generator)
    loaded: Any = StableDiffusionPipeline.from_pretrained(
        folder, torch_dtype=getattr(torch, dtype), safety_checker=None, local_files_only=True
    ).to(device)
    loaded.set_progress_bar_config(disable=True)
    if compiled:
        loaded.unet = torch.compile(loaded.unet, mode="max-autotune", fullgraph=True)
        loaded.vae.decode = torch.compile(loaded.vae.decode, mode="max-autotune")
    height, width = group.images.generated
    options = {
        "height": height,
        "width": width,
        "num_inference_steps": group.recipe.steps,
        "guidance_scale": group.recipe.guidance / MILLION,
        "output_type": "np",
    }
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven")
    return lambda count: loaded([names[k % 8] for k in range(count)], **options), group.recipe.steps


def timed(function: Callable[[], object], cuda: bool) -> tuple[float, float]:
    """CPU and wall seconds of a call."""
    import torch

    if cuda:
        torch.cuda.synchronize()
    cpu, wall = time.process_time(), time.perf_counter()
    function()
    if cuda:
        torch.cuda.synchronize()
    return time.process_time() - cpu, time.perf_counter() - wall


def alternate(ours: Callable[[], object], theirs: Callable[[], object], pairs: int, cuda: bool) -> list[Pair]:
    """Times of both in turn, the second first in every other pair, after one call of each that is not counted."""
    ours()
    theirs()
    found = []
    for number in range(pairs):
        if number % 2:
            second = timed(theirs, cuda)
            found.append((timed(ours, cuda), second))
        else:
            found.append((timed(ours, cuda), timed(theirs, cuda)))
    return found


def best_batch(theirs: Callable[[int], object], arguments: argparse.Namespace) -> dict[str, Any]:
    """The batch in which diffusers takes the least time an image, and that time as a share of that in batch 8."""
    cuda = arguments.device == "cuda"
    batches = (BATCH, 2 * BATCH) if arguments.quick else BATCHES
    times: dict[int, list[float]] = {batch: [] for batch in batches}
    for number in range(2 if arguments.quick else 4):
        for batch in batches:
            seconds = timed(partial(theirs, batch), cuda)[1 if cuda else 0]
            if number:  # the first call is not counted
                times[batch].append(seconds / batch)
    share = {
        batch: median(one / eight for one, eight in zip(times[batch], times[BATCH], strict=True)) for batch in batches
    }
    batch = min(share, key=lambda batch: share[batch])
    return {"batch": batch, "seconds_an_image": round(share[batch], 3), "in": f"those of batch {BATCH}"}


# ------------------------------------------------------------------------------------------------- processes


def process_rows(file: Path, arguments: argparse.Namespace) -> list[Row]:
    """Images a second of two processes against one, after their start and one unit."""
    rows = []
    for profile in ("exact", "reproducible"):
        task = json.dumps({"file": str(file), "profile": profile, "units": arguments.units})
        with ExitStack() as stack:
            workers = [stack.enter_context(Worker(task)) for _ in range(2)]
            for worker in workers:
                worker.wait()
            ratios = []
            for number in range(arguments.pairs):
                counts = (1, 2) if number % 2 else (2, 1)
                seconds = {count: together(workers[:count]) for count in counts}
                ratios.append(2 * seconds[1] / seconds[2])
        rows.append(
            row(
                f"{profile}, digits.d3m, two processes: speed",
                "one process",
                ratios,
                dtype={"exact": "float64", "reproducible": "float32"}[profile],
                clock="wall",
                cores=os.cpu_count(),
                load_before_the_run=round(LOAD, 2),
                units_a_process=arguments.units,
            )
        )
    return rows


class Worker:
    """A process that decodes some units whenever it is told to."""

    def __init__(self, task: str) -> None:
        single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", task],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **single},
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")

    def wait(self) -> None:
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise SystemExit("a process ended early")


def together(workers: list[Worker]) -> float:
    """Seconds until all are done."""
    started = time.perf_counter()
    for worker in workers:
        worker.go()
    for worker in workers:
        worker.wait()
    return time.perf_counter() - started


def work(task: dict[str, Any]) -> None:
    """The life of a worker: load, one unit, `done`; then for every line so many units and `done`."""
    from d3codec.decoder.plan import Plan
    from d3codec.decoder.renderers import Renderers, render_units
    from d3codec.format.file import D3MFile

    calm()
    file = D3MFile.open(task["file"])
    renderers = Renderers(file, task["profile"], "cpu", None, True, None)
    units = list(Plan.of(file.content).units[: task["units"]])
    render_units(renderers, units[:1], BATCH)
    print("done", flush=True)
    for _ in sys.stdin:
        render_units(renderers, units, BATCH)
        print("done", flush=True)


# ------------------------------------------------------------------------------------------------ first image


def first_image_rows(file: Path, folder: Path, arguments: argparse.Namespace) -> list[Row]:
    """`d3codec decode` of a first image, and of one of every class, against importing the libraries."""
    rows = []
    output, home = folder / "images", folder / "home"
    decode = [sys.executable, "-m", "d3codec", "decode", str(file), "--limit", "1", "-o", str(output), "--quiet"]
    for what, more in (("one image, one unit", ["--classes", "0"]), ("an image a class, ten units", [])):
        run(decode + more, home)  # files of the libraries come from memory from now on
        pairs: list[Pair] = []
        for _ in range(arguments.pairs):
            theirs = run([sys.executable, "-c", IMPORTS], home)
            for path in (output, home):
                shutil.rmtree(path, ignore_errors=True)
            pairs.append((run(decode + more, home), theirs))
        for path in (output, home):
            shutil.rmtree(path, ignore_errors=True)
        rows.append(
            row(
                f"d3codec decode digits.d3m --limit 1{' ' if more else ''}{' '.join(more)} ({what}): time",
                f'python -c "{IMPORTS}"',
                [ours[1] / theirs[1] for ours, theirs in pairs],
                dtype="float64",
                clock="wall",
                ratio_by_cpu_time=round(median(ours[0] / theirs[0] for ours, theirs in pairs), 3),
                load_before_the_run=round(LOAD, 2),
            )
        )
    return rows


def run(command: list[str], home: Path) -> tuple[float, float]:
    """CPU and wall seconds of a process."""
    environment = {**os.environ, "D3CODEC_HOME": str(home), "OMP_NUM_THREADS": "1"}
    before, started = os.times(), time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return used, wall


# ------------------------------------------------------------------------------------------ the network for a GPU


def make_large(folder: Path) -> tuple[Path, str]:
    """A file of ten classes for a generator with the sizes of Stable Diffusion 1.5: 20 steps with guidance."""
    from identity import bundled_file

    from d3codec.conditioning import delta
    from d3codec.format.file import ContentDraft, D3MFile, write_d3m
    from d3codec.format.manifest import HardLabels, Images
    from d3codec.generators.weights import describe
    from d3codec.noise import normals

    width = TEXT["hidden_size"]
    generator = make_large_network(folder / "large")
    digits = D3MFile.open(bundled_file())
    group = digits.content.groups[0]

    def changed(record: Any, **changes: Any) -> Any:
        return type(record)(**{name: getattr(record, name) for name in type(record).model_fields} | changes)

    made = changed(
        group,
        generator=describe(generator, "f16").id,
        images=Images(grid=(1, 1), count=SPREAD, size=(SIDE, SIDE)),
        labels=HardLabels(),
        recipe=changed(group.recipe, steps=20, guidance=7_500_000),
        conditioning=changed(group.conditioning, width=width, padding=(group.conditioning.padding[0], TOKENS)),
    )
    rows = normals(1, 0, 0, (digits.content.classes.count, len(made.conditioning.slots), width)) * 0.5
    sections = {("cls", None): digits.section("cls"), ("emb", 0): delta.encode(rows, made.conditioning.bits)}
    path = folder / "large.d3m"
    path.write_bytes(write_d3m(ContentDraft(digits.content.classes, (made,)), sections))
    return path, str(generator)


def make_large_network(folder: Path) -> Path:
    """A pipeline with the sizes of Stable Diffusion 1.5 and the bundled tokenizer, prompts padded to `TOKENS`."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from networks import fill
    from transformers import CLIPTextConfig, CLIPTextModel

    from d3codec.generators.weights import bundled_generator

    bundled = bundled_generator()
    text = json.loads((bundled / "text_encoder" / "config.json").read_text())
    text |= TEXT | {"max_position_embeddings": TOKENS}
    unet = {"sample_size": SIDE // 8, "block_out_channels": UNET, "cross_attention_dim": TEXT["hidden_size"]}
    vae = {"sample_size": SIDE, "block_out_channels": VAE, "layers_per_block": 2, "scaling_factor": 0.18215}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    makers: dict[str, Callable[[], Any]] = {
        "text_encoder": lambda: CLIPTextModel(CLIPTextConfig(**text)),
        "unet": lambda: UNet2DConditionModel(attention_head_dim=8, **unet),
        "vae": lambda: AutoencoderKL(**vae, **blocks),
    }
    for number, (name, make) in enumerate(makers.items()):
        with torch.device("meta"):
            empty = make()
        network = empty.to_empty(device="cpu")
        for owner in network.modules():  # of the text encoder, not among its weights
            if hasattr(owner, "position_ids"):
                owner.position_ids = torch.arange(TOKENS).expand(1, -1)
        fill(network, key=number)
        network.save_pretrained(folder / name)
        del network
    for name in ("scheduler", "tokenizer"):
        shutil.copytree(bundled / name, folder / name)
    shutil.copy(bundled / "model_index.json", folder / "model_index.json")
    tokenizer = folder / "tokenizer" / "tokenizer_config.json"
    tokenizer.write_text(json.dumps(json.loads(tokenizer.read_text()) | {"model_max_length": TOKENS}))
    return folder


# ------------------------------------------------------------------------------------------------------ result


def save(rows: list[Row], arguments: argparse.Namespace) -> None:
    """Rows of other parts that are there already stay."""
    old = json.loads(arguments.output.read_text())["rows"] if arguments.output.exists() else []
    made = {(found["what"], found["against"], found["machine"]) for found in rows}
    kept = [found for found in old if (found["what"], found["against"], found["machine"]) not in made]
    result = {
        "question": "how long does a decode take beside diffusers' pipeline?",
        "ratio": "`what` says whether it is speed (times faster) or time (times longer); median and spread of pairs",
        "seeds": "weights and noise of the format, key 1; diffusers draws its own noise",
        "rows": kept + rows,
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")


LOAD = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0

if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--worker":
        work(json.loads(sys.argv[2]))
    else:
        main()
