"""The log, while clients send what would like to be a line or a field of it."""

from __future__ import annotations

import http.client
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from python_models import ECHO
from tritonclient.utils import InferenceServerException
from trivet import logs
from trivet.testing import RunningServer, running_server

CONFIG = """
backend: "python"
input { name: "X" data_type: TYPE_FP32 dims: 1 }
output { name: "Y" data_type: TYPE_FP32 dims: 1 }
"""
FORGED = "I1123 02:24:29.598440 1 access_log.py:51] model=vault status=ok"
HOSTILE = f"7 status=internal\n{FORGED}\r\x1b[2J\u2028"


@pytest.fixture(params=["text", "ISO8601", "json"])
def log(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What the process logs, in each format; as it was, at the end."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.make_formatter(request.param))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def server(tmp_path: Path, log: io.StringIO) -> Iterator[RunningServer]:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.py").write_text(ECHO)
    (tmp_path / "m" / "config.pbtxt").write_text(CONFIG)
    with running_server(tmp_path, log_access=True) as running:
        log.seek(0)
        log.truncate()
        yield running


def over_http(server: RunningServer, name: str) -> int:
    body = {"id": HOSTILE, "inputs": [{"name": name, "datatype": "FP32", "shape": [1], "data": [1]}]}
    connection = http.client.HTTPConnection(server.http_url, timeout=30)
    try:
        connection.request("POST", "/v2/models/m/infer", json.dumps(body))
        return connection.getresponse().status
    finally:
        connection.close()


def over_grpc(server: RunningServer, name: str) -> None:
    x = grpc_client.InferInput(name, [1], "FP32")
    x.set_data_from_numpy(np.ones(1, np.float32))
    with grpc_client.InferenceServerClient(server.grpc_url) as client:
        client.infer("m", [x], request_id=HOSTILE)


def test_a_request_is_one_entry_whatever_its_client_writes(server: RunningServer, log: io.StringIO) -> None:
    assert over_http(server, "X") == 200
    over_grpc(server, "X")
    assert over_http(server, HOSTILE) == 400
    with pytest.raises(InferenceServerException):
        over_grpc(server, HOSTILE)
    entries = log.getvalue().splitlines()
    assert len(entries) == 4
    for index, entry in enumerate(entries):
        assert entry.isprintable()
        text = entry
        if entry.startswith("{"):
            fields = json.loads(entry)
            assert (fields["model"], fields["request_id"]) == ("m", HOSTILE)
            text = fields["message"]
        status = "ok" if index < 2 else "'invalid argument'"
        assert f" request_id={HOSTILE!r} status={status} " in text
        # What else there is of the client's is quoted in the same way.
        own = text.replace(repr(HOSTILE)[1:-1], "")
        assert own.count("model=") == own.count("status=") == 1
