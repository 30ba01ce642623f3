"""Profile `exact-fixed`: the same bits whatever computes them, close to float64, and a refusal where that cannot be."""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
from contextlib import nullcontext
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPTextModelWithProjection

import d3codec
from d3codec.decoder import fixed
from d3codec.decoder.fixed import fixed_arithmetic
from d3codec.errors import PixelsError, UsageError

DIGITS = Path(d3codec.__file__).parent / "assets" / "digits-generator"
STEPS = ((601, 0.17), (301, 0.58), (1, 0.998))  # timestep and alpha bar
OLD_KERNELS = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}


class TimeTable(torch.nn.Module):
    """A timestep embedding without the libraries' float32 sines."""

    def __init__(self, width):
        super().__init__()
        angles = [[t * 10000.0 ** (-2 * i / width) for i in range(width // 2)] for t, _ in STEPS]
        rows = [[*map(math.cos, row), *map(math.sin, row)] for row in angles]
        self.rows = {t: torch.tensor(row, dtype=torch.float64) for (t, _), row in zip(STEPS, rows, strict=True)}

    def forward(self, timesteps):
        return torch.stack([self.rows[int(t)] for t in timesteps])


class Digits:
    """The bundled generator in float64, and a sampler of three steps with guidance."""

    def __init__(self):
        load = {"torch_dtype": torch.float64, "low_cpu_mem_usage": False}
        self.text = CLIPTextModel.from_pretrained(DIGITS / "text_encoder", attn_implementation="sdpa").double().eval()
        self.unet = UNet2DConditionModel.from_pretrained(DIGITS / "unet", **load).eval()
        self.vae = AutoencoderKL.from_pretrained(DIGITS / "vae", **load).eval()
        self.unet.time_proj = TimeTable(self.unet.config.block_out_channels[0])

    @torch.no_grad()
    def levels(self, images, arithmetic, memory=torch.contiguous_format):
        """Pixels before rounding, float64 [images, 3, 16, 16]."""
        ids = torch.full((len(images), 16), 94)
        ids[:, 0], ids[:, 1] = 93, torch.tensor(images) + 10
        noise = np.stack([np.random.default_rng(image).standard_normal((4, 8, 8)) for image in images])
        self.unet.to(memory_format=memory), self.vae.to(memory_format=memory)
        with arithmetic():
            x = torch.from_numpy(noise).contiguous(memory_format=memory)
            empty = torch.full((len(images), 16), 94)
            empty[:, 0] = 93
            hidden = self.text(input_ids=torch.cat([empty, ids])).last_hidden_state
            for step, (t, alpha) in enumerate(STEPS):
                before, given = self.unet(torch.cat([x, x]), t, hidden, return_dict=False)[0].chunk(2)
                eps = before + 2.0 * (given - before)
                target = STEPS[step + 1][1] if step + 1 < len(STEPS) else 1.0
                clean = (x - math.sqrt(1.0 - alpha) * eps) * (1.0 / math.sqrt(alpha))
                x = math.sqrt(target) * clean + math.sqrt(1.0 - target) * eps
            return (self.vae.decode(x, return_dict=False)[0] * 127.5 + 127.5).contiguous()


@pytest.fixture(scope="module")
def digits():
    return Digits()


@pytest.fixture(scope="module")
def reference(digits):
    torch.set_num_threads(1)
    return {name: digits.levels([4], context) for name, context in ARITHMETICS.items()}


ARITHMETICS = {"fixed": fixed_arithmetic, "plain": nullcontext}


def threads_2(digits, context):
    torch.set_num_threads(2)
    try:
        return digits.levels([4, 7], context)
    finally:
        torch.set_num_threads(1)


def without_mkldnn(digits, context):
    torch.backends.mkldnn.enabled = False
    try:
        return digits.levels([4], context)
    finally:
        torch.backends.mkldnn.enabled = True


def with_attention(backend):
    def levels(digits, context):
        with sdpa_kernel(backend):
            return digits.levels([4], context)

    return levels


VARIANTS = {
    "again": lambda digits, context: digits.levels([4], context),
    "batch 3": lambda digits, context: digits.levels([4, 7, 1], context),
    "batch 3, last": lambda digits, context: digits.levels([7, 1, 4], context).flip(0),
    "batch 2, 2 threads": threads_2,
    "channels last": lambda digits, context: digits.levels([4], context, torch.channels_last),
    "attention math": with_attention(SDPBackend.MATH),
    "attention flash": with_attention(SDPBackend.FLASH_ATTENTION),
    "mkldnn off": without_mkldnn,
}


@pytest.fixture(scope="module")
def old_kernels(tmp_path_factory):
    """The same image by another process whose libraries may use the instructions of 2006 alone."""
    output = tmp_path_factory.mktemp("old") / "levels.pt"
    path = os.pathsep.join([str(Path(d3codec.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **OLD_KERNELS, "PYTHONPATH": path}
    subprocess.run([sys.executable, __file__, str(output)], env=environment, check=True, timeout=120)
    return torch.load(output)


@pytest.mark.parametrize("variant", VARIANTS)
# Shows D3M-133.
def test_no_kernel_changes_a_bit(digits, reference, variant):
    assert torch.equal(VARIANTS[variant](digits, fixed_arithmetic)[:1], reference["fixed"])


def test_old_kernels_change_no_bit(reference, old_kernels):
    assert torch.equal(old_kernels["fixed"], reference["fixed"])


def test_plain_float64_is_changed_by_them(digits, reference, old_kernels):
    """So the comparisons above can fail."""
    assert not torch.equal(old_kernels["plain"], reference["plain"])
    assert any(not torch.equal(make(digits, nullcontext)[:1], reference["plain"]) for make in VARIANTS.values())


def test_pixels_are_those_of_float64(reference):
    difference = (reference["fixed"] - reference["plain"]).abs()
    assert 0 < difference.max() < 0.01
    assert difference.square().mean().sqrt() < 1e-3
    assert reference["plain"].std() > 20  # a picture


# ------------------------------------------------------------------------------------------------ other networks


def random_network(make, seed=0):
    torch.manual_seed(seed)
    return make().double().eval()


def tiny_autoencoder():
    network = random_network(
        lambda: AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
        )
    )
    return lambda noise: network.decode(noise[:, :4], return_dict=False)[0]


def dit():
    network = random_network(
        lambda: DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=10,
            norm_num_groups=4,
        )
    )
    for block in network.transformer_blocks:
        block.norm1.emb.time_proj = TimeTable(256)
    labels, times = torch.tensor([1, 7, 10]), torch.tensor([601, 601, 301])
    return lambda noise: network(
        noise[:, :4], timestep=times[: len(noise)], class_labels=labels[: len(noise)], return_dict=False
    )[0]


def clip_with_gelu():
    config = CLIPTextConfig(
        vocab_size=64,
        hidden_size=20,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        hidden_act="gelu",
        projection_dim=16,
        bos_token_id=0,
        eos_token_id=63,
        pad_token_id=0,
    )
    config._attn_implementation = "sdpa"
    network = random_network(lambda: CLIPTextModelWithProjection(config))

    def hidden(noise):
        output = network(input_ids=(noise[:, 0, 0].abs() * 20).long().clamp(max=63), output_hidden_states=True)
        return torch.cat([output.hidden_states[-2].flatten(1), output.text_embeds], 1)

    return hidden


def xl_denoiser():
    network = random_network(
        lambda: UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=(16, 32),
            cross_attention_dim=16,
            attention_head_dim=(2, 4),
            norm_num_groups=8,
            use_linear_projection=True,
            transformer_layers_per_block=(1, 2),
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 16,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        )
    )
    network.time_proj, network.add_time_proj = TimeTable(16), TimeTable(8)
    return lambda noise: network(
        noise[:, :4],
        301,
        noise[:, 4, :, :].repeat(1, 1, 2),
        added_cond_kwargs={"text_embeds": noise[:, 5, :2].flatten(1), "time_ids": torch.full((len(noise), 6), 301)},
        return_dict=False,
    )[0]


def denoiser_with_pooled_text():
    from d3codec.generators.unet import TextPooling

    network = random_network(
        lambda: UNet2DConditionModel(
            sample_size=8,
            layers_per_block=1,
            block_out_channels=(16, 32),
            cross_attention_dim=16,
            attention_head_dim=4,
            norm_num_groups=8,
            addition_embed_type="text",
            addition_embed_type_num_heads=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        )
    )
    network.time_proj, network.add_embedding.pool = TimeTable(16), TextPooling(network.add_embedding.pool)
    return lambda noise: network(noise[:, :4], 301, noise[:, 4, :, :].repeat(1, 1, 2), return_dict=False)[0]


@pytest.mark.parametrize("make", [tiny_autoencoder, dit, clip_with_gelu, xl_denoiser, denoiser_with_pooled_text])
def test_every_family_computes(make):
    network = make()
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal((3, 6, 8, 8)))
    with fixed_arithmetic():
        alone, together = network(noise[:1]), network(noise)
        last = network(noise.contiguous(memory_format=torch.channels_last))
    assert torch.equal(alone, together[:1])
    assert torch.equal(last, together)
    with torch.no_grad():
        plain = network(noise)
    assert plain.std() > 1e-3
    assert 0 < (plain - together).abs().max() < 1e-3 * max(1.0, float(plain.abs().max()))
    assert not together.requires_grad


# ------------------------------------------------------------------------------------------------ sums of products


def on_grid(x, bits):
    """The multiple of 2^-bits nearest to x, half to even, as a fraction."""
    return Fraction(round(Fraction(float(x)) * 2**bits), 2**bits)


def random(*shape, seed=0, scale=1.0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape) * scale)


# Shows D3M-134.
def test_products_are_summed_exactly():
    x, w, b = random(2, 50), random(3, 50, seed=1), random(3, seed=2)
    with fixed_arithmetic():
        y = F.linear(x, w, b)
    for i, j in np.ndindex(2, 3):
        exact = sum(on_grid(p, 16) * on_grid(q, 20) for p, q in zip(x[i], w[j], strict=True)) + on_grid(b[j], 36)
        assert Fraction(float(y[i, j])) == exact


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"), [(3, 1, 1, 1), (3, 2, 0, 1), (1, 1, 0, 1), (3, 1, 2, 2)]
)
def test_unfolding_gives_the_bits_of_the_convolution(kernel, stride, padding, dilation):
    x, w, b = random(2, 5, 9, 6), random(4, 5, kernel, kernel, seed=1), random(4, seed=2)
    with fixed_arithmetic():
        y = F.conv2d(x, w, b, stride, padding, dilation)
    operands = fixed._operands("conv2d", x, w, b)
    assert torch.equal(fixed.unfolded_conv2d(*operands, (stride, stride), padding, dilation), y)
    assert torch.equal(
        fixed.unfolded_conv2d(*operands[:2], None, stride, padding, dilation) + operands[2].view(-1, 1, 1), y
    )
    assert not torch.equal(F.conv2d(x, w, b, stride, padding, dilation), y)


@pytest.mark.parametrize("queries", [1, 5, 200])
@pytest.mark.parametrize("mask", ["none", "causal", "bool", "float"])
def test_attention_is_that_of_the_specification(queries, mask, monkeypatch):
    monkeypatch.setattr(fixed, "_SCORES", 100)  # so that 200 queries are several parts
    keys = 200 if mask == "causal" and queries == 200 else 7
    q, k, v = random(2, 3, queries, 6), random(2, 3, keys, 6, seed=1), random(2, 3, keys, 6, seed=2)
    allowed = torch.from_numpy(np.random.default_rng(3).random((2, 1, queries, keys)) < 0.7)
    allowed[..., 0] = True
    options = {
        "none": {},
        "causal": {"is_causal": True},
        "bool": {"attn_mask": allowed},
        "float": {"attn_mask": torch.full(allowed.shape, 0.25).double().masked_fill(~allowed, -1.7e308)},
    }[mask]
    with fixed_arithmetic():
        y = F.scaled_dot_product_attention(q, k, v, **options)
    assert (y - F.scaled_dot_product_attention(q, k, v, **options)).abs().max() < 1e-4
    # One row by hand: exact scores, the tree in the order of the keys, weights on 2^-24.
    row = queries - 1
    scores = []
    for place in range(keys):
        dot = sum(on_grid(a, 16) * on_grid(b, 16) for a, b in zip(q[1, 2, row], k[1, 2, place], strict=True))
        score = float(dot) * (1.0 / math.sqrt(6))
        forbidden = (mask == "causal" and place > row) or (mask in ("bool", "float") and not allowed[1, 0, row, place])
        scores.append(-math.inf if forbidden else score + (0.25 if mask == "float" else 0.0))
    e = [scalar_exp(score - max(scores)) for score in scores]
    weights = [on_grid(value * (1.0 / scalar_tree(e)), 24) for value in e]
    for column in range(6):
        exact = sum(weight * on_grid(b, 16) for weight, b in zip(weights, v[1, 2, :, column], strict=True))
        assert Fraction(float(y[1, 2, row, column])) == exact


def test_the_scale_of_attention_is_ours():
    """Powers of the C library may differ in their last bit; here by more, so that attention weights would show it."""
    q, k, v = random(4, 99, 6, scale=3.0), random(4, 99, 6, seed=1, scale=3.0), random(4, 99, 6, seed=2)
    with fixed_arithmetic():
        y = F.scaled_dot_product_attention(q, k, v)
        assert torch.equal(F.scaled_dot_product_attention(q, k, v, scale=6**-0.5 * (1.0 + 9e-10)), y)
        with pytest.raises(UsageError, match="scaled_dot_product_attention"):
            F.scaled_dot_product_attention(q, k, v, scale=1.0)


def test_weights_are_rounded_once_and_again_when_they_change():
    linear = torch.nn.Linear(4, 4).double()
    x = random(1, 4)
    gc.collect()
    kept = len(fixed._quantized)

    def computed():
        with fixed_arithmetic():
            return linear(x)

    first, grid = computed(), fixed._quantize(linear.weight)[0]
    assert torch.equal(computed(), first)
    assert fixed._quantize(linear.weight)[0] is grid
    with torch.no_grad():
        linear.weight.add_(1.0)
    assert not torch.equal(computed(), first)
    linear.to(torch.bfloat16).double()  # the same parameter with other values
    assert torch.equal(fixed._quantize(linear.weight)[0] * 2.0**16, linear.weight.detach())
    assert len(fixed._quantized) == kept + 2
    linear.weight = linear.bias = None
    gc.collect()
    assert len(fixed._quantized) == kept


def test_a_new_weight_is_never_taken_for_an_old_one():
    x = random(1, 64)
    total = sum(on_grid(value, 16) for value in x[0])
    with fixed_arithmetic():
        for value in range(200):  # memory and identity of the last one are used again
            weight = torch.full((1, 64), value / 4.0, dtype=torch.float64)
            assert F.linear(x, weight).item() == total * value / 4
            del weight


def test_a_parameter_given_other_memory_is_rounded_again():
    """Large tensors, so that the second one gets the address that the first one freed."""
    shape = (1, 5 << 20)
    parameter = torch.nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    for value in range(3):
        for _ in range(2):
            parameter.data = torch.full(shape, float(value), dtype=torch.float64)
        assert fixed._quantize(parameter)[0][0, 0].item() == value / 2**16


# ------------------------------------------------------------------------------------------------ guard and list


@pytest.mark.parametrize("operator", ["linear", "conv2d"])
# Shows D3M-135.
def test_the_guard_raises_where_a_sum_might_leave_53_bits(operator):
    """4 weights of 1 and activations of 2^15 are 2^53 units of 2^-36."""
    shape = (1, 4) if operator == "linear" else (1, 1, 2, 2)
    call = getattr(F, operator)
    weight, x = torch.ones(shape, dtype=torch.float64), torch.full(shape, 2.0**15, dtype=torch.float64)
    with fixed_arithmetic():
        assert call(x - 2.0**-16, weight).item() == 4 * (2.0**15 - 2.0**-16)
        with pytest.raises(PixelsError, match=rf"{operator} 1x.*53\.0 bits"):
            call(x, weight)
        with pytest.raises(PixelsError, match=operator):
            call(x - 2.0**-16, weight, torch.full((1,), 1.0, dtype=torch.float64))
        for value in (math.nan, math.inf, -math.inf):
            with pytest.raises(PixelsError, match=operator):
                call(torch.where(torch.arange(4).view(shape) == 1, value, x * 2.0**-16), weight)
    assert torch.isnan(call(x * math.nan, weight)).all()  # outside nothing is guarded


def test_the_guard_watches_attention():
    ones = torch.ones(1, 8, 4, dtype=torch.float64)
    with fixed_arithmetic():
        assert torch.equal(F.scaled_dot_product_attention(ones * 64, ones * 64, ones * 64), ones * 64)
        with pytest.raises(PixelsError, match=r"queries times keys.*53\.0 bits"):
            F.scaled_dot_product_attention(ones * 2.0**9, ones * 2.0**10, ones)
        with pytest.raises(PixelsError, match=r"weights times values.*53\.0 bits"):
            F.scaled_dot_product_attention(ones, ones, ones * 2.0**13)


X = torch.ones(2, 4, 4, 4, dtype=torch.float64)
UNLISTED = {
    "sin": lambda: torch.sin(X),
    "exp": lambda: X.exp(),
    "sqrt": lambda: X.sqrt(),
    "pow": lambda: X**2,
    "softmax": lambda: F.softmax(X, -1),
    "matmul": lambda: X @ X,
    "sum": lambda: X.sum(),
    "mean": lambda: X.mean(),
    "addcmul": lambda: torch.addcmul(X, X, X),
    "lerp": lambda: torch.lerp(X, X, 0.5),
    "avg_pool2d": lambda: F.avg_pool2d(X, 2),
    "linspace": lambda: torch.linspace(0, 1, 5),
    "float": lambda: X.float(),
    "add": lambda: torch.add(X, X, alpha=2),
    "mul": lambda: X.to(torch.float32) * 2.0,
    "conv2d": lambda: F.conv2d(X, torch.ones(4, 1, 1, 1, dtype=torch.float64), groups=4),
    "linear": lambda: F.linear(X.to(torch.float32), torch.ones(4, 4)),
    "interpolate": lambda: F.interpolate(X, scale_factor=2.0, mode="bilinear"),
    "einsum": lambda: torch.einsum("abcd->ab", X),
    "dropout": lambda: F.dropout(X, 0.5, training=True),
    "arange": lambda: torch.arange(0, 1, 0.1),
}


@pytest.mark.parametrize("name", UNLISTED)
# Shows D3M-136.
def test_an_operator_that_is_not_on_the_list_raises(name):
    UNLISTED[name]()  # it is no error elsewhere
    with fixed_arithmetic(), pytest.raises(UsageError, match=name) as raised:
        UNLISTED[name]()
    assert raised.value.found == name
    assert "'exact'" in raised.value.hint


def test_a_network_with_the_libraries_timestep_embedding_is_refused():
    network = random_network(
        lambda: UNet2DConditionModel(
            block_out_channels=(16,),
            norm_num_groups=4,
            layers_per_block=1,
            cross_attention_dim=8,
            attention_head_dim=4,
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
        )
    )
    with fixed_arithmetic(), pytest.raises(UsageError):
        network(random(1, 4, 8, 8), 5, random(1, 3, 8))


def test_division_by_a_number_is_a_division():
    x = random(1000)
    with fixed_arithmetic():
        y = x / 3
        assert torch.equal(y, torch.div(x, 3.0))
        assert torch.equal(x / torch.full((1,), 3), y)
    assert [value / 3.0 for value in x.tolist()] == y.tolist()
    assert not torch.equal(x * (1.0 / 3.0), y)


def test_moves_are_those_of_torch():
    x = random(1, 3, 2, 5)
    with fixed_arithmetic():
        up, turned = F.interpolate(x, scale_factor=2.0, mode="nearest"), torch.einsum("abcd->dbca", x)
    assert torch.equal(up, F.interpolate(x, scale_factor=2.0, mode="nearest"))
    assert torch.equal(turned, torch.einsum("abcd->dbca", x))


# --------------------------------------------------------------------- functions, against scalars and against the truth


def scalar_tree(values):
    values = list(values)
    while len(values) > 1:
        half = 1 << ((len(values) - 1).bit_length() - 1)
        values = [values[i] + values[i + half] if i + half < len(values) else values[i] for i in range(half)]
    return values[0]


def scalar_exp(x):
    """exp of the module's docstring in Python's floats, which are binary64."""
    x = min(max(x, -700.0), 700.0)
    k = round(x * 1.4426950408889634)
    r = (x - k * float.fromhex("0x1.62e42fefa3800p-1")) - k * float.fromhex("0x1.ef35793c76730p-45")
    p = 1.0 / math.factorial(7) / 8**7
    for i in range(6, -1, -1):
        p = p * r + 1.0 / math.factorial(i) / 8**i
    for _ in range(3):
        p = p * p
    return math.ldexp(p, k)


def scalar_sqrt(x):
    y = float(np.array((int(np.array(x).view(np.int64)) >> 1) + (511 << 52), np.int64).view(np.float64))
    for _ in range(5):
        y = (x / y + y) * 0.5
    return y


def scalar_erf(x):
    a = abs(x)
    t = 1.0 / (a * 0.3275911 + 1.0)
    q = 1.061405429 * t
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        q = (q + c) * t
    return math.copysign(1.0 - q * scalar_exp(-(a * a)), x)


def scalar_tanh(x):
    return 1.0 / (scalar_exp(x * 2.0) + 1.0) * -2.0 + 1.0


def scalar_gelu_tanh(x):
    return x / (scalar_exp((x * x * x * 0.044715 + x) * -1.5957691216057308) + 1.0)


FUNCTIONS = {
    "sigmoid": (torch.sigmoid, lambda x: 1.0 / (scalar_exp(-x) + 1.0)),
    "silu": (F.silu, lambda x: x / (scalar_exp(-x) + 1.0)),
    "tanh": (torch.tanh, scalar_tanh),
    "gelu": (F.gelu, lambda x: (scalar_erf(x * 0.7071067811865476) + 1.0) * (x * 0.5)),
    "gelu tanh": (lambda x: F.gelu(x, approximate="tanh"), scalar_gelu_tanh),
    "relu": (F.relu, lambda x: max(x, 0.0)),
}
WIDE = [*np.linspace(-30, 30, 997).tolist(), 0.0, 1e-300, -1e-12, 800.0, -800.0]


@pytest.mark.parametrize("name", FUNCTIONS)
# Shows D3M-132.
def test_functions_are_those_of_the_specification(name):
    function, scalar = FUNCTIONS[name]
    x = torch.tensor(WIDE, dtype=torch.float64)
    with fixed_arithmetic():
        y = function(x)
        assert torch.equal(function(x.view(2, -1).T).T.reshape(-1), y)
    assert y.tolist() == [scalar(value) for value in WIDE]
    bound = 4e-7 if name == "gelu" else 1e-13
    assert ((y - function(x)).abs() <= bound * x.abs().clamp(min=1.0)).all()


def test_exp_is_that_of_the_specification_and_true():
    values = [*np.linspace(-700, 700, 401).tolist(), *np.linspace(-1, 1, 401).tolist(), -1e-17, 0.0]
    y = fixed.exp(torch.tensor(values, dtype=torch.float64)).tolist()
    assert y == [scalar_exp(value) for value in values]
    with localcontext() as context:
        context.prec = 40
        errors = [abs(Decimal(found) / Decimal(value).exp() - 1) for found, value in zip(y, values, strict=True)]
    assert max(errors) < 1e-14
    ends = torch.tensor([-math.inf, -1e308, 1e308, math.inf], dtype=torch.float64)
    assert fixed.exp(ends).tolist() == [y[0], y[0], y[400], y[400]]
    assert fixed.exp(torch.zeros(1, dtype=torch.float64)).item() == 1.0


@given(st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=50))
def test_sqrt_is_that_of_the_specification_and_true(values):
    y = fixed.sqrt(torch.tensor(values, dtype=torch.float64)).tolist()
    assert y == [scalar_sqrt(value) for value in values]
    for found, value in zip(y, values, strict=True):
        exact = Fraction(value)
        below, above = Fraction(math.nextafter(found, 0.0)), Fraction(math.nextafter(found, math.inf))
        assert below * below < exact < above * above  # within one unit in the last place


def test_erf_is_true_to_its_bound():
    values = np.linspace(-6, 6, 2001).tolist()
    y = fixed.erf(torch.tensor(values, dtype=torch.float64)).tolist()
    assert y == [scalar_erf(value) for value in values]
    errors = [abs(found - true_erf(value)) for found, value in zip(y[::20], values[::20], strict=True)]
    assert 1e-8 < max(errors) < 1.5e-7


def true_erf(x):
    """2 / sqrt(pi) times the sum of (-1)^n x^(2n+1) / (n! (2n+1)), in 60 digits."""
    with localcontext() as context:
        context.prec = 60
        z, power, total = Decimal(x), Decimal(x), Decimal(0)
        for n in range(200):
            total += power / (2 * n + 1)
            power = -power * z * z / (n + 1)
        pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
        return float(2 / pi.sqrt() * total)


@settings(max_examples=60)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=70))
def test_sums_follow_the_tree(values):
    x = torch.tensor(values, dtype=torch.float64)
    assert fixed.tree_sum(x).item() == scalar_tree(values)
    many = torch.stack([x, -x, x * 0.5], -1)  # strided, several rows
    assert torch.equal(fixed.tree_sum(many.T), torch.stack([fixed.tree_sum(row) for row in (x, -x, x * 0.5)]))
    exact = sum(map(Fraction, values))
    depth = (len(values) - 1).bit_length()
    assert abs(Fraction(fixed.tree_sum(x).item()) - exact) <= depth * Fraction(2) ** -52 * sum(
        map(abs, map(Fraction, values))
    )


@given(st.integers(1, 300), st.integers(0, 1000))
def test_the_tree_is_exact_on_integers(n, seed):
    values = np.random.default_rng(seed).integers(-(2**40), 2**40, (2, n))
    assert fixed.tree_sum(torch.from_numpy(values).double()).tolist() == values.sum(1).tolist()


@pytest.mark.parametrize("kind", ["group", "layer"])
def test_norms_are_those_of_the_specification(kind):
    x, w, b = random(2, 6, 3, 5, scale=3.0), random(6, seed=1), random(6, seed=2)
    x = x if kind == "group" else x.permute(0, 2, 3, 1)  # not contiguous
    with fixed_arithmetic():
        y = F.group_norm(x, 2, w, b, 1e-6) if kind == "group" else F.layer_norm(x, (6,), w, b, 1e-6)
        bare = F.group_norm(x, 2) if kind == "group" else F.layer_norm(x, (6,))
    library = F.group_norm(x, 2, w, b, 1e-6) if kind == "group" else F.layer_norm(x, (6,), w, b, 1e-6)
    assert (y - library).abs().max() < 1e-13
    assert bare.mean().abs() < 1e-12
    row = (x[1, 3:].flatten() if kind == "group" else x[1, 2, 4]).tolist()
    i = 1.0 / len(row)
    mean = scalar_tree(row) * i
    d = [value - mean for value in row]
    scale = 1.0 / scalar_sqrt(scalar_tree([value * value for value in d]) * i + 1e-6)
    channels = [3 + place // 15 for place in range(45)] if kind == "group" else range(6)
    expected = [value * scale * w[c].item() + b[c].item() for value, c in zip(d, channels, strict=True)]
    assert (y[1, 3:].flatten() if kind == "group" else y[1, 2, 4]).tolist() == expected


if __name__ == "__main__":  # the child of `old_kernels`
    torch.set_num_threads(1)
    generator = Digits()
    torch.save({name: generator.levels([4], context) for name, context in ARITHMETICS.items()}, sys.argv[1])
