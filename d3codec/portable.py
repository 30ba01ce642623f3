"""Powers, sines and cosines that are the same on every machine: big integers and decimals, no library of the platform.

`math.exp`, `math.sin` and their kin differ by machine in the last bit (glibc alone has several versions of each), so
tables of the format come from here. Numbers are *fixed*: integers in units of 2^-192. Their error stays below 2^-150,
so a result rounded to binary64 is, but for a chance of about 2^-90, the binary64 nearest to the exact value.
"""

from __future__ import annotations

from decimal import Context, Decimal
from fractions import Fraction
from functools import cache

BITS = 192
ONE = 1 << BITS
_CONTEXT = Context(prec=70, Emin=-999_999, Emax=999_999)  # the decimal module rounds exp and ln correctly
_HALVINGS = 12


def fixed(value: Fraction | Decimal | float) -> int:
    """The number in units of 2^-192, rounded down; exact for every binary64 that is a multiple of them."""
    numerator, denominator = value.as_integer_ratio()
    return (numerator << BITS) // denominator


def nearest(number: int) -> float:
    """The binary64 nearest to a fixed number (Python divides integers with one correct rounding)."""
    return number / ONE


@cache
def power(base: int, exponent: Fraction) -> int:
    """base ** exponent as a fixed number; base is 1 or more."""
    logarithm = _CONTEXT.ln(Decimal(base))
    scaled = _CONTEXT.divide(_CONTEXT.multiply(logarithm, Decimal(exponent.numerator)), Decimal(exponent.denominator))
    return fixed(_CONTEXT.exp(scaled))


def sine_cosine(angle: int) -> tuple[int, int]:
    """Sine and cosine of a fixed number of radians, both fixed."""
    part = (angle % _turn()) >> _HALVINGS  # below 2 pi / 4096
    square = part * part >> BITS
    sine = term = part
    cosine = ONE
    other = ONE
    for k in range(1, 10):  # the first term left out is below 2^-190
        other = -(other * square >> BITS) // ((2 * k - 1) * (2 * k))
        term = -(term * square >> BITS) // ((2 * k) * (2 * k + 1))
        cosine += other
        sine += term
    for _ in range(_HALVINGS):  # the double angle
        sine, cosine = sine * cosine >> (BITS - 1), ONE - (sine * sine >> (BITS - 1))
    return sine, cosine


@cache
def _turn() -> int:
    """2 pi by Machin's formula, pi = 16 arctan(1/5) - 4 arctan(1/239), with 64 bits to spare."""
    unit = 1 << (BITS + 64)
    return 2 * (16 * _arctangent_of_inverse(5, unit) - 4 * _arctangent_of_inverse(239, unit)) >> 64


def _arctangent_of_inverse(number: int, unit: int) -> int:
    total = term = unit // number
    odd = 1
    while term:
        term //= -(number * number)
        odd += 2
        total += term // odd
    return total
