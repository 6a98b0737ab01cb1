"""How long to measure, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.report import Report

T = TypeVar("T")

TRIES = 5
"""How many rounds may be begun for each one that is to count."""


class NoisyMachineError(RuntimeError):
    """Other programs kept the machine too busy to measure."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says."""

    rounds: int
    seconds: float
    """Length of one measurement."""
    cycles: int
    """Loads and unloads of the figure ``churn``."""
    quiet: float = 1.0
    """What other programs may use of the machine, 0 to 1, for a round to count."""


def rounds(settings: Settings, report: Report, contenders: Sequence[T]) -> Iterator[Sequence[T]]:
    """The contenders of each round, to be measured one after the other.

    All of them run in every round, and every other round backwards: what changes on the machine over time, and what
    one measurement leaves behind for the next, then falls on all alike. A round in which other programs used more of
    the machine than :attr:`Settings.quiet` does not count and is repeated; :class:`NoisyMachineError` is raised where
    that is so most of the time.
    """
    done = 0
    for attempt in range(TRIES * settings.rounds):
        print(f"  round {done + 1} of {settings.rounds}", flush=True)
        report.begin_round()
        yield contenders if attempt % 2 == 0 else contenders[::-1]
        if report.end_round(settings.quiet):
            done += 1
            if done == settings.rounds:
                return
        else:
            print("  other programs were too busy: this round does not count", flush=True)
    raise NoisyMachineError(
        f"{done} of {TRIES * settings.rounds} rounds were quiet enough (--quiet {100 * settings.quiet:g}), and"
        f" {settings.rounds} were asked for; try again when other programs do less"
    )
