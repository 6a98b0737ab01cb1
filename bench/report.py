"""What a figure measured: quantities per round, ratios between them, targets, and whether they were met."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from bench import machine

RESULTS = Path(__file__).parent / "results"
PATIENCE_S = 600
"""How long to wait for other programs before a measurement is given up."""
_SAMPLE_S = 0.5

T = TypeVar("T")


class NoisyMachineError(RuntimeError):
    """Other programs kept the machine too busy to measure."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a quantity should be."""

    bound: Literal["at least", "at most"]
    limit: float

    def met(self, value: float) -> bool:
        return value >= self.limit if self.bound == "at least" else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.bound == 'at least' else '≤'} {self.limit:g}"


def at_least(limit: float) -> Target:
    return Target("at least", limit)


def at_most(limit: float) -> Target:
    return Target("at most", limit)


@dataclass(slots=True)
class Quantity:
    """One value per round. What is judged is the median."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    target: Target | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """``None`` where there is no target."""
        return None if self.target is None else self.target.met(self.median)


class Report:
    """The results of one figure, filled as it runs."""

    def __init__(self, figure: str, quiet: float) -> None:
        """``quiet`` is how much of the machine other programs may use while something is measured, 0 to 1."""
        self.figure = figure
        self.quantities: dict[str, Quantity] = {}
        self._quiet = quiet
        self._shares: list[float] = []

    def add(self, name: str, value: float, unit: str, target: Target | None = None) -> None:
        """One more round's value of a quantity."""
        quantity = self.quantities.setdefault(name, Quantity(name, unit, target=target))
        quantity.values.append(value)
        print(f"    {name}: {_short(value)} {unit}", flush=True)

    def ratio(self, name: str, ours: str, peer: str, target: Target | None = None) -> None:
        """``ours`` over ``peer``, round by round."""
        pairs = zip(self.quantities[ours].values, self.quantities[peer].values, strict=True)
        self.quantities[name] = Quantity(name, "x", [a / b for a, b in pairs], target)

    def difference(self, name: str, ours: str, peer: str, target: Target | None = None) -> None:
        """``ours`` less ``peer``, round by round."""
        pairs = zip(self.quantities[ours].values, self.quantities[peer].values, strict=True)
        self.quantities[name] = Quantity(name, self.quantities[ours].unit, [a - b for a, b in pairs], target)

    def quietly(self, measure: Callable[[], T]) -> T:
        """Do one measurement, again and again until other programs left the machine alone meanwhile.

        Raises :class:`NoisyMachineError` where they never do.
        """
        meter = machine.OthersMeter()
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if self._quiet < 1:
                # Cheaper than a measurement, for everybody.
                time.sleep(_SAMPLE_S)
                if meter.share() > self._quiet:
                    continue
            result = measure()
            share = meter.share()
            if share <= self._quiet:
                self._shares.append(share)
                return result
        raise NoisyMachineError(
            f"other programs used more than {100 * self._quiet:g} % of the machine for {PATIENCE_S} s;"
            " try again when they do less, or with a larger --quiet"
        )

    def end_round(self) -> None:
        """Note how much of the machine other programs used during this round's measurements."""
        self.add("used by other programs", 100 * statistics.mean(self._shares), "% of the machine")
        self._shares.clear()

    def table(self) -> str:
        """Plain text: every quantity with its rounds, its median, its target and the verdict."""
        rounds = max(len(quantity.values) for quantity in self.quantities.values())
        header = ["", *(f"round {i + 1}" for i in range(rounds)), "median", "unit", "target", ""]
        rows = [header]
        for quantity in self.quantities.values():
            values = [_short(value) for value in quantity.values] + [""] * (rounds - len(quantity.values))
            verdict = {None: "", True: "met", False: "MISSED"}[quantity.met]
            target = str(quantity.target) if quantity.target else ""
            rows.append([quantity.name, *values, _short(quantity.median), quantity.unit, target, verdict])
        widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join(lines)

    def save(self, settings: dict[str, Any]) -> Path:
        """Write ``bench/results/FIGURE.json``."""
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{self.figure}.json"
        document = {
            "figure": self.figure,
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine.description(),
            "settings": settings,
            "quantities": [
                {
                    "name": quantity.name,
                    "unit": quantity.unit,
                    "rounds": quantity.values,
                    "median": quantity.median,
                    "target": str(quantity.target) if quantity.target else None,
                    "met": quantity.met,
                }
                for quantity in self.quantities.values()
            ],
        }
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        return path


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
