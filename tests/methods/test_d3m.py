import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny_case import grey_teacher, three_greys

from d3codec.decoder.decode import decoded_units
from d3codec.decoder.digests import image_digest, pixel_digest
from d3codec.decoder.plan import Plan
from d3codec.encoder.exact import boundary_values
from d3codec.encoder.pack import class_words, repack_hard
from d3codec.encoder.relabel import label_patches
from d3codec.errors import (
    D3MError,
    GeneratorError,
    ImagesError,
    MissingGeneratorError,
    OutputError,
    PixelsError,
    TeacherError,
    UsageError,
)
from d3codec.format.file import D3MFile
from d3codec.format.manifest import Exact
from d3codec.generators import ready
from d3codec.labels import quantized
from d3codec.methods.d3m import encode
from d3codec.methods.prepare import Job, prepare

HERE = Path(__file__).parent


def pixels_of(case: SimpleNamespace) -> np.ndarray:
    file = D3MFile.open(case.output)
    units = decoded_units(file, Plan.of(file.content), profile="exact", device="cpu", generator=case.pipeline)
    return np.concatenate([pixels for _, pixels in units])


def test_the_report_is_that_of_the_file(tiny: SimpleNamespace) -> None:
    report, file = tiny.report, D3MFile.open(tiny.output)
    file.verify()
    size = tiny.output.stat().st_size
    assert report.bytes_total == size
    assert report.head_bytes + sum(section["bytes"] for section in report.sections) == size
    assert [section["name"] for section in report.sections] == ["cls", "emb", "lab", "x-leaf"]
    assert report.content_id == file.content_id
    assert (report.classes, report.images, report.patches) == (3, 12, 48)
    assert json.loads((tiny.folder / "report.json").read_text()) == json.loads(json.dumps(report.as_json()))
    assert f"{size:,} bytes" in report.as_text()
    assert file.content_id in report.as_text()
    assert set(report.seconds) == {"select", "collage", "invert", "measure", "decode", "relabel", "pack"}
    assert report.loss.points[-1][0] == 12
    assert np.isfinite([value for _, value in report.loss.points]).all()


def test_what_the_file_says(tiny: SimpleNamespace) -> None:
    file = D3MFile.open(tiny.output)
    group = file.content.groups[0]
    assert [record.name for record in file.class_records()] == ["a", "b", "c"]
    assert group.images.count == 4
    assert (group.images.grid, group.images.size) == ((2, 2), (8, 8))
    assert group.recipe.betas == ("scaled", 850, 12000, 1000)
    assert (group.recipe.guidance, group.recipe.steps, group.recipe.prediction) == (2_000_000, 3, "eps")
    assert group.recipe.timesteps == ("leading", 1)
    assert file.about is not None
    assert (file.about.method, file.about.licence, file.about.source) == ("d3m", "CC0-1.0", "three greys")
    text = tiny.output.read_bytes()
    for private in (str(tiny.folder), os.uname().nodename if hasattr(os, "uname") else "\0none"):
        assert private.encode() not in text


def test_labels_and_digests_are_those_of_decoded_pixels(tiny: SimpleNamespace) -> None:
    file = D3MFile.open(tiny.output)
    pixels = pixels_of(tiny)
    logits = label_patches(pixels, (2, 2), grey_teacher, 3)
    step = tiny.report.label_step
    assert file.section("lab", 0) == quantized.encode(logits, step)
    assert step == quantized.choose_step(logits)
    digests = [image_digest(image) for image in pixels]
    assert file.content.profile == Exact(pixels=pixel_digest(digests), corrections=0)
    assert file.about is not None
    assert (file.about.pixels, file.about.fingerprint) == (None, None)
    assert 0 < tiny.report.decode_noise_levels < 1e-10
    assert file.section("x-leaf") == b"".join(digest[:4] for digest in digests)
    agree = (logits.argmax(1) == np.repeat(np.arange(3), 16)).reshape(3, 16).mean(1)
    assert list(tiny.report.agreement_by_class.values()) == pytest.approx(100 * agree)
    assert tiny.report.agreement_percent == pytest.approx(100 * agree.mean(), abs=1e-3)
    assert 0 <= tiny.report.label_kl_nats < 1e-3


def test_verify_proves_the_pixels(tiny: SimpleNamespace) -> None:
    from d3codec.decoder.verify import verify

    report = verify(tiny.output, decode="all", generator=tiny.pipeline, device="cpu")
    assert report.pixels == "proved"
    assert report.images_checked == 12


@pytest.mark.parametrize("profile", ["exact-fixed", "reproducible"])
def test_other_promises(tiny: SimpleNamespace, profile: str) -> None:
    from d3codec.decoder.verify import verify

    output = tiny.folder / f"{profile}.d3m"
    report = encode(tiny.images, output, **{**tiny.options, "inversion_steps": 1}, profile=profile)
    assert (report.profile, report.decode_noise_levels, report.corrections) == (profile, None, 0)
    assert "measure" not in report.seconds
    found = verify(output, decode="all", generator=tiny.pipeline, device="cpu")
    assert (found.profile, found.pixels) == (profile, "proved")
    assert (found.file_fingerprint is None) == (profile == "exact-fixed")


def test_values_near_a_boundary_are_listed_and_survive_a_kill(tiny: SimpleNamespace, monkeypatch: Any) -> None:
    """With a wide margin there are many. They are kept with the units, so a run that continues lists the same."""
    from d3codec.decoder.verify import verify
    from d3codec.methods import d3m

    monkeypatch.setattr(d3m, "boundary_values", lambda levels: boundary_values(levels, 1e-3))
    options = {**tiny.options, "inversion_steps": 1}
    whole = tiny.folder / "whole.d3m"
    report = encode(tiny.images, whole, **options)
    assert report.corrections > 0
    assert verify(whole, decode="all", generator=tiny.pipeline, device="cpu").pixels == "proved"

    def killed(stage: str, done: int, _total: int) -> None:
        if (stage, done) == ("decode", 1):
            raise KeyboardInterrupt

    resumed = tiny.folder / "resumed.d3m"
    with pytest.raises(KeyboardInterrupt):
        encode(tiny.images, resumed, **options, progress=killed)
    encode(tiny.images, resumed, **options)
    assert resumed.read_bytes() == whole.read_bytes()


def test_a_fine_tuned_delta_counts_beside_the_file(tiny: SimpleNamespace) -> None:
    """A LoRA in the generator's folder is part of its identity, and its bytes are size (b)."""
    import shutil

    import torch
    from safetensors.torch import save_file

    from d3codec.generators.weights import describe

    tuned = tiny.folder / "tuned"
    shutil.copytree(tiny.pipeline, tuned)
    target = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    shape = dict(describe_shapes(tuned))[f"{target.removeprefix('unet.')}.weight"]
    down, up = torch.full((2, shape[1]), 0.1), torch.full((shape[0], 2), 0.1)
    factors = {f"{target}.lora_A.weight": down, f"{target}.lora_B.weight": up}
    save_file(factors, tuned / "pytorch_lora_weights.safetensors")
    output = tiny.folder / "tuned.d3m"
    encode(tiny.images, output, **{**tiny.options, "inversion_steps": 1, "generator": tuned})
    group = D3MFile.open(output).content.groups[0]
    assert group.outside_bytes == describe(tuned, "f16").outside_bytes == 2 * (down.numel() + up.numel())
    assert group.generator != describe(tiny.pipeline, "f16").id


def describe_shapes(folder: Path) -> list[tuple[str, tuple[int, ...]]]:
    from safetensors import safe_open

    with safe_open(folder / "unet" / "diffusion_pytorch_model.safetensors", "pt") as weights:
        return [(name, tuple(weights.get_slice(name).get_shape())) for name in weights.keys()]  # noqa: SIM118


def test_a_noisy_generator_is_refused(tiny: SimpleNamespace, monkeypatch: Any) -> None:
    from d3codec.methods import d3m

    monkeypatch.setattr(d3m, "decode_noise", lambda *_: 2e-9)
    output = tiny.folder / "noisy.d3m"
    with pytest.raises(PixelsError, match="too noisy"):
        encode(tiny.images, output, **{**tiny.options, "inversion_steps": 1})
    assert not output.exists()


def test_stages_report_progress_in_order(tiny: SimpleNamespace) -> None:
    stages = list(dict.fromkeys(stage for stage, _, _ in tiny.calls))
    assert stages == ["select", "collage", "invert", "measure", "decode", "relabel", "pack"]
    for stage in stages:
        events = [(done, total) for name, done, total in tiny.calls if name == stage]
        assert events[-1][0] == events[-1][1]
        assert [done for done, _ in events] == sorted(done for done, _ in events)


def test_finished_work_is_used_again_with_another_packing(tiny: SimpleNamespace) -> None:
    """Label step, licence and the like may change: only the last stage reads them."""
    again = tiny.folder / "again.d3m"
    calls: list[tuple[str, int, int]] = []
    options = {**tiny.options, "label_step": 300, "leaf_bytes": 0, "licence": None}
    report = encode(
        tiny.images, again, **options, work=tiny.work, keep_work=True, progress=lambda *event: calls.append(event)
    )
    assert not any(stage == "invert" for stage, _, _ in calls)
    assert report.label_step == 300
    assert report.bytes_total < tiny.report.bytes_total
    old, new = D3MFile.open(tiny.output), D3MFile.open(again)
    assert new.section("emb", 0) == old.section("emb", 0)
    assert old.about is not None
    assert new.about is not None
    assert new.content.profile == old.content.profile
    assert new.about.licence is None


def test_hard_labels_are_the_same_file_without_labels(tiny: SimpleNamespace) -> None:
    hard = tiny.folder / "hard.d3m"
    report = encode(tiny.images, hard, **{**tiny.options, "labels": "hard"}, work=tiny.work, keep_work=True)
    assert report.label_step is None
    assert report.label_kl_nats is None
    assert hard.read_bytes() == repack_hard(tiny.output)
    assert "lab" not in [section["name"] for section in report.sections]


def test_class_words(tiny: SimpleNamespace) -> None:
    from d3codec.generators.stable_diffusion import StableDiffusion

    generator = StableDiffusion.load(tiny.pipeline, cast="f16")
    data = class_words(tiny.output, generator)
    file = D3MFile.open(data)
    assert [section["name"] for section in file.section_sizes()] == ["cls", "wrd"]
    ids = np.frombuffer(file.section("wrd", 0), "<u2")
    assert ids.tolist() == [generator.tokenize(name)[1] for name in "abc"]
    units = list(
        decoded_units(file, Plan.of(file.content), profile="reproducible", device="cpu", generator=tiny.pipeline)
    )
    assert sum(len(pixels) for _, pixels in units) == 12
    assert file.content.profile.name == "reproducible"  # other pixels than those that the file promised
    assert file.about is not None
    assert file.about.pixels is None
    images, labels, _ = three_greys()
    long = tiny.folder / "long.d3m"
    encode((images, labels, ["a", "bb", "c"]), long, **tiny.options)
    with pytest.raises(UsageError, match=r"bb.*2 tokens.*expected 1"):
        class_words(long, generator)


def test_other_options_are_refused_and_restart_takes_them(tiny: SimpleNamespace) -> None:
    with pytest.raises(UsageError, match=r"seed[^$]*restart=True"):
        encode(tiny.images, tiny.folder / "x.d3m", **{**tiny.options, "seed": 5}, work=tiny.work)
    images, labels, names = three_greys()
    images[7] = images[7] ^ 1
    with pytest.raises(UsageError, match=r"images"):
        encode((images, labels, names), tiny.folder / "x.d3m", **tiny.options, work=tiny.work)
    assert not (tiny.folder / "x.d3m").exists()
    work = tiny.folder / "other.work"
    options = {**tiny.options, "inversion_steps": 1}
    encode(tiny.images, tiny.folder / "x.d3m", **options, work=work, keep_work=True)
    encode(tiny.images, tiny.folder / "x.d3m", **{**options, "seed": 5}, work=work, restart=True)
    assert not work.exists()


def test_ids_and_unequal_classes(tiny: SimpleNamespace) -> None:
    images, labels, names = three_greys()
    output = tiny.folder / "ids.d3m"
    report = encode(
        (images[:-9:] + images[-9::3], labels[:-9] + labels[-9::3], names),
        output,
        **{**tiny.options, "inversion_steps": 1, "leaf_bytes": 0},
        class_ids=["n1", "n2", "n3"],
        authority="wordnet-3.0",
        patches_per_class=4,
    )
    assert [record.id for record in D3MFile.open(output).class_records()] == ["n1", "n2", "n3"]
    assert report.options["patches_per_class"] == 4


def one_class() -> Any:
    images, _, _ = three_greys()
    return images, [0] * len(images), ["a"]


def few_of_one() -> Any:
    images, labels, names = three_greys()
    keep = [i for i, label in enumerate(labels) if label != 1 or i < 10]
    return [images[i] for i in keep], [labels[i] for i in keep], names


def named(*names: str) -> Any:
    images, labels, _ = three_greys()
    return images, labels, list(names)


class FiveClasses:
    classes = 5

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return np.zeros((len(images), 5), np.float32)


@pytest.mark.parametrize(
    ("images", "changes", "error", "message"),
    [
        (one_class(), {}, ImagesError, "one class.*only 'a'"),
        (few_of_one(), {}, ImagesError, r"'b' has too few images.*3 images.*at least 4[^$]*smaller grid: 1"),
        (few_of_one(), {"grid": 1, "patches_per_class": 5}, ImagesError, r"'b'[^$]*patches_per_class=3"),
        (named("a", "b\n", "c"), {}, ImagesError, r"class 1 has control characters.*'b\\n'"),
        (named("a", "b", "a"), {}, ImagesError, "class 2 is there twice.*'a'"),
        (named("a", "", "c"), {}, ImagesError, "class 1 must be 1 to"),
        (three_greys(), {"teacher": FiveClasses()}, TeacherError, "found 5, expected 3"),
        (three_greys(), {"teacher": lambda images: grey_teacher(images)[:, :2]}, TeacherError, r"\(1, 2\).*\(1, 3\)"),
        (three_greys(), {"template": "a photo"}, UsageError, "slots"),
        (three_greys(), {"template": "A9 *"}, UsageError, "template"),
        (three_greys(), {"initial_token": "bc"}, UsageError, r"initial_token.*'bc' is the tokens"),
        (three_greys(), {"initial_token": None}, UsageError, "initial_token.*no hint"),
        (three_greys(), {"resolution": 10}, UsageError, "multiple of 4 .grid 2 x autoencoder 2"),
        (three_greys(), {"patches_per_class": 6}, UsageError, "multiple of 4"),
        (three_greys(), {"inversion_batch": 2}, UsageError, "at least 3"),
        (three_greys(), {"class_ids": ["x", "y"], "authority": "own"}, UsageError, "found 2, expected 3"),
        (three_greys(), {"class_ids": ["x", "y", "z"]}, UsageError, "authority"),
        (
            three_greys(),
            {"class_ids": ["x", "y", "x"], "authority": "own"},
            ImagesError,
            "id of class 2 is there twice",
        ),
        (three_greys(), {"licence": "a\tb"}, UsageError, "licence"),
        (three_greys(), {"label_step": 3, "labels": "hard"}, UsageError, "label_step"),
        (three_greys(), {"steps": 1001}, UsageError, "steps.*1 to 1000"),
        (three_greys(), {"guidance": -1.0}, UsageError, "guidance"),
        (three_greys(), {"bits": 9}, UsageError, "bits.*1 to 8"),
        (three_greys(), {"ipc": 0}, UsageError, "ipc"),
        (three_greys(), {"leaf_bytes": 3}, UsageError, "leaf_bytes"),
        (three_greys(), {"crop_scale": (0.5, 0.2)}, UsageError, "crop_scale"),
        (three_greys(), {"method": "rded"}, UsageError, "method"),
        (three_greys(), {"generator": "no/such-repository"}, D3MError, "fetch no/such-repository"),
        (three_greys(), {"generator": "sd-2.1-base"}, MissingGeneratorError, r"fetch sd-2\.1-base"),
        (three_greys(), {"generator": "sdxl-turbo"}, GeneratorError, "stable-diffusion-xl, expected stable-diffusion"),
        (three_greys(), {"generator": "facebook/DiT-XL-2-256"}, GeneratorError, "family.*found dit"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    tiny: SimpleNamespace, tmp_path: Path, images: Any, changes: dict[str, Any], error: type[D3MError], message: str
) -> None:
    with pytest.raises(error, match=message):
        encode(images, tmp_path / "x.d3m", **{**tiny.options, **changes})
    assert list(tmp_path.iterdir()) == []


def published(tiny: SimpleNamespace, cache: Path, **scheduler: Any) -> Path:
    """The tiny pipeline, with another schedule, as a fetch of Stable Diffusion 1.5 would leave it."""
    snapshot = cache / "models--stable-diffusion-v1-5--stable-diffusion-v1-5" / "snapshots" / ("0" * 40)
    shutil.copytree(tiny.pipeline, snapshot)
    path = snapshot / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | scheduler))
    return snapshot


def prepared(tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Job:
    """The job that `encode` starts with; nothing is learned."""
    jobs: list[Job] = []

    def stop(*arguments: Any) -> Job:
        jobs.append(prepare(*arguments))
        raise InterruptedError

    monkeypatch.setattr("d3codec.methods.d3m.prepare", stop)
    images, labels, names = tiny.images
    with pytest.raises(InterruptedError):
        encode((images * 2, labels * 2, names), tiny.folder / "never.d3m", **{**tiny.options, **changes})
    return jobs[0]


@pytest.mark.parametrize("name", ["sd-1.5", "stable-diffusion-v1-5/stable-diffusion-v1-5", "folder"])
def test_a_ready_configuration_gives_hints_and_recipe(
    tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    # What a configuration knows does not need the folder's scheduler, which this one says wrongly.
    snapshot = published(tiny, tmp_path, beta_schedule="squaredcos_cap_v2", steps_offset=0)
    chosen = snapshot if name == "folder" else name
    monkeypatch.setattr(ready, "find", lambda name, find=ready.find: shortened(find(name)))
    job = prepared(tiny, monkeypatch, generator=chosen, template=None, guidance=None, steps=None, grid=None)
    assert job.generator.folder == snapshot
    assert (job.options.template, job.options.guidance, job.options.steps, job.options.grid) == ("a *", 7.5, 50, 4)
    assert job.group.recipe == ready.find("sd-1.5").sampling()
    told = prepared(tiny, monkeypatch, generator=chosen, steps=1000, guidance=1.0, grid=1)
    assert (told.group.recipe.steps, told.group.recipe.guidance, told.grid) == (1000, 1_000_000, (1, 1))
    assert told.group.recipe.timesteps == ("leading", 0)
    with pytest.raises(UsageError, match=r"resolution.*found 512"):
        prepared(tiny, monkeypatch, generator=chosen, resolution=None, grid=3)
    with pytest.raises(UsageError, match=r"steps.*1 to 1000"):
        prepared(tiny, monkeypatch, generator=chosen, steps=1001)


def shortened(known: ready.ReadyConfiguration | None) -> ready.ReadyConfiguration | None:
    """A template that the tiny tokenizer can read."""
    return None if known is None else replace(known, recipe={**known.recipe, "template": "a *"})


def test_hints_of_the_folder_come_first(tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    snapshot = published(tiny, tmp_path, beta_end=0.011)
    (snapshot / "encoding.json").write_text('{"steps": 2}')
    job = prepared(tiny, monkeypatch, generator="sd-1.5", steps=None, grid=None)
    assert (job.options.steps, job.options.grid) == (2, 2)
    assert job.group.recipe.betas == ("scaled", 850, 11000, 1000)


def test_another_sampler_is_not_taken_over(
    tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    published(tiny, tmp_path, beta_end=0.011)
    euler = {**ready.find("sdxl-turbo").recipe, "template": "a *", "guidance_scale": 3.0, "steps": 4}
    monkeypatch.setattr(
        ready, "find", lambda name, find=ready.find: replace(find(name), recipe=euler) if find(name) else None
    )
    job = prepared(tiny, monkeypatch, generator="sd-1.5", guidance=None, steps=None)
    assert (job.group.recipe.sampler, job.group.recipe.betas[2]) == ("ddim", 11000)
    assert (job.group.recipe.guidance, job.group.recipe.steps) == (3_000_000, 4)


def test_a_generator_of_another_family_is_refused_before_its_weights_are_read(
    tiny: SimpleNamespace, tmp_path: Path
) -> None:
    from tiny_families import make_dit, make_xl

    for make, family in ((make_xl, "stable-diffusion-xl"), (make_dit, "dit")):
        folder = make(tmp_path / family)
        for weights in folder.rglob("*.safetensors"):
            weights.write_bytes(b"not to be read")
        with pytest.raises(GeneratorError, match=f"family stable-diffusion.*found {family}, expected stable-diffusion"):
            encode(tiny.images, tmp_path / "x.d3m", **{**tiny.options, "generator": folder})


def test_outputs_that_cannot_be_written(tiny: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "notes.d3m").write_text("not a dataset")
    for output in (tmp_path / "none" / "x.d3m", tmp_path, tmp_path / "notes.d3m"):
        with pytest.raises(OutputError):
            encode(tiny.images, output, **tiny.options)
    with pytest.raises(OutputError, match="none"):
        encode(tiny.images, tmp_path / "x.d3m", **tiny.options, report=tmp_path / "none" / "report.json")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.d3m"]


def test_schedules_that_a_file_cannot_state(tiny: SimpleNamespace, tmp_path: Path) -> None:
    from d3codec.encoder.pack import read_recipe

    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.parent.mkdir()
    good = json.loads((tiny.pipeline / "scheduler" / "scheduler_config.json").read_text())
    for change in ({"beta_schedule": "squaredcos_cap_v2"}, {"beta_start": 0.00000012}, {"prediction_type": "flow"}):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(GeneratorError, match="cannot be stated"):
            read_recipe(tmp_path, 2.0, 3)
    path.write_text(
        json.dumps(
            {
                **good,
                "beta_schedule": "linear",
                "prediction_type": "v_prediction",
                "set_alpha_to_one": True,
                "steps_offset": 1,
            }
        )
    )
    recipe = read_recipe(tmp_path, 1.0, 1000)
    assert (recipe.betas[0], recipe.prediction, recipe.final_alpha) == ("linear", "v", "one")
    assert recipe.timesteps == ("leading", 0)  # with 1,000 of 1,000 steps there is no room for an offset


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked")
def test_killed_at_three_moments_it_ends_with_the_same_bytes(tiny: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "pipeline").symlink_to(tiny.pipeline)
    seed = random.SystemRandom().randrange(1_000_000)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    done = subprocess.run(
        [sys.executable, HERE / "killed_encode.py", tmp_path, str(seed)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-2000:]}"
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["killed"][:2] == [True, True], f"seed {seed}: {found}"  # the third may come too late
    if found["killed"][2]:
        assert "options.json" in found["left"], f"seed {seed}: {found}"
        assert len(found["steps"]) < 12, f"seed {seed}: the last run began from nothing: {found}"
    assert found["war.d3m"] == found["peace.d3m"], f"seed {seed}: {found}"
    assert found["remaining"] == []
