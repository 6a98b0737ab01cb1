"""A language model on the server: its tokens are right whoever else is answered, and stop when nobody listens."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trivet.testing import RunningServer, running_server

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("tokenizers", "threadpoolctl")),
        reason="the model needs tokenizers and threadpoolctl",
    ),
]

QUESTIONS = [
    "What is the capital of France?",
    "Name three colours.",
    "What is 2 + 2?",
    "Who wrote Romeo and Juliet?",
    "Tell me about the sea.",
    "¿Cómo estás?",
]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The language model alone, out of what the builder makes."""
    from repository_builder import models, packages

    repository = tmp_path_factory.mktemp("models")
    models.build_language_model(repository, packages.Wheels(EXAMPLES / ".cache" / "wheels"))
    return repository


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[RunningServer]:
    with running_server(repository) as running:
        yield running


@contextmanager
def asked(server: RunningServer, text: str, **parameters: Any) -> Iterator[HTTPResponse]:
    """The answer as it begins; leaving closes the connection."""
    connection = HTTPConnection(server.http_url, timeout=300)
    body = json.dumps({"text_input": text, "parameters": parameters})
    with closing(connection):
        connection.request("POST", "/v2/models/smollm2/generate_stream", body)
        with connection.getresponse() as answer:
            yield answer


def answered(server: RunningServer, text: str, **parameters: Any) -> list[str]:
    with asked(server, text, **parameters) as answer:
        events = answer.read().decode().split("\n\n")
    return [json.loads(event.removeprefix("data: "))["text_output"] for event in events if event]


def test_the_builder_builds_it(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "build_repository.py"), "--only", "light", "--language-model"]
    folders = ["--output", str(tmp_path / "models"), "--samples", str(tmp_path / "samples")]
    subprocess.run([*command, *folders], check=True)
    assert (tmp_path / "models" / "smollm2" / "1" / "model.gguf").stat().st_size == 98_362_432


def test_it_answers(server: RunningServer) -> None:
    tokens = answered(server, QUESTIONS[0])
    assert "".join(tokens) == "The capital of France is Paris."
    assert len(tokens) > 5


def test_answers_are_the_same_in_company(server: RunningServer) -> None:
    """Questions of different lengths, that begin and end at different steps."""
    alone = [answered(server, question, max_tokens=24) for question in QUESTIONS]

    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        together = list(pool.map(lambda question: answered(server, question, max_tokens=24), QUESTIONS))

    assert together == alone


def test_more_texts_than_it_answers_at_a_time(server: RunningServer) -> None:
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: "".join(answered(server, QUESTIONS[0])), range(40)))
    assert set(answers) == {"The capital of France is Paris."}


def test_the_cache_changes_nothing(repository: Path) -> None:
    """A step with what is kept of the tokens before scores as reading all of them anew does."""
    sys.path.insert(0, str(repository / "smollm2" / "1"))
    try:
        import gguf_file
        import llama_network
    finally:
        sys.path.pop(0)
    network = llama_network.Llama(*gguf_file.read(repository / "smollm2" / "1" / "model.gguf"), rows=4, context=32)
    tokens = [1, 9690, 198, 2683, 359, 253, 5356, 5646]
    whole = network.begin(3, tokens, 0)

    network.begin(0, tokens[:3], 0)
    network.copy(0, 1, 3)
    for at, token in enumerate(tokens[3:], start=3):
        stepped = network.step([tokens[2], token], [2, at])
    in_parts = network.begin(2, tokens[:5], 0), network.begin(2, tokens[5:], 5)

    np.testing.assert_allclose(stepped[1], whole, atol=2e-3)
    np.testing.assert_allclose(in_parts[1], whole, atol=2e-3)


@pytest.mark.parametrize(
    ("text", "parameters", "message"),
    [
        ("Hello", {"max_tokens": 0}, "parameter max_tokens is 0, expected an integer from 1 on"),
        ("word " * 600, {}, "the text has 607 tokens, at most 487 are answered"),
    ],
)
def test_refused(server: RunningServer, text: str, parameters: dict[str, Any], message: str) -> None:
    with asked(server, text, **parameters) as answer:
        assert answer.status == 500
        assert json.loads(answer.read().removeprefix(b"data: ")) == {"error": message}


def test_who_leaves_is_answered_no_more(server: RunningServer) -> None:
    """The request ends as cancelled, long before its last token, and the model has its place back."""
    with asked(server, "Tell me a long story.", max_tokens=400) as answer:
        answer.readline()

    assert answered(server, QUESTIONS[0])[-1] == "."
    (statistics,) = server.call(server.engine.statistics, "smollm2")
    assert statistics.fail.count >= 1
    assert server.call(lambda: len(server.engine.model("smollm2").in_flight)) == 0
