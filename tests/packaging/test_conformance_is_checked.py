"""Every plugin here passes the conformance kit of its family."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from generate_reference import own_registry

ROOT = Path(__file__).parents[2]


def test_every_offer_is_held_to_the_kit_of_its_family() -> None:
    registry = own_registry()
    offered = {
        "backend": registry.backends,
        "scheduler": registry.schedulers,
        "protocol": registry.protocols,
        "exporter": registry.exporters,
        "memory": registry.memory_providers,
        "cache": registry.caches,
    }
    held: dict[str, set[str]] = defaultdict(set)
    for file in ROOT.glob("plugins/*/tests/test_*_conformance.py"):
        for family, name in re.findall(rf'^ +({"|".join(offered)}) = "(\w+)"$', file.read_text(), re.MULTILINE):
            held[family].add(name)
    assert held == {family: set(offers) for family, offers in offered.items()}
