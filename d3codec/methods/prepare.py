"""What an encode is asked to do, checked as a whole before any long work starts."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from d3codec import __version__
from d3codec.encoder import pack
from d3codec.encoder.candidates import bits_of
from d3codec.encoder.labels import LabelChoice, default_kind
from d3codec.encoder.prompt import Prompt, read_prompt
from d3codec.encoder.relabel import Teacher, teacher_logits
from d3codec.encoder.select import cut_patch
from d3codec.errors import GeneratorError, ImagesError, ManifestError, MissingGeneratorError, UsageError
from d3codec.format import limits
from d3codec.format.manifest import About, Classes, Group, Images, Window
from d3codec.format.save import check_writable
from d3codec.generators import ready
from d3codec.sources import LARGE_SIDE, LabelledImages, OnError, Source, read_images, require_classes

if TYPE_CHECKING:
    from d3codec.generators.ready import ReadyConfiguration
    from d3codec.generators.stable_diffusion import StableDiffusion
    from d3codec.generators.weights import GeneratorRecord

IMAGES_A_CLASS_AND_STEP = 6  # of inversion
FAMILY = "stable-diffusion"  # of the generators that the method d3m learns prompts for
FILE_PROFILES = ("exact", "exact-fixed", "reproducible")
PACKING = ("labels", "label_step", "label_bytes", "leaf_bytes", "licence", "source", "class_ids", "authority")
"""Options that only the last stage reads: unfinished work is good for any of their values."""


@dataclass(frozen=True)
class Options:
    """The arguments of `methods.d3m.encode` that decide the file. None: not given (see there); labels "": likewise."""

    method: str
    profile: str
    ipc: int
    grid: int | None
    template: str | None
    initial_token: str | None
    guidance: float | None
    steps: int | None
    resolution: int | None
    cast: Literal["f16", "stored"]
    bits: float
    entropy_coded: bool
    labels: str
    label_step: int | None
    label_bytes: float | None
    noise_key: int
    crops: int
    crop_scale: tuple[float, float]
    patches_per_class: int | None
    inversion_steps: int
    inversion_batch: int | None
    learning_rate: float
    seed: int
    leaf_bytes: int
    licence: str | None
    source: str | None
    class_ids: tuple[str, ...] | None
    authority: str
    candidates: int = 1
    size: int | None = None


@dataclass(frozen=True)
class Job:
    """Everything an encode works with, loaded and checked.

    group: the record of the file's group, with hard labels; collages: how many each class is learned from;
    identity: JSON values of all that decides the work before packing.
    """

    options: Options
    images: LabelledImages
    teacher: Teacher
    generator: StableDiffusion
    record: GeneratorRecord
    prompt: Prompt
    group: Group
    class_section: bytes
    collages: tuple[int, ...]
    inversion_batch: int
    fingerprint: str
    identity: dict[str, Any]

    @property
    def device(self) -> str:
        return str(self.generator.device.type)

    @property
    def classes(self) -> int:
        return len(self.images.class_names)

    @property
    def grid(self) -> tuple[int, int]:
        return self.group.images.grid

    @property
    def cells(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def patch_side(self) -> int:
        return self.group.images.generated[0] // self.grid[0]


def prepare(
    images: Source,
    generator: str | Path | None,
    teacher: Teacher | str | Path,
    options: Options,
    on_error: OnError,
    device: str,
) -> Job:
    """Load and check everything. Raises as `methods.d3m.encode` says."""
    from d3codec.decoder.precision import choose_device, compute_dtype, fingerprint
    from d3codec.generators.load import load_generator
    from d3codec.generators.stable_diffusion import StableDiffusion
    from d3codec.generators.weights import describe

    _check_numbers(options)
    chosen = choose_device(device)
    read = read_images(images, on_error=on_error, max_side=LARGE_SIDE)
    classes = pack.class_section(read.class_names, options.class_ids, options.authority)
    if not options.labels:
        options = replace(options, labels=default_kind(len(read.class_names)))
    require_classes(read)
    asked, teacher_name = given_teacher(teacher, read.class_names)
    folder = _generator_folder(generator)
    known = known_configuration(folder)
    record = describe(folder, options.cast)
    network = load_generator(folder, cast=options.cast, dtype=compute_dtype("reproducible"), device=chosen)
    assert isinstance(network, StableDiffusion)  # by its family
    options = with_hints(options, network, known)
    group, prompt = _group(options, network, record, known)
    job = Job(
        options,
        read,
        asked,
        network,
        record,
        prompt,
        group,
        classes,
        _collages(read, options, group.images.grid),
        _inversion_batch(options, len(read.class_names)),
        fingerprint(chosen),
        {},
    )
    _check_teacher(job)
    lasting = {name: value for name, value in asdict(options).items() if name not in PACKING}
    return replace(
        job,
        identity={
            **lasting,
            "images": images_digest(read),
            "generator": record.id.hex(),
            "teacher": teacher_name,
            "environment": job.fingerprint,
            "version": __version__,
        },
    )


def check_output(output: str | Path, report: str | Path | None) -> None:
    """Refuse an output that could not be written at the end or would replace anything but a `.d3m`."""
    if report is not None:
        if Path(report).absolute() == Path(output).absolute():
            raise UsageError("the report would replace the output", field="report", found=str(report))
        check_writable(report, lambda start: start.lstrip().startswith(b"{"))
    check_writable(output, lambda start: start.startswith(limits.MAGIC))


def _check_numbers(options: Options) -> None:
    low, high = options.crop_scale
    tests: list[tuple[str, bool, str]] = [
        ("method", options.method == "d3m", "d3m"),
        ("profile", options.profile in FILE_PROFILES, ", ".join(FILE_PROFILES)),
        ("ipc", 1 <= options.ipc <= limits.IMAGES_PER_CLASS, f"1 to {limits.IMAGES_PER_CLASS}"),
        ("grid", options.grid is None or 1 <= options.grid <= 64, "1 to 64"),
        ("cast", options.cast in ("f16", "stored"), "f16 or stored"),
        (
            "bits",
            1 <= options.bits <= limits.BITS and (options.entropy_coded or options.bits == int(options.bits)),
            f"1 to {limits.BITS}, a whole number if they have a fixed width",
        ),
        ("candidates", *_candidates(options)),
        ("size", options.size is None or 1 <= options.size <= limits.SIDE, f"1 to {limits.SIDE}"),
        ("noise_key", 0 <= options.noise_key <= limits.NOISE_KEY, "0 to 2^64 - 1"),
        ("crops", options.crops >= 1, "1 or more"),
        ("crop_scale", 0 < low <= high <= 1, "two shares of the area, 0 < low <= high <= 1"),
        ("patches_per_class", options.patches_per_class is None or options.patches_per_class >= 1, "1 or more"),
        ("inversion_steps", options.inversion_steps >= 0, "0 or more"),
        ("learning_rate", math.isfinite(options.learning_rate) and options.learning_rate > 0, "above 0"),
        ("seed", 0 <= options.seed < 2**64, "0 to 2^64 - 1"),
        ("leaf_bytes", options.leaf_bytes in (0, 2, 4, 8), "0, 2, 4 or 8"),
    ]
    if problem := LabelChoice(options.labels or "adaptive", options.label_step, options.label_bytes).problem():
        tests.append((problem[0], False, problem[1]))
    for field, good, expected in tests:
        if not good:
            raise UsageError("out of range", field=field, found=getattr(options, field), expected=expected)
    try:
        About(method=options.method, licence=options.licence, source=options.source)
        Classes(authority=options.authority, count=1)
    except ManifestError as error:
        raise UsageError(
            "a text that a file cannot hold", field=error.field, found=error.found, expected=str(error)
        ) from error


def _candidates(options: Options) -> tuple[bool, str]:
    """Whether so many noises an image can be tried, and what can be."""
    most = 1 << limits.CANDIDATE_BITS
    while most > 1 and max(options.ipc, 1) * most > limits.IMAGES_PER_CLASS:  # all of a class are drawn as one group
        most //= 2
    count = options.candidates
    return 1 <= count <= most and count.bit_count() == 1, f"a power of two, 1 to {most}"


def given_teacher(teacher: Teacher | str | Path, class_names: Sequence[str]) -> tuple[Teacher, str]:
    """The teacher, its logits in the order of the classes, and what identifies it: a digest or a name."""
    from d3codec.training.teachers import load_teacher, match_classes

    loaded: Any = teacher if callable(teacher) else load_teacher(teacher)
    if callable(teacher):
        kind = teacher if hasattr(teacher, "__qualname__") else type(teacher)
        name = f"{kind.__module__}:{kind.__qualname__}"
    else:
        name = str(teacher)
    if digest := getattr(loaded, "digest", None):
        name = f"sha256:{digest}"
    if getattr(loaded, "classes", None) is not None:
        loaded = match_classes(loaded, class_names)
    return loaded, name


def _generator_folder(generator: str | Path | None) -> Path:
    """The folder of a generator that this method can use; refused before its weights are read."""
    from d3codec.generators.files import family_of
    from d3codec.generators.weights import bundled_generator, require_folders

    if generator is None:
        folder = bundled_generator()
        if not folder.is_dir():
            raise MissingGeneratorError(
                "this installation has no bundled generator", hint="name one with --generator (generator= in Python)"
            )
        return folder
    named = None if Path(generator).expanduser().is_dir() else ready.find(str(generator))
    if named is not None:  # before it says what to fetch
        _check_family(named.family, str(generator))
    snapshots = require_folders(generator)
    if len(snapshots) > 1:
        raise GeneratorError(
            "several snapshots of this repository are in the cache",
            field="generator",
            found=", ".join(str(path) for path in snapshots),
            hint="name the folder of one of them",
        )
    _check_family(family_of(snapshots[0]), str(snapshots[0]))
    return snapshots[0]


def _check_family(family: str, where: str) -> None:
    if family != FAMILY:
        raise GeneratorError(
            f"the method d3m learns prompts for generators of the family {FAMILY}",
            file=where,
            found=family,
            expected=FAMILY,
        )


def known_configuration(folder: Path) -> ReadyConfiguration | None:
    """The ready configuration of a folder in the Hugging Face cache; None for a folder with hints of its own."""
    from d3codec.generators.weights import repository_of

    repository = repository_of(folder)
    if repository is None or (folder / "encoding.json").is_file():
        return None
    return ready.find(repository)


def with_hints(options: Options, generator: StableDiffusion, known: ReadyConfiguration | None = None) -> Options:
    """The options, gaps filled from the generator's hints (`encoding.json`, else those of its ready configuration),
    else by default."""
    hints = generator.encoding_hints() if known is None else known.hints
    filled: dict[str, Any] = {}
    for field, hint, default in (
        ("grid", "grid", 2),
        ("template", "template", "a photo of *"),
        ("initial_token", "initial_token", None),
        ("guidance", "guidance_scale", 7.5),
        ("steps", "steps", 50),
        ("resolution", "resolution", _own_side(generator)),
    ):
        given = getattr(options, field)
        filled[field] = given if given is not None else hints.get(hint, default)
    if filled["initial_token"] is None:
        raise UsageError(
            "learning needs a word to start from, and this generator gives no hint",
            field="initial_token",
            expected="a common noun that is one token, such as the kind of thing on the images",
        )
    return replace(options, **filled)


def _own_side(generator: StableDiffusion) -> int:
    """Side of the images that the denoiser was trained on, in pixels; 0 if its configuration does not say."""
    config = json.loads((generator.folder / "unet" / "config.json").read_text(encoding="utf-8"))
    cells = config.get("sample_size")
    return cells * _factor(generator) if isinstance(cells, int) else 0


def _factor(generator: StableDiffusion) -> int:
    """Pixels a latent cell and side."""
    size = 2**12
    return size // generator.latent_shape(size, size)[1]


def _group(
    options: Options, generator: StableDiffusion, record: GeneratorRecord, known: ReadyConfiguration | None
) -> tuple[Group, Prompt]:
    grid, resolution = options.grid or 0, options.resolution or 0
    multiple = grid * _factor(generator)
    if not 0 < resolution <= limits.SIDE or resolution % multiple:
        raise UsageError(
            "the resolution does not suit the grid and the autoencoder",
            field="resolution",
            found=resolution,
            expected=f"a multiple of {multiple} (grid {grid} x autoencoder {multiple // grid}), at most {limits.SIDE}",
        )
    if generator.text_widths[0] > limits.WIDTH:
        raise GeneratorError(
            "its token embeddings are wider than a file can hold",
            field="width",
            found=generator.text_widths[0],
            expected=f"at most {limits.WIDTH}",
        )
    guidance, steps = options.guidance or 0.0, options.steps or 0
    recipe = None if known is None else pack.ready_recipe(known, guidance, steps)
    if recipe is None:
        recipe = pack.read_recipe(generator.folder, guidance, steps)
    prompt = read_prompt(generator, options.template or "", options.initial_token or "")
    group = pack.delta_group(
        prompt,
        recipe,
        bits=options.bits,
        coded=options.entropy_coded,
        cast=options.cast,
        generator=record.id,
        outside_bytes=record.outside_bytes,
        grid=(grid, grid),
        count=options.ipc,
        resolution=resolution,
        noise_key=options.noise_key,
    )
    images = pack.changed(group.images, candidates=bits_of(options.candidates))
    if options.size not in (None, resolution):
        images = _resized(images, options.size, grid)
    return pack.changed(group, images=images), prompt


def _resized(images: Images, size: int, grid: int) -> Images:
    """The record of images that are made as before and brought to a size afterwards."""
    if size % grid:
        raise UsageError("the size does not suit the grid", field="size", found=size, expected=f"a multiple of {grid}")
    window = Window(generated=images.size, block=(0, 0, *images.size))
    resized: Images = pack.changed(images, size=(size, size), window=window)
    return resized


def _collages(images: LabelledImages, options: Options, grid: tuple[int, int]) -> tuple[int, ...]:
    """Collages that each class is learned from; refuses classes with too few images."""
    cells = grid[0] * grid[1]
    wanted = options.patches_per_class
    if wanted is not None and wanted % cells:
        raise UsageError(
            "these patches do not fill whole collages",
            field="patches_per_class",
            found=wanted,
            expected=f"a multiple of {cells}, the cells of a {grid[0]}x{grid[1]} collage",
        )
    counts = np.bincount(images.labels, minlength=len(images.class_names))
    needed = cells if wanted is None else wanted
    if counts.min() < needed:
        poorest = int(counts.argmin())
        raise ImagesError(
            f"class {images.class_names[poorest]!r} has too few images",
            field=images.class_names[poorest],
            found=f"{counts[poorest]} images",
            expected=f"at least {needed}, a patch an image: "
            + (f"a {grid[0]}x{grid[1]} collage" if wanted is None else "patches_per_class"),
            hint=_fewer(int(counts[poorest]), cells),
        )
    return tuple(int(count if wanted is None else wanted) // cells for count in counts)


def _fewer(count: int, cells: int) -> str:
    """What can be done about a class with so few images."""
    if count >= cells:
        return f"add images of this class, or ask for patches_per_class={count // cells * cells}"
    if count >= 1:
        return f"add images of this class, or take a smaller grid: {math.isqrt(count)}"
    return "add images of this class, or leave it out"


def _inversion_batch(options: Options, classes: int) -> int:
    batch = IMAGES_A_CLASS_AND_STEP * classes if options.inversion_batch is None else options.inversion_batch
    if batch < classes:
        raise UsageError(
            "every class needs an image in every step of inversion",
            field="inversion_batch",
            found=batch,
            expected=f"at least {classes}, the number of classes",
        )
    return batch


def _check_teacher(job: Job) -> None:
    """Ask the teacher once, so that one that does not fit is refused before anything is learned."""
    image = job.images.images[0]
    side = min(image.shape[:2])
    teacher_logits(job.teacher, cut_patch(image, (0, 0, side, side), job.patch_side)[None], job.classes)


def images_digest(images: LabelledImages) -> str:
    """SHA-256 of names, labels and pixels: hexadecimal."""
    digest = hashlib.sha256("\n".join(images.class_names).encode("utf-8", "replace"))
    digest.update(images.labels.astype("<i8").tobytes())
    for image in images.images:
        digest.update(np.array(image.shape, "<i8").tobytes() + np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()
