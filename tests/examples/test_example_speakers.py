"""Many speakers at once, their state kept by the server: each is heard as if alone."""

from __future__ import annotations

import importlib
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc
from numpy.typing import NDArray
from processing import speech_windows
from trivet.testing import RunningServer, running_server

pytestmark = pytest.mark.timeout(600)  # the first test downloads and exports what is not cached

Floats = NDArray[np.float32]
MODEL = "voice_activity_stream"
SPEAKERS = 12
DIRECT = "direct { max_queue_delay_microseconds: 2000 minimum_slot_utilization: 0.5 }"


@pytest.fixture(scope="module")
def recordings(sample: Callable[[str], Path]) -> list[Floats]:
    """What the speakers say, in windows of 512 samples: three recordings, later or louder for each."""
    found = [sample(name) for name in ("Front_Center.wav", "Rear_Left.wav", "Noise.wav")]
    windows = [speech_windows(path)[:, 64:] for path in found]
    return [windows[speaker % 3][speaker:36] * (1 + speaker / 10) for speaker in range(SPEAKERS)]


@pytest.fixture(scope="module")
def alone(example_repository: Path, recordings: Sequence[Floats]) -> list[Floats]:
    """Each speaker's probabilities by the published model, called for that speaker alone."""
    session = onnxruntime.InferenceSession(example_repository / "voice_activity" / "1" / "model.onnx")
    return [heard_by(session, windows) for windows in recordings]


def heard_by(session: onnxruntime.InferenceSession, windows: Floats) -> Floats:
    state, context = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32)
    heard = []
    for window in windows:
        feed = {"input": np.concatenate([context, window])[np.newaxis], "state": state, "sr": np.array(16000)}
        probability, state = session.run(["output", "stateN"], feed)
        heard.append(probability[0, 0])
        context = window[-64:]
    return np.array(heard)


@pytest.fixture(scope="module", params=["oldest", "direct"])
def server(request: pytest.FixtureRequest, example_repository: Path, tmp_path_factory: Any) -> Iterator[RunningServer]:
    """The example's model with either strategy."""
    folder = tmp_path_factory.mktemp("speakers") / MODEL
    folder.mkdir()
    (folder / "1").symlink_to(example_repository / MODEL / "1")
    config = (example_repository / MODEL / "config.pbtxt").read_text()
    if request.param == "direct":
        config = config.replace("oldest { max_candidate_sequences: 1024 }", DIRECT)
        assert DIRECT in config
    (folder / "config.pbtxt").write_text(config)
    with running_server(folder.parent) as server:
        yield server


def place(windows: Floats, number: int) -> dict[str, bool]:
    return {"sequence_start": number == 0, "sequence_end": number == len(windows) - 1}


def samples(module: Any, window: Floats) -> Any:
    return module.InferInput("samples", [1, 512], "FP32").set_data_from_numpy(window[np.newaxis])


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_each_speaker_is_heard_as_if_alone(
    server: RunningServer, recordings: Sequence[Floats], alone: Sequence[Floats], protocol: str
) -> None:
    module = importlib.import_module(f"tritonclient.{protocol}")

    def speak(speaker: int) -> Floats:
        windows = recordings[speaker]
        id = speaker + 1 if speaker % 2 else f"speaker {speaker}"
        url = server.http_url if protocol == "http" else server.grpc_url
        with module.InferenceServerClient(url) as client:
            answers = [
                client.infer(MODEL, [samples(module, window)], sequence_id=id, **place(windows, number))
                for number, window in enumerate(windows)
            ]
        return np.array([answer.as_numpy("speech")[0, 0] for answer in answers])

    with ThreadPoolExecutor(SPEAKERS) as threads:
        heard = list(threads.map(speak, range(SPEAKERS)))
    for mine, expected in zip(heard, alone, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-7)


def test_all_speakers_on_one_stream_without_waiting_for_answers(
    server: RunningServer, recordings: Sequence[Floats], alone: Sequence[Floats]
) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    heard: list[list[float]] = [[] for _ in recordings]
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for number in range(max(map(len, recordings))):
            for speaker, windows in enumerate(recordings):
                if number < len(windows):
                    client.async_stream_infer(
                        MODEL,
                        [samples(tritonclient.grpc, windows[number])],
                        request_id=str(speaker),
                        sequence_id=1000 + speaker,
                        **place(windows, number),
                    )
        for _ in range(sum(map(len, recordings))):
            result, error = answers.get(timeout=60)
            assert error is None, error
            heard[int(result.get_response().id)].append(result.as_numpy("speech")[0, 0])
        client.stop_stream()
    for mine, expected in zip(heard, alone, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-7)


def test_windows_of_many_speakers_shared_executions_and_the_state_stayed_in_the_server(server: RunningServer) -> None:
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:
        [statistics] = client.get_inference_statistics(MODEL).model_stats
        outputs = [output.name for output in client.get_model_metadata(MODEL).outputs]
    assert statistics.execution_count < statistics.inference_count
    assert max(batch.batch_size for batch in statistics.batch_stats) > 1
    assert outputs == ["speech"]


def heard_share(heard: Floats) -> float:
    return float((heard > 0.5).mean())


def test_speech_is_told_from_noise(alone: Sequence[Floats]) -> None:
    """What is compared above is no constant."""
    front, rear, noise = (heard_share(alone[speaker]) for speaker in range(3))
    assert min(front, rear) > 0.4
    assert noise < 0.1
