"""What the options of the gRPC side do."""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from trivet.errors import InvalidArgumentError
from trivet.options import Settings
from trivet.server import StartupError
from trivet_protocol_kserve_v2.grpc.options import OPTIONS
from trivet_protocol_kserve_v2.grpc.restricted import parse_restrictions
from trivet_protocol_kserve_v2.grpc.settings import GrpcSettings
from trivet_protocol_kserve_v2.restrictions import PARTS

from .conftest import NATIVE
from .rpc import Rpc, int32, request


def settings(**values: Any) -> GrpcSettings:
    return GrpcSettings.of(Settings.of(OPTIONS, **values))


class TestSettings:
    def test_defaults_are_tritonservers(self) -> None:
        default = settings()

        assert (default.target, default.server, default.tls) == ("0.0.0.0:8001", "aio", None)
        assert dict(default.channel_arguments()) == {
            "grpc.max_receive_message_length": 2**31 - 1,
            "grpc.max_send_message_length": 2**31 - 1,
            "grpc.so_reuseport": 0,
            "grpc.keepalive_time_ms": 7_200_000,
            "grpc.keepalive_timeout_ms": 20_000,
            "grpc.keepalive_permit_without_calls": 0,
            "grpc.http2.max_pings_without_data": 2,
            "grpc.http2.min_ping_interval_without_data_ms": 300_000,
            "grpc.http2.max_ping_strikes": 2,
        }

    def test_every_keepalive_option_reaches_grpc(self) -> None:
        arguments = settings(
            grpc_keepalive_time=1,
            grpc_keepalive_timeout=2,
            grpc_keepalive_permit_without_calls=True,
            grpc_http2_max_pings_without_data=3,
            grpc_http2_min_recv_ping_interval_without_data=4,
            grpc_http2_max_ping_strikes=5,
            grpc_max_connection_age=6,
            grpc_max_connection_age_grace=7,
            reuse_grpc_port=True,
        ).channel_arguments()

        assert [value for _, value in arguments[2:]] == [1, 1, 2, 1, 3, 4, 5, 6, 7]

    def test_an_ipv6_address_is_bracketed(self) -> None:
        assert settings(grpc_address="::1", grpc_port=0).target == "[::1]:0"

    @pytest.mark.parametrize("option", ["grpc_infer_allocation_pool_size", "grpc_infer_thread_count"])
    def test_options_without_effect_are_warned_about_by_name(
        self, option: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            settings(**{option: 8})

        assert [record.getMessage() for record in caplog.records] == [
            f"--{option.replace('_', '-')} has no effect on this server"
        ]

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"grpc_use_ssl": True}, "^--grpc-use-ssl needs --grpc-server-cert$"),
            (
                {"grpc_use_ssl": True, "grpc_server_cert": "/nowhere"},
                "^--grpc-server-cert=/nowhere: No such file or directory$",
            ),
            ({"grpc_max_response_pool_size": 0}, "^--grpc-max-response-pool-size=0: expected at least 1$"),
            ({"grpc_write_timeout": 0.0}, "^--grpc-write-timeout=0: expected more than 0$"),
            ({"grpc_header_forward_pattern": "("}, r"^--grpc-header-forward-pattern=\(: "),
        ],
    )
    def test_what_is_wrong_is_said_with_the_options_name(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidArgumentError, match=message):
            settings(**values)

    def test_mutual_tls_needs_a_root(self, tmp_path: Path) -> None:
        (tmp_path / "pem").write_bytes(b"")

        with pytest.raises(InvalidArgumentError, match=r"^--grpc-use-ssl-mutual needs --grpc-root-cert$"):
            settings(grpc_use_ssl_mutual=True, grpc_server_cert=tmp_path / "pem", grpc_server_key=tmp_path / "pem")


class TestRestrictions:
    def test_protocols_share_or_have_their_own(self) -> None:
        parsed = parse_restrictions(["model-config,health:Key=value", "trace:other=a=b"])

        assert {name: (entry.key, entry.value) for name, entry in parsed.items()} == {
            "model-config": ("triton-grpc-protocol-key", b"value"),
            "health": ("triton-grpc-protocol-key", b"value"),
            "trace": ("triton-grpc-protocol-other", b"a=b"),
        }

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["health"], "expected PROTOCOL"),
            (["health:key"], "expected PROTOCOL"),
            (["health:=value"], "expected PROTOCOL"),
            (["wealth:key=value"], "unknown protocol 'wealth'"),
            (["health:a=b", "trace,health:c=d"], "'health' is restricted already"),
        ],
    )
    def test_malformed_ones_are_quoted(self, options: list[str], message: str) -> None:
        with pytest.raises(InvalidArgumentError, match=message) as caught:
            parse_restrictions(options)

        assert options[-1] in str(caught.value)


METHODS = {
    "health": ("ServerLive", "ServerReady", "ModelReady"),
    "metadata": ("ServerMetadata", "ModelMetadata"),
    "model-config": ("ModelConfig",),
    "model-repository": ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"),
    "statistics": ("ModelStatistics",),
    "shared-memory": ("SystemSharedMemoryStatus", "CudaSharedMemoryRegister"),
    "trace": ("TraceSetting",),
    "logging": ("LogSettings",),
    "inference": ("ModelInfer",),
}


def test_restricted_protocols_need_their_metadata(serve: Callable[..., Any], grpc_server: str) -> None:
    assert METHODS.keys() == set(PARTS)
    everything = f"{','.join(PARTS)}:admin=secret"
    with serve(grpc_server=grpc_server, grpc_restricted_protocol=[everything]) as server, Rpc(server.grpc_url) as rpc:

        def refused(call: Callable[[], object]) -> bool:
            try:
                call()
            except grpc.RpcError as error:
                details = "This protocol is restricted, expecting header 'triton-grpc-protocol-admin'"
                return (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, details)
            return False

        secret = [("triton-grpc-protocol-admin", "secret")]
        for method in [method for methods in METHODS.values() for method in methods]:
            assert refused(lambda method=method: rpc.call(method))
            assert refused(lambda method=method: rpc.call(method, metadata=[("triton-grpc-protocol-admin", "no")]))
            assert not refused(lambda method=method: rpc.call(method, metadata=secret))
        assert refused(lambda: rpc.send("/grpc.health.v1.Health/Check", b""))
        infer = request("gate", IN=int32(1))
        assert refused(lambda: list(rpc.stream([infer])))
        assert len(list(rpc.stream([infer], metadata=secret))) == 1


def test_metadata_is_forwarded_as_parameters(serve: Callable[..., Any], grpc_server: str) -> None:
    pattern = "^my-.*|trace"
    metadata = [("my-key", "a"), ("traceparent", "b"), ("other", "c"), ("my-bytes-bin", b"\xff")]
    with serve(grpc_server=grpc_server, grpc_header_forward_pattern=pattern) as server, Rpc(server.grpc_url) as rpc:
        message = request("parameters", IN=int32(1))
        message.parameters["own"].int64_param = 1
        answers = [
            rpc.call("ModelInfer", message, metadata=metadata),
            next(rpc.stream([message], metadata=metadata)).infer_response,
        ]

    for answer in answers:
        said = json.loads(answer.raw_output_contents[0][4:])
        assert said["parameters"] == {"own": 1, "my-key": "a", "traceparent": "b"}


class Relay:
    """Passes one connection on to a server, and counts the bytes that come back."""

    def __init__(self, url: str) -> None:
        self.received = 0
        host, _, port = url.partition(":")
        self._upstream = socket.create_connection((host, int(port)))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()
        self._upstream.close()

    def _run(self) -> None:
        client, _ = self._listener.accept()
        with client:
            sender = threading.Thread(target=self._send, args=(client,))
            sender.start()
            while data := self._upstream.recv(65536):
                self.received += len(data)
                client.sendall(data)
            sender.join()

    def _send(self, client: socket.socket) -> None:
        while data := client.recv(65536):
            self._upstream.sendall(data)
        self._upstream.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("level", ["low", "medium", "high"])
def test_responses_are_compressed(serve: Callable[..., Any], level: str) -> None:
    message = request("echo", I_UINT8=np.zeros(200_000, np.uint8))
    with (
        serve(grpc_server="aio", grpc_infer_response_compression_level=level) as server,
        Relay(server.grpc_url) as relay,
        Rpc(relay.url) as rpc,
    ):
        answers = [rpc.call("ModelInfer", message), next(rpc.stream([message])).infer_response]

    assert relay.received < 10_000
    assert [answer.raw_output_contents[0] for answer in answers] == [bytes(200_000)] * 2


def test_a_port_that_is_taken_is_said(serve: Callable[..., Any], grpc_server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(StartupError, match=f"gRPC address 127.0.0.1:{port}"),
            serve(grpc_server=grpc_server, grpc_port=port),
        ):
            pass


def test_servers_may_share_a_port(serve: Callable[..., Any], grpc_server: str) -> None:
    with serve(grpc_server=grpc_server, reuse_grpc_port=True) as first:
        port = int(first.grpc_url.rpartition(":")[2])
        with serve(grpc_server=grpc_server, reuse_grpc_port=True, grpc_port=port) as second:
            assert second.grpc_url == first.grpc_url


def test_it_can_be_left_out(serve: Callable[..., Any]) -> None:
    with serve(allow_grpc=False) as server, pytest.raises(LookupError):
        _ = server.grpc_url


@NATIVE
@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"grpc_infer_response_compression_level": "low"}, "response compression"),
        ({"grpc_max_connection_age": 1000}, "closing connections by age"),
    ],
)
def test_the_native_server_refuses_what_it_cannot_do(
    serve: Callable[..., Any], values: dict[str, Any], what: str
) -> None:
    with (
        pytest.raises(InvalidArgumentError, match=f"^--grpc-server=native cannot do {what}"),
        serve(grpc_server="native", **values),
    ):
        pass


def test_the_native_server_says_how_to_install_it(serve: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygrpc_native", None)
    monkeypatch.delitem(sys.modules, "trivet_protocol_kserve_v2.grpc.native_server", raising=False)

    with pytest.raises(InvalidArgumentError, match="pip install pygrpc-native"), serve(grpc_server="native"):
        pass
