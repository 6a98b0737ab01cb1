"""Which profile executes: one that takes the sizes, and of those the one whose optimum is nearest."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trivet.errors import InvalidArgumentError
from trivet_backend_trt.profiles import Bounds, Profile, choose, select

SIZE = st.integers(0, 12)


@st.composite
def bounds(draw: Callable[..., int]) -> Bounds:
    sizes = [sorted(draw(SIZE) for _ in range(3)) for _ in range(2)]
    low, best, high = zip(*sizes, strict=True)
    return Bounds(low, best, high)


@st.composite
def profiles(draw: Callable[..., int]) -> list[Profile]:
    return [Profile(index, {"x": draw(bounds())}, {"s": draw(bounds())}) for index in range(draw(st.integers(1, 4)))]


def takes(bound: Bounds, given: tuple[int, ...]) -> bool:
    return all(low <= size <= high for low, size, high in zip(bound.minimum, given, bound.maximum, strict=True))


@given(profiles(), st.tuples(SIZE, SIZE), st.tuples(SIZE, SIZE))
def test_the_nearest_that_takes_the_sizes(every: list[Profile], x: tuple[int, int], s: tuple[int, int]) -> None:
    fitting = [profile for profile in every if takes(profile.shapes["x"], x) and takes(profile.values["s"], s)]
    if not fitting:
        with pytest.raises(InvalidArgumentError, match="model 'm'"):
            choose(every, {"x": x}, {"s": s}, "m")
        return
    chosen = choose(every, {"x": x}, {"s": s}, "m")
    assert chosen in fitting
    away = [
        sum(abs(a - b) for a, b in zip((*x, *s), (*p.shapes["x"].optimum, *p.values["s"].optimum), strict=True))
        for p in fitting
    ]
    assert chosen is fitting[away.index(min(away))]  # the first of those that are equally near


def profile(index: int, most: int) -> Profile:
    return Profile(index, {"x": Bounds((1, 4), (2, 4), (most, 4))}, {})


@pytest.mark.parametrize(("shape", "reason"), [
    ((9, 4), "model expected the shape of dimension 0 to be between 1 and 8 but received 9"),
    ((0, 4), "model expected the shape of dimension 0 to be between 1 and 8 but received 0"),
    ((2, 5), "model expected the shape of dimension 1 to be between 4 and 4 but received 5"),
    ((2,), "model expected 2 dimensions but received 1 dimensions"),
])  # fmt: skip
def test_a_request_that_does_not_fit_is_told_in_tritons_words(shape: tuple[int, ...], reason: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        choose([profile(0, 8)], {"x": shape}, {}, "m")
    assert str(caught.value) == (f"request specifies invalid shape for model 'm'. Error details: input 'x': {reason}")


def test_an_instance_group_names_profiles_by_number() -> None:
    every = [profile(0, 8), profile(1, 16), profile(2, 32)]
    assert select(every, [], "m") == every[:1]
    assert select(every, ["2", "0", "2"], "m") == [every[2], every[0]]
    for wrong in ("3", "-1", "large", ""):
        with pytest.raises(InvalidArgumentError, match=rf"invalid profile '{wrong}'. Number of profiles.*: 3"):
            select(every, [wrong], "m")


def test_the_batch_is_limited_by_the_input_that_takes_least() -> None:
    limited = Profile(0, {"x": Bounds((1,), (2,), (8,)), "y": Bounds((1,), (2,), (4,))}, {})
    assert limited.max_batch_size() == 4
    assert Profile(0, {}, {}).max_batch_size() is None
