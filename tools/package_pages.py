"""Put the READMEs of the packages on the site, and let links between them and the pages of ``docs/`` lead there.

A hook of MkDocs, which knows ``docs/`` alone. A README is where a package's users look first, on an index and beside
its code; on the site it is the package's page. Links are written as they work in the repository.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|#", re.IGNORECASE)


def readmes() -> dict[str, str]:
    """The page of each README, both as paths: the one below ``docs/``, the other below the repository."""
    found = [
        ROOT / "kernel", *ROOT.glob("plugins/*/"), ROOT / "examples", *ROOT.glob("examples/trivet-*/"), ROOT / "deploy"
    ]  # fmt: skip
    return {
        (folder / "README.md").relative_to(ROOT).as_posix(): f"packages/{folder.name}.md"
        for folder in sorted(found)
        if (folder / "README.md").is_file()
    }


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each README."""
    for readme, page in readmes().items():
        files.append(File.generated(config, page, content=(ROOT / readme).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Write the links of a page as they are right on the site."""
    pages = readmes()
    sources = {target: source for source, target in pages.items()}
    here = page.file.src_uri
    folder = PurePosixPath(sources.get(here, f"docs/{here}")).parent

    def on_site(link: re.Match[str]) -> str:
        text, target = link.groups()
        if _ELSEWHERE.match(target):
            return link[0]
        path, anchor = re.fullmatch(r"([^#]*)(.*)", target).groups()  # type: ignore[union-attr]  # it matches anything
        place = os.path.normpath(folder / path)
        found = pages.get(place) or (place.removeprefix("docs/") if place.startswith("docs/") else "")
        # What else is in the repository is not on the site.
        return f"[{text}]({os.path.relpath(found, PurePosixPath(here).parent)}{anchor})" if found else text

    return _LINK.sub(on_site, markdown)
