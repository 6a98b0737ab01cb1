"""The link checker finds what is broken, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from check_links import parse, problems, slug


def check(root: Path, text: str) -> list[str]:
    """Problems of a file beside ``guide/other.md`` with the headings "One" (twice) and "`a_b` c, d!"."""
    (root / "guide").mkdir()
    (root / "guide" / "other.md").write_text('# One\n\n# One\n\n## `a_b` c, d!\n\n<a id="here"></a>\n')
    (root / "page.md").write_text(text)
    (root / "ignored.md").write_text("# Not in git\n")
    return [line.partition(": ")[2] for line in problems(root, frozenset({"page.md", "guide/other.md"}))]


@pytest.mark.parametrize(
    "target",
    ["guide/other.md", "guide", "./guide/../guide/other.md", "guide/other.md#one", "guide/other.md#one-1",
     "guide/other.md#a_b-c-d", "guide/other.md#here", "https://example.org/x#y", "mailto:a@example.org", "#title"],
)  # fmt: skip
def test_good_links(tmp_path: Path, target: str) -> None:
    assert check(tmp_path, f"# Title\n\nA [link]({target}), and ![an image]({target}).\n") == []


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("gone.md", "no such file"),
        ("Guide/other.md", "no such file"),
        ("ignored.md", "git ignores this file, so others do not have it"),
        ("guide/other.md#two", "guide/other.md has no such heading"),
        ("#other", "page.md has no such heading"),
        ("guide#one", "only Markdown files have anchors"),
        ("/guide/other.md", "absolute paths mean another place on every site; write it relative to this file"),
        ("../outside.md", "leads out of the repository"),
    ],
)
def test_broken_links(tmp_path: Path, target: str, problem: str) -> None:
    assert check(tmp_path, f"# Title\n\n| a |\n| --- |\n| [link]({target}) |\n") == [f"{target}: {problem}"]


def test_links_in_code_are_not_links() -> None:
    assert parse("`[a](b.md)`\n\n```text\n[a](b.md)\n```\n").links == ()


def test_slugs_are_those_of_github() -> None:
    assert slug("`--grpc-server`: what, and why?") == "--grpc-server-what-and-why"
