"""What plugins are written against changes on purpose only."""

from __future__ import annotations

import difflib
import importlib
import re
from pathlib import Path

import public_api
import pytest


def test_the_public_interface_is_the_one_that_is_written_down() -> None:
    written = public_api.FILE.read_text().splitlines()
    changes = list(
        difflib.unified_diff(written, list(public_api.lines()), "kernel/api.txt", "the code", lineterm="", n=0)
    )
    assert changes == [], "\n".join(["see 'Changing the public interface' in CONTRIBUTING.md", *changes])


def test_it_has_what_a_backend_needs() -> None:
    written = public_api.FILE.read_text()
    assert "class trivet.backend.Backend(ABC)" in written
    assert "def trivet.backend.Backend.load(context: ModelContext) -> BackendModel  [abstractmethod]" in written
    assert "trivet.hookspecs.API_VERSION" in written
    assert "._" not in written.replace("__init__", "")


OUTSIDERS = [
    *public_api.ROOT.glob("examples/trivet-backend-*/**/*.py"),
    *public_api.ROOT.glob("plugins/new/src/trivet_new/templates/**/*.jinja"),
]


@pytest.mark.parametrize("file", OUTSIDERS, ids=lambda file: "/".join(file.parts[-2:]))
def test_packages_of_outsiders_use_what_is_public_alone(file: Path) -> None:
    """The examples of packages by others, and what ``trivet new`` writes."""
    public = public_api.public_modules()
    source = re.sub(r"\{[{%].*?[%}]\}", "x", file.read_text())
    for module, names in re.findall(r"^from (trivet(?:\.\w+)*) import (\w.*|\([^)]*\))$", source, re.MULTILINE):
        exported = getattr(importlib.import_module(module), "__all__", ()) if module not in public else ()
        for name in re.findall(r"\w+", names):
            assert module in public or name in exported, f"{module}.{name} is not public"
