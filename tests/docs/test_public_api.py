"""What plugins are written against changes on purpose only."""

from __future__ import annotations

import difflib

import public_api


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
