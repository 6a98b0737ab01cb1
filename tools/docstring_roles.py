"""A griffe extension for the site: the repository's docstrings are prose with reStructuredText roles, not Markdown.

``:class:`~trivet.backend.Backend``` becomes the name as code, linked where the site describes it; ``text::`` before an
indented block becomes ``text:``.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import griffe

_ROLE = re.compile(r":(class|meth|func|data|mod|attr):`(~?)([\w.]+)`")


class DocstringRoles(griffe.Extension):
    """Rewrites every docstring before it is rendered."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each module, class, function and attribute, once it is complete."""
        if obj.docstring is not None:
            text = _ROLE.sub(partial(_link, obj), obj.docstring.value)
            obj.docstring.value = re.sub(r"::$", ":", text, flags=re.MULTILINE)


def _link(obj: griffe.Object, role: re.Match[str]) -> str:
    kind, short, target = role.groups()
    shown = target.rpartition(".")[2] if short else target
    if "." not in target:
        # One that stands beside the object, or in the class that the object is.
        member = kind in {"meth", "attr"}
        scope = obj if member and obj.is_class else obj.parent if member else obj.module
        target = f"{scope.path}.{target}" if scope is not None else target
    return f'<autoref optional identifier="{target}"><code>{shown}</code></autoref>'
