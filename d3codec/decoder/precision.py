"""Arithmetic of a decode: profiles, the fingerprint of a machine, pixels from floats (spec section 7).

`reproducible` is binary32 without shortcuts and with one thread: the same pixels under one fingerprint.
`fast` is bfloat16 and promises no identity. Importing this module does not import torch.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d3codec.errors import MissingError, PixelsError, UsageError
from d3codec.generators.weights import require_torch

if TYPE_CHECKING:
    import numpy as np
    import torch

PROFILES = ("reproducible", "fast")
DECODE_VERSION = 1  # raised with every change of this package that may change a pixel under one fingerprint

# Choices of kernels that a user can force; they change bits, so they belong to the fingerprint.
_KERNEL_VARIABLES = ("DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")
# Switches to fewer bits that no call can take back, with the values that leave them off.
_SHORTCUT_VARIABLES = {
    "DNNL_DEFAULT_FPMATH_MODE": ("", "STRICT"),
    "NVIDIA_TF32_OVERRIDE": ("", "0"),
    "ONEDNN_DEFAULT_FPMATH_MODE": ("", "STRICT"),
}


def choose_device(device: str) -> str:
    """'cpu' or 'cuda' for 'auto', 'cpu' or 'cuda'. MissingError if there is no such device, UsageError for others."""
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError("an unknown device", field="device", found=device, expected="auto, cpu or cuda")
    if device == "cpu":
        return device
    present = bool(require_torch().cuda.is_available())
    if device == "cuda" and not present:
        raise MissingError(
            "torch finds no CUDA device",
            field="device",
            found=device,
            hint="Use --device cpu, or install a build of torch for your GPU.",
        )
    return "cuda" if present else "cpu"


def compute_dtype(profile: str) -> torch.dtype:
    """The dtype of the networks under a profile; UsageError for an unknown profile."""
    if profile not in PROFILES:
        raise UsageError("an unknown profile", field="profile", found=profile, expected=" or ".join(PROFILES))
    names = {"reproducible": "float32", "fast": "bfloat16"}
    dtype: torch.dtype = getattr(require_torch(), names[profile])
    return dtype


@contextmanager
def settings(profile: str, device: str) -> Iterator[None]:
    """Everything computed inside follows the profile; torch's settings are put back afterwards.

    Both profiles run in inference mode and outside autocast. `reproducible` adds one CPU thread, full
    binary32 and deterministic kernels.

    Raises:
        UsageError: the environment switches to fewer bits in a way that cannot be taken back.
    """
    torch = require_torch()
    fast = compute_dtype(profile) == torch.bfloat16
    with torch.inference_mode(), torch.autocast(device, enabled=False):
        if fast:
            yield
            return
        _refuse_shortcuts()
        with _strict(torch):
            yield


def _refuse_shortcuts() -> None:
    for name, harmless in _SHORTCUT_VARIABLES.items():
        if (value := os.environ.get(name, "")).upper() not in harmless:
            raise UsageError(
                "this environment variable takes away bits that the profile 'reproducible' promises",
                field=name,
                found=value,
                hint=f"Unset {name}, or decode with the profile 'fast'.",
            )


@contextmanager
def _strict(torch: Any) -> Iterator[None]:
    threads, default = torch.get_num_threads(), torch.get_default_dtype()
    switches = _switches(torch)
    before = [getattr(owner, name) for owner, name, _ in switches]
    try:
        if threads != 1:
            torch.set_num_threads(1)
        torch.set_default_dtype(torch.float32)
        for owner, name, value in switches:
            setattr(owner, name, value)
            if getattr(owner, name) != value:
                raise UsageError(
                    "a setting of torch cannot be changed as the profile 'reproducible' needs",
                    field=name,
                    found=getattr(owner, name),
                    expected=value,
                )
        yield
    finally:
        for (owner, name, _), value in zip(switches, before, strict=True):
            setattr(owner, name, value)
        torch.set_default_dtype(default)
        if threads != 1:
            torch.set_num_threads(threads)


def _switches(torch: Any) -> list[tuple[Any, str, Any]]:
    """(owner, name, value) of the settings that `reproducible` fixes."""
    switches: list[tuple[Any, str, Any]] = [
        (torch.backends.cudnn, "benchmark", False),
        (torch.backends.cudnn, "deterministic", True),
    ]
    if hasattr(torch.backends.cudnn, "conv"):  # since torch 2.9; mixed with the older names they may raise
        owners = [
            torch.backends.cuda.matmul,
            torch.backends.cudnn.conv,
            torch.backends.mkldnn.matmul,
            torch.backends.mkldnn.conv,
        ]
        return switches + [(owner, "fp32_precision", "ieee") for owner in owners]
    return [*switches, *((owner, "allow_tf32", False) for owner in (torch.backends.cuda.matmul, torch.backends.cudnn))]


# ------------------------------------------------------------------------------------------------ fingerprint


def fingerprint(device: str) -> str:
    """One line that names what the pixels of profile `reproducible` depend on beside the file.

    Pieces are joined by '|', each a name and a value: the processor with the instruction set that torch uses
    (on a GPU its name, capability and libraries), library versions, the version of this decoder (r), and
    environment variables that choose kernels. Short, since every file carries it.
    """
    torch = require_torch()
    from importlib.metadata import version

    pieces = _cpu(torch) if device == "cpu" else _gpu(torch)
    pieces += [
        f"torch {torch.__version__}",
        f"diffusers {version('diffusers')}",
        f"transformers {version('transformers')}",
        f"r {DECODE_VERSION}",
    ]
    pieces += [f"{name} {os.environ[name]}" for name in _KERNEL_VARIABLES if os.environ.get(name)]
    return "|".join(pieces)


def differences(one: str, other: str) -> list[str]:
    """What differs between two fingerprints, a phrase each, e.g. 'torch 2.13.0 against 2.12.0'."""
    first, second = _pieces(one), _pieces(other)
    names = [*first, *(name for name in second if name not in first)]
    return [
        f"{name} {first.get(name, 'unset')} against {second.get(name, 'unset')}"
        for name in names
        if first.get(name) != second.get(name)
    ]


def _pieces(text: str) -> dict[str, str]:
    pairs = (piece.partition(" ") for piece in text.split("|"))
    return {name: value for name, _, value in pairs}


def _cpu(torch: Any) -> list[str]:
    return [f"cpu {_processor()} {torch.backends.cpu.get_cpu_capability()}"]


def _processor() -> str:
    """Vendor, family and model of the processor: kernels are chosen by them, not by the marketing name."""
    with_proc = Path("/proc/cpuinfo")
    if with_proc.is_file():
        rows = (line.partition(":") for line in with_proc.read_text("utf-8", "replace").splitlines())
        facts: dict[str, str] = {}
        for name, _, value in rows:
            facts.setdefault(name.strip(), value.strip())
        keys = (
            ("vendor_id", "cpu family", "model")
            if "vendor_id" in facts
            else ("CPU implementer", "CPU variant", "CPU part")
        )
        found = [facts[key] for key in keys if facts.get(key)]
        if found:
            return "-".join(found).removeprefix("Authentic").removeprefix("Genuine")
    name = os.environ.get("PROCESSOR_IDENTIFIER", "") if sys.platform == "win32" else platform.processor()
    return "-".join((name or "unknown").replace(",", " ").split())


def _gpu(torch: Any) -> list[str]:
    major, minor = torch.cuda.get_device_capability()
    return [
        f"cuda {torch.cuda.get_device_name()} sm_{major}{minor}",
        f"libraries cuda-{torch.version.cuda} cudnn-{torch.backends.cudnn.version()}",
    ]


# ---------------------------------------------------------------------------------------------------- pixels


def to_pixels(images: torch.Tensor) -> np.ndarray:
    """Round images [batch, 3, height, width] in -1 to 1 to uint8 [batch, height, width, 3].

    Round half to even of 255 * clamp(x / 2 + 1/2, 0, 1), in binary32 (binary64 for binary64 images).

    Raises:
        PixelsError: a value that is not finite.
    """
    torch = require_torch()
    values = images if images.dtype == torch.float64 else images.float()
    if not bool(torch.isfinite(values).all()):
        raise PixelsError(
            "the decode gave values that are not finite numbers",
            hint="Guidance or learned embeddings are beyond what the generator bears.",
        )
    levels = torch.round((values * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).to(torch.uint8)
    pixels: np.ndarray = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels
