"""Teachers of somebody's own, for tests of "module:function"."""

import numpy as np
import torch


class Bright:
    """Two classes: dark and bright."""

    classes = 2
    class_names = ("dark", "bright")

    def __call__(self, images):
        brightness = np.array([image.mean() for image in images]) - 127.5
        return np.stack([-brightness, brightness], 1)


ready = Bright()


def factory():
    return Bright()


def as_function(images):
    return torch.from_numpy(Bright()(images))


def returns_a_number():
    return 3


def fails():
    raise RuntimeError("no weights here")


def wrong_shape(images):
    return np.zeros((len(images) + 1, 2))


def not_finite(images):
    return np.full((len(images), 2), np.nan)


def sometimes(images):
    if len(images) > 1:
        raise RuntimeError("out of memory")
    return np.zeros((1, 2))


constant = 5
