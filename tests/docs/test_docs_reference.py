"""The generated parts of the reference are those that the code would generate now, and the generators are complete."""

from __future__ import annotations

import check_links
import generate_reference as reference
import pytest
from trivet.cli.parameters import ALIASES
from trivet.cli.tritonserver import NOT_YET
from trivet.server_options import ALL_OPTIONS


def test_pages_are_up_to_date() -> None:
    assert reference.stale() == [], "run: python tools/generate_reference.py"


def test_every_part_is_on_a_page() -> None:
    pages = "".join(page.read_text() for page in reference.pages())
    assert [name for name in reference.PARTS if f"<!-- generated: {name}" not in pages] == []


@pytest.mark.parametrize(
    ("family", "package"),
    [(family, plugin.package) for plugin in reference.own_registry().plugins for family, _ in plugin.offers],
)
def test_a_package_lists_the_configuration_fields_that_it_implements_and_those_that_it_does_not(
    family: str, package: str
) -> None:
    """Backends, whose models have fields that others' have not, and whoever else implements one."""
    (plugin,) = (plugin for plugin in reference.own_registry().plugins if plugin.package == package)
    page = reference.ROOT / "plugins" / package.removeprefix("trivet-").replace("-", "_") / "README.md"
    for own, offer in plugin.offers:
        if own == family and (own in {"backend", "scheduler"} or getattr(offer, "config_fields", ())):
            assert f"<!-- generated: config-fields-of {offer.name} -->" in page.read_text()


def test_every_option_of_tritonserver_is_offered_or_refused_by_name() -> None:
    """Also by a kernel without any plugin, which then names the package to install."""
    known = {option.name for option in ALL_OPTIONS} | NOT_YET.keys() | ALIASES.keys() | {"help"}
    assert [name for name in reference.TRITON_OPTIONS if name not in known] == []


def test_links_lead_somewhere() -> None:
    assert list(check_links.problems(check_links.ROOT, check_links.tracked(check_links.ROOT))) == []
