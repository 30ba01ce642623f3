"""Plans are tried: students of each plan's file are asked about real images that no plan has seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from d3codec.errors import UsageError
from d3codec.methods.builder import Builder, Built
from d3codec.methods.plans import Plan, plans
from d3codec.methods.pool import Pool
from d3codec.methods.request import Options
from d3codec.training.photo_students import evaluate_groups

TRIAL_SEEDS = (0, 1)

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Trial:
    """A plan that was tried: bytes of its file, and what students of it reach on the validation images, in percent;
    None where there are too few images to hold some out."""

    method: str
    images_per_class: int
    bytes: int
    accuracy_percent: float | None


def best_file(
    builder: Builder, options: Options, validation: Pool | None, processes: int, progress: Progress
) -> tuple[Plan, bytes, dict[Plan, Trial]]:
    """The plan that students like best, its file, and all that were tried. UsageError with the least size if no file
    is so small."""
    tried = _try_all(builder, options, validation, processes, progress)
    with builder.state.clock("pack"):
        for plan in sorted(tried, key=lambda plan: -(tried[plan].accuracy_percent or 0.0)):
            try:
                return plan, _final(builder, plan, options), tried
            except UsageError as error:  # in the profile of the file it may be too large
                if error.field != "bytes":
                    raise
        least = []
        for plan in _smallest(_plans(builder, options), options):
            try:
                builder.build(plan, 0, final=True)
            except UsageError as error:
                least.append(error.expected)
    raise UsageError(
        "this size is too small for any method",
        field="bytes",
        found=options.bytes,
        expected=f"at least {min(least)}",
        hint=f"What was done lies in {builder.state.path}, and the same command with more bytes goes on from there.",
    )


def _final(builder: Builder, plan: Plan, options: Options) -> bytes:
    """The file of a plan that was tried. UsageError with the field `bytes` if it is too large in its own profile."""
    saved = builder.state.load(_name(plan, options)) if builder.settled(plan) else None
    return saved["data"].tobytes() if saved else builder.build(plan, options.bytes, final=True).data


def _name(plan: Plan, options: Options) -> str:
    return f"trial-{plan.name}-{plan.per_class}-{options.bytes}"


def _plans(builder: Builder, options: Options) -> list[Plan]:
    pool = builder.pool
    return list(
        plans(
            options.bytes,
            pool.classes,
            int(np.bincount(pool.labels, minlength=pool.classes).min()),
            methods=options.methods,
            autoencoder=builder.autoencoder is not None,
            prompts=builder.denoiser is not None,
            ipc=options.ipc,
        )
    )


def _smallest(every: list[Plan], options: Options) -> list[Plan]:
    """Of each method the plan whose files are the smallest."""
    alone = {plan.methods: plan for plan in every if len(plan.methods) == 1}
    return [
        replace(plan, per_class=plan.per_class if plan.methods == ("d3m",) else options.ipc or 1)
        for plan in alone.values()
    ]


def _try_all(
    builder: Builder, options: Options, validation: Pool | None, processes: int, progress: Progress
) -> dict[Plan, Trial]:
    """Every plan that fits, tried, or the first one if there is nothing to try it by; those of the smallest files if
    no other fits."""
    found: dict[Plan, Trial] = {}
    every = _plans(builder, options)
    for number, plan in enumerate(every):
        progress("choose", number, len(every))
        if (trial := _try(builder, plan, options, validation, processes)) is not None:
            found[plan] = trial
            if validation is None:
                break
    progress("choose", len(every), len(every))
    for plan in [] if found else _smallest(every, options):
        if (trial := _try(builder, plan, options, validation, processes)) is not None:
            found[plan] = trial
    return found


def _try(builder: Builder, plan: Plan, options: Options, validation: Pool | None, processes: int) -> Trial | None:
    """What students of a plan reach; None if it does not fit the size."""
    state, name = builder.state, _name(plan, options)
    if (saved := state.load(name)) is None:
        with state.clock("choose"):
            try:
                built = builder.build(plan, options.bytes, final=False)
            except UsageError as error:
                if error.field != "bytes":
                    raise
                saved = {}
            else:
                saved = {"data": np.frombuffer(built.data, np.uint8)}
                saved |= _accuracy(built, validation, options, processes)
        state.save(name, **saved)
    if not saved:
        return None
    accuracy = float(saved["accuracy"]) if "accuracy" in saved else None
    return Trial(plan.name, plan.per_class, len(saved["data"]), accuracy)


def _accuracy(built: Built, validation: Pool | None, options: Options, processes: int) -> dict[str, np.ndarray]:
    if validation is None:
        return {}
    reached = evaluate_groups(
        built.groups,
        validation.images,
        validation.labels,
        classes=validation.classes,
        side=validation.side,
        seeds=TRIAL_SEEDS,
        steps=options.trial_steps,
        processes=processes,
    )
    return {"accuracy": np.array(np.mean(reached))}
