"""Models that answer bit by bit: what comes is right, also when many are answered at a time."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import queue
import socket
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc

pytestmark = pytest.mark.timeout(600)  # the first test downloads and exports what is not cached

WORDS = [
    "a", "activationist", "algorithm", "apple", "blockchain", "borrower", "colonel", "cromulent", "doughnut",
    "embiggens", "flabbergasted", "frobnicate", "gnocchi", "handkerchief", "it's", "kubernetes",
    "llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch", "mnemonic", "onomatopoeia", "pneumonia",
    "quizzaciously", "rhythm", "serendipitous", "squirrel", "tensorflow", "the", "thoroughly", "trivet", "wednesday",
    "xylophone", "yacht", "zoologically", "zzz",
]  # fmt: skip
Predict = Callable[[str], list[str]]


@pytest.fixture(scope="session")
def predict(example_repository: Path) -> Predict:
    """g2p_en's own ``predict``: its code out of the wheel, without the data of NLTK that importing it would ask for."""
    from repository_builder import packages

    wheels = packages.Wheels(example_repository.parent / "wheels")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # escapes that are none, in a part that is not used
        module = ast.parse(wheels.read(packages.G2P_EN, "g2p_en/g2p.py"))
    (network,) = (node for node in module.body if isinstance(node, ast.ClassDef))
    methods = {node.name: node for node in network.body if isinstance(node, ast.FunctionDef)}
    # Of the constructor, what names letters and phonemes.
    methods["__init__"].body = [node for node in methods["__init__"].body if _names_symbols(node)]
    network.body = [methods[name] for name in ("__init__", "sigmoid", "grucell", "gru", "encode", "predict")]
    names: dict[str, Any] = {"np": np}
    exec(compile(ast.Module([network], []), "g2p.py", "exec"), names)
    g2p = names["G2p"]()
    weights = np.load(io.BytesIO(wheels.read(packages.G2P_EN, "g2p_en/checkpoint20.npz")))
    for name in weights.files:
        setattr(g2p, name, weights[name])
    predict: Predict = g2p.predict
    return predict


def _names_symbols(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in {
        f"self.{name}" for name in ("graphemes", "phonemes", "g2idx", "idx2g", "p2idx", "idx2p")
    }


def said(server: Any, text: str) -> list[str]:
    """The texts of a stream of events."""
    connection = HTTPConnection(server.http_url, timeout=60)
    connection.request("POST", "/v2/models/pronunciation/generate_stream", json.dumps({"text_input": text}))
    answer = connection.getresponse()
    assert answer.status == 200
    events = answer.read().decode().split("\n\n")
    connection.close()
    return [json.loads(event.removeprefix("data: "))["text_output"] for event in events if event]


class TestPronunciation:
    def test_words_are_said_as_g2p_en_says_them(self, example_server: Any, predict: Predict) -> None:
        """All of them at a time, so that they take their steps together and end at different ones."""
        with ThreadPoolExecutor(len(WORDS)) as pool:
            answers = dict(zip(WORDS, pool.map(lambda word: said(example_server, word), WORDS), strict=True))

        assert answers == {word: predict(word) for word in WORDS}

    def test_the_words_of_a_text_one_after_the_other(self, example_server: Any, predict: Predict) -> None:
        assert said(example_server, "Trivet, the  squirrel's yacht!") == [
            *predict("trivet"),
            " ",
            *predict("the"),
            " ",
            *predict("squirrel's"),
            " ",
            *predict("yacht"),
        ]

    def test_what_has_no_words_has_no_phonemes(self, example_server: Any) -> None:
        assert said(example_server, "1 + 1") == []

    def test_who_reads_slowly_holds_up_nobody_else(
        self, example_server: Any, predict: Predict, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A text of more than what sockets and the server hold, on a connection that nobody reads from."""
        monkeypatch.setattr("trivet_protocol_kserve_v2.http.event_stream.MAX_PENDING_BYTES", 16 * 1024)
        body = json.dumps({"text_input": "serendipitous " * 6000}).encode()
        host, _, port = example_server.http_url.partition(":")
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect((host, int(port)))
            path = "/v2/models/pronunciation/generate_stream"
            slow.sendall(f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
            self._until_held_back(example_server)

            assert said(example_server, "trivet") == predict("trivet")

    def _until_held_back(self, server: Any) -> None:
        """Return when a request waits for its client."""

        async def wait() -> None:
            model = server.engine.model("pronunciation")
            async with asyncio.timeout(90):
                while not any(request.throttle.holds() for request in model.in_flight):  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.01)

        server.call(wait)

    def test_many_texts_on_one_grpc_stream(self, example_server: Any, predict: Predict) -> None:
        answers: dict[str, list[str]] = {word: [] for word in WORDS}
        for word, text in self._streamed(example_server):
            answers[word].append(text)

        assert answers == {word: predict(word) for word in WORDS}

    def _streamed(self, server: Any) -> Iterator[tuple[str, str]]:
        """Each word with a phoneme of it, as they come."""
        arrived: queue.Queue[tuple[Any, Any]] = queue.Queue()
        with tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:
            client.start_stream(lambda result, error: arrived.put((result, error)))
            for word in WORDS:
                text = tritonclient.grpc.InferInput("text_input", [1, 1], "BYTES")
                text.set_data_from_numpy(np.array([[word.encode()]], np.object_))
                client.async_stream_infer("pronunciation", [text], request_id=word, enable_empty_final_response=True)
            open_words = len(WORDS)
            while open_words:
                result, error = arrived.get(timeout=60)
                assert error is None
                response = result.get_response()
                if response.parameters["triton_final_response"].bool_param:
                    open_words -= 1
                else:
                    yield response.id, result.as_numpy("text_output").item().decode()
