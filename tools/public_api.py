"""Write down the public interface of the kernel, so that it does not change by accident.

``kernel/api.txt`` has a line for each public name with its signature or type. Public are the modules on the page
"Contracts for plugins" and "Hooks", and in them what is defined there and does not begin with an underscore.
``python tools/public_api.py`` writes the file; a test fails while it differs from the code. What a plugin can see of a
change: a line that goes or changes breaks plugins, which needs another :data:`trivet.hookspecs.API_VERSION`; a new line
does not, unless it is an abstract method.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import griffe

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "kernel" / "api.txt"
PAGES = ("contracts.md", "hooks.md")


def public_modules() -> list[str]:
    """The modules that the reference documents for plugins, in its order."""
    pages = (ROOT / "docs" / "reference" / page for page in PAGES)
    found = [name for page in pages for name in re.findall(r"^::: (trivet[\w.]*)$", page.read_text(), re.MULTILINE)]
    return list(dict.fromkeys(found))


def lines() -> Iterator[str]:
    """The interface as it is in the code."""
    package = griffe.load("trivet", search_paths=[ROOT / "kernel" / "src"], submodules=True)
    for name in public_modules():
        module = package[name.removeprefix("trivet.")]
        yield from _members(module)


def _members(of: griffe.Object | griffe.Alias) -> Iterator[str]:
    for name, member in of.members.items():
        if (name.startswith("_") and name != "__init__") or member.is_alias or member.is_module:
            continue
        if isinstance(member, griffe.Class):
            bases = ", ".join(str(base) for base in member.bases)
            yield f"class {member.path}({bases})"
            yield from _members(member)
        elif isinstance(member, griffe.Function):
            kind = "async def" if "async" in member.labels else "def"
            yield f"{kind} {member.path}{_signature(member)}{_labels(member)}"
        elif isinstance(member, griffe.Attribute):
            yield f"{member.path}: {member.annotation or ''}{_labels(member)}".rstrip(": ")


def _signature(function: griffe.Function) -> str:
    signature = function.signature().removeprefix(function.name)
    return " ".join(signature.split())


def _labels(member: griffe.Object) -> str:
    shown = sorted(member.labels & {"property", "abstractmethod", "classmethod", "staticmethod"})
    return f"  [{', '.join(shown)}]" if shown else ""


def text() -> str:
    """The content that the file should have."""
    return "\n".join(lines()) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
