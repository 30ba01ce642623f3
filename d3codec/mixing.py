"""Batches of the images of several groups in stated shares: indices for a loader, without torch.

Groups of a mixed dataset are not worth the same in training: a hundred generated images of a few bytes stand beside ten
that were stored. So every batch has images of each group in proportion to its weight, whatever their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from d3codec.errors import UsageError
from d3codec.noise import LOADER, philox4x32

Indices = NDArray[np.int64]
_ORDER = 3  # who draws, beside those of augmented.py


class GroupBatches:
    """Batches of indices; serves as `batch_sampler` of a torch DataLoader. One pass has as many batches as all indices
    fill; the next pass goes on where the last one ended.

    Each group is an endless stream of permutations of its own. Places are given to the groups by Tijdeman's rule for
    the chairman assignment problem (Discrete Mathematics 32, 1980), so at any place every group had its share to less
    than one index. The order follows from the seed alone.

    Arguments:
        members: indices of each group, none empty.
        weights: of each group, whole numbers above 0.
        size: of a batch.
        seed: 0 to 2^64 - 1.

    Raises:
        UsageError: numbers out of their range, or not one weight a group.
    """

    def __init__(self, members: Sequence[Indices], weights: Sequence[int], size: int, seed: int = 0) -> None:
        sound = len(weights) == len(members) > 0 and all(weight > 0 for weight in weights)
        for field, value, good, expected in (
            ("weights", list(weights), sound, f"{len(members)} whole numbers above 0"),
            ("size", size, size >= 1, "1 or more"),
            ("seed", seed, 0 <= seed < 1 << 64, "0 to 2^64 - 1"),
        ):
            if not good:
                raise UsageError("no batches like this", field=field, found=value, expected=expected)
        self._members, self._size, self._seed = [np.asarray(indices, np.int64) for indices in members], size, seed
        self._weights, self._place = [int(weight) for weight in weights], 0
        self._used = [0] * len(members)
        self._orders: list[list[int]] = [[] for _ in members]

    def __len__(self) -> int:
        """Batches of a pass."""
        return -(-sum(map(len, self._members)) // self._size)

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(len(self)):
            yield [self._taken(self._next_group()) for _ in range(self._size)]

    def _next_group(self) -> int:
        """Of the groups that are behind by enough, the one that will first be behind by too much."""
        self._place += 1
        groups, total = len(self._weights), sum(self._weights)
        if groups == 1:
            return 0
        parts = 2 * groups - 2
        behind = [
            parts * (weight * self._place - total * used)
            for weight, used in zip(self._weights, self._used, strict=True)
        ]
        ready = [group for group in range(groups) if behind[group] >= total]
        return min(ready, key=lambda group: ((parts - 1) * total - behind[group]) / self._weights[group])

    def _taken(self, group: int) -> int:
        """The next index of a group's stream."""
        turn, place = divmod(self._used[group], len(self._members[group]))
        if place == 0:
            self._orders[group] = self._members[group][self._permutation(group, turn)].tolist()
        self._used[group] += 1
        return self._orders[group][place]

    def _permutation(self, group: int, turn: int) -> Indices:
        """All places of a group in the order of their draws: Philox under the key `seed`, counter (place, group, turn,
        domain LOADER and _ORDER)."""
        counter = np.empty((len(self._members[group]), 4), np.uint32)
        counter[:, 0] = np.arange(len(counter))
        counter[:, 1:] = group, turn, LOADER << 24 | _ORDER
        return np.argsort(philox4x32(counter, self._seed)[:, 0], kind="stable")
