"""The example of a generator by an outsider: from a wheel, with the kit's tests, and serving a language model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import OutsidersPackage

pytest.importorskip("cyllama", reason="the package needs llama.cpp's bindings")

pytestmark = pytest.mark.timeout(600)

ASK = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from trivet.testing import running_server

QUESTIONS = ["What is the capital of France?", "Name three colours.", "What is 2 + 2?", "Reply with an emoji."]

def ask(url, text):
    connection = HTTPConnection(url, timeout=300)
    body = {"text_input": text, "stream": True, "max_tokens": 24}
    connection.request("POST", "/v2/models/smollm2/generate_stream", json.dumps(body))
    events = connection.getresponse().read().decode().split("\\n\\n")
    connection.close()
    return "".join(json.loads(event.removeprefix("data: ")).get("text_output", "") for event in events if event)

with running_server(sys.argv[1]) as server, ThreadPoolExecutor(4) as pool:
    print(json.dumps(list(pool.map(lambda text: ask(server.http_url, text), QUESTIONS))))
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> OutsidersPackage:
    return OutsidersPackage("trivet-backend-llamacpp", tmp_path_factory.mktemp("llamacpp"))


def test_it_passes_the_tests_of_its_contract(package: OutsidersPackage, tmp_path: Path) -> None:
    package.check_its_tests(tmp_path)


@pytest.mark.slow
def test_it_serves_the_language_model_of_its_script(package: OutsidersPackage, tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(package.source / "get_model.py"), "models"], cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, "-c", ASK, "models"],
        cwd=tmp_path, env=package.environment, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    capital, colours, sum_, _ = json.loads(done.stdout)
    assert "Paris" in capital
    assert "Red" in colours
    assert "4" in sum_
