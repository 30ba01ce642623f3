"""Portable functions, against the platform's and against what is known of them."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3codec.portable import BITS, ONE, fixed, nearest, power, sine_cosine

ANGLES = st.floats(-1e6, 1e6, allow_nan=False)


def test_known_digits():
    """The first 40 digits of sin 1 and cos 1 (OEIS A049469, A049470) and of 10000^(-1/3)."""
    sine, cosine = sine_cosine(ONE)
    assert str(Decimal(sine) / ONE)[:30] == "0.8414709848078965066525023216"
    assert str(Decimal(cosine) / ONE)[:30] == "0.5403023058681397174009366074"
    with localcontext(prec=60):
        assert abs((Decimal(power(10_000, Fraction(-1, 3))) / ONE) ** 3 * 10_000 - 1) < Decimal(10) ** -50


def test_exact_cases():
    assert sine_cosine(0) == (0, ONE)
    assert power(10_000, Fraction(0)) == ONE
    assert nearest(power(10_000, Fraction(-1, 2))) == 0.01
    assert nearest(power(2, Fraction(10))) == 1024.0
    assert fixed(0.1) == int(0.1 * 2**60) << (BITS - 60)
    assert fixed(Fraction(1, 3)) == ONE // 3


@given(ANGLES)
def test_sines_and_cosines_are_those_of_the_platform_but_for_its_last_bit(angle):
    for ours, theirs in zip(sine_cosine(fixed(angle)), (math.sin(angle), math.cos(angle)), strict=True):
        assert abs(nearest(ours) - theirs) <= math.ulp(theirs) + 2.0**-150  # fixed numbers end there


@given(ANGLES, ANGLES)
def test_addition_theorem(one, other):
    """Far below the last bit of binary64, where no library could help."""
    (a, b), (c, d) = sine_cosine(fixed(one)), sine_cosine(fixed(other))
    sine, cosine = sine_cosine(fixed(one) + fixed(other))
    assert abs(sine - ((a * d + b * c) >> BITS)) < ONE >> 150
    assert abs(cosine - ((b * d - a * c) >> BITS)) < ONE >> 150


@given(st.integers(1, 10**6), st.fractions(-20, 3, max_denominator=1000))
def test_powers_are_those_of_the_platform(base, exponent):
    theirs = math.exp(float(exponent) * math.log(base))
    assert nearest(power(base, exponent)) == pytest.approx(theirs, rel=1e-13, abs=1e-55)


@given(st.integers(-(2**400), 2**400))
def test_rounding_is_to_the_nearest(number):
    value = Fraction(nearest(number)) * ONE
    ulp = Fraction(math.ulp(nearest(number))) * ONE
    assert abs(value - number) * 2 <= ulp
