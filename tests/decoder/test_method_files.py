"""GDD, LD3M and DiT at the level of bytes: hand-packed exact files, proved here, and agreement with other code.

The golden files are vectors of the format. D3M_REGENERATE=1 writes them anew.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from method_files import MAKERS, METHODS, pack

from d3codec.conditioning import latents, vectors
from d3codec.decoder.decode import decode
from d3codec.decoder.plan import Plan
from d3codec.decoder.precision import to_levels
from d3codec.decoder.renderers import Renderers
from d3codec.decoder.schedules import alpha_bars
from d3codec.decoder.units import decoded_units
from d3codec.decoder.verify import verify
from d3codec.format.file import D3MFile
from d3codec.generators.load import load_generator
from d3codec.noise import normals

torch.set_num_threads(1)
GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D3CODEC_HOME", str(tmp_path_factory.mktemp("home")))
        yield {name: make(tmp_path_factory.mktemp("methods") / name) for name, make in MAKERS.items()}


def golden(method: str, pipelines) -> D3MFile:
    path = GOLDEN / f"{method}.d3m"
    if os.environ.get("D3M_REGENERATE"):
        path.write_bytes(pack(method, pipelines[method]))
    return D3MFile.open(path)


def exact_levels(file: D3MFile, pipeline, sources):
    return Renderers(file, "exact", "cpu", pipeline, True, None).of(0).levels(sources)


@pytest.mark.parametrize("method", METHODS)
def test_the_golden_file_is_proved(method, pipelines):
    file = golden(method, pipelines)
    report = verify(file, decode="all", generator=pipelines[method], device="cpu")
    assert (report.profile, report.pixels) == ("exact", "proved")
    assert report.images_checked == report.images


@pytest.mark.parametrize("method", METHODS)
def test_packing_gives_the_golden_bytes(method, pipelines):
    assert pack(method, pipelines[method]) == Path(golden(method, pipelines).path).read_bytes()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("profile", ["reproducible", "exact-fixed"])
def test_other_profiles_decode_them_too(method, profile, pipelines):
    file = golden(method, pipelines)

    def pixels(of):
        units = decoded_units(
            file, Plan.of(file.content), profile=of, device="cpu", generator=pipelines[method], cache=False
        )
        return np.concatenate([images for _, images in units]).astype(int)

    assert np.abs(pixels(profile) - pixels("exact")).max() <= 2


def test_a_reader_never_asks_which_method_made_the_file(pipelines, tmp_path):
    counts = {"gdd": 20, "ld3m": 6, "dit": 6}
    for method, count in counts.items():
        report = decode(
            golden(method, pipelines),
            tmp_path / method,
            contact_sheet=tmp_path / f"{method}.png",
            generator=pipelines[method],
            device="cpu",
        )
        assert report.images == count
        assert len(list((tmp_path / method).rglob("*.png"))) == count


# ------------------------------------------------------------------------------------------------ GDD


def test_gdd_sources_are_those_of_the_stock_pipeline(pipelines):
    """Copy 0 of every source is what StableDiffusionXLPipeline gives for the same latents and draws."""
    from diffusers import StableDiffusionXLPipeline

    file = golden("gdd", pipelines)
    group = file.content.groups[0]
    stock = StableDiffusionXLPipeline.from_pretrained(pipelines["gdd"], torch_dtype=torch.float16).to(torch.float32)
    stock.set_progress_bar_config(disable=True)
    levels = exact_levels(file, pipelines["gdd"], [(1, 0)])
    start = torch.from_numpy(np.array(normals(group.noise_key, 0, 1, (1, 4, 4, 4))))
    draws = iter([torch.from_numpy(np.array(normals(group.noise_key, 0, 1, (1, 4, 4, 4), n=1)))] * 2)
    from diffusers.schedulers import scheduling_euler_ancestral_discrete as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "randn_tensor", lambda *_, **__: next(draws))
        images = stock(
            "finch", latents=start, num_inference_steps=2, guidance_scale=0.0, height=8, width=8, output_type="np"
        ).images
    assert np.abs(images * 255 - levels).max() < 0.05
    assert levels.std() > 10


def test_gdd_copies_belong_to_their_source(pipelines):
    file = golden("gdd", pipelines)
    units = list(
        decoded_units(
            file, Plan.of(file.content), profile="exact", device="cpu", generator=pipelines["gdd"], cache=False
        )
    )
    images = np.concatenate([pixels for _, pixels in units])
    assert len(units) == 1
    assert images.shape == (20, 8, 8, 3)
    sources = np.rint(exact_levels(file, pipelines["gdd"], [(0, 0), (0, 1), (1, 0), (1, 1)]))
    assert np.array_equal(images[::5], sources)
    assert len({image.tobytes() for image in images}) == 20


# ------------------------------------------------------------------------------------------------ LD3M


def test_ld3m_is_the_loop_of_its_published_code(pipelines):
    """x0 <- (1 - i/(S-1)) x0 + (i/(S-1)) q, written here once more with torch alone."""
    file = golden("ld3m", pipelines)
    networks = load_generator(pipelines["ld3m"], cast="f16", dtype=torch.float64, device="cpu")
    clean = torch.from_numpy(latents.decode(file.section("lat", 0), 6, (4, 4, 4), 8))
    rows = torch.from_numpy(vectors.decode(file.section("emb", 0), 7, 1, 16, 6))
    table = alpha_bars("scaled", 850, 12000, 1000)
    sources = [(class_, index) for class_ in range(2) for index in range(3)]
    noise = torch.stack([torch.from_numpy(np.array(normals(11, i, c, (4, 4, 4)))).double() for c, i in sources])
    x = 0.224 * clean + 0.974 * noise
    visited = [751, 501, 251, 1]
    with torch.no_grad():
        for step, t in enumerate(visited):
            i = len(visited) - 1 - step
            given = networks.denoise(x, t, networks.encode_vectors(rows[:6]))
            without = networks.denoise(x, t, networks.encode_vectors(rows[6:].expand(6, -1, -1)))
            eps = without + 3.0 * (given - without)
            alpha, target = table[t], table[visited[step + 1]] if i else table[0]
            x0 = (x - math.sqrt(1 - alpha) * eps) / math.sqrt(alpha)
            x0 = (1 - i / 3) * x0 + (i / 3) * clean
            x = math.sqrt(target) * x0 + math.sqrt(1 - target) * eps
        expected = to_levels(networks.decode_latents(x))
    levels = exact_levels(file, pipelines["ld3m"], sources)
    assert np.abs(levels - expected).max() < 1e-9
    assert levels.std() > 10


# ------------------------------------------------------------------------------------------------ DiT


def test_dit_is_the_stock_pipeline(pipelines):
    """DDIM with eta 0 in DiTPipeline against ours, for two classes."""
    from diffusers import DiTPipeline

    file = golden("dit", pipelines)
    stock = DiTPipeline.from_pretrained(pipelines["dit"])
    stock.set_progress_bar_config(disable=True)
    recipe = file.content.groups[0].recipe
    group = file.content.groups[0]
    fields = {name: getattr(recipe, name) for name in type(recipe).model_fields} | {"eta": 0}
    from d3codec.decoder.render import Renderer

    networks = load_generator(pipelines["dit"], cast="stored", dtype=torch.float64, device="cpu")
    changed = group.model_copy(update={"recipe": type(recipe)(**fields)})
    levels = Renderer(changed, file.section("ids", 0), networks, "exact", 3).levels([(0, 0), (1, 0)])
    start = torch.stack([torch.from_numpy(np.array(normals(11, 0, c, (4, 4, 4)))) for c in range(2)])
    from diffusers import DDIMScheduler
    from diffusers.pipelines.dit import pipeline_dit

    stock.scheduler = DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False, set_alpha_to_one=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_dit, "randn_tensor", lambda *_, **__: start)
        images = stock([207, 3], guidance_scale=4.0, num_inference_steps=5, output_type="np").images
    assert np.abs(images * 255 - levels).max() < 0.2
    assert levels.std() > 10
