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
from typing import TYPE_CHECKING, NamedTuple

from d3codec.decoder.budget import Budget, Work
from d3codec.errors import MissingExtraError, UsageError
from d3codec.format.file import D3MFile
from d3codec.groups import GroupInfo, describe_groups
from d3codec.patch_labels import PatchLabels, agree

if TYPE_CHECKING:
    import numpy as np

    from d3codec.augmented import AugmentedDataset
    from d3codec.decoder.plan import Extent, Plan
    from d3codec.format.manifest import About
    from d3codec.generators.weights import Names
    from d3codec.mixing import GroupBatches
    from d3codec.torch_dataset import TorchDataset

Progress = Callable[[str, int, int], None]
Key = tuple[int, int, int]  # of an image: group, class position, index in the group
PROFILES = ("exact", "exact-fixed", "reproducible", "fast")


def load(source: str | PathLike[str], *, profile: str | None = None) -> Dataset:
    """Open a distilled dataset: the head is read and checked now, everything else when it is used.

    Arguments:
        source: a local path or a URL that fsspec understands (`https://...` needs the extra `remote`, `hf://...`
            the extra `hub`, `s3://...` the extra `s3`). Of what is behind a URL only what is used is fetched, each
            byte once: the head with the first 64 KiB, everything else when it is read. At most 1 GiB.
        profile: arithmetic of the decoder, one of PROFILES; without it the one that the file names. Another one gives
            nearly the same pixels, whose identity nothing proves.

    Returns:
        A Dataset of all classes and images.

    Raises:
        FormatError: the bytes are not a sound `.d3m` file.
        MissingFileError: nothing there.
        MissingExtraError: the package that speaks the URL's protocol is not installed.
        RemoteError: a server or the network that does not give what the URL names; what is read later raises it too,
            and ChangedFileError if the file behind the URL is another one by then.
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
    from d3codec.remote import RemoteFile, is_url

    name = str(source)
    return D3MFile.open(RemoteFile(name) if is_url(name) else name)


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
    def weights(self) -> tuple[int, ...] | None:
        """The share of a training batch that the maker recommends for each group of this view, None without advice."""
        stated = None if self.about is None else self.about.weights
        return None if stated is None else tuple(stated[group.number] for group in self.groups)

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
        agree(self, "different grids", {group.grid for group in self.groups})
        return self.groups[0].grid

    def __len__(self) -> int:
        return len(self.selection.classes) * self.images_per_class

    def __repr__(self) -> str:
        sizes = ", ".join(
            dict.fromkeys("{}x{} ({}x{} patches)".format(*group.size, *group.grid) for group in self.groups)
        )
        found = [f"generator {group.generator[:8]}" for group in self.groups if group.generator is not None]
        stored = ["stored images"] if len(found) < len(self.groups) else []
        return (
            f"<d3codec.Dataset {self.path.rsplit('/', 1)[-1]}: {self.bytes:,} bytes, "
            f"{len(self.selection.classes)} classes x {self.images_per_class} images of {sizes},\n"
            f" {self.labels.kind} labels, profile {self.profile}, {', '.join(dict.fromkeys(found + stored))}, "
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
        generator: Names = None,
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

        agree(self, "images of different sizes", {group.size for group in self.groups})
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
        generator: Names = None,
        batch_size: int | None = None,
        progress: Progress | None = None,
        budget: Budget | None = None,
    ) -> Iterator[tuple[Key, np.ndarray]]:
        """The wanted images as they come out of the decoder, which goes through group after group."""
        from d3codec.decoder.precision import choose_device, fingerprint, has_networks
        from d3codec.decoder.units import decoded_units, warn_if_unlike

        content = self.file.content
        warn_if_unlike(self.file, self.profile, fingerprint(choose_device(device, has_networks(content)), content))
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

    def batches(self, size: int, *, seed: int = 0, patches: bool = False) -> GroupBatches:
        """Indices of the items of `to_torch` or `augmented` in shuffled batches that follow `weights`.

        For the `batch_sampler` of a DataLoader. Without stated weights every group has the share of its images.

        Arguments:
            size: of a batch. seed: of the order, which continues from pass to pass.
            patches: an item is a patch, as with `patches` there.

        Raises:
            UsageError: numbers out of range, or patches of different grids.
        """
        import numpy as np

        from d3codec.mixing import GroupBatches

        within = [(group.number, place) for group in self.groups for place in range(group.images_per_class)]
        owner = np.tile([number for number, _ in within[: self.images_per_class]], len(self.selection.classes))
        if patches:
            owner = owner.repeat(self.grid[0] * self.grid[1])
        members = {group.number: np.flatnonzero(owner == group.number) for group in self.groups}
        stated = dict(zip(members, self.weights or map(len, members.values()), strict=True))
        shown = [number for number in members if len(members[number])]  # a limit of images may leave out groups
        return GroupBatches([members[number] for number in shown], [stated[number] for number in shown], size, seed)

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


def _by_patch(arrays: dict[str, np.ndarray], grid: tuple[int, int]) -> dict[str, np.ndarray]:
    """The same arrays with a row for each patch of each image."""
    from d3codec.grid import cut

    patches = cut(arrays["images"], grid)
    images = patches.reshape(-1, *patches.shape[2:])
    result = {"images": images, "classes": arrays["classes"].repeat(patches.shape[1])}
    if "patch_logits" in arrays:
        result["patch_logits"] = arrays["patch_logits"].reshape(len(images), -1)
    return result
