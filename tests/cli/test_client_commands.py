"""``trivet infer``, ``trivet generate`` and ``trivet models`` against a whole server with Python models."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from trivet.cli import cli
from trivet.testing import RunningServer, running_server

MODEL = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            outputs = [echo(tensor.name().replace("IN", "OUT"), tensor) for tensor in request.inputs()]
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses


def echo(name, tensor):
    return pb_utils.Tensor(name, tensor.as_numpy())
"""
LETTERS = """
import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            most = json.loads(request.parameters()).get("most", 100)
            for letter in pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()[0].decode()[:most]:
                if letter.isalpha():
                    output = pb_utils.Tensor("OUT", np.array([letter], np.object_))
                    sender.send(pb_utils.InferenceResponse([output]))
                else:
                    error = pb_utils.TritonError(f"no letter: '{letter}'")
                    sender.send(pb_utils.InferenceResponse(error=error))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
# numpy has no BF16.
BF16_MODEL = MODEL.replace(
    "pb_utils.Tensor(name, tensor.as_numpy())", "pb_utils.Tensor.from_dlpack(name, tensor.to_dlpack())"
)


def add_model(repository: Path, name: str, config: str, labels: str = "") -> None:
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text({"bf16": BF16_MODEL, "letters": LETTERS}.get(name, MODEL))
    (repository / name / "config.pbtxt").write_text(f'backend: "python"\n{config}')
    if labels:
        (repository / name / "labels.txt").write_text(labels)


def tensor(name: str, datatype: str, dims: str, more: str = "") -> str:
    kind = "input" if name.startswith("IN") else "output"
    return f'{kind} [ {{ name: "{name}" data_type: TYPE_{datatype} dims: [ {dims} ] {more} }} ]\n'


def echo(datatype: str, dims: str, more: str = "") -> str:
    return tensor("IN", datatype, dims) + tensor("OUT", datatype, dims, more)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    repository = tmp_path_factory.mktemp("models")
    add_model(
        repository,
        "numbers",
        "max_batch_size: 4\n" + echo("FP32", "3", 'label_filename: "labels.txt"'),
        "ant\nbee\ncat",
    )
    add_model(repository, "letters", "model_transaction_policy { decoupled: true }\n" + echo("STRING", "1"))
    add_model(repository, "words", "max_batch_size: 4\n" + echo("STRING", "1"))
    add_model(repository, "two", tensor("INA", "INT32", "-1") + tensor("INB", "STRING", "-1")
              + tensor("OUTA", "INT32", "-1") + tensor("OUTB", "STRING", "-1"))  # fmt: skip
    for datatype in ("BF16", "FP16", "BOOL", "UINT64"):
        add_model(repository, datatype.lower(), echo(datatype, "-1"))
    with running_server(repository, model_control_mode="explicit", load_model=["*"]) as server:
        yield server


Trivet = Callable[..., Result]


@pytest.fixture
def trivet(server: RunningServer) -> Trivet:
    """Runs a command against the server and expects it to succeed."""

    def run(*args: str, fails: bool = False) -> Result:
        result = CliRunner().invoke(cli, args, env={"TRIVET_URL": server.http_url}, catch_exceptions=False)
        assert (result.exit_code != 0) is fails, result.output
        return result

    return run


def saved(path: Path, value: Any) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def test_infer_prints_the_outputs(trivet: Trivet, tmp_path: Path) -> None:
    result = trivet("infer", "numbers", "-i", saved(tmp_path / "v.json", [1, 2, 3.5]))
    assert result.output == "OUT: FP32 [1, 3]\n[[1.  2.  3.5]]\n"


def test_infer_as_json(trivet: Trivet) -> None:
    result = trivet("infer", "words", "-t", "héllo", "-t", "IN=x=y", "--json")
    assert json.loads(result.output) == {
        "model_name": "words",
        "model_version": "1",
        "outputs": [{"name": "OUT", "datatype": "BYTES", "shape": [2, 1], "data": ["héllo", "x=y"]}],
    }


def test_infer_shows_classes_with_labels(trivet: Trivet, tmp_path: Path) -> None:
    result = trivet("infer", "numbers", "-i", saved(tmp_path / "v.json", [[1, 5, 3], [9, 2, 3]]), "--classes", "2")
    assert result.output == ("OUT:\n  item 0\n  5  bee (1)\n  3  cat (2)\n  item 1\n  9  ant (0)\n  3  cat (2)\n")


def test_infer_saves_arrays(trivet: Trivet, tmp_path: Path) -> None:
    inputs = saved(tmp_path / "v.json", {"INA": [1, 2], "INB": ["a", "bc"]})
    trivet("infer", "two", "-i", inputs, "--save", str(tmp_path / "all.npz"))
    with np.load(tmp_path / "all.npz") as arrays:
        assert arrays["OUTA"].tolist() == [1, 2]
        assert arrays["OUTB"].tolist() == [b"a", b"bc"]
    trivet("infer", "two", "-i", inputs, "--output", "OUTA", "--save", str(tmp_path / "one.npy"))
    assert np.load(tmp_path / "one.npy").tolist() == [1, 2]
    result = trivet("infer", "two", "-i", inputs, "--save", str(tmp_path / "one.npy"), fails=True)
    assert "choose one with --output" in result.output


@pytest.mark.parametrize(
    ("model", "values"),
    [("bf16", [1.0, -2.5, 3.0]), ("fp16", [0.5, 65504.0]), ("bool", [True, False]), ("uint64", [0, 2**64 - 1])],
)
def test_datatypes_survive_the_round_trip(trivet: Trivet, tmp_path: Path, model: str, values: list[Any]) -> None:
    result = trivet("infer", model, "-i", saved(tmp_path / "v.json", values), "--json")
    assert json.loads(result.output)["outputs"][0]["data"] == values


def test_errors_of_the_server_are_shown_as_they_are(trivet: Trivet, tmp_path: Path) -> None:
    assert (
        "Error: Request for unknown model: 'nope' is not found" in trivet("infer", "nope", "-t", "x", fails=True).output
    )
    file = saved(tmp_path / "v.json", [[1, 2, 3]] * 9)
    assert "batch" in trivet("infer", "numbers", "-i", file, fails=True).output
    assert "Traceback" not in trivet("infer", "numbers", "-i", file, "--model-version", "7", fails=True).output


def test_models_list_and_show(trivet: Trivet) -> None:
    lines = [line.split() for line in trivet("models", "list").output.splitlines()]
    assert lines[0] == ["NAME", "VERSION", "STATE", "REASON"]
    assert ["words", "1", "READY"] in lines
    assert {"name": "words", "version": "1", "state": "READY"} in json.loads(trivet("models", "list", "--json").output)
    shown = trivet("models", "show", "numbers").output
    assert shown.splitlines()[0] == "numbers  versions 1  python"
    assert "input" in shown
    assert "[-1, 3]" in shown
    assert json.loads(trivet("models", "show", "numbers", "--config").output)["max_batch_size"] == 4
    statistics = json.loads(trivet("models", "show", "numbers", "--statistics").output)
    assert statistics["model_stats"][0]["name"] == "numbers"


def test_models_unload_and_load(trivet: Trivet) -> None:
    assert trivet("models", "unload", "fp16").output == "unloaded fp16\n"
    ready = [entry["name"] for entry in json.loads(trivet("models", "list", "--ready", "--json").output)]
    assert "fp16" not in ready
    assert trivet("models", "load", "fp16").output == "loaded fp16\n"
    ready = [entry["name"] for entry in json.loads(trivet("models", "list", "--ready", "--json").output)]
    assert "fp16" in ready


def test_models_load_with_a_configuration_and_files(trivet: Trivet, tmp_path: Path) -> None:
    config = json.loads(trivet("models", "show", "words", "--config").output)
    config["max_batch_size"] = 2
    (tmp_path / "model.py").write_text(MODEL)
    file = f"1/model.py={tmp_path / 'model.py'}"
    trivet("models", "load", "words", "--config", saved(tmp_path / "c.json", config), "--file", file)
    assert json.loads(trivet("models", "show", "words", "--config").output)["max_batch_size"] == 2
    trivet("models", "load", "words")
    assert json.loads(trivet("models", "show", "words", "--config").output)["max_batch_size"] == 4
    assert "expected PATH=FILE" in trivet("models", "load", "words", "--file", "x", fails=True).output


def test_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    result = CliRunner().invoke(cli, ["models", "list", "--url", f"127.0.0.1:{port}"])
    assert result.exit_code == 1
    assert "nobody listens at" in result.output
    assert "trivet serve" in result.output


def test_a_server_that_does_not_answer_or_speaks_something_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"127.0.0.1:{listener.getsockname()[1]}"
        result = CliRunner().invoke(cli, ["models", "list", "--url", url, "--timeout", "0.05"])
        assert "did not answer in 0.05 s" in result.output

        def answer() -> None:
            listener.accept()[0].close()  # the connection that was given up
            for reply in (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"\0\0\6\4\0\0\0\0\0"):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(reply)
                    connection.shutdown(socket.SHUT_WR)
                    # Closing before all of the request was read would reset the connection, and take the reply back.
                    while connection.recv(65536):
                        pass

        thread = threading.Thread(target=answer)
        thread.start()
        results = [CliRunner().invoke(cli, ["models", "list", "--url", url]) for _ in range(2)]
        thread.join()
        assert "does it speak KServe v2?" in results[0].output
        assert "it does not answer in HTTP" in results[1].output


@pytest.mark.parametrize("url", ["ftp://x", "localhost:port", "http://"])
def test_bad_urls(url: str) -> None:
    result = CliRunner().invoke(cli, ["models", "list", "--url", url])
    assert result.exit_code == 2
    assert "--url" in result.output


class TestGenerate:
    def test_text_is_printed_as_it_comes(self, trivet: Trivet) -> None:
        assert trivet("generate", "letters", "abc").stdout == "abc\n"
        assert trivet("generate", "letters", "abc", "--separator", " ").stdout == "a b c\n"

    def test_json(self, trivet: Trivet) -> None:
        lines = trivet("generate", "letters", "ab", "--json").stdout.splitlines()
        expected = [{"OUT": letter, "model_name": "letters", "model_version": "1"} for letter in "ab"]
        assert [json.loads(line) for line in lines] == expected

    def test_inputs_by_name_and_outputs_that_are_no_text(self, trivet: Trivet) -> None:
        assert trivet("generate", "numbers", "-i", "IN=[1, 2.5, 3]").stdout == '{"OUT": [1.0, 2.5, 3.0]}\n'
        assert trivet("generate", "two", "x", "-i", "INA=5").stdout == '{"OUTA": 5, "OUTB": "x"}\n'

    def test_parameters_reach_the_model(self, trivet: Trivet) -> None:
        assert trivet("generate", "letters", "abc", "-p", "most=2").stdout == "ab\n"

    def test_an_error_after_the_first_responses(self, trivet: Trivet) -> None:
        result = trivet("generate", "letters", "ab!c", fails=True)
        assert result.stdout == "ab\n"
        assert result.stderr == "Error: no letter: '!'\n"

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("letters", "-i", "NOPE=1"), "model 'letters' has no input 'NOPE', it has IN"),
            (("letters", "-i", "IN"), "--input IN: expected NAME=VALUE"),
            (("letters", "abc", "-p", "most"), "--parameter most: expected KEY=VALUE"),
            (("numbers", "text"), "model 'numbers' has 0 inputs of text; give each with --input NAME=VALUE"),
            (("nope", "text"), "Request for unknown model: 'nope' is not found"),
            (("numbers", "-i", "IN=[1]"), "The schema can not convert input 'IN' to tensor with proper shape"),
        ],
    )
    def test_what_will_not_do(self, trivet: Trivet, arguments: tuple[str, ...], message: str) -> None:
        assert message in trivet("generate", *arguments, fails=True).stderr
