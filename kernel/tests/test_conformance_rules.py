"""What the kits demand of the plugins of every family."""

from __future__ import annotations

from pathlib import Path

import pytest
from trivet.plugins import InstalledPlugin
from trivet.testing.conformance.rules import imported_by_entry_point


def test_an_entry_point_that_imports_a_framework_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whether or not the offer says in ``requires`` what the framework is."""
    metadata = tmp_path / "own_package-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: own-package\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[trivet]\nown = own_package.plugin\n")
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "plugin.py").write_text("import json, trivet.hookspecs, own_package, heavy.core\n")
    (tmp_path / "heavy").mkdir()
    (tmp_path / "heavy" / "core.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert imported_by_entry_point(InstalledPlugin("own", "own-package", "1")) == ["heavy"]
