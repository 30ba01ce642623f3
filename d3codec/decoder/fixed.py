"""Arithmetic of the profile `exact-fixed`: binary64 whose bits no kernel, batch, thread or machine can change.

Networks run unmodified inside `with fixed_arithmetic():`. Sums whose order a library chooses are made exact, so that
order, blocking and fused multiply-adds cannot matter; all else is single IEEE 754 binary64 operations (+ - * /,
comparisons, integer moves) in the order that stands here. An operator that is not on the list below raises.

**Grids.** round(x, k): the multiple of 2^-k nearest to x, half to even. conv2d and linear round activations to 2^-16,
weights to 2^-20, biases to 2^-36; attention rounds queries, keys, values to 2^-16 and its weights to 2^-24. Sums of
products of such values are exact while every partial sum is below 2^53 units of the products' grid (2^-36; queries
times keys 2^-32; weights times values 2^-40). Results are not rounded again. **Guard** before each call:
    conv2d, linear       max over outputs of (sum |weight|) * max |activation| + max |bias|   < 2^53 units
    queries times keys   max over queries of (sum |query|) * max |key|                        < 2^53 units
    weights times values (2^24 + number of keys) * max |value|                                < 2^53 units
**tree(x)**, the sum of x[0..n-1]: h is the largest power of two below n (1 for n = 1). x[i] + x[i + h] for i < n - h,
x[i] itself for the other i < h; then x[i] + x[i + h/2] for i < h/2, and so on down to one value.
**exp(x)**: x clamped to +-700; k = x * LOG2E rounded to an integer, half to even; r = (x - k * LN2_HIGH) - k * LN2_LOW;
p = c7, then p = p * r + c_i for i = 6 to 0 with c_i = 2^-3i / i! rounded to binary64, product and sum rounded one
after the other; p = p * p three times; p * 2^k. Relative error below 1e-14.
**sqrt(x)**, x > 0: first guess: the bits of x as an integer, halved downwards, plus 511 * 2^52, read as binary64; then
five Heron steps y = (x / y + y) * 0.5.
**Functions.** sigmoid(x) = 1 / (exp(-x) + 1); silu(x) = x / (exp(-x) + 1); tanh(x) = (1 / (exp(x * 2) + 1)) * -2 + 1;
quick_gelu is x * sigmoid(x * 1.702), as the network writes it. gelu(x) = (erf(x * 0.7071067811865476) + 1) * (x * 0.5)
with erf by Abramowitz and Stegun ("Handbook of mathematical functions", 1964) 7.1.26, error 1.5e-7: a = |x|,
t = 1 / (a * 0.3275911 + 1), q = ((((t * a5 + a4) * t + a3) * t + a2) * t + a1) * t, 1 - q * exp(-(a * a)) with the sign
of x. gelu's tanh form is x / (exp((((x * x) * x) * 0.044715 + x) * -1.5957691216057308) + 1).
**Norms** (group_norm, layer_norm) over the n values of a group, in order of channel, row, column: i = 1 / n,
d = x - tree(x) * i, v = tree(d * d) * i, ((d * (1 / sqrt(v + eps))) * weight) + bias. **Attention**:
s = (query . key) * (1 / sqrt(width)), plus a float mask, or -inf where a mask forbids; e = exp(s - max s); weights
round(e * (1 / tree(e)), 24), the tree in the order of the keys; then the sum of weights times values. Division by a
number is a division. Only signs of zeros may differ between machines; no listed operator tells them apart.

No Winograd or FFT kernel may convolve, since their constants leave the grids: torch's CPU kernel for float64 unfolds
and multiplies matrices; on other devices this module does so (that branch has run on a CPU only).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from d3codec.errors import PixelsError, UsageError

ACTIVATION_BITS, WEIGHT_BITS, ATTENTION_BITS = 16, 20, 24
LIMIT = 2.0**53  # of a partial sum, in units of its grid
LOG2E = 1.4426950408889634
LN2_HIGH, LN2_LOW = float.fromhex("0x1.62e42fefa3800p-1"), float.fromhex("0x1.ef35793c76730p-45")
EXP_COEFFICIENTS = tuple(2.0 ** (-3 * i) / math.factorial(i) for i in range(7, -1, -1))
ERF_COEFFICIENTS = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)  # a5 to a1

_TO_INTEGER = 1.5 * 2.0**52  # added to a small number it leaves the nearest integer in the low bits
_BLOCK, _SCORES = 1 << 15, 1 << 20  # values computed at once, so that they stay in a cache; they change no bit
_quantized = WeakTensorKeyDictionary()  # weight -> its state, memory, grid and bound: see _quantize
_HINT = "Use the profile 'exact' for this generator."

# Operators without arithmetic on floats (`to` may convert them), and those with one IEEE operation a value.
_MOVES = frozenset(
    "_set_grad_enabled __bool__ __eq__ __float__ __ge__ __get__ __getitem__ __gt__ __index__ __int__ __le__ __len__ "  # noqa: SIM905
    "__lt__ __ne__ __setitem__ abs argmax as_tensor cat chunk clamp clone concat contiguous cpu detach dim double "
    "embedding eq equal expand flatten full ge gt index_select int is_floating_point item le long lt masked_fill "
    "masked_fill_ max min ne new_ones new_zeros numel numpy ones pad permute relu repeat reshape size split squeeze "
    "stack tensor to tolist transpose tril triu unbind unsqueeze view where zeros".split()
)
_SINGLE = frozenset("__iadd__ __imul__ __isub__ __rsub__ add add_ mul mul_ neg rsub sub sub_".split())  # noqa: SIM905


@contextmanager
def fixed_arithmetic() -> Iterator[None]:
    """Inside, networks in float64 compute as this module says, without gradients.

    Weights are rounded to their grid when first used, and kept as long as they live. A change in place through
    `weight.data` is not noticed, any other is.

    Raises, from the operator that it meets:
        UsageError: an operator that is not on the list, or a floating type other than float64.
        PixelsError: a sum that might not fit in 53 bits, or values that are not finite.
    """
    with torch.no_grad(), _FixedArithmetic():
        yield


class _FixedArithmetic(TorchFunctionMode):
    """The method `do_X` computes torch's operator X."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", str(func)), dict(kwargs or {})
        if name in _MOVES:
            return func(*args, **kwargs)
        own = getattr(self, f"do_{name}", None)
        _need(name, own is not None or name in _SINGLE, "is not on the list of the profile 'exact-fixed'")
        if "input" in kwargs:
            args = (kwargs.pop("input"), *args)
        for value in (*args, *kwargs.values()):
            if isinstance(value, Tensor) and value.is_floating_point():
                _need(name, value.dtype == torch.float64, f"computes in {value.dtype}, not in torch.float64")
        if own is not None:
            return own(*args, **kwargs)
        _need(name, len(args) < 3 and kwargs.get("alpha", 1) == 1, "multiplies and adds, not everywhere in two steps")
        return func(*args, **kwargs)

    def do_linear(self, x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
        return F.linear(*_operands("linear", x, weight, bias))

    def do_conv2d(self, x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
                  dilation: Any = 1, groups: int = 1) -> Tensor:  # fmt: skip
        _need("conv2d", groups == 1 and x.ndim == 4 and not isinstance(padding, str))
        convolve = F.conv2d if x.device.type == "cpu" else unfolded_conv2d
        return convolve(*_operands("conv2d", x, weight, bias), stride, padding, dilation)

    def do_scaled_dot_product_attention(self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None,
                                        dropout_p: float = 0.0, is_causal: bool = False, scale: Any = None,
                                        enable_gqa: bool = False) -> Tensor:  # fmt: skip
        name, keys, root = "scaled_dot_product_attention", key.shape[-2], 1.0 / math.sqrt(query.shape[-1])
        # A caller's root may come from the power function of its C library; the one used is always ours.
        _need(name, not dropout_p and not enable_gqa and (scale is None or abs(scale / root - 1.0) < 1e-9))
        (q, _), (k, largest_key), (v, largest_value) = _units(query), _units(key), _units(value)
        _guard(f"{name}, queries times keys", float(q.abs().sum(-1).max()) * largest_key)
        _guard(f"{name}, weights times values", (2.0**ATTENTION_BITS + keys) * largest_value)
        if is_causal:
            attn_mask = torch.ones(q.shape[-2], keys, dtype=torch.bool, device=q.device).tril()
        parts, rows = [], max(64, _SCORES // (keys * math.prod(q.shape[:-2])))
        for start in range(0, q.shape[-2], rows):
            s = torch.matmul(q[..., start : start + rows, :], k.mT).mul_(root * 2.0 ** (-2 * ACTIVATION_BITS))
            if attn_mask is not None:
                mask = attn_mask if attn_mask.shape[-2] == 1 else attn_mask[..., start : start + rows, :]
                s = s.masked_fill_(~mask, -math.inf) if mask.dtype == torch.bool else s.add_(mask)
            e = _blockwise(exp, s.sub_(s.amax(-1, keepdim=True)))
            e.mul_(_inverse(tree_sum(e)).mul_(2.0**ATTENTION_BITS).unsqueeze(-1)).round_()
            parts.append(torch.matmul(e, v))
        return torch.cat(parts, -2).mul_(2.0 ** -(ATTENTION_BITS + ACTIVATION_BITS))

    def do_group_norm(self, x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
        w, b = (None if v is None else v.view(-1, *[1] * (x.ndim - 2)) for v in (weight, bias))
        return _norm(x, x.reshape(len(x), groups, -1), w, b, eps)

    def do_layer_norm(self, x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
        return _norm(x, x.contiguous().flatten(x.ndim - len(shape)), weight, bias, eps)

    def do_sigmoid(self, x: Tensor) -> Tensor:
        return _blockwise(lambda x: _inverse(exp(-x).add_(1.0)), x)

    def do_silu(self, x: Tensor, inplace: bool = False) -> Tensor:
        return _blockwise(lambda x: x / exp(-x).add_(1.0), x)

    def do_tanh(self, x: Tensor) -> Tensor:
        return _blockwise(lambda x: _inverse(exp(x * 2.0).add_(1.0)).mul_(-2.0).add_(1.0), x)

    def do_gelu(self, x: Tensor, approximate: str = "none") -> Tensor:
        return _blockwise(gelu if approximate == "none" else gelu_tanh, x)

    def do_div(self, x: Tensor, y: Any) -> Tensor:
        """x / y, a number y as a tensor on the device of x, since a GPU multiplies by the reciprocal of a number."""
        _need("div", x.dtype == torch.float64)
        return torch.div(x, y.to(x) if isinstance(y, Tensor) else x.new_full((), y))

    def do_dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        _need("dropout", not training)
        return x

    def do_interpolate(self, x: Tensor, size: Any = None, scale_factor: Any = 1, mode: str = "nearest",
                       **_: Any) -> Tensor:  # fmt: skip
        """Every value repeated a whole number of times: libraries look for places with fractions."""
        _need("interpolate", mode == "nearest" and size is None and scale_factor in range(1, 17))
        n, (b, c, h, w) = int(scale_factor), x.shape
        return x[:, :, :, None, :, None].expand(b, c, h, n, w, n).reshape(b, c, h * n, w * n)

    def do_einsum(self, equation: str, x: Tensor) -> Tensor:
        before, _, after = equation.partition("->")
        _need("einsum", sorted(before) == sorted(set(after)) and len(before) == x.ndim)  # another order, no sums
        return x.permute([before.index(letter) for letter in after])

    def do_arange(self, *bounds: Any, **options: Any) -> Tensor:
        _need("arange", all(isinstance(bound, int) for bound in bounds))
        return torch.arange(*bounds, **options)


def _need(name: str, condition: bool, why: str = "is not on the list of the profile 'exact-fixed' like this") -> None:
    if not condition:
        raise UsageError(f"the operator {name} {why}", field="operator", found=name, hint=_HINT)


def _quantize(weight: Tensor) -> tuple[Tensor, float]:
    """A weight (two or more dimensions) on 2^-20 or a bias (one) on 2^-36, for activations in units of 2^-16, and the
    largest sum of magnitudes of an output's weights, or magnitude of a bias, in units of the grid."""
    # The version counts changes in place. Keeping the source's memory keeps its address from being used again.
    state = (None if weight.is_inference() else weight._version, weight.data_ptr())
    if weight not in _quantized or _quantized[weight][0] != state:
        units = (weight.detach() * 2.0 ** (WEIGHT_BITS + (ACTIVATION_BITS if weight.ndim == 1 else 0))).round_()
        bound = float((units.abs().flatten(1).sum(1) if weight.ndim > 1 else units.abs()).max())
        grid = units.mul_(2.0 ** -(ACTIVATION_BITS + WEIGHT_BITS))
        _quantized[weight] = (state, weight.detach(), grid, bound)
    grid, bound = _quantized[weight][2:]
    return grid, bound


def _units(x: Tensor) -> tuple[Tensor, float]:
    units = (x * 2.0**ACTIVATION_BITS).round_()
    low, high = torch.aminmax(units)  # NaN if there is one
    return units, max(-float(low), float(high))


def _operands(name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    (units, largest), (w, w_bound) = _units(x), _quantize(weight)
    b, b_bound = (None, 0.0) if bias is None else _quantize(bias)
    _guard(f"{name} {'x'.join(map(str, weight.shape))}", w_bound * largest + b_bound)
    return units, w, b


def _guard(sum_of: str, units: float) -> None:
    if not units < LIMIT:  # or NaN
        found = f"{math.log2(units):.1f} bits" if math.isfinite(units) else f"{units}"
        message = "a sum is too large for the profile 'exact-fixed'"
        raise PixelsError(message, field=sum_of, found=found, expected="less than 53 bits", hint=_HINT)


def unfolded_conv2d(x: Tensor, w: Tensor, b: Tensor | None, stride: Any, padding: Any, dilation: Any) -> Tensor:
    """A convolution as one product of matrices, so that no library can choose a Winograd or FFT kernel."""
    stride, padding, dilation = ((v, v) if isinstance(v, int) else tuple(v) for v in (stride, padding, dilation))
    y = torch.matmul(w.flatten(1), F.unfold(x, w.shape[2:], dilation, padding, stride))
    height = (x.shape[2] + 2 * padding[0] - dilation[0] * (w.shape[2] - 1) - 1) // stride[0] + 1
    return (y if b is None else y.add_(b.unsqueeze(-1))).view(len(x), len(w), height, -1)


def tree_sum(x: Tensor) -> Tensor:
    """Sum over the last dimension by the tree of this module: float64 [..., n] -> [...], n >= 1."""
    half = 1 << max((x.shape[-1] - 1).bit_length() - 1, 0)
    sums = x[..., :half].clone(memory_format=torch.contiguous_format)
    sums[..., : x.shape[-1] - half] += x[..., half:]
    while half > 1:
        half //= 2
        sums = sums[..., :half].add_(sums[..., half:])
    return sums[..., 0]


def sqrt(x: Tensor) -> Tensor:
    """Square root of positive float64: the library's is not correctly rounded, nor the same everywhere."""
    y = (x.view(torch.int64) >> 1).add_(511 << 52).view(torch.float64)
    for _ in range(5):
        y = (x / y).add_(y).mul_(0.5)
    return y


def _inverse(x: Tensor) -> Tensor:
    return torch.ones_like(x).div_(x)


def _norm(x: Tensor, rows: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    inverse = 1.0 / rows.shape[-1]
    d = rows - tree_sum(rows).mul_(inverse).unsqueeze(-1)
    root = sqrt(tree_sum(d * d).mul_(inverse).add_(eps))
    y = d.mul_(_inverse(root).unsqueeze(-1)).view(x.shape)
    y = y if weight is None else y.mul_(weight)
    return y if bias is None else y.add_(bias)


def _blockwise(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    size = _BLOCK if x.device.type == "cpu" else 1 << 24
    for start in range(0, x.numel(), size):
        y.view(-1)[start : start + size] = function(x.view(-1)[start : start + size])
    return y


def exp(x: Tensor) -> Tensor:
    r = x.clamp(-700.0, 700.0)
    k = (r * LOG2E).add_(_TO_INTEGER)
    exponent = k.view(torch.int64) << 52
    k.sub_(_TO_INTEGER)
    r.sub_(k * LN2_HIGH).sub_(k.mul_(LN2_LOW))
    p = torch.mul(r, EXP_COEFFICIENTS[0], out=k).add_(EXP_COEFFICIENTS[1])
    for coefficient in EXP_COEFFICIENTS[2:]:
        p.mul_(r).add_(coefficient)
    p.mul_(p).mul_(p).mul_(p)
    p.view(torch.int64).add_(exponent)  # times 2^k
    return p


def erf(x: Tensor) -> Tensor:
    a = x.abs()
    t = _inverse((a * 0.3275911).add_(1.0))
    q = t * ERF_COEFFICIENTS[0]
    for coefficient in ERF_COEFFICIENTS[1:]:
        q.add_(coefficient).mul_(t)
    return q.mul_(exp(a.mul_(a).neg_())).neg_().add_(1.0).copysign_(x)


def gelu(x: Tensor) -> Tensor:
    return erf(x * 0.7071067811865476).add_(1.0).mul_(x * 0.5)


def gelu_tanh(x: Tensor) -> Tensor:
    return x / exp((x * x).mul_(x).mul_(0.044715).add_(x).mul_(-1.5957691216057308)).add_(1.0)
