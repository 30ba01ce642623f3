"""Teachers: classifiers of real images, which judge patches and give soft labels.

`train_teacher` makes one from images; one of one's own is named as "module:function".
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from d3codec.errors import TeacherError
from d3codec.format.save import check_writable, save_atomically
from d3codec.sources import LabelledImages, require_classes
from d3codec.training import students
from d3codec.training.students import Augmentation, ConvNet, Images, Progress
from d3codec.training.teacher_files import read_teacher, teacher_bytes

STEPS = 1500
HELD_OUT = 10  # one image of every class in so many is kept out of the training


class Teacher(Protocol):
    """uint8 [N, H, W, 3] of any size -> logits before the softmax, float32 [N, classes]."""

    @property
    def classes(self) -> int: ...

    def __call__(self, images: Images, /) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class ConvNetTeacher:
    """A teacher that `train_teacher` made.

    `class_names` are its logits in order; `digest` is the sha256 of its file. It computes on one thread, so
    that its logits do not depend on how many there are.
    """

    net: ConvNet
    class_names: tuple[str, ...]
    digest: str

    @property
    def classes(self) -> int:
        return self.net.classes

    @property
    def side(self) -> int:
        """Pixels to which it resizes images."""
        return self.net.side

    def __call__(self, images: Images, /) -> NDArray[np.float32]:
        with students.one_thread():
            return students.predict(self.net, images)

    def features(self, images: Images) -> NDArray[np.float32]:
        """What its last layer sees, float32 [N, channels]: a space in which images have distances."""
        with students.one_thread():
            return students.features(self.net, images)


@dataclass(frozen=True)
class FunctionTeacher:
    """Somebody's function as a teacher; its answers are checked."""

    function: Callable[..., Any]
    classes: int
    spec: str
    class_names: tuple[str, ...] = ()

    def __call__(self, images: Images, /) -> NDArray[np.float32]:
        return _asked(self.function, images, self.spec, self.classes)


@dataclass(frozen=True)
class ReorderedTeacher:
    """A teacher with its logits in another order: column i is the teacher's column `columns[i]`."""

    teacher: Teacher
    columns: tuple[int, ...]
    class_names: tuple[str, ...]

    @property
    def classes(self) -> int:
        return len(self.columns)

    def __call__(self, images: Images, /) -> NDArray[np.float32]:
        return self.teacher(images)[:, list(self.columns)]


def match_classes(teacher: Teacher, class_names: Sequence[str]) -> Teacher:
    """The teacher with its logits in the order of `class_names`.

    Names are matched where the teacher has them: class order is the most frequent reproduction failure of
    this field. Raises TeacherError if it knows other classes, or, without names, another number of classes.
    """
    known, wanted = tuple(getattr(teacher, "class_names", ())), tuple(class_names)
    if known == wanted or (not known and teacher.classes == len(wanted)):
        return teacher
    if not known:
        raise TeacherError("the teacher knows another number of classes", found=teacher.classes, expected=len(wanted))
    strangers = [name for name in (*wanted, *known) if name not in known or name not in wanted]
    if strangers:
        raise TeacherError(
            "the teacher was trained on other classes",
            field=strangers[0],
            found=", ".join(known),
            expected=", ".join(wanted),
            hint="Train one on these images: d3codec train-teacher.",
        )
    return ReorderedTeacher(teacher, tuple(known.index(name) for name in wanted), wanted)


# ------------------------------------------------------------------------------------------------ training


@dataclass(frozen=True)
class TeacherReport:
    """A trained teacher.

    accuracy_percent: share of the held-out images that the saved network names right, None if there were
    none; binomial_error: its standard error in points; seconds: of training, testing and saving; digest:
    sha256 of the file.
    """

    path: str
    accuracy_percent: float | None
    binomial_error: float | None
    held_out: int
    trained_on: int
    classes: int
    side: int
    steps: int
    seed: int
    seconds: float
    bytes: int
    digest: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def as_text(self) -> str:
        quality = (
            f"{self.accuracy_percent:.1f} ± {self.binomial_error:.1f} % of {self.held_out} held-out images right"
            if self.accuracy_percent is not None
            else "nothing held out to test it on: every class has fewer than ten images"
        )
        return (
            f"{self.path}: {self.bytes:,} bytes, {self.classes} classes at {self.side} x {self.side} "
            f"pixels\ntrained on {self.trained_on:,} images, {self.steps:,} steps, {self.seconds:.0f} s; "
            f"{quality}"
        )


def train_teacher(
    images: LabelledImages,
    output: str | Path,
    *,
    side: int | None = None,
    steps: int = STEPS,
    seed: int = 0,
    augment: Augmentation | None = students.SMALL_AFFINE,
    label_smoothing: float = 0.0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> TeacherReport:
    """Train a ConvNet on images and save it.

    One image in ten of every class is held out for good: the saved network has not seen them, and it is the
    one whose accuracy on them is reported. The same images, seed and machine give the same bytes.

    Arguments:
        output: the file, replaced in one step.
        side: a power of two; by default the next one to the smallest image side, from 16 to 64.
        augment: random changes while training; `flip` only where a mirrored image keeps its class.

    Raises:
        ImagesError, UsageError: images or a side that cannot be used.
        OutputError: the file cannot be written, or is something else; found before the training.
    """
    target = Path(output)
    check_writable(target, lambda start: start[8:9] == b"{")  # an older safetensors file may be replaced
    require_classes(images)
    started = time.perf_counter()
    side = side or students.default_side(min(min(image.shape[:2]) for image in images.images))
    pixels = students.resize_for_student(images.images, side)
    kept, held = hold_out(images.labels, seed)
    with students.one_thread():
        net = students.train(
            pixels[kept],
            images.labels[kept],
            classes=len(images.class_names),
            steps=steps,
            seed=seed,
            side=side,
            augment=augment,
            label_smoothing=label_smoothing,
            device=device,
            progress=progress,
        )
        right = None
        if len(held):
            right = students.accuracy(students.predict(net, pixels[held]), images.labels[held])
    data = teacher_bytes(net, images.class_names)
    save_atomically(target, data)
    error = None if right is None else students.binomial_error(right, len(held))
    return TeacherReport(
        str(target),
        right,
        error,
        len(held),
        len(kept),
        net.classes,
        side,
        steps,
        seed,
        round(time.perf_counter() - started, 2),
        len(data),
        hashlib.sha256(data).hexdigest(),
    )


def hold_out(labels: NDArray[np.int64], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions to train on and to test on: a tenth of each class at random, none of classes below ten."""
    draw = np.random.default_rng(seed)
    inside = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = draw.permutation(np.flatnonzero(labels == label))
        inside[members[: len(members) // HELD_OUT]] = True
    return np.flatnonzero(~inside), np.flatnonzero(inside)


# ------------------------------------------------------------------------------------------------- loading


def load_teacher(spec: str | Path) -> Teacher:
    """The teacher that `spec` names.

    Arguments:
        spec: a file that `train_teacher` wrote, a folder that `train_ensemble` filled, or "module:function"
            (installed, or in the current folder): the function is called without arguments and returns a teacher, or
            it takes an array of images and is one. This runs that module's code; a file is only read.

    Raises:
        TeacherError: names the file or module, the field, what was found and what was expected.
    """
    name = str(spec)
    if isinstance(spec, str) and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        return _imported(name)
    if any(Path(spec).glob("member-*.safetensors")):
        from d3codec.training.ensemble import load_ensemble

        return load_ensemble(spec)
    return ConvNetTeacher(*read_teacher(Path(spec)))


@contextmanager
def _current_folder() -> Iterator[None]:
    """Modules of the current folder can be imported inside: a console script does not look there itself."""
    before = list(sys.path)
    sys.path.append(str(Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = before


def _imported(spec: str) -> Teacher:
    module_name, _, name = spec.partition(":")
    with _current_folder():
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # somebody else's code: it may raise anything
            raise TeacherError(
                f"the module cannot be imported: {error}",
                file=spec,
                field=module_name,
                found=type(error).__name__,
                hint="It is looked for among the installed packages and in the current folder.",
            ) from error
        if not hasattr(module, name):
            raise TeacherError("the module has no such function", file=spec, field=name)
        found = getattr(module, name)
        if callable(found) and not _is_teacher(found) and _takes(found, 0):
            try:
                found = found()
            except Exception as error:
                raise TeacherError(
                    f"the function failed: {error}", file=spec, field=name, found=type(error).__name__
                ) from error
    return _as_teacher(found, spec)


def _is_teacher(value: Any) -> bool:
    return callable(value) and not isinstance(value, type) and type(getattr(value, "classes", None)) is int


def _takes(function: Callable[..., Any], arguments: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * arguments)
    except (TypeError, ValueError):
        return False
    return True


def _as_teacher(found: Any, spec: str) -> Teacher:
    if isinstance(found, ConvNetTeacher | FunctionTeacher | ReorderedTeacher):
        return found
    if not callable(found) or isinstance(found, type) or not _takes(found, 1):
        raise TeacherError(
            "this is not a teacher",
            file=spec,
            found=type(found).__name__,
            expected="a function of uint8 images (N, height, width, 3) that returns logits (N, classes)",
        )
    names = tuple(getattr(found, "class_names", ()))
    if _is_teacher(found):
        return FunctionTeacher(found, found.classes, spec, names)
    probe = _asked(found, np.zeros((1, 64, 64, 3), np.uint8), spec, None)
    return FunctionTeacher(found, probe.shape[1], spec, names)


def _asked(function: Callable[..., Any], images: Images, spec: str, classes: int | None) -> NDArray[np.float32]:
    """What a function answers, checked; torch tensors are taken too."""
    try:
        with torch.no_grad():
            answer = function(images)
        if isinstance(answer, torch.Tensor):
            answer = answer.cpu().float().numpy()
        logits = np.asarray(answer, dtype=np.float32)
    except Exception as error:
        raise TeacherError(f"the teacher failed: {error}", file=spec, found=type(error).__name__) from error
    expected = len(images), classes or (logits.shape[1] if logits.ndim == 2 else 0)
    if logits.shape != expected or not logits.size:
        raise TeacherError(
            "the teacher's answer has another shape",
            file=spec,
            found=str(logits.shape),
            expected=f"({len(images)}, {classes or 'classes'})",
        )
    if not np.isfinite(logits).all():
        raise TeacherError("the teacher gives logits that are not finite", file=spec, found="infinite or NaN")
    return logits
