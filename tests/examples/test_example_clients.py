"""The scripts and commands that the documentation tells people to run, run as they would run them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(600)  # the first test downloads and exports what is not cached

CLIENTS = Path(__file__).resolve().parents[2] / "examples" / "clients"
Sample = Callable[[str], Path]
Run = Callable[..., list[str]]


@pytest.fixture
def run(example_server: Any) -> Run:
    """Runs a client script against the example server; gives the lines that it prints."""
    return lambda script, *arguments: printed(CLIENTS / script, *arguments, "--url", example_server.http_url)


@pytest.fixture
def trivet_infer(example_server: Any) -> Run:
    """Runs ``trivet infer`` against the example server; gives the lines that it prints."""
    return lambda *arguments: printed("-m", "trivet", "infer", *arguments, "--url", example_server.http_url)


def printed(*arguments: str | Path) -> list[str]:
    result = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return [line.strip() for line in result.stdout.splitlines()]


def test_read_text_line(run: Run, sample: Sample) -> None:
    assert run("read_text_line.py", sample("text_line.png")) == ["Trivet serves models"]


def test_read_page(run: Run, sample: Sample) -> None:
    lines = run("read_page.py", sample("text_page.png"))
    assert lines == ["A page of drawn text", "over KServe v2", "on 2 cores, with no GPU"]


def test_read_page_turns_lines_that_are_upside_down(run: Run, sample: Sample) -> None:
    assert run("read_page.py", sample("text_line_upside_down.png")) == ["Trivet serves models"]


def test_identify_file(run: Run, sample: Sample) -> None:
    photograph, script = sample("china.jpg"), CLIENTS / "identify_file.py"
    lines = run("identify_file.py", photograph, script)
    assert [line.rsplit(" (", 1)[0] for line in lines] == [f"{photograph}: jpeg", f"{script}: python"]


def test_detect_speech(run: Run, sample: Sample) -> None:
    (line,) = run("detect_speech.py", sample("Front_Center.wav"))
    assert line.count(" s to ") == 2
    assert run("detect_speech.py", sample("Noise.wav")) == ["nobody speaks"]


def test_hear_speech(run: Run, sample: Sample) -> None:
    for name in ("Front_Center.wav", "Noise.wav"):
        assert run("hear_speech.py", sample(name)) == run("detect_speech.py", sample(name))


def test_classify_image(needs_export: None, run: Run, sample: Sample) -> None:
    lines = run("classify_image.py", sample("flower.jpg"))
    assert len(lines) == 5
    assert lines[0].endswith("daisy")


def test_embed_sentences(needs_export: None, run: Run) -> None:
    lines = run("embed_sentences.py", "That is a happy person", "That is a happy dog", "Today is a sunny day")
    assert lines == ["1.00  That is a happy person", "0.69  That is a happy dog", "0.26  Today is a sunny day"]


def test_trivet_infer_reads_a_text_line(trivet_infer: Run, sample: Sample) -> None:
    assert "Trivet serves models" in trivet_infer("text_reader", "-i", sample("text_line.png"))


def test_trivet_infer_tells_the_type_of_a_file(trivet_infer: Run, sample: Sample) -> None:
    assert "jpeg" in trivet_infer("file_identifier", "-i", sample("china.jpg"))


def test_trivet_infer_classifies_an_image(needs_export: None, trivet_infer: Run, sample: Sample) -> None:
    options = ("--scaling", "inception", "--resize", "crop", "--classes", "3")
    lines = trivet_infer("image_classification", "-i", sample("china.jpg"), *options)
    assert "palace" in lines[1]
