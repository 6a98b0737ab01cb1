"""Check that every relative link and anchor in the repository's Markdown leads somewhere. Needs no network.

``make lint`` runs it. A link must lead to a file that git knows or would add, so that it works for everybody, and an
anchor to a heading or an HTML ``id``. Addresses with a scheme (``https:``, ``mailto:``) are not looked at.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[1]

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_HTML_ID = re.compile(r"""<\w+[^>]*\s(?:id|name)=["']([^"']+)["']""")
_NOT_IN_SLUG = re.compile(r"[^\w\- ]")


@dataclass(frozen=True, slots=True)
class Link:
    """A link or image as it is written. ``line`` counts from 1 and is that of the paragraph."""

    target: str
    line: int


@dataclass(frozen=True, slots=True)
class Document:
    """What a Markdown file links to, and what can be linked to in it."""

    links: tuple[Link, ...]
    anchors: frozenset[str]


def parse(text: str) -> Document:
    """Links, images and anchors of a Markdown text."""
    links: list[Link] = []
    anchors: list[str] = []
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for index, token in enumerate(tokens):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "heading_open":
            anchors.append(_unique(slug(_plain(tokens[index + 1])), anchors))
        for part in (token, *(token.children or ())):
            if part.type in {"link_open", "image"}:
                links.append(Link(str(part.attrGet("href") or part.attrGet("src") or ""), line))
            elif part.type in {"html_block", "html_inline"}:
                anchors += _HTML_ID.findall(part.content)
    return Document(tuple(links), frozenset(anchors))


def slug(heading: str) -> str:
    """The anchor that GitHub gives to a heading; the site's are set to be the same in ``mkdocs.yml``."""
    return _NOT_IN_SLUG.sub("", heading.strip().lower()).replace(" ", "-")


def problems(root: Path, files: frozenset[str]) -> Iterator[str]:
    """One line for each link that leads nowhere. ``files`` are paths below ``root``, with ``/``."""
    folders = {str(parent) for file in files for parent in Path(file).parents}

    @cache
    def document(name: str) -> Document:
        return parse((root / name).read_text(encoding="utf-8"))

    for source in sorted(name for name in files if name.endswith(".md")):
        for link in document(source).links:
            problem = _problem(root, source, link.target, files, folders, document)
            if problem:
                yield f"{source}:{link.line}: {link.target}: {problem}"


def _problem(
    root: Path,
    source: str,
    target: str,
    files: frozenset[str],
    folders: set[str],
    document: Callable[[str], Document],
) -> str:
    """Why a link leads nowhere; "" where it leads somewhere."""
    if _SCHEME.match(target):
        return ""
    path, _, anchor = target.partition("#")
    if path.startswith("/"):
        return "absolute paths mean another place on every site; write it relative to this file"
    place = (root / source).parent.joinpath(unquote(path)).resolve() if path else root / source
    if not place.is_relative_to(root):
        return "leads out of the repository"
    name = place.relative_to(root).as_posix()
    if name not in files and name not in folders:
        return "no such file" if not place.exists() else "git ignores this file, so others do not have it"
    if not anchor:
        return ""
    if not name.endswith(".md"):
        return "only Markdown files have anchors"
    if unquote(anchor) not in document(name).anchors:
        return f"{name} has no such heading"
    return ""


def _plain(inline: Token) -> str:
    """A heading's text without its markup."""
    return "".join(part.content for part in inline.children or () if part.type in {"text", "code_inline"})


def _unique(anchor: str, taken: list[str]) -> str:
    if anchor not in taken:
        return anchor
    number = 1
    while f"{anchor}-{number}" in taken:
        number += 1
    return f"{anchor}-{number}"


def tracked(root: Path) -> frozenset[str]:
    """Every file that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],  # noqa: S607 - git is on the path
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return frozenset(name for name in listed.split("\0") if name and (root / name).is_file())


def main() -> int:
    """Print every problem; the exit status says whether there is one."""
    found = list(problems(ROOT, tracked(ROOT)))
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
