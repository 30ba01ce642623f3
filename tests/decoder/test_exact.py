"""Profile `exact`: the same levels to 1e-9 under other kernels, and planted faults that the same checks notice.

The reference is a golden file made once: levels before rounding of twelve images of the tiny pipeline, whose weights
come from the format's own noise. D3M_REGENERATE=1 writes it anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_pipeline import SIZE, make_file, make_group, make_pipeline

from d3codec import noise
from d3codec.decoder import finish, schedules
from d3codec.decoder.digests import image_digest, pixel_digest
from d3codec.decoder.plan import unit_at
from d3codec.decoder.precision import round_levels
from d3codec.decoder.render import Renderer
from d3codec.decoder.verify import verify
from d3codec.encoder.exact import EPSILON, MARGIN, boundary_values, check_noise, decode_noise, probes
from d3codec.errors import D3MError, PixelsError
from d3codec.format.file import ContentDraft, D3MFile, write_d3m
from d3codec.format.manifest import Exact, Images, Window
from d3codec.generators.load import load_generator

torch.set_num_threads(1)
GOLDEN = Path(__file__).parent.parent / "golden" / "exact.npz"
CLASSES, IPC = 3, 4
SOURCES = [(class_, source) for class_ in range(CLASSES) for source in range(IPC)]
TOLERANCE = 1e-9  # of a level
OLD_KERNELS = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D3CODEC_HOME", str(tmp_path_factory.mktemp("home")))
        yield make_pipeline(tmp_path_factory.mktemp("exact") / "pipeline")


@pytest.fixture
def generator(pipeline):
    return load_generator(pipeline, cast="f16", dtype=torch.float64, device="cpu")


def exact(pipeline, generator, **images):
    group, data = make_group(pipeline, classes=CLASSES, ipc=IPC, steps=5)
    if images:
        fields = {name: getattr(group.images, name) for name in Images.model_fields} | images
        group = group.model_copy(update={"images": Images(**fields)})
    return Renderer(group, data, generator, "exact", CLASSES)


@pytest.fixture(scope="module")
def golden(pipeline):
    if os.environ.get("D3M_REGENERATE"):
        levels = exact(pipeline, load_generator(pipeline, cast="f16", dtype=torch.float64, device="cpu")).levels(
            SOURCES
        )
        np.savez_compressed(GOLDEN, levels=levels, window=windowed(pipeline))
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def windowed(pipeline):
    networks = load_generator(pipeline, cast="f16", dtype=torch.float64, device="cpu")
    window = Window(generated=(SIZE, SIZE), block=(1, 0, 6, 8))
    return exact(pipeline, networks, window=window, size=(4, 6)).render(unit_at(0, 0, IPC, CLASSES))


def check(levels, golden):
    """What every exact decode must satisfy."""
    worst = np.abs(levels - golden["levels"]).max()
    assert worst <= TOLERANCE, f"{worst} of a level"
    assert np.array_equal(round_levels(levels), round_levels(golden["levels"]))


def in_batches(renderer, size, sources=SOURCES, **options):
    parts = [renderer.levels(sources[at : at + size], **options) for at in range(0, len(sources), size)]
    return np.concatenate(parts)


# ------------------------------------------------------------------------------------------------ same levels


@pytest.mark.parametrize("size", [1, 3, 8, 12])
# Shows D3M-125, D3M-126.
def test_any_batch(pipeline, generator, golden, size):
    check(in_batches(exact(pipeline, generator), size), golden)


def test_any_order_threads_and_order_of_memory(pipeline, generator, golden):
    renderer = exact(pipeline, generator)
    check(in_batches(renderer, 8, SOURCES[::-1])[::-1], golden)
    check(in_batches(renderer, 3, channels_last=True), golden)
    torch.set_num_threads(2)
    try:
        check(in_batches(renderer, 8), golden)
    finally:
        torch.set_num_threads(1)


def test_old_kernels(pipeline, golden, tmp_path):
    """The same in a process that may use no vector instructions."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import numpy as np, torch; from decoder_levels import levels\n"
        "np.save(sys.argv[3], levels(sys.argv[2]))\n"
    )
    (tmp_path / "decoder_levels.py").write_text(
        "import sys, torch\n"
        f"sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        "from tiny_pipeline import make_group\n"
        "from d3codec.decoder.render import Renderer\n"
        "from d3codec.generators.load import load_generator\n"
        "def levels(folder):\n"
        f"    group, data = make_group(folder, classes={CLASSES}, ipc={IPC}, steps=5)\n"
        "    networks = load_generator(folder, cast='f16', dtype=torch.float64, device='cpu')\n"
        f"    return Renderer(group, data, networks, 'exact', {CLASSES}).levels({SOURCES!r})\n"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(pipeline), str(tmp_path / "levels.npy")],
        env={**os.environ, **OLD_KERNELS},
        check=True,
    )
    check(np.load(tmp_path / "levels.npy"), golden)


# Shows D3M-125.
def test_single_precision_would_not_do(pipeline, golden):
    """The golden levels are sharp enough to see the difference."""
    group, data = make_group(pipeline, classes=CLASSES, ipc=IPC, steps=5)
    networks = load_generator(pipeline, cast="f16", dtype=torch.float32, device="cpu")
    levels = in_batches(Renderer(group, data, networks, "reproducible", CLASSES), 8)
    assert 1e-6 < np.abs(levels - golden["levels"]).max() < 0.1


# ------------------------------------------------------------------------------------------------ planted faults


def test_the_librarys_timestep_embedding_is_noticed(pipeline, generator, golden):
    from diffusers.models.embeddings import Timesteps

    generator.unet.time_proj = Timesteps(8, flip_sin_to_cos=True, downscale_freq_shift=0)
    with pytest.raises(AssertionError, match="of a level"):
        check(exact(pipeline, generator).levels(SOURCES), golden)


def test_the_librarys_schedule_is_noticed(pipeline, generator, golden, monkeypatch):
    from diffusers import DDIMScheduler

    def library(rule, first, last, count):
        assert rule == "scaled"
        scheduler = DDIMScheduler(count, first / 1e6, last / 1e6, "scaled_linear")
        return scheduler.alphas_cumprod.double().numpy()

    monkeypatch.setattr(schedules, "alpha_bars", library)
    with pytest.raises(AssertionError, match="of a level"):
        check(exact(pipeline, generator).levels(SOURCES), golden)


def test_an_autoencoder_in_single_precision_is_noticed(pipeline, generator, golden):
    decode = generator.vae.float().decode
    generator.vae.decode = lambda latents, **options: tuple(
        image.double() for image in decode(latents.float(), **options)
    )
    with pytest.raises(AssertionError, match="of a level"):
        check(exact(pipeline, generator).levels(SOURCES), golden)


def test_another_resize_is_noticed(pipeline, golden, monkeypatch):
    assert np.array_equal(windowed(pipeline), golden["window"])

    def smooth(images, block, size):
        top, left, height, width = block
        return np.stack(
            [
                np.asarray(
                    Image.fromarray(image[top : top + height, left : left + width]).resize(size[::-1], Image.BICUBIC)
                )
                for image in images
            ]
        )

    monkeypatch.setattr(finish, "window_resize", smooth)
    assert not np.array_equal(windowed(pipeline), golden["window"])


def test_noise_through_torchs_root_is_noticed(monkeypatch):
    """torch.sqrt is not correctly rounded on CPUs; a table that is off by a last bit has another digest."""
    true = noise._root(np.array([7.3]))
    assert abs(true[0] - 7.3**0.5) < 1e-15
    monkeypatch.setattr(noise, "_root", lambda x: torch.from_numpy(x.astype(np.float32)).sqrt().double().numpy())
    with pytest.raises(D3MError, match="noise table"):
        noise.checked_table(noise._quantiles())


# ------------------------------------------------------------------------------------------------ the encoder's side


# Shows D3M-127.
def test_the_noise_is_measured(pipeline, generator):
    noise_levels = decode_noise(exact(pipeline, generator), probes(CLASSES, IPC, 6))
    assert 0 < noise_levels < 1e-11
    check_noise(noise_levels)
    with pytest.raises(PixelsError, match="too noisy"):
        check_noise(EPSILON / MARGIN * 1.01)


def test_single_precision_is_too_noisy(pipeline):
    """The measurement sees what a hidden float32 would do."""
    networks = load_generator(pipeline, cast="f16", dtype=torch.float64, device="cpu")
    networks.vae.float()
    decode = networks.vae.decode
    networks.vae.decode = lambda latents, **options: tuple(
        image.double() for image in decode(latents.float(), **options)
    )
    with pytest.raises(PixelsError, match="too noisy"):
        check_noise(decode_noise(exact(pipeline, networks), SOURCES))


def test_probes_are_spread():
    assert probes(3, 4, 6) == [(0, 0), (0, 2), (1, 0), (1, 2), (2, 0), (2, 2)]
    assert probes(2, 1, 6) == [(0, 0), (1, 0)]


# Shows D3M-127.
def test_values_near_a_boundary():
    levels = np.array([[0.0, 0.5, 0.5 + 2e-7, 0.5 - 9e-8], [254.5, 255.0, 100.49, 7.5 + 9e-8]])
    assert boundary_values(levels).tolist() == [1, 3, 4, 7]


# ------------------------------------------------------------------------------------------------ files


def exact_file(path, pipeline, **options):
    return make_file(path, pipeline, classes=CLASSES, ipc=IPC, profile="exact", labels="h", **options)


def test_an_exact_file_is_proved_on_any_fingerprint(pipeline, tmp_path):
    file = D3MFile.open(exact_file(tmp_path / "a.d3m", pipeline))
    assert file.content.profile.name == "exact"
    assert file.about is None or file.about.fingerprint is None
    report = verify(file, decode="all", generator=pipeline, device="cpu")
    assert (report.profile, report.pixels, report.images_checked, report.warnings) == ("exact", "proved", 12, ())


@pytest.mark.parametrize("leaf_bytes", [0, 4])
# Shows D3M-126.
def test_another_digest_is_an_error_everywhere(pipeline, tmp_path, leaf_bytes):
    file = D3MFile.open(exact_file(tmp_path / "a.d3m", pipeline, leaf_bytes=leaf_bytes))
    profile = file.content.profile
    other = Exact(pixels=bytes([profile.pixels[0] ^ 1]) + profile.pixels[1:], corrections=0)
    path = rewritten(tmp_path / "b.d3m", file, other)
    with pytest.raises(PixelsError, match="promises everywhere") as caught:
        verify(path, decode="all", generator=pipeline, device="cpu")
    assert caught.value.exit_code == 3


def test_leaves_prove_nothing(pipeline, tmp_path):
    """They stand beside the content: a sample of them is no proof of a set whose digest is another."""
    file = D3MFile.open(exact_file(tmp_path / "a.d3m", pipeline, leaf_bytes=2))
    sections = {("cls", None): file.section("cls"), ("emb", 0): file.section("emb", 0)}
    draft = ContentDraft(file.content.classes, file.content.groups, Exact(pixels=bytes(32), corrections=0))
    path = tmp_path / "b.d3m"
    path.write_bytes(write_d3m(draft, sections, ancillary={"x-leaf": file.section("x-leaf")}))
    assert verify(path, decode=2, generator=pipeline, device="cpu").pixels == "sampled"
    with pytest.raises(PixelsError, match="set as a whole"):
        verify(path, decode="all", generator=pipeline, device="cpu")


# Shows D3M-122, D3M-126.
def test_corrections_are_applied(pipeline, tmp_path):
    """A file whose list says another level than the decode: its digest is that of the corrected pixels."""
    from d3codec import corrections
    from d3codec.decoder.decode import decoded_units
    from d3codec.decoder.plan import Plan

    file = D3MFile.open(exact_file(tmp_path / "a.d3m", pipeline))
    whole = Plan.of(file.content)

    def pixels(of):
        units = decoded_units(of, whole, profile="exact", device="cpu", generator=pipeline, cache=False)
        return np.concatenate([unit for _, unit in units])

    images = pixels(file)
    image = SIZE * SIZE * 3
    places = np.array([3, 5 * image, 5 * image + 1, 12 * image - 1])
    wanted = images.copy()
    wanted.reshape(-1)[places] = wanted.reshape(-1)[places] ^ 1
    digest = pixel_digest(image_digest(one) for one in wanted)
    listed = corrections.encode(places, wanted.reshape(-1)[places])
    path = rewritten(tmp_path / "b.d3m", file, Exact(pixels=digest, corrections=4), listed)
    assert np.array_equal(pixels(D3MFile.open(path)), wanted)
    assert verify(path, decode="all", generator=pipeline, device="cpu").pixels == "proved"
    other = D3MFile.open(rewritten(tmp_path / "c.d3m", file, Exact(pixels=digest, corrections=0)))
    assert np.array_equal(pixels(other), images)
    with pytest.raises(PixelsError):
        verify(other, decode="all", generator=pipeline, device="cpu")


def rewritten(path, file, profile, listed=None):
    """The file with another promise, all checksums right, and without leaves."""
    sections = {("cls", None): file.section("cls"), ("emb", 0): file.section("emb", 0)}
    if listed is not None:
        sections["fix", None] = listed
    path.write_bytes(write_d3m(ContentDraft(file.content.classes, file.content.groups, profile), sections))
    return path
