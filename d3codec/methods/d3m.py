"""D3M: one learned prompt a class (Abbasi et al., "One Category One Prompt", arXiv 2403.07142).

select -> collage -> invert -> quantize -> choose noises -> decode what a reader will see -> relabel -> pack. Each stage
leaves its results in a work folder beside the output: a run that was killed continues when it is given
again, and ends with the same bytes as one that was not.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from d3codec.conditioning import candidates as candidate_rows
from d3codec.decoder.cache import UnitCache
from d3codec.decoder.digests import image_digest, pixel_digest
from d3codec.decoder.finish import finished
from d3codec.decoder.plan import UNIT_IMAGES, Unit, sources_of, unit_at
from d3codec.decoder.precision import round_levels
from d3codec.decoder.schedules import alpha_bars
from d3codec.encoder import pack
from d3codec.encoder.candidates import Trial, candidate_group, try_candidates
from d3codec.encoder.collage import make_collages
from d3codec.encoder.exact import boundary_values, check_noise, decode_noise, probes
from d3codec.encoder.invert import Inversion, encode_collages, invert
from d3codec.encoder.labels import LabelChoice, StoredLabels, store_labels
from d3codec.encoder.relabel import agreement, label_patches
from d3codec.encoder.report import CandidateFigures, EncodeReport, loss_curve
from d3codec.encoder.select import Choice, choice_patches, select_class
from d3codec.encoder.state import WorkFolder
from d3codec.errors import OutputError
from d3codec.format.file import D3MFile, save_atomically
from d3codec.format.manifest import About, DdimRecipe
from d3codec.methods.prepare import Job, Options, check_output, prepare
from d3codec.sources import OnError, Source

if TYPE_CHECKING:
    from d3codec.decoder.render import Renderer
    from d3codec.encoder.relabel import Teacher
    from d3codec.generators.condition import Generator

LABEL_UNITS = 32  # units of decoded images whose patches are labelled and kept together

Progress = Callable[[str, int, int], None]


def encode(
    images: Source,
    output: str | Path,
    *,
    method: Literal["d3m"] = "d3m",
    profile: Literal["exact", "exact-fixed", "reproducible"] = "exact",
    generator: str | Path | None = None,
    teacher: Teacher | str | Path,
    ipc: int,
    grid: int | None = None,
    template: str | None = None,
    initial_token: str | None = None,
    guidance: float | None = None,
    steps: int | None = None,
    resolution: int | None = None,
    size: int | None = None,
    cast: Literal["f16", "stored"] = "f16",
    bits: float = 2.5,
    fixed_width: bool = False,
    labels: Literal["hard", "int8", "fp16", "top-k", "ranked-head", "adaptive"] | None = None,
    label_step: int | None = None,
    label_bytes: float | None = None,
    noise_key: int = 0,
    candidates: int = 1,
    crops: int = 5,
    crop_scale: tuple[float, float] = (0.08, 1.0),
    patches_per_class: int | None = None,
    inversion_steps: int = 100,
    inversion_batch: int | None = None,
    learning_rate: float = 2e-2,
    seed: int = 0,
    on_error: OnError = "refuse",
    leaf_bytes: Literal[0, 2, 4, 8] = 2,
    licence: str | None = None,
    source: str | None = None,
    class_ids: list[str] | None = None,
    authority: str = "none",
    work: str | Path | None = None,
    restart: bool = False,
    keep_work: bool = False,
    save_seconds: float = 10.0,
    report: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> EncodeReport:
    """Distil labelled images into a `.d3m` file.

    Arguments:
        images: what `d3codec.sources.read_images` takes: a folder, a parquet file, `digits:train`, arrays.
        output: path of the file; an older `.d3m` there is replaced at the end.
        method: only `d3m` in this version.
        profile: what the file promises about its pixels: `exact` and `exact-fixed` the same on every machine,
            `reproducible` (a third of the work) only under one fingerprint.
        generator: folder of a Stable Diffusion pipeline, or the ready configuration ("sd-1.5") or repository of one in
            the Hugging Face cache; None: the bundled one.
        teacher: a function uint8 (N, H, W, 3) -> logits (N, classes), or what
            `training.teachers.load_teacher` takes.
        ipc: images (collages) a class of the distilled set.
        grid: patches a side of a collage; with template, initial_token, guidance, steps and resolution it
            defaults to the hints of the generator, then to 2, "a photo of *", no default, 7.5, 50, the
            generator's own side.
        template: prompt in which every `*` is one learned embedding; initial_token: the word that learning
            starts from.
        guidance: classifier-free guidance scale, 1 for none; steps: of the sampler, at most 1,000.
        resolution: side of a collage in pixels, a multiple of the grid times the autoencoder's factor.
        size: side to which decoded collages are resized by the area rule; None: they stay as they are.
        cast: dtype of the weights for identity and use; bits: a value of the learned embeddings, 1 to 8;
            fixed_width: codes of so many whole bits, instead of the entropy coder's, which loses less at equal bytes.
        labels: how the teacher's logits of every decoded patch are stored: `ranked-head` and `adaptive` (a few bytes
            each, of many or of few classes), `top-k` (the largest, the rest shared evenly), `int8`, `fp16`; `hard`
            stores only the class. None: `int8` with a label_step, else `adaptive` up to 64 classes, then `ranked-head`.
        label_step: of int8 labels (None: the finest that fits) and adaptive ones (None: 200), in 1/256 nat. Coarser is
            smaller.
        label_bytes: upper bound of the bytes a label of `ranked-head` (None: 10 from 90 classes, 2 of 10 classes),
            `adaptive` (None: what the step takes) and `top-k` (None: 40).
        noise_key: 64-bit key of the images' noise.
        candidates: noises tried an image, of which the file names the one that the teacher likes best in log2 of them
            bits; a power of two up to 65,536, 1 for the first alone. The work of a decode so many times over.
        crops, crop_scale: random squares an image and their share of its area; 1 and (1, 1) take whole
            images.
        patches_per_class: how many of the best patches are learned from; None: all that fill whole collages.
        inversion_steps, inversion_batch, learning_rate: of textual inversion; None: six collages a class and
            step.
        seed: of crops and inversion.
        on_error: unreadable image files are refused, or skipped and listed in the report.
        leaf_bytes: of each image's digest kept in the file, so that a mismatch names the image.
        licence, source: SPDX id and origin, stored in the file as they are.
        class_ids, authority: stable ids of the classes and who gave them, both or neither.
        work: folder for unfinished work, default OUTPUT.work; restart: throw away what is there; keep_work:
            do not remove it at the end.
        save_seconds: longest time of inversion, and of trying noises, that a kill may lose.
        report: path for the report as JSON.
        device: `auto`, `cpu` or `cuda`.
        progress: called with (stage, done, total).

    Returns:
        The report: sizes, agreement with the teacher, loss, seconds.

    Raises:
        ImagesError, TeacherError, GeneratorError, MissingGeneratorError, UsageError: what was given cannot
            be used; raised before any long work.
        OutputError: the output or the work folder cannot be written.
        PixelsError: the generator's decode is too noisy for the profile `exact`, or not finite.
    """
    from d3codec.decoder.precision import settings

    check_output(output, report)
    options = Options(
        method=method,
        profile=profile,
        ipc=ipc,
        grid=grid,
        template=template,
        initial_token=initial_token,
        guidance=guidance,
        steps=steps,
        resolution=resolution,
        size=size,
        cast=cast,
        bits=bits,
        entropy_coded=not fixed_width,
        labels=labels or ("" if label_step is None else "int8"),
        label_step=label_step,
        label_bytes=label_bytes,
        noise_key=noise_key,
        candidates=candidates,
        crops=crops,
        crop_scale=(crop_scale[0], crop_scale[1]),
        patches_per_class=patches_per_class,
        inversion_steps=inversion_steps,
        inversion_batch=inversion_batch,
        learning_rate=learning_rate,
        seed=seed,
        leaf_bytes=leaf_bytes,
        licence=licence,
        source=source,
        class_ids=None if class_ids is None else tuple(class_ids),
        authority=authority,
    )
    job = prepare(images, generator, teacher, options, on_error, device)
    folder = Path(work) if work is not None else Path(f"{output}.work")
    with WorkFolder.open(folder, job.identity, restart=restart) as state, settings("reproducible", job.device):
        result = _run(job, state, Path(output), save_seconds, progress or _silent)
        if report is not None:
            save_atomically(Path(report), (json.dumps(result.as_json(), indent=1) + "\n").encode())
        if not keep_work:
            state.remove()
    return result


def _silent(_stage: str, _done: int, _total: int) -> None:
    """No progress is asked for."""


def _run(job: Job, state: WorkFolder, output: Path, save_seconds: float, progress: Progress) -> EncodeReport:
    choices = _select(job, state, progress)
    latents = _collage(job, state, choices, progress)
    inversion = _invert(job, state, latents, save_seconds, progress)
    rows = pack.delta_section(job.group, inversion.deltas, job.options.bits)
    trial = _try_candidates(job, state, rows, save_seconds, progress)
    noises = b"" if trial is None else candidate_rows.pack(trial.choices, job.group.images.candidates or 0)
    units = UnitCache(state.path / "units", "encode")
    decoded = _decode(job, state, rows, noises, units, progress)
    labelled = _relabel(job, state, units, progress)
    with state.clock("pack"):
        options = job.options
        choice = LabelChoice(options.labels, options.label_step, options.label_bytes)
        stored = store_labels(labelled.logits, _classes_of_patches(job), choice)
        data = _pack(job, rows, noises, decoded, labelled, stored)
        save_atomically(output, data)
    progress("pack", 1, 1)
    return _report(job, output, data, inversion, trial, decoded, labelled, stored, state.seconds)


# ------------------------------------------------------------------------------------------------ stages


def _select(job: Job, state: WorkFolder, progress: Progress) -> list[Choice]:
    chosen = []
    with state.clock("select"):
        for label in range(job.classes):
            name = f"select-{label:05d}"
            if (saved := state.load(name)) is None:
                options = job.options
                choice = select_class(
                    job.images,
                    label,
                    job.teacher,
                    crops=options.crops,
                    crop_scale=options.crop_scale,
                    side=job.patch_side,
                    seed=options.seed,
                )
                choice = choice.best(job.collages[label] * job.cells)
                saved = {"images": choice.images, "boxes": choice.boxes, "losses": choice.losses}
                state.save(name, **saved)
            chosen.append(Choice(saved["images"], saved["boxes"], saved["losses"]))
            progress("select", label + 1, job.classes)
    return chosen


def _collage(job: Job, state: WorkFolder, choices: list[Choice], progress: Progress) -> list[np.ndarray]:
    latents = []
    with state.clock("collage"):
        for label, choice in enumerate(choices):
            name = f"latents-{label:05d}"
            if (saved := state.load(name)) is None:
                collages = make_collages(choice_patches(job.images, choice, job.patch_side), job.grid)
                saved = {"latents": encode_collages(job.generator, collages)}
                state.save(name, **saved)
            latents.append(saved["latents"])
            progress("collage", label + 1, job.classes)
    return latents


def _invert(
    job: Job, state: WorkFolder, latents: list[np.ndarray], save_seconds: float, progress: Progress
) -> Inversion:
    options, recipe = job.options, job.group.recipe
    assert isinstance(recipe, DdimRecipe)  # by `prepare`
    with state.clock("invert"):
        return invert(
            job.generator,
            latents,
            job.prompt,
            alpha_bars(*recipe.betas),
            recipe.prediction,
            steps=options.inversion_steps,
            batch=job.inversion_batch,
            learning_rate=options.learning_rate,
            seed=options.seed,
            saved=state.load("inversion"),
            save=lambda arrays: state.save("inversion", **arrays),
            save_seconds=save_seconds,
            progress=progress,
        )


def _try_candidates(job: Job, state: WorkFolder, rows: bytes, save_seconds: float, progress: Progress) -> Trial | None:
    from d3codec.decoder.render import Renderer

    if job.group.images.candidates is None:
        return None
    with state.clock("candidates"):
        return try_candidates(
            job.group,
            # In float32 whatever the profile: the choice is made here, and every reader is told it.
            Renderer(candidate_group(job.group), rows, job.generator, "reproducible", job.classes),
            job.teacher,
            job.classes,
            saved=state.load("candidates"),
            save=lambda arrays: state.save("candidates", **arrays),
            save_seconds=save_seconds,
            progress=progress,
        )


def _units(job: Job) -> list[Unit]:
    images = job.classes * job.options.ipc
    return [unit_at(0, number, job.options.ipc, job.classes) for number in range(-(-images // UNIT_IMAGES))]


@dataclass(frozen=True)
class _Decoded:
    """Of the profile `exact`: noise of the decode in levels, values near a rounding boundary (places, levels)."""

    noise: float | None = None
    places: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    levels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))


def _decode(job: Job, state: WorkFolder, rows: bytes, noises: bytes, cache: UnitCache, progress: Progress) -> _Decoded:
    units = _units(job)
    renderer = _renderer(job, rows, noises)
    exact = job.options.profile == "exact"
    noise = _measure(job, state, renderer, progress) if exact else None
    near: list[dict[str, np.ndarray]] = []
    with state.clock("decode"):
        for number, unit in enumerate(units):
            if cache.get(unit) is None:
                sources = sources_of(unit, 1)
                levels = renderer.levels(sources)
                if exact and len(found := boundary_values(levels)):
                    # Kept before the pixels: a unit in the cache has all its values listed.
                    first = (sources[0][0] * job.options.ipc + sources[0][1]) * levels[0].size
                    state.save(
                        f"near-{number:06d}", places=found + first, levels=round_levels(levels.reshape(-1)[found])
                    )
                cache.put(unit, finished(job.group, round_levels(levels), sources))
            if exact and (saved := state.load(f"near-{number:06d}")) is not None:
                near.append(saved)
            progress("decode", number + 1, len(units))
    if not near:
        return _Decoded(noise)
    return _Decoded(noise, *(np.concatenate([part[name] for part in near]) for name in ("places", "levels")))


def _renderer(job: Job, rows: bytes, noises: bytes) -> Renderer:
    from d3codec.decoder.precision import compute_dtype
    from d3codec.decoder.render import Renderer
    from d3codec.generators.load import load_generator

    dtype = compute_dtype(job.options.profile)
    generator: Generator = job.generator
    if dtype != generator.dtype:
        generator = load_generator(generator.folder, cast=job.options.cast, dtype=dtype, device=job.device)
    return Renderer(job.group, rows, generator, job.options.profile, job.classes, choices=noises)


def _measure(job: Job, state: WorkFolder, renderer: Renderer, progress: Progress) -> float:
    with state.clock("measure"):
        if (saved := state.load("noise")) is None:
            progress("measure", 0, 1)
            noise = decode_noise(renderer, probes(job.classes, job.options.ipc))
            saved = {"noise": np.array(noise)}
            state.save("noise", **saved)
        check_noise(float(saved["noise"]))
        progress("measure", 1, 1)
    return float(saved["noise"])


@dataclass(frozen=True)
class _Labelled:
    """Of all images in order of class and index: SHA-256s, and logits float32 (patches, classes)."""

    digests: list[bytes]
    logits: np.ndarray


def _relabel(job: Job, state: WorkFolder, cache: UnitCache, progress: Progress) -> _Labelled:
    units = _units(job)
    digests, logits = [], []
    with state.clock("relabel"):
        for first in range(0, len(units), LABEL_UNITS):
            name = f"labels-{first // LABEL_UNITS:05d}"
            if (saved := state.load(name)) is None:
                saved = _label(
                    job, np.concatenate([_decoded(cache, unit) for unit in units[first : first + LABEL_UNITS]])
                )
                state.save(name, **saved)
            digests += [row.tobytes() for row in saved["digests"]]
            logits.append(saved["logits"])
            progress("relabel", min(first + LABEL_UNITS, len(units)), len(units))
    return _Labelled(digests, np.concatenate(logits))


def _decoded(cache: UnitCache, unit: Unit) -> np.ndarray:
    pixels: np.ndarray | None = cache.get(unit)
    if pixels is None:
        raise OutputError(
            "a decoded unit vanished from the work folder",
            field=f"unit {unit.number}",
            hint="another program cleans up here; run it again",
        )
    return pixels


def _label(job: Job, pixels: np.ndarray) -> dict[str, np.ndarray]:
    digests = np.frombuffer(b"".join(image_digest(image) for image in pixels), np.uint8).reshape(-1, 32)
    return {"digests": digests, "logits": label_patches(pixels, job.grid, job.teacher, job.classes)}


def _classes_of_patches(job: Job) -> np.ndarray:
    """Class position of every patch, in order of class, image and patch."""
    return np.repeat(np.arange(job.classes), job.options.ipc * job.cells)


def _pack(job: Job, rows: bytes, noises: bytes, decoded: _Decoded, labelled: _Labelled, stored: StoredLabels) -> bytes:
    options = job.options
    group = pack.changed(job.group, labels=stored.record)
    about = About(method=options.method, licence=options.licence, source=options.source, claims=stored.claims() or None)
    digest = pixel_digest(labelled.digests)
    pixels = pack.Pixels(options.profile, digest, job.fingerprint, (decoded.places, decoded.levels))
    return pack.pack_file(
        job.class_section,
        options.authority,
        job.classes,
        group,
        rows,
        ({"cnd": noises} if noises else {}) | stored.sections,
        pixels,
        about,
        pack.leaf_section(labelled.digests, options.leaf_bytes),
    )


def _report(
    job: Job,
    output: Path,
    data: bytes,
    inversion: Inversion,
    trial: Trial | None,
    decoded: _Decoded,
    labelled: _Labelled,
    stored: StoredLabels,
    seconds: dict[str, float],
) -> EncodeReport:
    file = D3MFile.open(data)
    names, of_patch, sections = job.images.class_names, _classes_of_patches(job), file.section_sizes()
    label_bytes = sum(section["bytes"] for section in sections if section["name"] in stored.sections)
    shares = agreement(labelled.logits, of_patch, job.classes)
    return EncodeReport(
        output=str(output),
        method=job.options.method,
        profile=job.options.profile,
        decode_noise_levels=decoded.noise,
        corrections=len(decoded.places),
        content_id=file.content_id,
        bytes_total=len(data),
        head_bytes=file.head_bytes,
        sections=tuple(sections),
        generator_id=job.record.id.hex(),
        generator_bytes=sum(job.record.bytes_by_part.values()),
        classes=job.classes,
        images=job.classes * job.options.ipc,
        patches=len(of_patch),
        labels=job.options.labels,
        label_step=getattr(stored.record, "step", None),
        label_bytes=label_bytes / len(of_patch) if stored.sections else None,
        label_kl_nats=stored.divergences.get(1),
        agreement_percent=round(100 * float(shares.mean()), 3),
        agreement_by_class={name: round(100 * float(share), 3) for name, share in zip(names, shares, strict=True)},
        candidates=None if trial is None else _candidate_figures(job, trial),
        loss=loss_curve(inversion.losses.tolist(), inversion.start, inversion.end),
        seconds={stage: round(value, 2) for stage, value in seconds.items()},
        options=asdict(job.options),
        skipped=job.images.skipped,
    )


def _candidate_figures(job: Job, trial: Trial) -> CandidateFigures:
    return CandidateFigures(
        tried=job.options.candidates,
        changed_percent=round(100 * float((trial.choices > 0).mean()), 3),
        first_agreement_percent=round(100 * float(trial.hits[:, :, 0].mean()) / job.cells, 3),
    )
