"""How long to measure, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.report import Report

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says."""

    rounds: int
    seconds: float
    """Length of one measurement."""
    cycles: int
    """Loads and unloads of the figure ``churn``."""
    quiet: float
    """How much of the machine other programs may use during a measurement, 0 to 1, for it to count."""
    models: tuple[str, ...]
    """Which of the figure ``backends``; none: all."""


def rounds(settings: Settings, report: Report, contenders: Sequence[T]) -> Iterator[Sequence[T]]:
    """The contenders of each round, to be measured one after the other.

    All of them run in every round, and every other round backwards: what changes on the machine over time, and what
    one measurement leaves behind for the next, then falls on all alike.
    """
    for number in range(settings.rounds):
        print(f"  round {number + 1} of {settings.rounds}", flush=True)
        yield contenders if number % 2 == 0 else contenders[::-1]
        report.end_round()
