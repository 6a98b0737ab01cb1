"""The site can be built: navigation, links, anchors and what is made from docstrings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import package_pages

ROOT = Path(__file__).resolve().parents[2]


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    contracts = (tmp_path / "site" / "reference" / "contracts" / "index.html").read_text()
    assert "trivet.backend.ArrayInstance.execute" in contracts
    assert ":class:" not in contracts


def test_the_first_page_leads_to_every_other() -> None:
    docs = ROOT / "docs"
    linked = set(re.findall(r"\]\(([\w./-]+\.md)\)", (docs / "index.md").read_text()))
    pages = {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")}
    assert (pages | {f"../{readme}" for readme in package_pages.readmes()}) - linked == {"index.md"}


def test_the_readme_names_every_package() -> None:
    readme = (ROOT / "README.md").read_text()
    packages = [project.parent.relative_to(ROOT).as_posix() for project in ROOT.glob("plugins/*/pyproject.toml")]
    assert [package for package in ("kernel", *packages) if f"({package}/README.md)" not in readme] == []


def test_how_to_install_names_every_extra_of_the_bundle() -> None:
    page = (ROOT / "docs" / "how-to" / "install.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras.keys() - {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == set()
