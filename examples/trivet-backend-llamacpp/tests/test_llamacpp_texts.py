"""What callers see: parameters, streams, and texts that are answered together."""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from cyllama.llama import llama_cpp as llama
from trivet.testing import RunningServer, running_server
from trivet_backend_llamacpp.text import Characters

sys.path.insert(0, str(Path(__file__).parent))
import tiny_model

LONG = "A longer question, of more tokens than the others have."
QUESTIONS = ["Why?", "What is a trivet?", LONG, "ß"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The model ``m``, which reads eight tokens a step, and ``whole``, which does not stream."""
    repository = tmp_path_factory.mktemp("models")
    settings = {"m": {"texts": 4, "batch": 8}, "whole": {}}
    for name, more in settings.items():
        (repository / name / "1").mkdir(parents=True)
        tiny_model.write(repository / name / "1" / "model.gguf")
        (repository / name / "config.pbtxt").write_text(config(context=256, threads=1, cache="f32", **more))
    with (repository / "whole" / "config.pbtxt").open("a") as file:
        for direction in ("input", "output"):
            file.write(f'{direction} {{ name: "text_{direction}" data_type: TYPE_STRING dims: [ 1 ] }}\n')
    with running_server(repository) as running:
        yield running


def config(**parameters: Any) -> str:
    lines = [f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in parameters.items()]
    return "\n".join(['backend: "llamacpp"', *lines, ""])


def ask(server: RunningServer, text: str, *, model: str = "m", **parameters: Any) -> dict[str, Any]:
    with closing(HTTPConnection(server.http_url, timeout=60)) as connection:
        connection.request("POST", f"/v2/models/{model}/generate", json.dumps({"text_input": text, **parameters}))
        answer: dict[str, Any] = json.load(connection.getresponse())
        return answer


def stream(server: RunningServer, text: str, **parameters: Any) -> list[dict[str, Any]]:
    with closing(HTTPConnection(server.http_url, timeout=60)) as connection:
        body = json.dumps({"text_input": text, "stream": True, **parameters})
        connection.request("POST", "/v2/models/m/generate_stream", body)
        events = connection.getresponse().read().decode().split("\n\n")
    return [json.loads(event.removeprefix("data: ")) for event in events if event]


def test_a_stream_has_the_text_of_the_whole_answer(server: RunningServer) -> None:
    whole = ask(server, LONG, max_tokens=20)
    pieces = stream(server, LONG, max_tokens=20)

    assert "".join(piece["text_output"] for piece in pieces) == whole["text_output"]
    assert len(pieces) == 20
    assert pieces[-1]["finish_reason"] == whole["finish_reason"] == "length"


def test_an_answer_ends_before_the_text_that_stops_it(server: RunningServer) -> None:
    whole = ask(server, LONG, max_tokens=20)["text_output"]
    stop = whole[7:10]
    expected = whole[: whole.index(stop)]

    found = ask(server, LONG, max_tokens=20, stop=stop)
    assert (found["text_output"], found["finish_reason"]) == (expected, "stop")
    pieces = stream(server, LONG, max_tokens=20, stop=stop)
    assert "".join(piece.get("text_output", "") for piece in pieces) == expected


def test_what_is_drawn_depends_on_the_seed_alone(server: RunningServer) -> None:
    drawn = {"max_tokens": 30, "temperature": 5.0, "top_p": 0.9}

    def answers(seed: int) -> set[str]:
        with ThreadPoolExecutor(4) as pool:
            return {one["text_output"] for one in pool.map(lambda _: ask(server, LONG, seed=seed, **drawn), range(8))}

    assert len(answers(1)) == 1
    assert len(set.union(*(answers(seed) for seed in range(4)))) == 4


def test_texts_share_steps_and_get_the_answers_that_they_get_alone(server: RunningServer) -> None:
    """More of them than there are places, of different lengths, with questions that take several steps to read."""

    def counted() -> tuple[float, float]:
        families = server.call(server.engine.metrics.families)
        return tuple(
            sample.value for family in families for sample in family.samples() if ("model", "m") in sample.labels
        )

    questions = QUESTIONS * 4
    begun = counted()
    alone = [ask(server, question, max_tokens=40)["text_output"] for question in questions]
    between = counted()
    with ThreadPoolExecutor(len(questions)) as pool:
        together = list(pool.map(lambda question: ask(server, question, max_tokens=40)["text_output"], questions))
    ended = counted()

    assert together == alone
    assert ended[1] - between[1] == between[1] - begun[1]  # tokens
    assert ended[0] - between[0] < (between[0] - begun[0]) / 2  # steps


def test_whoever_leaves_leaves_room(server: RunningServer) -> None:
    """Eight callers go after their first token; the four places are free again."""
    for _ in range(8):
        with closing(HTTPConnection(server.http_url, timeout=60)) as connection:
            body = json.dumps({"text_input": "Why?", "stream": True, "max_tokens": 250})
            connection.request("POST", "/v2/models/m/generate_stream", body)
            connection.getresponse().readline()

    assert ask(server, "Why?", max_tokens=5)["finish_reason"] == "length"


def test_a_model_that_is_not_decoupled_answers_as_a_whole(server: RunningServer) -> None:
    expected = ask(server, "Why?", max_tokens=9)["text_output"]
    assert ask(server, "Why?", model="whole", max_tokens=9)["text_output"] == expected
    assert "decoupled: true" in ask(server, "Why?", model="whole", stream=True)["error"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_tokens": 0}, "parameter max_tokens is 0, expected an integer from 1 to 2147483648"),
        ({"max_tokens": "many"}, "parameter max_tokens is 'many', expected an integer from 1 to 2147483648"),
        ({"temperature": -1}, "parameter temperature is -1, expected a number from 0.0 to 100.0"),
        ({"stop": 3}, "parameter stop is 3, expected a str"),
        ({"text_input": "x" * 300}, "the text has 300 tokens, expected 1 to 255"),
        ({"text_input": ""}, "the text has 0 tokens, expected 1 to 255"),
    ],
)
def test_a_request_that_cannot_be_answered_says_why(
    server: RunningServer, parameters: dict[str, Any], message: str
) -> None:
    assert ask(server, **{"text": "Why?", "text_input": "Why?", **parameters})["error"] == message


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"texts": 0}, "parameter texts is '0', expected an integer of at least 1"),
        ({"batch": 2}, "parameter batch must be at least the number of texts, 8"),
        ({"cache": "f8"}, "parameter cache is 'f8', expected f16 or f32"),
        ({"slots": 4}, "unknown parameters ['slots']; there are ['batch', 'cache', 'context'"),
    ],
)
def test_a_model_with_a_wrong_parameter_does_not_load(tmp_path: Path, parameters: dict[str, Any], message: str) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    tiny_model.write(tmp_path / "m" / "1" / "model.gguf")
    (tmp_path / "m" / "config.pbtxt").write_text(config(**parameters))
    with running_server(tmp_path, allow_failures=True) as server:
        (failure,) = server.failures
        assert message in failure.reason


def test_a_text_is_a_message_where_the_model_knows_of_messages(tmp_path: Path) -> None:
    """Unless the configuration says otherwise, or llama.cpp does not know the template."""
    chatml = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>{% endfor %}"
    )
    templates = {"message": (chatml, {}), "raw": (chatml, {"raw": "true"}), "strange": ("{{ strange }}", {})}
    for name, (template, parameters) in templates.items():
        (tmp_path / name / "1").mkdir(parents=True)
        tiny_model.write(tmp_path / name / "1" / "model.gguf", template=template)
        (tmp_path / name / "config.pbtxt").write_text(config(context=256, threads=1, cache="f32", **parameters))
    with running_server(tmp_path, allow_failures=True) as server:
        as_message = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
        expected = ask(server, as_message, model="raw", max_tokens=12)["text_output"]
        assert ask(server, "Why?", model="message", max_tokens=12)["text_output"] == expected
        (failure,) = server.failures
        assert failure.name == "strange"
        assert "with the parameter raw as 'true', texts are read as they are" in failure.reason


def test_characters_of_several_tokens_come_whole(tmp_path: Path) -> None:
    tiny_model.write(tmp_path / "model.gguf")
    model = llama.LlamaModel(str(tmp_path / "model.gguf"), llama.LlamaModelParams())
    characters = Characters(model.get_vocab())
    text = "aß€😀z"
    pieces = [characters.add(token) for token in text.encode()]
    assert [piece for piece in pieces if piece] == list(text)
    assert characters.add(0xF0) == ""
    assert characters.end() == "\N{REPLACEMENT CHARACTER}"
