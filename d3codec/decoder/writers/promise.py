"""The pixels that a file promises, compared with those that were decoded."""

from __future__ import annotations

import numpy as np

from d3codec.decoder.digests import image_digest, pixel_digest
from d3codec.decoder.precision import EVERYWHERE
from d3codec.decoder.shard import Key
from d3codec.decoder.writers.output import Decoding
from d3codec.errors import PixelsError
from d3codec.format.manifest import Content


class PixelCheck:
    """Compares the pixels of a whole dataset with the digest in its file, in the profiles that promise them."""

    def __init__(self, decoding: Decoding, expected: bytes) -> None:
        self._decoding, self._expected = decoding, expected
        self._digests: dict[Key, bytes] = {}

    @classmethod
    def of(cls, decoding: Decoding) -> PixelCheck | None:
        """None where nothing is promised, or not all images are decoded."""
        expected = promised_digest(decoding)
        whole = len(decoding.plan.images) == images_in_all(decoding.file.content)
        return cls(decoding, expected) if whole and expected is not None and decoding.profile in EVERYWHERE else None

    def begin(self) -> None:
        pass

    def prepare(self, key: Key, image: np.ndarray) -> tuple[Key, bytes]:
        return key, image_digest(image)

    def add(self, prepared: tuple[Key, bytes]) -> None:
        self._digests[prepared[0]] = prepared[1]

    def finish(self) -> None:
        check_whole(self._decoding, self._digests, self._expected)

    def abandon(self) -> None:
        pass


def images_in_all(content: Content) -> int:
    """The images of a dataset."""
    return content.classes.count * sum(group.images.count for group in content.groups)


def promised_digest(decoding: Decoding) -> bytes | None:
    """The pixel digest that all images of the dataset must have under this profile and fingerprint, if there is one."""
    profile, about = decoding.file.content.profile, decoding.file.about
    if decoding.profile != profile.name:
        return None
    if profile.name == "reproducible":
        return about.pixels if about is not None and about.fingerprint == decoding.fingerprint else None
    return profile.pixels


def check_whole(decoding: Decoding, digests: dict[Key, bytes], expected: bytes) -> None:
    """Raises PixelsError unless these are the digests of the images that the file promises."""
    found = pixel_digest(digests[key] for key in decoding.plan.images)
    if found != expected:
        raise PixelsError(
            "the decoded pixels differ from those that the file promises",
            file=decoding.file.path,
            field="pixel digest",
            found=found.hex(),
            expected=expected.hex(),
            hint="d3codec verify --decode all says more.",
        )
