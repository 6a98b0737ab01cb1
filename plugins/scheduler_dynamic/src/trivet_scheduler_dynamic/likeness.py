"""Which requests of different shapes are alike enough to be padded to one.

Padding costs the model time for nothing, so only sizes of one range share a batch: ranges of 8 up to 64, and from there
four for each doubling, so that nobody is padded to more than 1.25 times its size. A power of two ends its range:
a request beyond such a limit of the model fails alone, and not with others that keep to it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from trivet.config.padding import Padding
    from trivet.inference import InferenceRequest

_FINEST = 3
"""Binary logarithm of the smallest range: fewer elements are cheaper to pad than an execution of their own."""
_KEPT = 4096


def padded_key(padding: Padding) -> Callable[[InferenceRequest], Hashable]:
    """The function that gives equal keys for requests whose padded inputs are alike."""
    axes = [(name, axis) for name, axes in padding.axes.items() for axis in axes]
    if len(axes) == 1:
        ((name, axis),) = axes

        def one_size(request: InferenceRequest) -> Hashable:
            tensor = request.inputs.get(name)
            return size_range(tensor.shape[axis]) if tensor is not None else None

        return one_size

    def all_sizes(request: InferenceRequest) -> Hashable:
        inputs = request.inputs
        return likeness(tuple([inputs[name].shape[axis] if name in inputs else -1 for name, axis in axes]))

    return all_sizes


def size_range(size: int) -> int:
    """The number of the range in which a size lies. What has no elements is like nothing that has."""
    if not size:
        return -1
    before = size - 1
    shift = max(_FINEST, before.bit_length() - 3)
    # Four ranges for each shift; those of the smallest begin at 0.
    return (shift - _FINEST) * 4 + (before >> shift)


@lru_cache(_KEPT)
def likeness(sizes: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """The range of each size, and which of them are equal.

    Sizes that are equal in each request stay equal in a padded batch. Where they are not and the model wants them to be
    (a mask shorter than what it masks), the request must fail with its like, and not be made whole by padding.
    """
    return tuple([(size_range(size), sizes.index(size)) for size in sizes])
