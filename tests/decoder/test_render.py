"""Pixels of a unit: those of the stock pipeline, and the same ones however they are asked for."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tiny_pipeline import LENGTH, WIDTH, make_group, make_pipeline

from d3codec.conditioning import delta, words
from d3codec.decoder.plan import Unit, unit_at
from d3codec.decoder.precision import settings
from d3codec.decoder.recipe import Sampler
from d3codec.decoder.render import Renderer
from d3codec.errors import GeneratorError, PixelsError, UsageError
from d3codec.format.manifest import DdimRecipe, EulerRecipe
from d3codec.generators.stable_diffusion import StableDiffusion
from d3codec.noise import normals

torch.set_num_threads(1)
CLASSES, IPC = 3, 4
UNIT = unit_at(0, 0, IPC, CLASSES)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D3CODEC_HOME", str(tmp_path_factory.mktemp("home")))
        yield make_pipeline(tmp_path_factory.mktemp("render") / "pipeline")


@pytest.fixture(scope="module")
def generator(pipeline):
    return StableDiffusion.load(pipeline, cast="stored")


def renderer(pipeline, generator, profile="reproducible", **options):
    group, data = make_group(pipeline, classes=CLASSES, ipc=IPC, cast="stored", **options)
    return Renderer(group, data, generator, profile, CLASSES)


# --------------------------------------------------------------------------------------------- stock pipeline


@pytest.fixture(scope="module")
def stock(pipeline):
    from diffusers import StableDiffusionPipeline

    loaded = StableDiffusionPipeline.from_pretrained(pipeline)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def stock_images(stock, group, data, guidance):
    """Images in levels 0 to 255 before rounding, by StableDiffusionPipeline alone.

    Learned vectors enter as words: rows of a larger vocabulary in a copy of the text encoder.
    """
    conditioning, slots = group.conditioning, list(group.conditioning.slots)
    encoder = copy.deepcopy(stock.text_encoder)
    table = encoder.get_input_embeddings().weight.data
    ids = torch.full((8, LENGTH), conditioning.padding[0])
    ids[:, : len(conditioning.template)] = torch.tensor(conditioning.template)
    if conditioning.kind == "words":
        ids[:, slots] = torch.from_numpy(words.decode(data, CLASSES, len(slots)).astype(np.int64))[list(UNIT.classes)]
    else:
        (vectors,) = delta.decode(data, CLASSES, len(slots), (WIDTH,), conditioning.bits)
        vectors = torch.from_numpy(vectors) + table[conditioning.initial_token].double()
        encoder.get_input_embeddings().weight.data = torch.cat([table, vectors.reshape(-1, WIDTH).float()])
        ids[:, slots] = len(table) + torch.arange(CLASSES * len(slots)).reshape(CLASSES, -1)[list(UNIT.classes)]
    negative = torch.full((8, LENGTH), conditioning.padding[0])
    negative[:, : len(conditioning.negative)] = torch.tensor(conditioning.negative)
    latents = np.stack(
        [
            normals(group.noise_key, index, class_, (4, 4, 4))
            for class_, index in zip(UNIT.classes, UNIT.indices, strict=True)
        ]
    )
    with torch.no_grad():
        images = stock(
            prompt_embeds=encoder(ids).last_hidden_state,
            latents=torch.from_numpy(latents),
            negative_prompt_embeds=encoder(negative).last_hidden_state,
            guidance_scale=guidance,
            num_inference_steps=group.recipe.steps,
            height=8,
            width=8,
            output_type="np",
        ).images
    return images * 255.0


@pytest.mark.parametrize(
    ("kind", "guidance", "steps"), [("words", 2.0, 3), ("delta", 2.0, 3), ("delta", 7.5, 7), ("delta", 1.0, 3)]
)
# Shows D3M-115, D3M-116.
def test_the_pixels_are_those_of_the_stock_pipeline(pipeline, generator, stock, kind, guidance, steps):
    group, data = make_group(
        pipeline, classes=CLASSES, ipc=IPC, cast="stored", kind=kind, guidance=guidance, steps=steps
    )
    expected = stock_images(stock, group, data, guidance)
    pixels = Renderer(group, data, generator, "reproducible", CLASSES).render(UNIT)
    assert pixels.shape == (8, 8, 8, 3)
    assert pixels.dtype == np.uint8
    # Half a level of rounding, and 1e-4 of the range for binary32 sums in another order.
    assert np.abs(expected - pixels).max() <= 0.5 + 1e-4 * 255
    assert (pixels > 0).mean() > 0.5  # the comparison says nothing about clipped values
    other = stock_images(stock, group, data, guidance + 1.0)
    assert np.abs(other - pixels).max() > 1.0, "the comparison would not notice another guidance"


# ---------------------------------------------------------------------------------------------- same pixels


# Shows D3M-128.
def test_the_last_unit_is_padded_with_its_last_image(pipeline, generator):
    """Twelve images are a full unit and a half one; of sixteen images the half one is a full one."""
    short = renderer(pipeline, generator).render(unit_at(0, 1, IPC, CLASSES))
    assert short.shape == (4, 8, 8, 3)
    padded = Unit(0, 1, (2,) * 8, (0, 1, 2, 3, 3, 3, 3, 3))
    whole = renderer(pipeline, generator).render(padded)
    assert np.array_equal(whole[:4], short)
    assert all(np.array_equal(image, short[3]) for image in whole[4:])


# Shows D3M-129.
def test_the_same_unit_gives_the_same_pixels(pipeline, generator):
    one = renderer(pipeline, generator)
    first = one.render(UNIT)
    assert len({image.tobytes() for image in first}) == 8
    one.render(unit_at(0, 1, IPC, CLASSES))
    assert np.array_equal(one.render(UNIT), first)
    again = StableDiffusion.load(pipeline, cast="stored")
    assert np.array_equal(renderer(pipeline, again).render(UNIT), first)


def test_the_callers_settings_change_nothing_and_come_back(pipeline, generator):
    first = renderer(pipeline, generator).render(UNIT)
    try:
        torch.set_num_threads(2)
        torch.set_default_dtype(torch.float64)
        with torch.autocast("cpu", torch.bfloat16):
            assert np.array_equal(renderer(pipeline, generator).render(UNIT), first)
        assert (torch.get_num_threads(), torch.get_default_dtype()) == (2, torch.float64)
        assert not torch.is_inference_mode_enabled()
    finally:
        torch.set_num_threads(1)
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("backend", ["cuda", "mkldnn"])
def test_tf32_that_somebody_switched_on_is_refused(backend):
    """Not taken back in silence: the program that did it would be surprised. Other profiles do not care."""
    owner = getattr(torch.backends, backend).matmul
    before = owner.fp32_precision
    owner.fp32_precision = "tf32"
    try:
        with (
            pytest.raises(UsageError, match=f"{backend}.matmul.fp32_precision") as caught,
            settings("reproducible", "cpu"),
        ):
            pass
        assert caught.value.exit_code == 2
        for profile in ("exact", "fast"):
            with settings(profile, "cpu"):
                pass
        assert owner.fp32_precision == "tf32"
    finally:
        owner.fp32_precision = before


def test_settings_come_back_after_an_error():
    def fail():
        assert torch.get_num_threads() == 1
        raise KeyError

    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), settings("reproducible", "cpu"):
            fail()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(("name", "value"), [("ONEDNN_DEFAULT_FPMATH_MODE", "BF16"), ("NVIDIA_TF32_OVERRIDE", "1")])
def test_shortcuts_that_cannot_be_switched_off_are_refused(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=name) as caught, settings("reproducible", "cpu"):
        pass
    assert value in str(caught.value)
    with settings("fast", "cpu"):
        pass


# ---------------------------------------------------------------------------------------------- what counts


@pytest.mark.parametrize(
    "change",
    [
        {"noise_key": 8},
        {"seed": 1},
        {"guidance": 2.5},
        {"steps": 4},
        {"kind": "words"},
        {"guidance": 1.0},
        {"guidance": 0.0},
    ],
)
def test_every_part_of_the_record_counts(pipeline, generator, change):
    first = renderer(pipeline, generator).render(UNIT)
    assert not np.array_equal(renderer(pipeline, generator, **change).render(UNIT), first)


def test_guidance_one_needs_no_negative_prompt(pipeline, generator):
    """And computes no unconditional pass: half as many rows enter the denoiser."""
    group, data = make_group(pipeline, classes=CLASSES, ipc=IPC, cast="stored", guidance=1.0)
    conditioning = group.conditioning.model_copy(update={"negative": None})
    without = group.model_copy(update={"conditioning": conditioning})
    rows = []
    handle = generator.unet.register_forward_hook(lambda _module, inputs, _output: rows.append(len(inputs[0])))
    try:
        pixels = Renderer(without, data, generator, "reproducible", CLASSES).render(UNIT)
        assert rows == [8] * 3
        rows.clear()
        renderer(pipeline, generator, guidance=2.0).render(UNIT)
        assert rows == [16] * 3
    finally:
        handle.remove()
    assert np.array_equal(pixels, Renderer(group, data, generator, "reproducible", CLASSES).render(UNIT))


@pytest.mark.parametrize("rule", ["table", "karras"])
@pytest.mark.parametrize("sampler", ["euler", "euler-ancestral"])
def test_the_faintest_signal_that_a_recipe_may_leave_is_finite(sampler, rule):
    """A record refuses betas that leave less than 2^-64: this is the last step before that."""
    recipe = EulerRecipe(
        betas=("linear", 500_000, 500_000, 64),
        guidance=1_000_000,
        steps=4,
        prediction="eps",
        timesteps=("trailing", 0),
        sampler=sampler,
        initial="root",
        sigmas=rule,
    )
    made, noise = Sampler(recipe), torch.ones(3, dtype=torch.float64)
    state = made.run(lambda x, _: x * 0.1, made.start(noise, None), lambda _: noise, None)
    assert torch.isfinite(state).all()


def test_prediction_and_final_alpha_count(pipeline, generator):
    group, data = make_group(pipeline, classes=CLASSES, ipc=IPC, cast="stored")
    seen = set()
    for changes in ({}, {"prediction": "v"}, {"prediction": "sample"}, {"final_alpha": "one"}):
        fields = {name: getattr(group.recipe, name) for name in DdimRecipe.model_fields} | changes
        changed = group.model_copy(update={"recipe": DdimRecipe(**fields)})
        seen.add(Renderer(changed, data, generator, "reproducible", CLASSES).render(UNIT).tobytes())
    assert len(seen) == 4


def test_fast_is_close_and_takes_any_number(pipeline, generator):
    quick = StableDiffusion.load(pipeline, cast="stored", dtype=torch.bfloat16)
    unit = Unit(0, -1, (0, 1, 2) * 4, (0, 1, 2, 3) * 3)
    exact = np.concatenate(
        [
            renderer(pipeline, generator).render(Unit(0, -1, unit.classes[at : at + 8], unit.indices[at : at + 8]))
            for at in (0, 8)
        ]
    )
    pixels = renderer(pipeline, quick, "fast").render(unit)
    assert pixels.shape == (12, 8, 8, 3)
    assert 0 < np.abs(pixels.astype(float) - exact).mean() < 3


# ---------------------------------------------------------------------------------------------- refusals


def test_more_than_a_unit_is_refused(pipeline, generator):
    with pytest.raises(UsageError, match="eight"):
        renderer(pipeline, generator).render(Unit(0, 0, (0,) * 9, tuple(range(9))))


def test_embeddings_of_another_width_are_refused(pipeline, generator):
    group, data = make_group(pipeline, classes=CLASSES, ipc=IPC, cast="stored")
    wide = group.model_copy(update={"conditioning": group.conditioning.model_copy(update={"width": 2 * WIDTH})})
    with pytest.raises(GeneratorError, match="width"):
        Renderer(wide, data, generator, "reproducible", CLASSES)


def test_values_that_are_not_finite_are_refused(pipeline, generator):
    spoiled = StableDiffusion.load(pipeline, cast="stored")
    spoiled.vae.decoder.conv_out.bias[1] = float("inf")
    with pytest.raises(PixelsError, match="finite"):
        renderer(pipeline, spoiled).render(UNIT)
