"""Arithmetic of a decode: profiles, the fingerprint of a machine, pixels from floats (spec section 7).

`exact` is binary64 from noise to pixel, `exact-fixed` binary64 on grids where no sum rounds: the same pixels
everywhere, proved by the file's digest. `reproducible` is binary32 without shortcuts and with one thread: the
same pixels under one fingerprint. `fast` is bfloat16 and promises no identity. Importing this module does not
import torch.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d3codec.errors import MissingError, PixelsError, UsageError
from d3codec.generators.weights import require_torch

if TYPE_CHECKING:
    import numpy as np
    import torch

    from d3codec.format.file import ContentDraft
    from d3codec.format.manifest import Content

PROFILES = ("exact", "exact-fixed", "reproducible", "fast")
EVERYWHERE = ("exact", "exact-fixed")
"""Profiles whose pixels do not depend on the machine."""
DECODE_VERSION = 2  # raised with every change of this package that may change a pixel under one fingerprint

# Choices of kernels that a user can force; they change bits, so they belong to the fingerprint.
_KERNEL_VARIABLES = ("DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")
# Switches to fewer bits that no call can take back, with the values that leave them off.
_SHORTCUT_VARIABLES = {
    "DNNL_DEFAULT_FPMATH_MODE": ("", "STRICT"),
    "NVIDIA_TF32_OVERRIDE": ("", "0"),
    "ONEDNN_DEFAULT_FPMATH_MODE": ("", "STRICT"),
}


def has_networks(content: Content | ContentDraft) -> bool:
    """Whether any images of a dataset are made by a generator, which takes torch; stored ones need none."""
    return any(group.generator is not None for group in content.groups)


def choose_device(device: str, networks: bool = True) -> str:
    """'cpu' or 'cuda' for 'auto', 'cpu' or 'cuda'; without networks always 'cpu'.

    MissingError if there is no such device, UsageError for others.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError("an unknown device", field="device", found=device, expected="auto, cpu or cuda")
    if device == "cpu" or not networks:
        return "cpu"
    present = bool(require_torch().cuda.is_available())
    if device == "cuda" and not present:
        raise MissingError(
            "torch finds no CUDA device",
            field="device",
            found=device,
            hint="Use --device cpu, or install a build of torch for your GPU.",
        )
    return "cuda" if present else "cpu"


def machine(profile: str, promised: str, fingerprint: str) -> str | None:
    """What pixels under a profile depend on beside the file, whose own profile is `promised`: the fingerprint, or None
    if the file promises the same pixels everywhere."""
    return None if profile == promised and profile in EVERYWHERE else fingerprint


def check_profile(profile: str) -> None:
    """UsageError for an unknown profile."""
    if profile not in PROFILES:
        raise UsageError("an unknown profile", field="profile", found=profile, expected=", ".join(PROFILES))


def compute_dtype(profile: str) -> torch.dtype:
    """The dtype of the networks under a profile; UsageError for an unknown profile."""
    check_profile(profile)
    names = {"reproducible": "float32", "fast": "bfloat16"}
    dtype: torch.dtype = getattr(require_torch(), names.get(profile, "float64"))
    return dtype


@contextmanager
def settings(profile: str, device: str) -> Iterator[None]:
    """Everything computed inside follows the profile; torch's settings are put back afterwards.

    All profiles run in inference mode and outside autocast. New tensors are of the profile's dtype; `reproducible`
    adds one CPU thread, full binary32 and deterministic kernels.

    Raises:
        UsageError: the environment or the program switches to fewer bits than `reproducible` promises.
    """
    torch = require_torch()
    dtype = compute_dtype(profile)
    with torch.inference_mode(), torch.autocast(device, enabled=False):
        if profile == "fast":
            yield
            return
        if profile == "reproducible":
            _refuse_shortcuts(torch)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with _strict(torch) if profile == "reproducible" else nullcontext():
                yield
        finally:
            torch.set_default_dtype(before)


def operators(profile: str) -> AbstractContextManager[Any]:
    """The operators that networks and samplers use inside: those of `exact-fixed`, or torch's own."""
    if profile != "exact-fixed":
        return nullcontext()
    from d3codec.decoder.fixed import fixed_arithmetic

    return fixed_arithmetic()


def _refuse_shortcuts(torch: Any) -> None:
    """TF32 and its like, where somebody asked for them: to take them back in silence would be as wrong as to use
    them. (That of cuDNN is torch's own default, which nobody asked for: it is switched off.)"""
    for backend in ("cuda", "mkldnn"):
        matmul: Any = getattr(getattr(torch.backends, backend), "matmul", None)
        if hasattr(matmul, "fp32_precision"):
            asked = matmul.fp32_precision
        else:  # torch before 2.9
            asked = "tf32" if getattr(matmul, "allow_tf32", False) else "none"
        if asked not in ("none", "ieee"):
            raise UsageError(
                "this program lets torch multiply with fewer bits than the profile 'reproducible' promises",
                field=f"torch.backends.{backend}.matmul.fp32_precision",
                found=asked,
                expected="ieee",
                hint="Set it to 'ieee' first, or decode with the profile 'exact' or 'fast'.",
            )
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
    threads = torch.get_num_threads()
    switches = _switches(torch)
    before = [getattr(owner, name) for owner, name, _ in switches]
    try:
        if threads != 1:
            torch.set_num_threads(1)
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


def fingerprint(device: str, content: Content | ContentDraft | None = None) -> str:
    """One line that names what the pixels of profile `reproducible` depend on beside the file.

    Pieces are joined by '|', each a name and a value. Of images that a generator makes: the processor with the
    instruction set that torch uses (on a GPU its name, capability and libraries), library versions, and environment
    variables that choose kernels; of stored AVIF or WebP images: the machine, Pillow and its libraries. Always: the
    version of this decoder (r). Without `content` those of a generator. Short, since every file carries it.
    """
    networks = content is None or has_networks(content)
    pieces = _of_networks(device) if networks else []
    pieces += [] if content is None else _of_codecs(content)
    pieces.append(f"r {DECODE_VERSION}")
    if networks:
        pieces += [f"{name} {os.environ[name]}" for name in _KERNEL_VARIABLES if os.environ.get(name)]
    return "|".join(pieces)


def _of_networks(device: str) -> list[str]:
    torch = require_torch()
    from importlib.metadata import version

    return [
        *(_cpu(torch) if device == "cpu" else _gpu(torch)),
        f"torch {torch.__version__}",
        f"diffusers {version('diffusers')}",
        f"transformers {version('transformers')}",
    ]


def _of_codecs(content: Content | ContentDraft) -> list[str]:
    from d3codec.format.manifest import SheetsRecipe, lossy

    recipes = [group.recipe for group in content.groups if lossy(group)]
    if not recipes:
        return []
    from d3codec.images import codec_versions

    formats = [recipe.format for recipe in recipes if isinstance(recipe, SheetsRecipe)]
    return [f"machine {platform.machine()}", *codec_versions(formats)]


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


def to_levels(images: torch.Tensor) -> np.ndarray:
    """Images [batch, 3, height, width], about -1 to 1, as levels before rounding: 255 * clamp(x / 2 + 1/2, 0, 1).

    Returns: float [batch, height, width, 3] in 0 to 255, binary64 for binary64 images, else binary32.

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
    levels: np.ndarray = ((values * 0.5 + 0.5).clamp(0.0, 1.0) * 255.0).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return levels


def round_levels(levels: np.ndarray) -> np.ndarray:
    """Levels 0 to 255 rounded half to even: uint8 of the same shape."""
    import numpy as np

    pixels: np.ndarray = np.rint(levels).astype(np.uint8)
    return pixels
