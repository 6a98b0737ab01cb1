"""Server and client in one process: both define the messages of package ``inference``."""

from __future__ import annotations

import subprocess
import sys

import pytest

SERVER = "from trivet_protocol_kserve_v2.proto import grpc_service_pb2 as ours"
CLIENT = "from tritonclient.grpc import service_pb2 as theirs"
USE = """
sent = ours.ModelInferRequest(model_name="m", parameters={"p": {"int64_param": 1}})
sent.inputs.add(name="x", datatype="FP32", shape=[1, 2])
read = theirs.ModelInferRequest.FromString(sent.SerializeToString())
assert (read.model_name, read.parameters["p"].int64_param, list(read.inputs[0].shape)) == ("m", 1, [1, 2])
assert ours.ModelInferRequest.FromString(read.SerializeToString()) == sent
assert ours.ModelInferRequest.DESCRIPTOR.file.pool is not theirs.ModelInferRequest.DESCRIPTOR.file.pool
"""


@pytest.mark.parametrize("imports", [(SERVER, CLIENT), (CLIENT, SERVER)], ids=["server first", "client first"])
def test_in_either_order(imports: tuple[str, str]) -> None:
    script = "\n".join((*imports, USE))

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_a_server_without_grpc_does_not_import_it() -> None:
    script = """
import sys
from types import SimpleNamespace
from trivet_protocol_kserve_v2.grpc.service import create
create(SimpleNamespace(settings={"allow_grpc": False}))
assert "grpc" not in sys.modules
"""

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_the_options_import_no_grpc() -> None:
    script = "import sys, trivet_protocol_kserve_v2.grpc.options; assert not {'grpc', 'numpy'} & sys.modules.keys()"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
