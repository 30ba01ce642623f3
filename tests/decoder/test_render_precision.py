"""Fingerprints, devices, and rounding to pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from d3codec.decoder import precision
from d3codec.errors import MissingError, PixelsError, UsageError


def test_a_fingerprint_names_what_pixels_depend_on(monkeypatch):
    for name in ("DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    plain = precision.fingerprint("cpu")
    assert plain.startswith("cpu ")
    assert f"torch {torch.__version__}" in plain
    assert torch.backends.cpu.get_cpu_capability() in plain
    assert len(plain) < 160
    assert precision.fingerprint("cpu") == plain
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    changed = precision.fingerprint("cpu")
    assert precision.differences(plain, changed) == ["ONEDNN_MAX_CPU_ISA unset against SSE41"]
    assert precision.differences(plain, plain) == []


def test_differences_are_phrases():
    one = "cpu A-1-2 AVX2|torch 2.13.0+cpu|diffusers 0.42.1|r 1"
    other = "cpu A-1-2 AVX2|torch 2.12.0|diffusers 0.42.1|r 2|MKL_CBWR COMPATIBLE"
    assert precision.differences(one, other) == [
        "torch 2.13.0+cpu against 2.12.0",
        "r 1 against 2",
        "MKL_CBWR unset against COMPATIBLE",
    ]
    assert precision.differences(one, one) == []


def test_devices():
    assert precision.choose_device("cpu") == "cpu"
    assert precision.choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UsageError, match="tpu"):
        precision.choose_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there():
    with pytest.raises(MissingError) as caught:
        precision.choose_device("cuda")
    assert caught.value.exit_code == 4


def test_profiles_are_known():
    with pytest.raises(UsageError, match="exactish"):
        precision.compute_dtype("exactish")


def pixels_of(images: torch.Tensor) -> np.ndarray:
    return precision.round_levels(precision.to_levels(images))


def test_levels_keep_the_precision_of_the_arithmetic():
    assert precision.to_levels(torch.zeros(1, 3, 1, 1, dtype=torch.float64)).dtype == np.float64
    assert precision.to_levels(torch.zeros(1, 3, 1, 1, dtype=torch.bfloat16)).dtype == np.float32


def test_pixels_round_half_to_even_after_clamping():
    levels = np.array([-5.0, 0.0, 0.5, 1.5, 2.5, 126.5, 127.5, 254.5, 255.0, 300.0])
    images = torch.from_numpy(levels / 255 * 2 - 1).reshape(1, 1, 1, -1).expand(1, 3, 1, -1)
    pixels = pixels_of(images)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (1, 1, 10, 3)
    exact = np.rint(np.clip(levels, 0, 255))  # numpy rounds half to even
    away = np.abs(levels - np.floor(levels) - 0.5) > 1e-9
    assert np.array_equal(pixels[0, 0, away, 0], exact[away])
    # Exactly representable halves: 127.5 = 255 / 2 goes to the even 128.
    assert pixels_of(torch.zeros(1, 3, 1, 1)).item(0) == 128


def test_channels_come_last():
    images = torch.stack([torch.full((2, 4), value) for value in (-1.0, 0.2, 1.0)])[None]
    assert pixels_of(images)[0, 1, 3].tolist() == [0, 153, 255]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_pixels_must_be_finite(value):
    images = torch.zeros(1, 3, 2, 2)
    images[0, 1, 1, 1] = value
    with pytest.raises(PixelsError, match="finite"):
        precision.to_levels(images)
