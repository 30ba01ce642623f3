"""How many bits a value do learned prompts need? Accuracy of students against the bytes of the section.

    python benchmarks/conditioning_bits.py GENERATOR [GENERATOR ...] -o benchmarks/results/conditioning_bits.json

The generators are those of heldout.py, in which two classes were never named, and so is the protocol: students (hard
labels, all ten classes, IPC 10) see eight classes under their names and the two held-out ones under learned prompts.
The prompts of all ten classes, 10 x 64 numbers a generator and inversion seed, are learned once and then stored

    float32     as they are
    fixed-B     blocks of B bits a value and a scale a row (conditioning/quantized.py)
    coded-R     entropy coded, at most R bits a value with everything counted (conditioning/coded.py)

so that the arms differ by what storing does to the prompts of the held-out classes. Every arm draws the same noise and
every student the same seeds, so differences to float32 are pairs. Beside accuracy: the squared error of the numbers,
and of the levels of the generated images against those from float32 (root mean square); and a table of squared errors
of both codecs in equal bytes. Learned rows and finished runs are kept in the work folder: a killed run goes on.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from heldout import HELD_OUT, patches_of, score

from d3codec.conditioning import coded, quantized
from d3codec.decoder.precision import round_levels, settings, to_levels
from d3codec.decoder.recipe import Sampler
from d3codec.encoder.pack import class_words
from d3codec.format.file import D3MFile
from d3codec.generators.condition import Condition
from d3codec.generators.stable_diffusion import StableDiffusion
from d3codec.grid import cut
from d3codec.methods.d3m import encode
from d3codec.noise import normals_torch
from d3codec.training import students
from d3codec.training.demo import TEACHER, environment

FIXED = (1, 2, 3, 4, 8)
CODED = (0.5, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
IPC = 10
MILLION = 1_000_000
SECTION = "emb"

Stored = tuple[np.ndarray, int]  # the rows that a reader gets, and the bytes of the section


def arms() -> dict[str, Callable[[np.ndarray], Stored]]:
    def fixed(rows: np.ndarray, bits: int) -> Stored:
        blocks = quantized.encode(rows, bits)
        return quantized.decode(blocks, rows.shape[1], bits, SECTION), blocks.nbytes

    def entropy_coded(rows: np.ndarray, bits: float) -> Stored:
        data = coded.encode(rows, bits)
        return coded.decode(data, *rows.shape, SECTION), len(data)

    return {
        "float32": lambda rows: (rows.astype(np.float32).astype(np.float64), 4 * rows.size),
        **{f"fixed-{bits}": lambda rows, bits=bits: fixed(rows, bits) for bits in FIXED},
        **{f"coded-{bits:g}": lambda rows, bits=bits: entropy_coded(rows, bits) for bits in CODED},
    }


def learned(generator: Path, seed: int, work: Path) -> tuple[bytes, np.ndarray]:
    """The file of an encode (2 bits, hard labels), and the rows before they were quantized, float64 [classes, size]."""
    output = work / f"{generator.parent.name}-{seed}.d3m"
    state = Path(f"{output}.work")
    if not output.exists():
        encode(
            "digits:train",
            output,
            generator=generator,
            teacher=TEACHER,
            profile="reproducible",
            ipc=IPC,
            crops=1,
            crop_scale=(1.0, 1.0),
            labels="hard",
            seed=seed,
            work=state,
            keep_work=True,
        )
    (saved,) = state.glob("inversion-*.npz")
    with np.load(saved) as arrays:
        deltas = arrays["delta"]
    return output.read_bytes(), deltas.reshape(len(deltas), -1)


def held_out_patches(data: bytes, generator: StableDiffusion, rows: np.ndarray) -> np.ndarray:
    """Patches of the held-out classes' collages under rows of real numbers: what the decoder makes (spec section 7),
    in binary32 and one batch, uint8 [patches, height, width, 3] in order of class and image."""
    group = D3MFile.open(data).content.groups[0]
    record, recipe = group.conditioning, group.recipe
    classes, images = np.repeat(HELD_OUT, IPC), np.tile(np.arange(IPC), len(HELD_OUT))
    shape = generator.latent_shape(*group.images.generated)
    sampler = Sampler(recipe)

    def padded(ids: tuple[int, ...], count: int) -> list[np.ndarray]:
        pad, length = record.padding
        return [np.tile(np.pad(ids, (0, length - len(ids)), constant_values=pad), (count, 1))]

    def draw(n: int) -> torch.Tensor:
        return normals_torch(
            group.noise_key, torch.from_numpy(images), torch.from_numpy(classes), shape, n=n, device="cpu"
        ).float()

    with settings("reproducible", "cpu"):
        vectors = rows.reshape(len(rows), len(record.slots), -1)[classes]
        vectors = vectors + generator.token_embedding(record.initial_token)
        given = generator.encode_text(padded(record.template, len(classes)), record.slots, [vectors])
        without = generator.encode_text(padded(record.negative, len(classes)))
        both, guidance = Condition.cat([without, given]), recipe.guidance / MILLION

        def guided(state: torch.Tensor, timestep: float) -> torch.Tensor:
            unguided, prompted = generator.denoise(torch.cat([state, state]), timestep, both).chunk(2)
            return unguided + (prompted - unguided) * guidance

        latents = sampler.run(guided, sampler.start(draw(0), None), draw, None)
        collages = round_levels(to_levels(generator.decode_latents(latents)))
    patches = cut(collages, group.images.grid)
    return patches.reshape(-1, *patches.shape[2:])


def measure(
    generator: Path, seed: int, work: Path, runs: list[dict[str, Any]], student_seeds: int, steps: int, save: Callable
) -> None:
    """Add the missing runs of one generator and inversion seed."""
    done = {run["arm"] for run in runs if (run["generator"], run["inversion_seed"]) == (generator.parent.name, seed)}
    if done == set(arms()):
        return
    data, rows = learned(generator, seed, work)
    network = StableDiffusion.load(generator, cast="f16")
    named, labels = patches_of(class_words(data, network), generator)
    held = np.isin(labels, HELD_OUT)
    original = held_out_patches(data, network, arms()["float32"](rows)[0])
    for name, store in arms().items():
        if name in done:
            continue
        stored, size = store(rows)
        drawn = held_out_patches(data, network, stored)
        patches = named.copy()
        patches[held] = drawn
        difference = drawn.astype(np.float64) - original
        runs.append(
            {
                "generator": generator.parent.name,
                "inversion_seed": seed,
                "arm": name,
                "bytes": size,
                "bits_per_value": round(8 * size / rows.size, 3),
                "relative_squared_error": float(f"{np.square(stored - rows).sum() / np.square(rows).sum():.3g}"),
                "pixel_difference_levels": round(float(np.sqrt(np.square(difference).mean())), 2),
                **score((patches, labels), named, student_seeds, steps),
            }
        )
        save()
        print(runs[-1], flush=True)


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each arm means over generators and inversion seeds, and its accuracy less that of float32, in pairs.

    `standard_error` is that of the mean difference, over the pairs.
    """
    base = {(run["generator"], run["inversion_seed"]): run for run in runs if run["arm"] == "float32"}
    table = {}
    for arm in arms():
        mine = [run for run in runs if run["arm"] == arm]
        differences = [
            run["accuracy_percent"] - base[run["generator"], run["inversion_seed"]]["accuracy_percent"] for run in mine
        ]
        keys = ("bytes", "bits_per_value", "relative_squared_error", "pixel_difference_levels", "accuracy_percent")
        keys += ("held_out_recall_percent", "teacher_agreement_held_out_percent")
        table[arm] = {key: float(f"{fmean(run[key] for run in mine):.5g}") for key in keys} | {
            "loss_points": round(0.0 - fmean(differences), 2),
            "standard_error": round(stdev(differences) / math.sqrt(len(mine)), 2) if len(mine) > 1 else None,
            "pairs": len(mine),
        }
    return table


def cheapest(table: dict[str, Any], kind: str) -> str | None:
    """The arm of a kind with the fewest bytes without measurable loss: it and all larger ones lose at most twice their
    standard error. None with too few pairs to say."""
    found = None
    for arm in sorted((arm for arm in table if arm.startswith(kind)), key=lambda arm: -table[arm]["bytes"]):
        error = table[arm]["standard_error"]
        if error is None or table[arm]["loss_points"] > 2 * error:
            break
        found = arm
    return found


def squared_errors(learned_rows: list[np.ndarray]) -> list[dict[str, Any]]:
    """Squared error, as a share of the numbers' squares, of blocks and of coded rows in the same bytes."""
    rng = np.random.default_rng(0)
    sets = {
        "learned, 10 x 64": learned_rows,
        "normal, 10 x 64": [rng.normal(size=(10, 64)) for _ in range(3)],
        "normal, 20 x 768": [rng.normal(size=(20, 768))],
        "Laplace, 10 x 64": [rng.laplace(size=(10, 64)) for _ in range(3)],
    }
    table = []
    for name, arrays in sets.items():
        for bits in range(1, 9):
            shares = []
            for rows in arrays:
                blocks = quantized.encode(rows, bits)
                data = coded.encode(rows, 8 * blocks.nbytes / rows.size)
                found = (
                    quantized.decode(blocks, rows.shape[1], bits, SECTION),
                    coded.decode(data, *rows.shape, SECTION),
                )
                shares.append([np.square(values - rows).sum() / np.square(rows).sum() for values in found])
            fixed, entropy_coded = np.mean(shares, axis=0)
            table.append(
                {
                    "numbers": name,
                    "bits": bits,
                    "bytes": blocks.nbytes,
                    "coded_bytes": len(data),
                    "fixed": float(f"{fixed:.3g}"),
                    "coded": float(f"{entropy_coded:.3g}"),
                    "decibels": round(10 * math.log10(fixed / entropy_coded), 2),
                }
            )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generators", nargs="+", type=Path, help="pipeline folders")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/conditioning_bits.json"))
    parser.add_argument("--work", type=Path, default=Path("conditioning-bits"), help="folder of unfinished work")
    parser.add_argument("--inversion-seeds", type=int, default=3)
    parser.add_argument("--student-seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=students.STEPS, help="of a student")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    finished = args.work / f"runs-{args.student_seeds}-{args.steps}.json"
    runs = json.loads(finished.read_text()) if finished.exists() else []

    def save() -> None:
        beside = finished.with_suffix(".new")
        beside.write_text(json.dumps(runs, indent=1))
        beside.replace(finished)

    for seed in range(args.inversion_seeds):
        for generator in args.generators:
            measure(generator, seed, args.work, runs, args.student_seeds, args.steps, save)
    table = summary(runs)
    result = {
        "what": "learned prompts of 10 classes x 64 numbers, stored at several rates; hard labels, IPC 10, accuracy "
        "over all ten classes; held-out classes (digits two and five) under the stored prompts, others by name",
        "without_measurable_loss": {kind: cheapest(table, kind) for kind in ("fixed", "coded")},
        "summary": table,
        "squared_errors": squared_errors(
            [learned(g, seed, args.work)[1] for seed in range(args.inversion_seeds) for g in args.generators]
        ),
        "runs": runs,
        "environment": environment()
        | {"steps": args.steps, "student_seeds": args.student_seeds, "inversion_seeds": args.inversion_seeds},
    }
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
