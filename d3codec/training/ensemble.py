"""A teacher of photographs that is an ensemble: a few students of `photo_students`, trained on the whole pool.

It selects images (`encoder/diverse.py`) and labels decoded ones. Its members are files of a folder, each saved as soon
as it is trained; training that was interrupted goes on with what is missing.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from d3codec.errors import D3MError, OutputError, TeacherError, UsageError
from d3codec.format.save import save_atomically
from d3codec.sources import LabelledImages, require_classes
from d3codec.training import photo_images, photo_students, students
from d3codec.training.photo_images import resize_photos
from d3codec.training.photo_students import PhotoGroup, PhotoNet
from d3codec.training.students import Images, Progress
from d3codec.training.workers import in_processes

MEMBERS = 3
EPOCHS, MOST_STEPS, BATCH = 12, 1680, 64
VIEWS = 8
METADATA_KEY = "d3codec.photo-teacher"
LARGEST_FILE = 64 * 2**20


@dataclass(frozen=True)
class Ensemble:
    """Networks with the same classes, asked together. It computes on one thread and resizes images of any size.

    class_names: the logits in order; digest: sha256 over the files of its members.
    """

    members: tuple[PhotoNet, ...]
    class_names: tuple[str, ...]
    digest: str

    @property
    def classes(self) -> int:
        return self.members[0].classes

    @property
    def side(self) -> int:
        """Pixels to which it resizes images."""
        return self.members[0].side

    def __call__(self, images: Images, /) -> NDArray[np.float32]:
        """Logits before the softmax, float32 [N, classes]: the mean of the members."""
        pixels = resize_photos(images, self.side)
        return np.asarray(np.mean(self._each(pixels), axis=0), np.float32)

    def features(self, images: Images) -> NDArray[np.float32]:
        """What the first member's last layer sees, float32 [N, channels]: a space in which images have distances."""
        with students.one_thread():
            return photo_students.features(self.members[0], images)

    def losses(self, images: Images, labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Cross-entropy with the class of each image in nats, the mean of the members: float64 [N]."""
        pixels = resize_photos(images, self.side)
        logits = np.stack(self._each(pixels)).astype(np.float64)
        logits -= logits.max(2, keepdims=True)
        right = np.take_along_axis(logits, labels[None, :, None], 2)[:, :, 0]
        return np.asarray((np.log(np.exp(logits).sum(2)) - right).mean(0))

    def labels(self, images: Images, views: int = VIEWS) -> NDArray[np.float32]:
        """Soft labels, float32 [N, classes], mean-free: mean logits of the members over crops and mirrors of an image.

        The `views` are the same for every image, so a label depends on its own image alone.
        """
        pixels = resize_photos(images, self.side)
        total = np.zeros((len(pixels), self.classes), np.float64)
        for view in crop_views(pixels, views):
            total += np.sum(self._each(view), axis=0, dtype=np.float64)
        logits = total / (views * len(self.members))
        return np.asarray(logits - logits.mean(1, keepdims=True), np.float32)

    def _each(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        with students.one_thread():
            return [photo_students.predict(net, pixels) for net in self.members]


def crop_views(images: NDArray[np.uint8], count: int) -> Iterator[NDArray[np.uint8]]:
    """`count` views of images uint8 [N, side, side, 3], of the same shape: crops as students see them, every second one
    mirrored. From top to bottom they take even steps, across those of the golden ratio: spread over all places."""
    side, padded = images.shape[1], photo_images.padded(images)
    places = padded.shape[1] - side + 1
    for number in range(count):
        top, left = int(places * (number + 0.5) / count), int(places * ((0.5 + number * 0.6180339887498949) % 1))
        view = padded[:, top : top + side, left : left + side]
        yield view[:, :, ::-1] if number % 2 else view


# ------------------------------------------------------------------------------------------------ training


def teacher_steps(count: int) -> int:
    """Steps of 64 images for a teacher of `count` images: 12 times each image, never fewer than a student of as many
    images has, at most 1,680."""
    epochs = EPOCHS * math.ceil(count / BATCH)
    return max(photo_students.schedule(count)[0], min(MOST_STEPS, epochs))


@dataclass(frozen=True)
class _Member:
    """Training of one member. `pool` is a digest of images, labels and class names."""

    classes: int
    side: int
    seed: int
    steps: int
    batch: int
    bf16: bool | None
    pool: str


def train_ensemble(
    images: LabelledImages,
    folder: str | Path,
    *,
    side: int = 32,
    members: int = MEMBERS,
    steps: int | None = None,
    processes: int = 1,
    bf16: bool | None = None,
    progress: Progress | None = None,
) -> Ensemble:
    """Train an ensemble on all images and keep it in a folder.

    Arguments:
        folder: made if it is not there. Members in it that were trained on the same images with the same settings are
            loaded, other ones are replaced.
        side: pixels to which images are resized, a power of two.
        members: networks; they differ by their seeds 0, 1, ...
        steps: of each; by default `teacher_steps` of the number of images.
        processes: members trained at once, each on one thread; the result does not depend on it. Above 1 the main
            program must be importable (`if __name__ == "__main__"`).
        progress: called as progress("teachers", steps done, steps of those that are trained now).

    Raises:
        ImagesError, UsageError: images or numbers that cannot be used.
        OutputError: the folder cannot be written.
    """
    require_classes(images)
    if members < 1:
        raise UsageError("too few", field="members", found=members, expected="1 or more")
    photo_students.empty_network(len(images.class_names), side)  # refuses a side before the work
    home = Path(folder)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder cannot be made: {error.strerror}", file=str(home)) from None
    group = PhotoGroup(resize_photos(images.images, side), np.asarray(images.labels, np.int64))
    steps, batch = teacher_steps(len(group)) if steps is None else steps, min(BATCH, len(group))
    pool = _pool_digest(group, images.class_names)
    wanted = [_Member(len(images.class_names), side, seed, steps, batch, bf16, pool) for seed in range(members)]
    missing = [member for member in wanted if not _is_finished(_path(home, member.seed), member)]
    if missing:
        tasks = [(member, group, images.class_names, _path(home, member.seed)) for member in missing]
        in_processes(_train_member, tasks, "teachers", steps * len(tasks), processes=processes, progress=progress)
    return load_ensemble(home, members=members)


def _train_member(task: tuple[_Member, PhotoGroup, Sequence[str], Path], progress: Progress) -> None:
    member, group, class_names, path = task
    net = photo_students.train_student(
        [group],
        classes=member.classes,
        side=member.side,
        seed=member.seed,
        steps=member.steps,
        batch=member.batch,
        bf16=member.bf16,
        progress=progress,
    )
    save_atomically(path, member_bytes(net, class_names, asdict(member)))


def _pool_digest(group: PhotoGroup, class_names: Sequence[str]) -> str:
    digest = hashlib.sha256(json.dumps([list(class_names), group.copies[0].shape]).encode())
    digest.update(np.ascontiguousarray(group.labels, "<i8").tobytes())
    digest.update(np.ascontiguousarray(group.copies[0]).data)
    return digest.hexdigest()


def _path(folder: Path, seed: int) -> Path:
    return folder / f"member-{seed}.safetensors"


def _is_finished(path: Path, member: _Member) -> bool:
    try:
        return read_member(path)[2] == asdict(member)
    except TeacherError:  # not there, or damaged: trained again
        return False


# --------------------------------------------------------------------------------------------------- files


def load_ensemble(folder: str | Path, *, members: int = MEMBERS) -> Ensemble:
    """The ensemble that `train_ensemble` left in a folder.

    Raises TeacherError: a member is not there, damaged, or was trained otherwise than the first.
    """
    nets, kept, digest = [], [], hashlib.sha256()
    for seed in range(members):
        path = _path(Path(folder), seed)
        net, class_names, training = read_member(path)
        kept.append((class_names, training | {"seed": 0}))
        if kept[-1] != kept[0]:
            raise TeacherError(
                "the members were trained on different images or with different settings",
                file=str(path),
                hint="Train the ensemble again in this folder.",
            )
        nets.append(net)
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return Ensemble(tuple(nets), kept[0][0], digest.hexdigest())


def member_bytes(net: PhotoNet, class_names: Sequence[str], training: dict[str, Any]) -> bytes:
    """The file of one member: safetensors with one metadata key. `training`: JSON values that say how it was made."""
    from safetensors.torch import save

    described = {"class_names": list(class_names), "side": net.side, "training": training, "version": 1}
    tensors = {name: value.detach().contiguous() for name, value in net.state_dict().items()}
    return save(tensors, metadata={METADATA_KEY: json.dumps(described, sort_keys=True)})


def read_member(path: Path) -> tuple[PhotoNet, tuple[str, ...], dict[str, Any]]:
    """Network, class names and training of a member's file. Nothing in it is executed. Raises TeacherError."""
    import safetensors

    file = str(path)
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise TeacherError("too large for a teacher", file=file, expected=f"at most {LARGEST_FILE:,} bytes")
        with safetensors.safe_open(file, "pt") as opened:
            described = json.loads((opened.metadata() or {})[METADATA_KEY])
            class_names, training = tuple(map(str, described["class_names"])), dict(described["training"])
            net = photo_students.empty_network(len(class_names), described["side"])
            expected = net.state_dict()
            if set(opened.keys()) != set(expected):
                raise TeacherError("a tensor is missing or unknown", file=file, expected=f"{len(expected)} tensors")
            state = {name: opened.get_tensor(name) for name in expected}
    except FileNotFoundError:
        raise TeacherError("there is no such teacher", file=file, expected="a file of train_ensemble") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise TeacherError(f"the teacher cannot be read: {error}", file=file) from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TeacherError(
            "this file was not written by train_ensemble", file=file, field=METADATA_KEY, found=type(error).__name__
        ) from None
    except TeacherError:
        raise
    except D3MError as error:
        raise TeacherError(error.message, file=file, field=error.field, found=error.found) from None
    for name, value in state.items():
        if value.shape != expected[name].shape or value.dtype != expected[name].dtype:
            raise TeacherError(
                "a tensor of another type or shape",
                file=file,
                field=name,
                found=f"{value.dtype} {tuple(value.shape)}",
                expected=f"{expected[name].dtype} {tuple(expected[name].shape)}",
            )
        if not torch.isfinite(value).all():
            raise TeacherError("a weight is not a finite number", file=file, field=name)
    net.load_state_dict(state, assign=True)
    return net.requires_grad_(False).to(memory_format=torch.channels_last).eval(), class_names, training  # type: ignore[call-overload]
