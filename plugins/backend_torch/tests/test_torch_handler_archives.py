"""What comes in an archive of TorchServe beside the handler: its format, and ``model-config.yaml``."""

from __future__ import annotations

import io
import json
import logging
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_torch_handlers import MANIFEST_MODEL, Create, answers, archive, execute, files, request
from trivet.config import ModelConfig
from trivet.config.model_config_pb2 import ModelInstanceGroup
from trivet.errors import InvalidArgumentError
from trivet_backend_torch.handlers.options import apply_options

CONFIGURED = """
input { name: "data" data_type: TYPE_STRING dims: [ 1 ] }
output { name: "prediction" data_type: TYPE_STRING dims: [ 1 ] }
"""


def tgz(contents: dict[str, Any], folder: str = "sums/") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with tarfile.open(path, "w:gz") as packed:
            for name, content in contents.items():
                buffer = io.BytesIO()
                if callable(content):
                    content(buffer)
                else:
                    buffer.write(content.encode())
                member = tarfile.TarInfo(folder + name)
                member.size = buffer.tell()
                buffer.seek(0)
                packed.addfile(member, buffer)

    return write


def test_an_archive_in_the_format_tgz(context: Any, create: Create) -> None:
    made = create(context({"model.tar.gz": tgz(files(**{"model-config.yaml": "batchSize: 2"}))}))
    assert answers(execute(made, request(b"[1, 2]"))[0])[0]["label"] == "three"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (tgz({"readme.txt": "hello"}), "'model.tar.gz' has no usable MAR-INF/MANIFEST.json"),
        (lambda path: path.write_bytes(b"\x1f\x8b no more"), "'model.tar.gz' has no usable MAR-INF/MANIFEST.json"),
        (lambda path: path.write_bytes(b"version https://git-lfs"), "'model.tar.gz' is no model that PyTorch writes"),
        (tgz({**files(), "../../escaped.txt": "x"}), "'model.tar.gz' cannot be unpacked"),
    ],
    ids=["without manifest", "damaged", "pointer", "leading out"],
)
def test_archives_in_the_format_tgz_that_cannot_be_loaded(
    write: Callable[[Path], Any], message: str, context: Any, create: Create
) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape(message)):
        create(context({"model.tar.gz": write}))


def test_a_workflow_is_refused(context: Any, create: Create) -> None:
    made_context = context({"flow.war": archive({"WAR-INF/MANIFEST.json": "{}"})}, 'default_model_filename: "flow.war"')
    with pytest.raises(InvalidArgumentError, match=r"'flow\.war' is a workflow of TorchServe"):
        create(made_context)


def test_a_service_envelope_is_refused(context: Any, create: Create) -> None:
    manifest = {"model": {**MANIFEST_MODEL, "envelope": "kserve"}}
    with pytest.raises(InvalidArgumentError, match="has the service envelope 'kserve', which is not there"):
        create(context(files(**{"MAR-INF/MANIFEST.json": json.dumps(manifest)})))


@pytest.mark.parametrize("file", ["network.onnx", "network.so"])
def test_a_network_that_is_not_pytorchs(file: str, context: Any, create: Create) -> None:
    manifest = {"model": {"handler": "base_handler", "serializedFile": file}}
    with pytest.raises(InvalidArgumentError, match=f"BaseHandler runs no network of '{file}': serve it without a hand"):
        create(context({"MAR-INF/MANIFEST.json": json.dumps(manifest), file: "x"}))


def configured(gpus: int = 0, config: ModelConfig | None = None, **options: Any) -> dict[str, Any]:
    made = config or ModelConfig()
    apply_options(made, options, gpus)
    groups = [
        (ModelInstanceGroup.Kind.Name(group.kind), group.count, list(group.gpus)) for group in made.instance_group
    ]
    return {"groups": groups, "config": made}


def test_as_many_instances_as_workers() -> None:
    assert configured()["groups"] == []
    assert configured(minWorkers=3)["groups"] == [("KIND_AUTO", 3, [])]
    assert configured(gpus=2, minWorkers=3, deviceType="cpu")["groups"] == [("KIND_CPU", 3, [])]
    assert configured(gpus=2)["groups"] == []


def test_gpus_share_the_workers() -> None:
    assert configured(gpus=2, minWorkers=4)["groups"] == [("KIND_GPU", 2, [0, 1])]
    assert configured(gpus=2, minWorkers=3)["groups"] == [("KIND_GPU", 2, [0]), ("KIND_GPU", 1, [1])]
    assert configured(gpus=4, minWorkers=2, deviceIds=[3, 1, 9])["groups"] == [("KIND_GPU", 1, [3, 1])]
    assert configured(gpus=4, minWorkers=2)["groups"] == [("KIND_GPU", 1, [0, 1])]


def test_what_is_configured_stays() -> None:
    config = ModelConfig(max_batch_size=2)
    config.instance_group.add(count=7)
    config.dynamic_batching.max_queue_delay_microseconds = 1
    before = ModelConfig()
    before.CopyFrom(config)
    configured(config=config, minWorkers=3, batchSize=8, maxBatchDelay=50, jobQueueSize=5, sequenceBatching=True)
    assert config == before


def test_batches_and_their_queue() -> None:
    made = configured(batchSize=4, maxBatchDelay=50, jobQueueSize=5)["config"]
    assert made.max_batch_size == 4
    assert made.dynamic_batching.max_queue_delay_microseconds == 50_000
    assert made.dynamic_batching.default_queue_policy.max_queue_size == 5


def test_sequences_keep_to_an_instance() -> None:
    made = configured(batchSize=4, sequenceBatching=True, sequenceMaxIdleMSec=60_000)["config"]
    assert made.sequence_batching.WhichOneof("strategy_choice") == "direct"
    assert made.sequence_batching.max_sequence_idle_microseconds == 60_000_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("parallelType: tp\ntorchrun:\n  nproc-per-node: 4\n", "has 'parallelType: tp' in its model-config.yaml"),
        ("continuousBatching: true\n", "has 'continuousBatching' in its model-config.yaml, which is not there"),
        ("asyncCommunication: true\n", "has 'asyncCommunication' in its model-config.yaml, which is not there"),
    ],
)
def test_settings_without_which_the_model_would_be_another_are_refused(
    options: str, message: str, context: Any, backend: Any
) -> None:
    contents = files(**{"model-config.yaml": options})
    with pytest.raises(InvalidArgumentError, match=message):
        backend.auto_complete(context(contents))
    with pytest.raises(InvalidArgumentError, match=message):
        backend.load(context(contents, CONFIGURED, name="m2"))


def test_settings_without_effect_are_in_the_log(context: Any, create: Create, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    options = "minWorkers: 1\nmaxWorkers: 2\nresponseTimeout: 300\nparallelType: custom\nuseVenv: false\n"
    create(context(files(**{"model-config.yaml": options})))
    assert "model 'm': without effect in its model-config.yaml: maxWorkers, responseTimeout" in caplog.messages
