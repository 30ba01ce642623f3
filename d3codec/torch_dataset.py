"""A distilled dataset as a torch Dataset: arrays that were decoded before, tensors in the workers.

Holds numpy arrays and nothing else, so that it pickles into workers however they are started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.utils.data import Dataset

if TYPE_CHECKING:
    import numpy as np


class Item(NamedTuple):
    """image: uint8, or float32 from 0 to 1, (3, height, width); patch_logits: float32 (patches, label width),
    or (label width,) where an item is a patch; class_index: position of the class in the file."""

    image: torch.Tensor
    patch_logits: torch.Tensor
    class_index: int


class HardItem(NamedTuple):
    """An item of a dataset with hard labels."""

    image: torch.Tensor
    class_index: int


class TorchDataset(Dataset[Any]):
    """Images uint8 (N, height, width, 3), logits float32 (N, ...) or None, classes int64 (N,), as tensors."""

    def __init__(
        self, images: np.ndarray, patch_logits: np.ndarray | None, classes: np.ndarray, as_float: bool
    ) -> None:
        self._images, self._patch_logits, self._as_float = images, patch_logits, as_float
        self.targets = classes

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Item | HardItem:
        image = torch.from_numpy(self._images[index].transpose(2, 0, 1).copy())
        if self._as_float:
            image = image.float() / 255.0
        class_index = int(self.targets[index])
        if self._patch_logits is None:
            return HardItem(image, class_index)
        return Item(image, torch.from_numpy(self._patch_logits[index].copy()), class_index)
