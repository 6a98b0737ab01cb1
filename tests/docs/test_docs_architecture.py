"""The map of the kernel shows all of it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_module_of_the_kernel_is_listed() -> None:
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## Modules of the kernel$(.*?)^## ", page, re.DOTALL | re.MULTILINE)
    shown = [
        name
        for line in section.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line[: line.index("|", 1)])
    ]
    modules = [path.stem for path in (ROOT / "kernel" / "src" / "trivet").iterdir() if path.suffix in ("", ".py")]
    assert sorted(shown) == sorted(name for name in modules if not name.startswith("__"))
