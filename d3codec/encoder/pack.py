"""Results of the stages -> records, sections and the bytes of a file; files made from parts of another file.

The writers' side of what `dataset.py` is for readers: it joins `format`, `labels` and `conditioning`.
Computes no pixel and asks no teacher.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from d3codec import corrections
from d3codec.conditioning import coded, delta
from d3codec.conditioning import words as word_rows
from d3codec.decoder.label_facts import CLAIM
from d3codec.encoder.prompt import Prompt, name_tokens
from d3codec.errors import GeneratorError, ImagesError, UsageError
from d3codec.format import limits
from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.format.manifest import (
    About,
    Classes,
    DdimRecipe,
    DeltaConditioning,
    Exact,
    ExactFixed,
    Group,
    HardLabels,
    Images,
    Profile,
    Reproducible,
    WordsConditioning,
    row_section,
    section_plan,
)
from d3codec.generators.ready import ReadyConfiguration, fitting_offset

if TYPE_CHECKING:
    from d3codec.generators.condition import Generator

PREDICTIONS: dict[str, Literal["eps", "v", "sample"]] = {"epsilon": "eps", "v_prediction": "v", "sample": "sample"}
BETA_RULES: dict[str, Literal["linear", "scaled"]] = {"linear": "linear", "scaled_linear": "scaled"}


def class_section(names: Sequence[str], ids: Sequence[str] | None, authority: str) -> bytes:
    """The `cls` section (spec section 5): a line a class, id TAB name.

    Raises:
        ImagesError: a class name that a file cannot hold, or twice the same.
        UsageError: class ids that do not fit the authority or the number of classes.
    """
    if (authority == "none") != (ids is None):
        raise UsageError(
            "class ids and their authority belong together",
            field="class_ids",
            found=f"authority {authority!r} with {'no' if ids is None else len(ids)} ids",
            expected="both, or authority 'none' and no ids",
        )
    if ids is not None and len(ids) != len(names):
        raise UsageError("not one id a class", field="class_ids", found=len(ids), expected=len(names))
    for kind, values in (("name", names), ("id", ids or [])):
        before: set[str] = set()
        for number, value in enumerate(values):
            _refuse_text(value, kind, number, before)
            before.add(value)
    return "".join(f"{i}\t{name}\n" for i, name in zip(ids or [""] * len(names), names, strict=True)).encode()


def _refuse_text(text: str, kind: str, number: int, before: set[str]) -> None:
    reason = ""
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        reason = "has control characters or is no valid Unicode"
    elif not 1 <= len(text.encode()) <= limits.CLASS_TEXT_BYTES:
        reason = f"must be 1 to {limits.CLASS_TEXT_BYTES} bytes"
    elif text in before:
        reason = "is there twice"
    if reason:
        raise ImagesError(
            f"the {kind} of class {number} {reason}",
            field=f"class {kind}",
            found=repr(text[:80]),
            hint="rename the class, for example by a classes.json beside the images",
        )


def read_recipe(folder: Path, guidance: float, steps: int) -> DdimRecipe:
    """The recipe of a generator whose scheduler_config.json is in diffusers' layout; the sampler is always
    DDIM.

    Arguments:
        folder: of the generator; guidance: scale, 1 for none; steps: of the sampler.

    Raises:
        GeneratorError: no such file, or a schedule that the format cannot state.
        UsageError: guidance or steps out of range.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        count = int(config["num_train_timesteps"])
        betas = (
            BETA_RULES[config.get("beta_schedule", "linear")],
            _millionths(config["beta_start"]),
            _millionths(config["beta_end"]),
            count,
        )
        prediction = PREDICTIONS[config.get("prediction_type", "epsilon")]
        for field in ("trained_betas", "rescale_betas_zero_snr", "thresholding", "clip_sample"):
            if config.get(field):
                raise ValueError(f"{field} is {str(config[field])[:40]}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GeneratorError(
            "its noise schedule cannot be stated in a file",
            file=str(path),
            found=f"{type(error).__name__}: {error}",
            expected=f"beta_schedule {' or '.join(BETA_RULES)}, prediction_type "
            f"{', '.join(PREDICTIONS)}, betas in whole millionths",
        ) from error
    _check_sampler(guidance, steps, count)
    return DdimRecipe(
        betas=betas,
        final_alpha="one" if config.get("set_alpha_to_one", True) else "first",
        guidance=round(guidance * 1e6),
        steps=steps,
        prediction=prediction,
        # Spacing is ours to choose (diffusers' DDIM: leading).
        timesteps=("leading", fitting_offset(int(config.get("steps_offset", 0)), steps, count)),
    )


def ready_recipe(known: ReadyConfiguration, guidance: float, steps: int) -> DdimRecipe | None:
    """The recipe of a ready configuration with this guidance and number of steps; None if its sampler is not DDIM.

    UsageError for guidance or steps out of range, GeneratorError for an autoencoder alone.
    """
    if known.recipe:
        _check_sampler(guidance, steps, known.recipe["betas"][3])
    recipe = known.sampling(guidance=guidance, steps=steps)
    return recipe if isinstance(recipe, DdimRecipe) else None


def _check_sampler(guidance: float, steps: int, count: int) -> None:
    most = min(limits.STEPS, count)
    if not 1 <= steps <= most:
        raise UsageError("steps of the sampler out of range", field="steps", found=steps, expected=f"1 to {most}")
    if not 0 <= guidance <= limits.GUIDANCE / 1e6:
        raise UsageError("guidance out of range", field="guidance", found=guidance, expected="0 to 1000")


def _millionths(value: float) -> int:
    result = round(value * 1e6)
    if abs(result - value * 1e6) > 1e-6:
        raise ValueError(f"{value} is no whole number of millionths")
    return result


def delta_group(
    prompt: Prompt,
    recipe: DdimRecipe,
    *,
    bits: float,
    coded: bool = False,
    cast: Literal["f16", "stored"],
    generator: bytes,
    outside_bytes: int,
    grid: tuple[int, int],
    count: int,
    resolution: int,
    noise_key: int,
) -> Group:
    """The record of a group with learned embeddings and, until others are put in, hard labels.

    `bits` a value; `coded`: entropy-coded, in which case they may be a fraction. `outside_bytes`: of the generator's
    own weights for this dataset (LoRA), which count beside the file.
    """
    conditioning = DeltaConditioning(
        template=prompt.ids,
        negative=None if recipe.guidance == limits.MILLION else prompt.negative,
        padding=prompt.padding,
        slots=prompt.slots,
        initial_token=prompt.initial_token,
        bits=math.ceil(bits),
        coded=coded,
        width=len(prompt.initial_vector),
    )
    return Group(
        conditioning=conditioning,
        cast=cast,
        generator=generator,
        outside_bytes=outside_bytes,
        noise_key=noise_key,
        recipe=recipe,
        images=Images(grid=grid, count=count, size=(resolution, resolution)),
        labels=HardLabels(),
    )


def changed(record: Any, **values: Any) -> Any:
    """A copy of a record with other values, checked like a new one."""
    return type(record)(**{name: getattr(record, name) for name in type(record).model_fields} | values)


def delta_section(group: Group, deltas: np.ndarray, bits: float) -> bytes:
    """Section `emb` of learned differences, float (rows, slots, width), at `bits` bits a value."""
    if not getattr(group.conditioning, "coded", False):
        return delta.encode(deltas, int(bits))
    return coded.encode(deltas.reshape(len(deltas), -1), bits)


def pack_file(
    classes: bytes,
    authority: str,
    count: int,
    group: Group,
    conditioning: bytes,
    others: Mapping[str, bytes],
    pixels: Pixels,
    about: About,
    ancillary: Mapping[str, bytes],
) -> bytes:
    """The bytes of a file with one group: the `cls` section of `count` classes, the rows of its conditioning (b"" if it
    has none), the group's other sections by name, `x-` sections.
    """
    sections: dict[tuple[str, int | None], bytes] = {("cls", None): classes}
    sections |= {(name, 0): data for name, data in others.items()}
    if (rows := row_section(group)) is not None:
        sections[rows, 0] = conditioning
    if pixels.corrections is not None and len(pixels.corrections[0]):
        sections[("fix", None)] = corrections.encode(*pixels.corrections)
    if pixels.profile == "reproducible":
        about = changed(about, pixels=pixels.digest, fingerprint=pixels.fingerprint)
    draft = ContentDraft(Classes(authority=authority, count=count), (group,), pixels.record())
    return write_d3m(draft, sections, about, dict(ancillary))


@dataclass(frozen=True)
class Pixels:
    """What a file promises about its pixels: profile, digest of the set, and for `exact` the corrections (places in
    all generated images' bytes, levels), for `reproducible` the fingerprint of this machine."""

    profile: str
    digest: bytes
    fingerprint: str | None = None
    corrections: tuple[np.ndarray, np.ndarray] | None = None

    def record(self) -> Profile:
        if self.profile == "exact":
            count = 0 if self.corrections is None else len(self.corrections[0])
            return Exact(pixels=self.digest, corrections=count)
        return ExactFixed(pixels=self.digest) if self.profile == "exact-fixed" else Reproducible()


def leaf_section(digests: Sequence[bytes], leaf_bytes: int) -> dict[str, bytes]:
    """The ancillary `x-leaf` section: the first bytes of every image's digest; nothing for leaf_bytes 0."""
    return {"x-leaf": b"".join(digest[:leaf_bytes] for digest in digests)} if leaf_bytes else {}


# ------------------------------------------------------------------------------------- files from other files


def repack_hard(file: D3MFile | str | Path | bytes) -> bytes:
    """The same file without its label sections: every image and patch has its class and nothing else.

    Pixels stay the same, so pixel digest, fingerprint and leaves are kept.
    """
    return _repack(file, lambda group, rows: (changed(group, labels=HardLabels()), rows), keep_pixels=True)


def class_words(file: D3MFile | str | Path | bytes, generator: Generator) -> bytes:
    """The same file with class names in the slots instead of learned embeddings, and hard labels.

    The control that shows what inversion gives. Its pixels are other ones, so it has neither labels nor a
    pixel digest.

    Arguments:
        generator: the file's; its tokenizer is asked.

    Raises:
        UsageError: a class name that is not one token a slot.
    """
    opened = file if isinstance(file, D3MFile) else D3MFile.open(file)
    names = [record.name for record in opened.class_records()]

    def words(group: Group, _rows: bytes) -> tuple[Group, bytes]:
        old = group.conditioning
        if not isinstance(old, DeltaConditioning):
            raise UsageError("only learned embeddings can be replaced by words", field="conditioning", found=old.kind)
        ids = name_tokens(generator, names, len(old.slots))
        new = WordsConditioning(template=old.template, negative=old.negative, padding=old.padding, slots=old.slots)
        return changed(group, conditioning=new, labels=HardLabels()), word_rows.encode(ids)

    return _repack(opened, words, keep_pixels=False)


def _without_label_claims(about: About | None) -> About | None:
    """The same without what it says of labels that are left out."""
    if about is None or about.claims is None:
        return about
    claims = {name: text for name, text in about.claims.items() if not name.startswith(CLAIM)}
    return About(**{name: getattr(about, name) for name in About.model_fields} | {"claims": claims or None})


def _repack(
    file: D3MFile | str | Path | bytes, change: Callable[[Group, bytes], tuple[Group, bytes]], *, keep_pixels: bool
) -> bytes:
    """A file with changed groups and without labels; `change` takes and gives a group and the rows of its conditioning
    (b"" if it has none). What else a group has beside labels stays."""
    opened = file if isinstance(file, D3MFile) else D3MFile.open(file)
    opened.verify()
    groups: list[Group] = []
    sections: dict[tuple[str, int | None], bytes] = {}
    for planned in section_plan(opened.content):
        if planned.name not in ("fix", "col", "lab"):
            sections[planned.name, planned.group] = opened.section(planned.name, planned.group)
    for number, group in enumerate(opened.content.groups):
        name = row_section(group)
        new, rows = change(group, b"" if name is None else sections.pop((name, number)))
        groups.append(new)
        if (name := row_section(new)) is not None:
            sections[name, number] = rows
    about, profile = _without_label_claims(opened.about), opened.content.profile
    ancillary: dict[str, bytes] = {}
    if about and keep_pixels:
        ancillary = {entry.name: opened.section(entry.name) for entry in about.ancillary or ()}
    elif about:
        about = changed(about, ancillary=None, digest=None, pixels=None, fingerprint=None)
    if not keep_pixels:
        profile = Reproducible()  # the promise below which no digest is needed
    elif isinstance(profile, Exact) and profile.corrections:
        sections["fix", None] = opened.section("fix")
    draft = ContentDraft(opened.content.classes, tuple(groups), profile)
    return write_d3m(draft, sections, about, ancillary)
