"""The file of a teacher: safetensors with one metadata key. Bytes <-> ConvNet, strictly checked.

Nothing in a file is ever executed, and no memory is taken before its shapes are known to be those of the
network that its metadata describes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from d3codec.errors import D3MError, TeacherError
from d3codec.training.students import ConvNet

METADATA_KEY = "d3codec.teacher"
LARGEST_FILE = 256 * 2**20


def teacher_bytes(net: ConvNet, class_names: Sequence[str]) -> bytes:
    """The file of a teacher. One metadata key, since safetensors writes several in no fixed order."""
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in net.named_parameters()}
    described = {
        "architecture": "convnet",
        "class_names": list(class_names),
        "classes": net.classes,
        "mean": net.mean.tolist(),
        "side": net.side,
        "std": net.std.tolist(),
        "version": 1,
        "width": net.width,
    }
    return save(tensors, metadata={METADATA_KEY: _canonical(described)})


def read_teacher(path: Path) -> tuple[ConvNet, tuple[str, ...], str]:
    """The network, its class names in the order of its logits, and the sha256 of the file.

    Raises TeacherError, which names the file, the field, what was found and what was expected.
    """
    import safetensors

    file, data = str(path), _read(path)
    try:
        tensors = dict(cast(Any, safetensors).deserialize(data))
    except safetensors.SafetensorError as error:
        raise TeacherError("this is not a sound safetensors file", file=file, found=str(error)) from None
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])  # safetensors has just checked it
    metadata = header.get("__metadata__") or {}
    if set(metadata) != {METADATA_KEY}:
        raise TeacherError(
            "this file was not written by d3codec train-teacher",
            file=file,
            field="__metadata__",
            found=", ".join(sorted(metadata)) or "no metadata",
            expected=METADATA_KEY,
            hint="Name a network of your own as module:function.",
        )
    described = _described(metadata[METADATA_KEY], file)
    net = _network(described, file)
    _fill(net, tensors, file)
    return net.eval(), tuple(described["class_names"]), hashlib.sha256(data).hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise TeacherError(
                "too large for a teacher", file=str(path), found=f"{size:,} bytes", expected=f"at most {LARGEST_FILE:,}"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise TeacherError(
            "there is no such teacher", file=str(path), expected="a file of d3codec train-teacher, or module:function"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TeacherError(f"the teacher cannot be read: {reason}", file=str(path)) from None


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


def _is_count(value: Any, limit: int) -> bool:
    return type(value) is int and 0 < value <= limit  # not isinstance: True is an int too


def _is_triple(value: Any, smallest: float) -> bool:
    return _is_list(value, float) and len(value) == 3 and all(smallest < x < math.inf for x in value)


_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "architecture": (lambda value: value == "convnet", "convnet"),
    "class_names": (lambda value: _is_list(value, str) and len(set(value)) == len(value), "different names"),
    "classes": (lambda value: _is_count(value, 2**20), "1 to 1,048,576"),
    "mean": (lambda value: _is_triple(value, -math.inf), "three numbers"),
    "side": (lambda value: _is_count(value, 1024), "a power of two up to 1,024"),
    "std": (lambda value: _is_triple(value, 0.0), "three numbers above 0"),
    "version": (lambda value: _is_count(value, 1), "1"),
    "width": (lambda value: _is_count(value, 4096), "a multiple of 8 up to 4,096"),
}


def _described(text: str, file: str) -> dict[str, Any]:
    """The metadata of a teacher, every field checked."""
    try:
        described = json.loads(text)
        canonical = isinstance(described, dict) and _canonical(described) == text
    except (ValueError, RecursionError) as error:
        raise TeacherError(
            "the metadata is not JSON", file=file, field=METADATA_KEY, found=str(error) or type(error).__name__
        ) from None
    if not canonical:
        raise TeacherError(
            "the metadata is not canonical JSON",
            file=file,
            field=METADATA_KEY,
            expected="a map with sorted keys and no spaces",
        )
    if odd := sorted(set(described) ^ set(_FIELDS)):
        raise TeacherError(
            "a field of the metadata is missing or unknown",
            file=file,
            field=odd[0],
            found=", ".join(described),
            expected=", ".join(_FIELDS),
        )
    for name, (good, expected) in _FIELDS.items():
        if not good(described[name]):
            raise TeacherError(
                "a field of the metadata is wrong",
                file=file,
                field=name,
                found=repr(described[name])[:80],
                expected=expected,
            )
    if len(described["class_names"]) != described["classes"]:
        raise TeacherError(
            "not one name a class",
            file=file,
            field="class_names",
            found=len(described["class_names"]),
            expected=described["classes"],
        )
    return cast(dict[str, Any], described)


def _network(described: dict[str, Any], file: str) -> ConvNet:
    """The network described, on no device yet: its shapes are compared before any memory is taken."""
    try:
        with torch.device("meta"):
            net = ConvNet(described["classes"], described["side"], described["width"])
    except D3MError as error:
        raise TeacherError(
            error.message, file=file, field=error.field, found=error.found, expected=error.expected
        ) from None
    net.mean, net.std = torch.tensor(described["mean"]), torch.tensor(described["std"])
    return net


def _fill(net: ConvNet, tensors: dict[str, Any], file: str) -> None:
    wanted = dict(net.named_parameters())
    if odd := sorted(set(tensors) ^ set(wanted)):
        raise TeacherError(
            "a tensor is missing or unknown",
            file=file,
            field=odd[0],
            found=f"{len(tensors)} tensors",
            expected=f"{len(wanted)} tensors",
        )
    state = {"mean": net.mean, "std": net.std}
    for name, parameter in wanted.items():
        tensor = tensors[name]
        found, expected = [tensor["dtype"], *tensor["shape"]], ["F32", *parameter.shape]
        if found != expected:
            raise TeacherError(
                "a tensor of another type or shape", file=file, field=name, found=str(found), expected=str(expected)
            )
        values = np.frombuffer(tensor["data"], "<f4").astype(np.float32)
        if not np.isfinite(values).all():
            raise TeacherError("a weight is not a finite number", file=file, field=name)
        state[name] = torch.from_numpy(values.reshape(tensor["shape"]))
    net.load_state_dict(state, assign=True)
    net.requires_grad_(False)
