"""The generated parts of the reference are those that the code would generate now, and the generators are complete."""

from __future__ import annotations

import check_links
import generate_reference as reference
from trivet.cli.parameters import ALIASES
from trivet.cli.tritonserver import NOT_YET
from trivet.server_options import ALL_OPTIONS


def test_pages_are_up_to_date() -> None:
    assert reference.stale() == [], "run: python tools/generate_reference.py"


def test_every_part_is_on_a_page() -> None:
    pages = "".join(page.read_text() for page in reference.REFERENCE.glob("*.md"))
    assert [name for name in reference.PARTS if f"<!-- generated: {name} -->" not in pages] == []


def test_every_option_of_tritonserver_is_offered_or_refused_by_name() -> None:
    offered = {option.name for option in (*ALL_OPTIONS, *reference.own_registry().options())}
    known = offered | NOT_YET.keys() | ALIASES.keys() | {"help"}
    assert [name for name in reference.TRITON_OPTIONS if name not in known] == []


def test_links_lead_somewhere() -> None:
    assert list(check_links.problems(check_links.ROOT, check_links.tracked(check_links.ROOT))) == []
