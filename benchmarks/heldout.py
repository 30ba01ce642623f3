"""What a learned prompt is worth: classes that no caption of the generator's training ever named.

    python benchmarks/heldout.py GENERATOR [GENERATOR ...] -o benchmarks/results/heldout.json

Each generator was trained by `train_generator.py benchmarks/generators/digits-heldout.toml --seed N`: two classes are
never named, their images are captioned with unsupervised pseudo-words only. For each generator and inversion seed the
command `encode` learns prompts for all classes. Students (hard labels, protocol H, all ten classes, IPC 10) then see
the eight named classes under their names, and the two held-out ones under

    learned       the prompts that `encode` found (2 bits a value, as a file stores them)
    class-words   their names, which the text encoder never saw in training
    generic       the template without a word for the class

so that the arms differ by the held-out classes' prompts alone. Nothing is chosen on the test part: the settings are
those of the main file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch

from d3codec.conditioning import words as word_rows
from d3codec.dataset import load
from d3codec.encoder.pack import changed, class_words
from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.generators.stable_diffusion import StableDiffusion
from d3codec.methods.d3m import encode
from d3codec.sources import read_images
from d3codec.training import students
from d3codec.training.comparison import labelled_patches
from d3codec.training.demo import TEACHER, environment
from d3codec.training.teachers import load_teacher

HELD_OUT = (2, 5)
SIDE = 16


def generic_file(named: bytes) -> bytes:
    """The class-words file with the padding token in every slot: the template without a word for the class."""
    file = D3MFile.open(named)
    group = file.content.groups[0]
    filler = group.conditioning.padding[0]
    rows = np.full((file.content.classes.count, len(group.conditioning.slots)), filler, np.uint16)
    draft = ContentDraft(classes=file.content.classes, groups=(changed(group),), profile=file.content.profile)
    return write_d3m(draft, {("cls", None): file.section("cls"), ("wrd", 0): word_rows.encode(rows)}, None, {})


def patches_of(data: bytes, generator: Path) -> tuple[np.ndarray, np.ndarray]:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "arm.d3m"
        path.write_bytes(data)
        return labelled_patches(load(path), generator, None)


def learned_file(generator: Path, seed: int) -> bytes:
    """What `encode` makes of the training digits with the settings of the bundled file, hard labels."""
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "learned.d3m"
        encode(
            "digits:train",
            output,
            generator=generator,
            teacher=TEACHER,
            ipc=10,
            crops=1,
            crop_scale=(1.0, 1.0),
            labels="hard",
            seed=seed,
        )
        return output.read_bytes()


def score(arm: tuple[np.ndarray, np.ndarray], named: np.ndarray, student_seeds: int, steps: int) -> dict[str, Any]:
    """Students on the held-out classes of an arm and, under their names, all others."""
    test, teacher = read_images("digits:test"), load_teacher(TEACHER)
    patches, labels = arm
    held, of_held = np.isin(labels, HELD_OUT), np.isin(test.labels, HELD_OUT)
    images = np.where(held[:, None, None, None], patches, named)
    scores, recalls = [], []
    for seed in range(student_seeds):
        net = students.train(
            images, labels, classes=10, steps=steps, seed=seed, side=SIDE, augment=students.SMALL_AFFINE
        )
        logits = students.predict(net, test.images)
        scores.append(students.accuracy(logits, test.labels))
        recalls.append(students.accuracy(logits[of_held], test.labels[of_held]))
    agreed = teacher(patches[held]).argmax(1) == labels[held]
    return {
        "accuracy_percent": round(fmean(scores), 2),
        "per_run": [round(s, 2) for s in scores],
        "held_out_recall_percent": round(fmean(recalls), 2),
        "teacher_agreement_held_out_percent": round(100 * float(agreed.mean()), 2),
    }


def measure(generator: Path, inversion_seeds: int, student_seeds: int, steps: int) -> list[dict[str, Any]]:
    """All runs of one generator: `learned` for every inversion seed, the two other arms once."""
    files = [learned_file(generator, seed) for seed in range(inversion_seeds)]
    words = class_words(files[0], StableDiffusion.load(generator, cast="f16"))
    named = patches_of(words, generator)
    arms = [
        ("class-words", None, named),
        ("generic", None, patches_of(generic_file(words), generator)),
        *(("learned", seed, patches_of(file, generator)) for seed, file in enumerate(files)),
    ]
    runs = []
    for name, seed, arm in arms:
        runs.append(
            {
                "generator": generator.parent.name,
                "arm": name,
                "inversion_seed": seed,
                **score(arm, named[0], student_seeds, steps),
            }
        )
        print(runs[-1], flush=True)
    return runs


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of each arm the mean and the spread over generators and inversion seeds, each a mean over students."""
    rows = {}
    for arm in ("learned", "class-words", "generic"):
        means = [run["accuracy_percent"] for run in runs if run["arm"] == arm]
        recalls = [run["held_out_recall_percent"] for run in runs if run["arm"] == arm]
        rows[arm] = {
            "accuracy_percent": round(fmean(means), 2),
            "spread": round(stdev(means), 2),
            "runs": len(means),
            "held_out_recall_percent": round(fmean(recalls), 2),
            "binomial_error": round(students.binomial_error(fmean(means), 360), 2),
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generators", nargs="+", type=Path, help="pipeline folders")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/heldout.json"))
    parser.add_argument("--inversion-seeds", type=int, default=3)
    parser.add_argument("--student-seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=students.STEPS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = [
        run
        for generator in args.generators
        for run in measure(generator, args.inversion_seeds, args.student_seeds, args.steps)
    ]
    result = {
        "what": "hard labels, IPC 10; held-out classes: digits two and five; accuracy over all ten classes",
        "summary": summary(runs),
        "runs": runs,
        "environment": environment() | {"steps": args.steps, "student_seeds": args.student_seeds},
    }
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))


if __name__ == "__main__":
    main()
