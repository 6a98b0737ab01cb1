"""The contract of backends, with a model that answers at once or in a stream."""

import sys
from pathlib import Path

import numpy as np
import pytest
from trivet.testing.conformance import Stream, StreamingBackendConformance
from trivet.testing.conformance.requests import Arrays

sys.path.insert(0, str(Path(__file__).parent))
import tiny_model
from plain import Plain

WORDS = ("tea", "trivet", "naïve", "Größe", "0.5")


@pytest.fixture(scope="class")
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """llama.cpp without Trivet, for what is expected."""
    path = tmp_path_factory.mktemp("plain") / "model.gguf"
    tiny_model.write(path)
    request.cls.plain = Plain(path)


@pytest.mark.usefixtures("plain")
class TestLlamaCpp(StreamingBackendConformance):
    backend = "llamacpp"
    batching = False
    # What is kept in f32 is the same in every company; f16 rounds.
    config = """
        parameters { key: "threads" value { string_value: "1" } }
        parameters { key: "cache" value { string_value: "f32" } }
    """
    plain: Plain

    def write_model(self, folder: Path) -> None:
        tiny_model.write(folder / "model.gguf")

    def inputs(self, rows: int, seed: int) -> Arrays:
        chance = np.random.default_rng(seed % 16)
        return text_input(" ".join(chance.choice(WORDS, chance.integers(1, 8))))

    def expected(self, inputs: Arrays) -> Arrays:
        return text_output(self.plain.tokens(inputs["text_input"][0].decode(), 128))

    def stream(self) -> Stream:
        question = "A longer question, of more tokens than the others have."
        responses = [text_output([token]) for token in self.plain.tokens(question, 24)]
        return Stream(text_input(question), responses, {"stream": True, "max_tokens": 24})

    def failing_inputs(self) -> Arrays:
        return text_input("long " * 1000)


def text_input(text: str) -> Arrays:
    return {"text_input": np.array([text.encode()], np.object_)}


def text_output(tokens: list[int]) -> Arrays:
    """Tokens of the tiny model are bytes."""
    return {"text_output": np.array([bytes(tokens)], np.object_)}
