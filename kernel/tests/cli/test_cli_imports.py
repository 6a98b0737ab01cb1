"""The command line starts fast because it imports little: checked by what was imported, not by the clock."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "anyio",
    "asyncio",
    "google.protobuf",
    "http.client",
    "numpy",
    "rich",
    "trivet.engine",
    "trivet.tensor",
    "yaml",
}


def imported_by(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint('MODULES', *sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return set(result.stdout.rpartition("MODULES ")[2].split())


def test_trivet_imports_nothing_heavy() -> None:
    modules = imported_by("import trivet")
    assert not modules & (HEAVY | {"click"})


@pytest.mark.parametrize("args", [["--help"], ["serve", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    modules = imported_by(
        f"import trivet.cli\ntry:\n    trivet.cli.cli({args!r})\nexcept SystemExit as exit:\n    assert exit.code == 0"
    )
    assert not modules & HEAVY
