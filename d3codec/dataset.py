"""What `load()` returns: classes, labels, images and views of one `.d3m` file.

Reading needs neither torch nor the generator; what makes pixels (`images`, iteration, `to_numpy`, `to_torch`)
imports the decoder inside the call. numpy is imported inside the calls too, so that `info` stays quick.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from d3codec.decoder.budget import Budget, Work
from d3codec.errors import FormatError, MissingExtraError, UsageError
from d3codec.format.file import D3MFile
from d3codec.groups import GroupInfo, describe_groups

if TYPE_CHECKING:
    import numpy as np

    from d3codec.augmented import AugmentedDataset
    from d3codec.decoder.plan import Extent, Plan
    from d3codec.format.manifest import About
    from d3codec.torch_dataset import TorchDataset

Progress = Callable[[str, int, int], None]
Key = tuple[int, int, int]  # of an image: group, class position, index in the group
PROFILES = ("exact", "exact-fixed", "reproducible", "fast")
ONE_GROUP = "take one group at a time: .subset(groups=[0])"


def load(source: str | PathLike[str], *, profile: str | None = None) -> Dataset:
    """Open a distilled dataset: the head is read and checked now, everything else when it is used.

    Arguments:
        source: a local path or a URL that fsspec understands (`https://...` needs the extra `remote`, `hf://...`
            the extra `hub`); what is behind a URL is downloaded whole, at most 1 GiB.
        profile: arithmetic of the decoder, one of PROFILES; without it the one that the file names. Another one gives
            nearly the same pixels, whose identity nothing proves.

    Returns:
        A Dataset of all classes and images.

    Raises:
        FormatError: the bytes are not a sound `.d3m` file.
        MissingFileError: nothing there.
        MissingExtraError: the package that speaks the URL's protocol is not installed.
        UsageError: an unknown profile.

    Example:
        >>> import d3codec
        >>> dataset = d3codec.load("digits.d3m")
        >>> dataset.subset(classes=["three"], ipc=2).labels.hard()
        array([3, 3])
    """
    file = open_file(source)
    if profile is not None and profile not in PROFILES:
        raise UsageError("an unknown profile", field="profile", found=profile, expected=", ".join(PROFILES))
    everything = Selection(tuple(range(file.content.classes.count)))
    return Dataset(file, profile or file.content.profile.name, everything)


def open_file(source: str | PathLike[str]) -> D3MFile:
    """The D3MFile at a path or a URL, its head checked. Raises like `load`."""
    from d3codec.download import download, is_url

    name = str(source)
    if not is_url(name):
        return D3MFile.open(name)
    data = download(name)
    try:
        return replace(D3MFile.open(data), path=name)
    except FormatError as error:
        error.file = name
        raise


@dataclass(frozen=True)
class ClassInfo:
    """A class: its position in the file, its id and the authority that gave it (`none`: no ids), its name."""

    index: int
    id: str
    name: str
    authority: str


@dataclass(frozen=True)
class Selection:
    """What a view shows: class positions (ascending), the first `ipc` images of each, groups (None: all)."""

    classes: tuple[int, ...]
    ipc: int | None = None
    groups: tuple[int, ...] | None = None


class Sample(NamedTuple):
    """An image, uint8 (height, width, 3); its logits, float32 (patches, classes of the file), None with hard labels;
    the position of its class in the file."""

    image: np.ndarray
    patch_logits: np.ndarray | None
    class_index: int


class PatchLabels:
    """The labels of a dataset's images, read from the file when asked for.

    kind: how the file holds them, `hard` (the class alone) or the codec of the teacher's logits of every patch
    (`int8`, `fp16`, `top-k`, `ranked-head`), or `mixed` (groups differ).
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        kinds = {group.label_kind for group in dataset.groups}
        self._hard = "hard" in kinds
        self.kind = kinds.pop() if len(kinds) == 1 else "mixed"

    def __repr__(self) -> str:
        return f"<PatchLabels {self.kind}, {len(self._dataset)} images>"

    def logits(self, *, teacher_columns: bool = False) -> np.ndarray:
        """float32 (images, patches, classes of the file): teacher logits in nats, exactly as stored.

        Columns stand in the order of the file's classes, whatever the teacher's order; what it gave for other classes
        is left out. With `teacher_columns` all of its columns in its own order, for those who study the labels.
        Of a view only the labels of its classes are decoded.

        Raises:
            UsageError: there are none, groups have labels of different shapes, or more than 16 GiB of them.
            SectionError: the labels are damaged.
        """
        import numpy as np

        from d3codec.decoder.labels import LARGEST_BYTES

        dataset = self._dataset
        if self._hard:
            raise UsageError(
                f"{self.kind} labels: not every image has logits",
                file=dataset.path,
                hint="use .labels.hard()" + ("" if self.kind == "hard" else f", or {ONE_GROUP}"),
            )
        shapes = {
            (group.patches, group.teacher_columns if teacher_columns else group.label_width) for group in dataset.groups
        }
        _agree(dataset, "labels of different shapes", shapes)
        ((patches, width),) = shapes
        classes, images = len(dataset.selection.classes), dataset.images_per_class
        if (size := 4 * classes * images * patches * width) > LARGEST_BYTES:
            raise UsageError(
                "more logits than one array should hold",
                file=dataset.path,
                found=f"{size:,} bytes",
                expected=f"at most {LARGEST_BYTES:,}",
                hint="take some classes or images at a time: .subset(classes=..., ipc=...)",
            )
        table = np.empty((classes, images, patches, width), np.float32)
        before = 0
        for group in dataset.groups:
            if before < images:
                self._fill(table[:, before:], group, teacher_columns)
                before += group.images_per_class
        return table.reshape(classes * images, patches, width)

    def _fill(self, table: np.ndarray, info: GroupInfo, teacher_columns: bool) -> None:
        """Logits of a group into (classes of the view, images, patches, columns): as many images as there is room."""
        import numpy as np

        from d3codec.decoder.labels import GroupLabels

        labels, images = GroupLabels(self._dataset.file, info.number), min(table.shape[1], info.images_per_class)
        each, patches, at = labels.rows_per_class, table.shape[2], 0
        for start, stop in _runs(self._dataset.selection.classes):
            for first, last in labels.pieces(start * each, stop * each):
                found = labels.logits(first, last, teacher_columns=teacher_columns)
                place, row = np.divmod(np.arange(first, last), each)
                image, patch = np.divmod(row, patches)
                wanted = image < images
                table[(place - start + at)[wanted], image[wanted], patch[wanted]] = found[wanted]
                del found  # before the next piece is decoded
            at += stop - start

    def view(self, view: str) -> np.ndarray:
        """float32 (images, patches, classes of the file): what a student is given, one rule of `d3codec.labels.views`.

        Arguments:
            view: `logits`; `softmax-T`, probabilities at temperature T, such as `softmax-20`; `mr-k`, the k largest
                logits, -inf elsewhere; `hard`, probability 1 for the largest logit; `rest-uniform`, logarithms of the
                probabilities at temperature 1.

        Raises:
            UsageError: another view, and as `logits` does.
        """
        from d3codec.labels import views

        try:
            views.parse(view)
            return views.apply(self.logits(), view)
        except ValueError as error:
            raise UsageError("no such view", field="view", found=view, expected=views.VIEWS) from error

    def probabilities(self, temperature: float = 1.0) -> np.ndarray:
        """float64 (images, patches, classes of the file): softmax(logits / temperature); temperature > 0."""
        import numpy as np

        if not temperature > 0:
            raise UsageError("a temperature is above 0", field="temperature", found=temperature)
        scaled = self.logits().astype(np.float64) / temperature
        powers = np.exp(scaled - scaled.max(-1, keepdims=True))
        probabilities: np.ndarray = powers / powers.sum(-1, keepdims=True)
        return probabilities

    def hard(self) -> np.ndarray:
        """int64 (images,): the class position of every image."""
        import numpy as np

        dataset = self._dataset
        return np.repeat(np.array(dataset.selection.classes, np.int64), dataset.images_per_class)


class Dataset:
    """A distilled dataset, or a view of a part of one; made by `load`, cheap until labels or images are used.

    Images stand in order of class, then group, then index. Class positions are those of the file, also in a
    view of some classes: the columns of the labels belong to them.
    """

    def __init__(self, file: D3MFile, profile: str, selection: Selection) -> None:
        self.file, self.profile, self.selection = file, profile, selection

    @property
    def path(self) -> str:
        """Path or URL of the file."""
        return self.file.path

    @property
    def content_id(self) -> str:
        """SHA-256 (hex) of everything that determines pixels and labels; the same for all views of a file."""
        return self.file.content_id

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.file.bytes_total

    @property
    def about(self) -> About | None:
        """Licence, source, citation, claims: what the file says of itself, or None."""
        return self.file.about

    @cached_property
    def classes(self) -> list[ClassInfo]:
        """The classes of this view."""
        authority, records = self.file.content.classes.authority, self.file.class_records()
        return [ClassInfo(i, records[i].id, records[i].name, authority) for i in self.selection.classes]

    @cached_property
    def groups(self) -> list[GroupInfo]:
        """The groups of this view, each described with all its images."""
        wanted = self.selection.groups
        groups = describe_groups(self.file.content)
        return groups if wanted is None else [groups[number] for number in wanted]

    @property
    def labels(self) -> PatchLabels:
        """The labels of this view, as logits, probabilities or classes."""
        return PatchLabels(self)

    @cached_property
    def images_per_class(self) -> int:
        """IPC: images (collages) a class in this view."""
        stored, ipc = sum(group.images_per_class for group in self.groups), self.selection.ipc
        return stored if ipc is None else min(stored, ipc)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in an image; UsageError if groups differ."""
        _agree(self, "different grids", {group.grid for group in self.groups})
        return self.groups[0].grid

    def __len__(self) -> int:
        return len(self.selection.classes) * self.images_per_class

    def __repr__(self) -> str:
        sizes = ", ".join(
            dict.fromkeys("{}x{} ({}x{} patches)".format(*group.size, *group.grid) for group in self.groups)
        )
        generators = ", ".join(dict.fromkeys(group.generator[:8] for group in self.groups))
        return (
            f"<d3codec.Dataset {self.path.rsplit('/', 1)[-1]}: {self.bytes:,} bytes, "
            f"{len(self.selection.classes)} classes x {self.images_per_class} images of {sizes},\n"
            f" {self.labels.kind} labels, profile {self.profile}, generator {generators}, "
            f"content {self.content_id[:8]}>"
        )

    def subset(
        self,
        classes: Iterable[str | int] | str | int | None = None,
        ipc: int | None = None,
        groups: Iterable[int] | None = None,
    ) -> Dataset:
        """A view of some classes (names, ids or positions), the first `ipc` images of each, some groups.

        Raises UsageError for a class, a number of images or a group that is not there.
        """
        selection = self.selection
        if classes is not None:
            asked = [classes] if isinstance(classes, (str, int)) else list(classes)
            if not asked:
                raise UsageError("no class is asked for", file=self.path, field="classes")
            positions = {self.position(item) for item in asked}
            selection = replace(selection, classes=tuple(sorted(positions)))
        if groups is not None:
            known, chosen = [group.number for group in self.groups], tuple(sorted(set(groups)))
            if not chosen or not set(known).issuperset(chosen):
                raise UsageError(
                    "no such group", file=self.path, field="groups", found=list(chosen), expected=f"some of {known}"
                )
            selection = replace(selection, groups=chosen)
        view = Dataset(self.file, self.profile, selection)
        if ipc is None:
            return view
        if not 1 <= ipc <= view.images_per_class:
            raise UsageError(
                "not that many images a class",
                file=self.path,
                field="ipc",
                found=ipc,
                expected=f"1 to {view.images_per_class}",
            )
        return Dataset(self.file, self.profile, replace(selection, ipc=ipc))

    def position(self, wanted: str | int) -> int:
        """The position of a class of this view, by name, id or position; UsageError if it is not there."""
        if isinstance(wanted, str):
            found = [info.index for info in self.classes if wanted and wanted in (info.name, info.id)]
        else:
            found = [index for index in self.selection.classes if index == wanted]
        if len(found) == 1:
            return found[0]
        names = [info.name for info in self.classes]
        near = difflib.get_close_matches(str(wanted), names, 3) or names[:5]
        raise UsageError(
            "the name of one class and the id of another" if found else "no such class",
            file=self.path,
            field="classes",
            found=wanted,
            expected="a name, an id or a position",
            hint="There is: " + ", ".join(near) + (", ..." if len(near) < len(names) else ""),
        )

    def plan(self) -> Plan:
        """The units to decode for this view, and its images as (group, class position, index) in order."""
        return self._extent().plan()

    def _extent(self) -> Extent:
        from d3codec.decoder.plan import Extent

        selection = self.selection
        return Extent.of(self.file.content, selection.classes, selection.ipc, selection.groups)

    def images(
        self,
        device: str = "auto",
        generator: str | Path | None = None,
        batch_size: int | None = None,
        progress: Progress | None = None,
        budget: Budget | None = Budget(),  # noqa: B008  # frozen
    ) -> np.ndarray:
        """The pixels of this view: uint8 (images, height, width, 3), decoded or taken from the cache.

        Arguments:
            device: `auto`, `cpu` or `cuda`.
            generator: a folder, or a repository in the Hugging Face cache; without it the package's own and
                that cache are searched for the generator that the file names.
            batch_size: bounds the images on the device; it sets the batch only in profile `fast`.
            progress: called as progress(stage, done, total).
            budget: what the decode may cost (`decoder.budget.Budget`); None: anything.

        Raises:
            MissingExtraError: torch is not installed.
            MissingGeneratorError: the weights are not on this machine.
            UsageError: groups have images of different sizes, or more work than the budget allows.
        """
        import numpy as np

        _agree(self, "images of different sizes", {group.size for group in self.groups})
        self._check(budget)
        plan = self.plan()
        place = {key: number for number, key in enumerate(plan.images)}
        images = np.empty((len(place), *self.groups[0].size, 3), np.uint8)
        for key, image in self._decoded(plan, device, generator, batch_size, progress, budget):
            images[place[key]] = image
        return images

    def _check(self, budget: Budget | None) -> None:
        """Raises UsageError for more work than the budget allows, before anything is listed."""
        if budget is not None:
            budget.check(Work.of(self._extent()), self.path)

    def _decoded(
        self,
        plan: Plan,
        device: str = "auto",
        generator: str | Path | None = None,
        batch_size: int | None = None,
        progress: Progress | None = None,
        budget: Budget | None = None,
    ) -> Iterator[tuple[Key, np.ndarray]]:
        """The wanted images as they come out of the decoder, which goes through group after group."""
        from d3codec.decoder.precision import choose_device, fingerprint
        from d3codec.decoder.units import decoded_units, warn_if_unlike
        from d3codec.generators.weights import require_torch

        require_torch()
        warn_if_unlike(self.file, self.profile, fingerprint(choose_device(device)))
        wanted = set(plan.images)
        units = decoded_units(
            self.file,
            plan,
            profile=self.profile,
            device=device,
            generator=generator,
            batch_size=batch_size,
            progress=progress,
            budget=budget,
        )
        for unit, pixels in units:
            for class_index, index, image in zip(unit.classes, unit.indices, pixels, strict=True):
                key = (unit.group, class_index, index)
                if key in wanted:
                    yield key, image

    def __iter__(self) -> Iterator[Sample]:
        """Samples in order, decoded as they are needed. More than the default budget of `images` allows is refused."""
        self._check(Budget())
        logits, plan = self._logits(), self.plan()
        waiting: dict[Key, np.ndarray] = {}
        decoded = self._decoded(plan)
        for number, key in enumerate(plan.images):
            while key not in waiting:
                arrived, image = next(decoded)
                waiting[arrived] = image
            yield Sample(waiting.pop(key), None if logits is None else logits[number], key[1])

    def _logits(self) -> np.ndarray | None:
        """The logits, or None with hard labels."""
        return None if self.labels.kind == "hard" else self.labels.logits()

    def to_numpy(self, budget: Budget | None = Budget()) -> dict[str, np.ndarray]:  # noqa: B008  # frozen
        """`images` uint8 (images, height, width, 3), `classes` int64 (images,) and, unless the labels are
        hard, `patch_logits` float32 (images, patches, classes of the file). `budget` is that of `images`."""
        arrays = {"images": self.images(budget=budget), "classes": self.labels.hard()}
        logits = self._logits()
        return arrays if logits is None else arrays | {"patch_logits": logits}

    def to_torch(
        self,
        dtype: str = "uint8",
        patches: bool = False,
        budget: Budget | None = Budget(),  # noqa: B008  # frozen
    ) -> TorchDataset:
        """A torch Dataset of this view; everything is decoded now, before a worker starts.

        Arguments:
            dtype: of the image tensors: `uint8`, or `float32` from 0 to 1.
            patches: one item a patch (patch, logits of the patch, class_index) instead of one an image.
            budget: as for `images`.

        Returns:
            Items are named tuples: image (3, height, width), patch_logits float32 (patches, classes of the file),
            class_index int; with hard labels image and class_index. DataLoader may start workers in any way.

        Raises:
            UsageError: another dtype, or groups that do not fit together.
            MissingExtraError: torch is not installed.
        """
        if dtype not in ("uint8", "float32"):
            raise UsageError("an unknown dtype", field="dtype", found=dtype, expected="uint8 or float32")
        try:
            from d3codec.torch_dataset import TorchDataset
        except ModuleNotFoundError as error:
            raise MissingExtraError("decode") from error
        grid = self.grid if patches else None
        arrays = self.to_numpy(budget)
        if grid is not None:
            arrays = _by_patch(arrays, grid)
        return TorchDataset(
            arrays["images"], arrays.get("patch_logits"), arrays["classes"], as_float=dtype == "float32"
        )

    def augmented(
        self,
        size: int,
        *,
        seed: int = 0,
        temperature: float = 1.0,
        cutmix: float = 0.0,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: bool = False,
        dtype: str = "float32",
        patches: bool = False,
        budget: Budget | None = Budget(),  # noqa: B008  # frozen
    ) -> AugmentedDataset:
        """A torch Dataset of random views of these images, each with the soft label of what it shows.

        Everything is decoded now; the labels follow from the stored ones by area, without the teacher. An item depends
        on seed, epoch and its index alone: call `set_epoch` of the result before every epoch.

        Arguments:
            size: height and width of the views in pixels.
            seed, temperature, cutmix, scale, ratio, flip: as for `d3codec.augmented.AugmentedDataset`: random crops of
                these areas and shapes, mirrored or not, with CutMix at this probability; probabilities at this
                temperature.
            dtype: of the image tensors: `float32` from 0 to 1, or `uint8`.
            patches: views of single patches instead of whole images.
            budget: as for `images`.

        Returns:
            Items are named tuples: image (3, size, size) and label float32 (classes,), which sums to 1; its columns
            are the class positions of the file, also with hard labels. DataLoader may start workers in any way.

        Raises:
            UsageError: numbers out of range, another dtype, or groups that do not fit together.
            MissingExtraError: torch is not installed.
        """
        if dtype not in ("uint8", "float32"):
            raise UsageError("an unknown dtype", field="dtype", found=dtype, expected="uint8 or float32")
        try:
            from d3codec.augmented import AugmentedDataset
        except ModuleNotFoundError as error:
            raise MissingExtraError("decode") from error
        grid, arrays = self.grid, self.to_numpy(budget)
        if patches:
            arrays, grid = _by_patch(arrays, grid), (1, 1)
        images, logits = arrays["images"], arrays.get("patch_logits")
        return AugmentedDataset(
            images,
            None if logits is None else logits.reshape(len(images), grid[0] * grid[1], -1),
            arrays["classes"],
            grid,
            class_count=self.file.content.classes.count,
            size=size,
            seed=seed,
            temperature=temperature,
            cutmix=cutmix,
            scale=scale,
            ratio=ratio,
            flip=flip,
            as_float=dtype == "float32",
        )


def _agree(dataset: Dataset, what: str, values: set[tuple[int, int]]) -> None:
    if len(values) > 1:
        raise UsageError(f"the groups have {what}", file=dataset.path, found=sorted(values), hint=ONE_GROUP)


def _runs(classes: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Ranges of ascending numbers that follow one another."""
    start = 0
    for end in range(1, len(classes) + 1):
        if end == len(classes) or classes[end] != classes[end - 1] + 1:
            yield classes[start], classes[end - 1] + 1
            start = end


def _by_patch(arrays: dict[str, np.ndarray], grid: tuple[int, int]) -> dict[str, np.ndarray]:
    """The same arrays with a row for each patch of each image."""
    from d3codec.grid import cut

    patches = cut(arrays["images"], grid)
    images = patches.reshape(-1, *patches.shape[2:])
    result = {"images": images, "classes": arrays["classes"].repeat(patches.shape[1])}
    if "patch_logits" in arrays:
        result["patch_logits"] = arrays["patch_logits"].reshape(len(images), -1)
    return result
