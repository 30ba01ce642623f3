"""The best file of a size that the user names: plans are tried, students choose.

A student is trained on what each plan decodes to and asked about real images that no plan has seen; the plan with the
highest accuracy is made once more in the profile of the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from d3codec import __version__
from d3codec.encoder import pack
from d3codec.encoder.state import WorkFolder
from d3codec.format.file import D3MFile, save_atomically
from d3codec.methods.builder import Builder
from d3codec.methods.made import Labelling, statement
from d3codec.methods.plans import METHODS
from d3codec.methods.pool import Pool, given_judge, require_images, split_validation, trained_judge
from d3codec.methods.prepare import check_output, images_digest
from d3codec.methods.request import Generators, Options
from d3codec.methods.trials import Trial, best_file
from d3codec.sources import OnError, Source, read_images, require_classes

if TYPE_CHECKING:
    from d3codec.encoder.relabel import Teacher

LARGEST_STUDENT = 64  # pixels
READ_SIDES, READ_LEAST = 4, 512  # images are read at so many times the side of the file's; for prompts at no less

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SizedReport:
    """What was made, and why.

    limit: the size asked for; tried: all plans that fit, in the order of trying; chosen: the place of the one that was
    made; notes: what the caller should know, such as what was missing; skipped: unreadable files.
    """

    output: str
    bytes_total: int
    limit: int
    method: str
    content_id: str
    images_per_class: int
    labels: str
    profile: str
    teacher: str
    tried: tuple[Trial, ...]
    chosen: int
    notes: tuple[str, ...]
    skipped: tuple[str, ...]
    seconds: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return asdict(self)

    def as_text(self) -> str:
        """A few lines for a person."""
        rows = ["method                images a class     bytes   validation"]
        for number, trial in enumerate(self.tried):
            accuracy = "-" if trial.accuracy_percent is None else f"{trial.accuracy_percent:.1f} %"
            mark = "  <- chosen" if number == self.chosen else ""
            rows.append(f"{trial.method:<22}{trial.images_per_class:>14}{trial.bytes:>10,}{accuracy:>13}{mark}")
        return "\n".join(
            [
                f"{self.output}: {self.bytes_total:,} of {self.limit:,} bytes, {self.method}, "
                f"{self.images_per_class} images a class, labels {self.labels}, profile {self.profile}",
                *rows,
                *self.notes,
                f"content id {self.content_id}",
                "seconds: " + ", ".join(f"{stage} {value:.1f}" for stage, value in self.seconds.items()),
            ]
        )


def encode_to_size(
    images: Source,
    output: str | Path,
    *,
    max_bytes: int,
    methods: Sequence[str] = METHODS,
    generators: Sequence[str | Path] = (),
    teacher: Teacher | str | Path | None = None,
    resolution: int = 32,
    ipc: int | None = None,
    labels: str | None = None,
    label_step: int | None = None,
    template: str | None = None,
    initial_token: str | None = None,
    profile: Literal["exact", "reproducible"] = "exact",
    on_error: OnError = "refuse",
    licence: str | None = None,
    source: str | None = None,
    class_ids: list[str] | None = None,
    authority: str = "none",
    work: str | Path | None = None,
    restart: bool = False,
    keep_work: bool = False,
    report: str | Path | None = None,
    processes: int = 2,
    device: str = "auto",
    trial_steps: int | None = None,
    progress: Progress | None = None,
) -> SizedReport:
    """The best file of at most `max_bytes` bytes, head and labels included.

    Arguments:
        images: what `d3codec.sources.read_images` takes; images of any size become squares of `resolution` pixels.
        methods: what may be tried: `latents`, `d3m` (and both in one file), `images` (contact sheets).
        generators: folders, repositories or ready configurations: an autoencoder (for latents), a Stable Diffusion
            pipeline (for d3m). Without an autoencoder a published one in the Hugging Face cache is used.
        teacher: as of `methods.d3m.encode`; None: an ensemble of three small networks is trained on the images.
        ipc: stored images a class; None: as many as validation students like best.
        labels: `hard`, or how soft labels are stored; None: `adaptive` up to 64 classes, above them `ranked-head`.
        label_step: of adaptive labels, in 1/256 nat; None: 200.
        template, initial_token: of learned prompts, as in `methods.d3m.encode`.
        work: unfinished work, default OUTPUT.work; it is good for other sizes and `ipc` of the same images too.
        processes: students and teachers trained at once.
        trial_steps: of the optimiser, of a validation student; None: by the number of images.
        The others are as in `methods.d3m.encode`.

    Raises:
        UsageError: a size too small for any method, naming the least; options that do not fit.
        ImagesError, TeacherError, GeneratorError, MissingGeneratorError, OutputError, PixelsError: as there.
    """
    from d3codec.decoder.precision import choose_device

    tell, folder = progress or (lambda *_: None), Path(work) if work is not None else Path(f"{output}.work")
    check_output(output, report)
    options = Options(
        max_bytes, tuple(methods), resolution, ipc, labels, label_step, profile, trial_steps, template, initial_token
    )
    options.check()
    statement("images", licence, source, authority)
    found, chosen_device = Generators.find(generators, options.methods), choose_device(device)
    least_side = 0 if found.denoiser is None else READ_LEAST
    read = read_images(images, on_error=on_error, max_side=max(READ_SIDES * resolution, least_side))
    require_classes(read)
    require_images(read, ipc or 1, "so many are to be stored")
    class_section = pack.class_section(read.class_names, class_ids, authority)
    judge = None if teacher is None else given_judge(teacher, read, resolution)
    originals, held = split_validation(read, ipc or 1)
    notes = list(found.notes)
    if read.skipped:
        notes.append(f"skipped {len(read.skipped)} unreadable files, the first: {read.skipped[0]}")
    if held is None:
        notes.append("too few images to hold some out: the usual plan is taken, untested")
    identity = options.lasting() | {
        "about": [licence, source, class_ids, authority],
        "images": images_digest(read),
        "held_out": 0 if held is None else len(held),
        "teacher": "none" if judge is None else judge.name,
        "generators": found.ids(),
        "version": __version__,
    }
    with WorkFolder.open(folder, identity, restart=restart) as state:
        if judge is None:
            notes.append("no teacher was given: three small networks were trained on the images")
            with state.clock("teacher"):
                home, side = state.path / "teacher", min(resolution, LARGEST_STUDENT)
                judge = trained_judge(originals, home, side=side, processes=processes, progress=tell)
        choice = options.label_choice(len(read.class_names))
        builder = Builder(
            originals=originals,
            pool=Pool.of(originals, resolution),
            judge=judge,
            labelling=Labelling(None if choice.kind == "hard" else judge, choice),
            autoencoder=found.autoencoder,
            denoiser=found.denoiser,
            prompt={"template": template, "initial_token": initial_token},
            class_section=class_section,
            class_ids=None if class_ids is None else tuple(class_ids),
            authority=authority,
            profile=profile,
            licence=licence,
            source=source,
            state=state,
            device=chosen_device,
            progress=tell,
        )
        validation = None if held is None else Pool.of(held, min(resolution, LARGEST_STUDENT))
        plan, data, tried = best_file(builder, options, validation, processes, tell)
        save_atomically(Path(output), data)
        file = D3MFile.open(data)
        result = SizedReport(
            output=str(output),
            bytes_total=len(data),
            limit=max_bytes,
            method=plan.name,
            content_id=file.content_id,
            images_per_class=sum(group.images.count for group in file.content.groups),
            labels=choice.kind,
            profile=file.content.profile.name,
            teacher=judge.name,
            tried=tuple(tried.values()),
            chosen=list(tried).index(plan),
            notes=tuple(notes),
            skipped=read.skipped,
            seconds={stage: round(value, 2) for stage, value in state.seconds.items()},
        )
        if report is not None:
            save_atomically(Path(report), (json.dumps(result.as_json(), indent=1) + "\n").encode())
        if not keep_work:
            state.remove()
    return result
