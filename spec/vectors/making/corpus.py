"""All vectors of the corpus, by folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from making import (
    accept_methods,
    accept_parts,
    accept_recipes,
    reject_coded,
    reject_container,
    reject_manifest,
    reject_order,
    reject_pack,
    reject_values,
    unusual_container,
    unusual_records,
    unusual_values,
)
from making.records import Vector

FOLDERS: dict[str, tuple[Callable[[], Iterator[Vector]], ...]] = {
    "accept": (
        accept_methods.vectors_of_methods,
        accept_recipes.vectors_of_recipes,
        accept_parts.vectors_of_labels,
        accept_parts.vectors_of_profiles,
        accept_parts.vectors_of_container,
    ),
    "unusual": (
        unusual_records.vectors_of_least_and_most,
        unusual_records.vectors_of_images,
        unusual_records.vectors_of_conditioning,
        unusual_values.vectors_of_names,
        unusual_values.vectors_of_labels,
        unusual_values.vectors_of_rows,
        unusual_container.vectors_of_parts,
        unusual_container.vectors_of_frames,
        unusual_container.vectors_of_about,
    ),
    "reject": (
        reject_container.vectors_of_head,
        reject_pack.vectors_of_msgpack,
        reject_manifest.vectors_of_schema,
        reject_container.vectors_of_lengths,
        reject_container.vectors_of_frames,
        reject_values.vectors_of_names,
        reject_values.vectors_of_rows,
        reject_coded.vectors_of_coded,
        reject_coded.vectors_of_sheets,
        reject_coded.vectors_of_labels,
        reject_order.vectors_of_order,
    ),
}


def vectors(folder: str) -> Iterator[Vector]:
    """Those of a folder; no name stands twice in the corpus."""
    for maker in FOLDERS[folder]:
        yield from maker()
