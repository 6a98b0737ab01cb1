"""Real models on real input, over HTTP and gRPC: the answers have to be right, not only well-formed."""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton_http
from numpy.typing import NDArray
from PIL import Image
from processing import (
    ctc_text,
    file_features,
    imagenet_pixels,
    orientation_pixels,
    page_pixels,
    speech_windows,
    text_boxes,
    text_pixels,
)
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.timeout(600)  # the first test downloads and exports what is not cached

ORIENTATION = "save_infer_model/scale_0.tmp_1"
Sample = Callable[[str], Path]
Draw = Callable[..., bytes]


def drawing(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


class TestReadingText:
    @pytest.fixture
    def characters(self, client: Any) -> str:
        text: str = client.config("text_recognition")["parameters"]["character"]["string_value"]
        return text

    @pytest.mark.parametrize("text", ["KServe v2", "Straße 42: 3.14€", "The quick brown fox jumps over the lazy dog"])
    def test_the_words_that_were_drawn_are_read(self, client: Any, draw: Draw, characters: str, text: str) -> None:
        pixels = text_pixels(drawing(draw(text)))
        scores = client.infer("text_recognition", {"x": pixels}, "fetch_name_0")
        assert ctc_text(scores[0], characters) == text

    def test_lines_in_one_batch_are_read_each_on_its_own(self, client: Any, draw: Draw, characters: str) -> None:
        texts = ["batched", "requests too", "trivet"]
        lines = [text_pixels(drawing(draw(text))) for text in texts]
        width = max(line.shape[3] for line in lines)
        white = [np.pad(line, [(0, 0)] * 3 + [(0, width - line.shape[3])], constant_values=1) for line in lines]
        scores = client.infer("text_recognition", {"x": np.concatenate(white)}, "fetch_name_0")
        assert [ctc_text(line, characters) for line in scores] == texts

    @pytest.mark.parametrize(("upside_down", "label"), [(False, "upright"), (True, "upside down")])
    def test_upside_down_text_is_noticed(self, client: Any, draw: Draw, upside_down: bool, label: str) -> None:
        pixels = orientation_pixels(drawing(draw("Trivet serves models", upside_down=upside_down)))
        assert client.classify("text_orientation", {"x": pixels}, ORIENTATION, top=1) == [[label]]

    @pytest.mark.parametrize("upside_down", [False, True])
    def test_a_picture_file_goes_in_and_text_comes_out(self, client: Any, draw: Draw, upside_down: bool) -> None:
        texts = ["hello@example.org", "Ångström & Ñandú"]
        files = [[draw(text, upside_down=upside_down)] for text in texts]
        found = client.infer("text_reader", {"image": np.array(files, dtype=object)}, "text")
        assert [text.decode() for text in found[:, 0]] == texts

    @pytest.mark.parametrize(("keep", "message"), [(0, "another format that Pillow reads"), (300, "cannot be decoded")])
    def test_what_is_no_picture_is_refused(self, client: Any, draw: Draw, keep: int, message: str) -> None:
        file = np.array([[draw("trivet")[:keep]]], dtype=object)
        with pytest.raises(InferenceServerException, match=message):
            client.infer("text_reader", {"image": file}, "text")

    @pytest.mark.parametrize("margin", [24, 150])
    def test_text_is_found_where_it_was_drawn(self, client: Any, draw: Draw, margin: int) -> None:
        """On pages of different sizes, since both sides of the input are free."""
        page = drawing(draw("A page of drawn text", "over KServe v2", margin=margin))
        score_map = client.infer("text_detection", {"x": page_pixels(page)}, "fetch_name_0")[0, 0]
        ink = np.asarray(page.convert("L")) < 128
        boxes = text_boxes(score_map)
        assert len(boxes) == 2
        covered = np.zeros_like(ink)
        for left, top, right, bottom in boxes:
            covered[top:bottom, left:right] = True
        assert ink[covered].sum() > 0.95 * ink.sum()

    def test_the_name_tag_in_a_photograph_is_read(self, client: Any, sample: Sample, characters: str) -> None:
        photograph = Image.open(sample("grace_hopper.jpg")).convert("RGB")
        enlarged = photograph.resize((photograph.width * 2, photograph.height * 2))
        score_map = client.infer("text_detection", {"x": page_pixels(enlarged)}, "fetch_name_0")[0, 0]
        lines = [{"x": text_pixels(enlarged.crop(box))} for box in text_boxes(score_map)]
        scores = [client.infer("text_recognition", line, "fetch_name_0")[0] for line in lines]
        assert "COMO HOPPER" in [ctc_text(line, characters) for line in scores]


class TestReadingPages:
    """The ensemble of seven models: a page goes in, and comes back as text."""

    @pytest.mark.parametrize(
        "lines",
        [["A page of drawn text", "over KServe v2"], ["one line"], [f"line number {number}" for number in range(12)]],
        ids=["two", "one", "more than a batch of eight"],
    )
    def test_every_line_is_read_in_order(self, client: Any, draw: Draw, lines: list[str]) -> None:
        found = client.infer("page_reader", {"image": np.array([draw(*lines)], dtype=object)}, "text")
        assert [text.decode() for text in found] == lines

    def test_it_reads_what_its_models_read_when_a_client_does_the_work(
        self, client: Any, sample: Sample, draw: Draw
    ) -> None:
        for file in (sample("text_page.png").read_bytes(), draw("Trivet serves models", upside_down=True)):
            found = client.infer("page_reader", {"image": np.array([file], dtype=object)}, "text")
            page = drawing(file)
            characters = client.config("text_recognition")["parameters"]["character"]["string_value"]
            score_map = client.infer("text_detection", {"x": page_pixels(page)}, "fetch_name_0")[0, 0]
            texts = []
            for line in map(page.crop, text_boxes(score_map)):
                upright, upside_down = client.infer("text_orientation", {"x": orientation_pixels(line)}, ORIENTATION)[0]
                pixels = text_pixels(line.rotate(180) if upside_down > upright else line)
                texts.append(ctc_text(client.infer("text_recognition", {"x": pixels}, "fetch_name_0")[0], characters))
            assert [text.decode() for text in found] == texts

    def test_the_words_are_those_of_the_library_that_the_models_come_from(self, client: Any, sample: Sample) -> None:
        import rapidocr

        file = sample("text_page.png")
        found = client.infer("page_reader", {"image": np.array([file.read_bytes()], dtype=object)}, "text")
        assert [text.decode() for text in found] == list(rapidocr.RapidOCR()(str(file)).txts)

    def test_a_page_without_text_has_none(self, client: Any) -> None:
        file = io.BytesIO()
        Image.new("RGB", (300, 200), "white").save(file, "PNG")
        found = client.infer("page_reader", {"image": np.array([file.getvalue()], dtype=object)}, "text")
        assert found.shape == (0,)

    def test_what_is_no_picture_is_refused_by_the_step_that_decodes(self, client: Any) -> None:
        with pytest.raises(InferenceServerException, match="in ensemble 'page_reader', image cannot be decoded"):
            client.infer("page_reader", {"image": np.array([b"no picture"], dtype=object)}, "text")


class TestClassifyingImages:
    @pytest.mark.parametrize(
        ("name", "label", "within"),
        [("china.jpg", "palace", 1), ("flower.jpg", "daisy", 1), ("grace_hopper.jpg", "military uniform", 3)],
    )
    def test_the_photograph_is_named(
        self, needs_export: None, client: Any, sample: Sample, name: str, label: str, within: int
    ) -> None:
        pixels = imagenet_pixels(sample(name))
        (labels,) = client.classify("image_classification", {"image": pixels}, "probabilities", top=within)
        assert label in labels

    def test_a_batch_of_photographs_is_named_in_order(self, needs_export: None, client: Any, sample: Sample) -> None:
        pixels = np.concatenate([imagenet_pixels(sample(name)) for name in ("flower.jpg", "china.jpg", "flower.jpg")])
        labels = client.classify("image_classification", {"image": pixels}, "probabilities", top=1)
        assert labels == [["daisy"], ["palace"], ["daisy"]]

    def test_probabilities_come_best_first_and_with_their_index(
        self, needs_export: None, client: Any, sample: Sample
    ) -> None:
        inputs = {"image": imagenet_pixels(sample("flower.jpg"))}
        probabilities = client.infer("image_classification", inputs, "probabilities")[0]
        entries = client.infer("image_classification", inputs, "probabilities", class_count=3)[0]
        values, indices, _ = zip(*(entry.decode().split(":") for entry in entries), strict=True)
        assert [int(index) for index in indices] == np.argsort(probabilities)[::-1][:3].tolist()
        np.testing.assert_allclose([float(value) for value in values], np.sort(probabilities)[::-1][:3], atol=1e-5)
        assert probabilities.sum() == pytest.approx(1, abs=1e-4)


class TestIdentifyingFiles:
    def identify(self, client: Any, *contents: bytes) -> list[str]:
        features = np.concatenate([file_features(content) for content in contents])
        return [label for (label,) in client.classify("file_type", {"bytes": features}, "target_label", top=1)]

    @pytest.mark.parametrize(
        ("name", "label"), [("china.jpg", "jpeg"), ("text_line.png", "png"), ("Front_Center.wav", "wav")]
    )
    def test_samples(self, client: Any, sample: Sample, name: str, label: str) -> None:
        assert self.identify(client, sample(name).read_bytes()) == [label]

    def test_sources(self, client: Any) -> None:
        shell = b'#!/bin/sh\nset -eu\nfor f in *.txt; do\n  echo "$f"\ndone\n'
        c = b'#include <stdio.h>\n\nint main(void) {\n    printf("hello\\n");\n    return 0;\n}\n'
        python = Path(__file__).read_bytes()
        data = json.dumps({"model": "trivet", "versions": [1, 2, 3], "ready": True}, indent=2).encode()
        assert self.identify(client, shell, c, python, data) == ["shell", "c", "python", "json"]

    def test_whole_files_go_in_and_types_come_out(self, client: Any, sample: Sample) -> None:
        files = [[sample("china.jpg").read_bytes()], [Path(__file__).read_bytes()], [gzip.compress(b"notes" * 100)]]
        outputs = client.infer_all(
            "file_identifier", {"content": np.array(files, dtype=object)}, {"type": 0, "score": 0}
        )
        assert [name.decode() for name in outputs["type"][:, 0]] == ["jpeg", "python", "gzip"]
        assert (outputs["score"] > 0.9).all()

    def test_archives_and_data(self, client: Any, tmp_path: Path, example_repository: Path) -> None:
        notes = b"some notes\n" * 100
        zipped, tarred, array = io.BytesIO(), io.BytesIO(), io.BytesIO()
        with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("notes.txt", notes)
        with tarfile.open(fileobj=tarred, mode="w") as archive:
            member = tarfile.TarInfo("notes.txt")
            member.size = len(notes)
            archive.addfile(member, io.BytesIO(notes))
        np.save(array, np.arange(1000))
        database = tmp_path / "data.sqlite"
        connection = sqlite3.connect(database)
        connection.execute("create table notes (text)")
        connection.commit()
        connection.close()
        model = example_repository / "file_type" / "1" / "model.onnx"
        contents = (zipped.getvalue(), tarred.getvalue(), gzip.compress(notes), array.getvalue())
        assert self.identify(client, *contents) == ["zip", "tar", "gzip", "npy"]
        assert self.identify(client, database.read_bytes(), model.read_bytes()) == ["sqlite", "onnx"]


class TestDetectingSpeech:
    def probabilities(self, client: Any, windows: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
        """One request a window, the state of each answer going into the next request."""
        state = np.zeros((2, 1, 128), np.float32)
        heard = []
        for window in windows:
            inputs = {"input": window[np.newaxis], "state": state, "sr": np.array([rate])}
            outputs = client.infer_all("voice_activity", inputs, {"output": 0, "stateN": 0})
            state = outputs["stateN"]
            heard.append(outputs["output"][0, 0])
        return np.array(heard)

    @pytest.mark.parametrize(("name", "share"), [("Front_Center.wav", 0.73), ("Rear_Left.wav", 0.73), ("Noise.wav", 0)])
    def test_speech_is_told_from_noise(self, client: Any, sample: Sample, name: str, share: float) -> None:
        heard = self.probabilities(client, speech_windows(sample(name)), 16000)
        assert (heard > 0.5).mean() == pytest.approx(share, abs=0.05)

    def test_the_pause_between_two_words_is_heard(self, client: Any, sample: Sample) -> None:
        spoken = self.probabilities(client, speech_windows(sample("Front_Center.wav")), 16000) > 0.5
        assert spoken[5:14].all()
        assert not spoken[18:24].any()
        assert spoken[30:40].all()

    def test_the_scalar_input_is_heeded(self, client: Any, sample: Sample) -> None:
        """``sr`` has no dimension in the model; at 8 kHz a window has 288 samples, and speech stays speech."""
        at_16_khz = speech_windows(sample("Front_Center.wav"))[:, 64:].ravel()
        samples = np.concatenate([np.zeros(32, np.float32), at_16_khz.reshape(-1, 2).mean(axis=1)])
        windows = np.lib.stride_tricks.sliding_window_view(samples, 288)[::256]
        heard = self.probabilities(client, windows, 8000)
        assert (heard > 0.5).mean() == pytest.approx(0.66, abs=0.05)


class TestEmbeddingSentences:
    SENTENCES = ("That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day")
    # What sentence-transformers/all-MiniLM-L6-v2 is published to answer.
    COSINES = (1, 0.6945, 0.9429, 0.2569)

    @pytest.mark.parametrize("model", ["text_embedding", "text_embedding_ensemble"])
    def test_cosines_are_those_of_the_published_model(self, needs_export: None, client: Any, model: str) -> None:
        text = np.array([[sentence.encode()] for sentence in self.SENTENCES], dtype=object)
        embeddings = client.infer(model, {"text": text}, "embedding")
        assert embeddings.shape == (4, 384)
        np.testing.assert_allclose(embeddings @ embeddings[0], self.COSINES, atol=1e-3)

    def test_tokenizer_and_encoder_can_be_called_one_by_one(self, needs_export: None, client: Any) -> None:
        text = np.array([[sentence.encode()] for sentence in self.SENTENCES[:2]], dtype=object)
        names = ("input_ids", "attention_mask", "token_type_ids")
        tokens = client.infer_all("sentence_tokenizer", {"text": text}, dict.fromkeys(names, 0))
        assert tokens["input_ids"][0].tolist() == [101, 2008, 2003, 1037, 3407, 2711, 102]
        happy, dog = client.infer("sentence_embedding", tokens, "sentence_embedding")
        assert happy @ dog == pytest.approx(0.6945, abs=1e-3)

    def test_padding_beside_a_long_sentence_changes_nothing(self, needs_export: None, client: Any) -> None:
        short = np.array([[b"Short."]], dtype=object)
        both = np.array(
            [[b"Short."], ["Eine Lüge hat kurze Beine; dieser Satz hat lange. ".encode() * 3]], dtype=object
        )
        alone = client.infer("text_embedding", {"text": short}, "embedding")
        beside = client.infer("text_embedding", {"text": both}, "embedding")
        np.testing.assert_allclose(beside[0], alone[0], atol=1e-5)

    def test_sentences_of_like_length_are_padded_and_answered_as_each_alone(
        self, needs_export: None, client: Any, example_server: Any
    ) -> None:
        generator = np.random.default_rng(0)
        lengths = generator.integers(33, 41, 24)
        sentences = [generator.integers(1000, 20000, (1, length)) for length in lengths]

        def embed(ids: NDArray[Any]) -> NDArray[Any]:
            arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
            inputs = [triton_http.InferInput(name, ids.shape, "INT64") for name in arrays]
            for tensor, array in zip(inputs, arrays.values(), strict=True):
                tensor.set_data_from_numpy(array)
            with triton_http.InferenceServerClient(example_server.http_url) as own_client:
                answer: NDArray[Any] = own_client.infer("sentence_embedding", inputs).as_numpy("sentence_embedding")
                return answer

        alone = [embed(sentence) for sentence in sentences]
        before = client.executions("sentence_embedding")
        with ThreadPoolExecutor(len(sentences)) as pool:
            together = list(pool.map(embed, sentences))
        np.testing.assert_allclose(np.concatenate(together), np.concatenate(alone), atol=1e-5)
        assert client.executions("sentence_embedding") - before < len(sentences)

    def test_an_error_of_an_inner_model_reaches_the_client(self, needs_export: None, client: Any) -> None:
        with pytest.raises(InferenceServerException, match="text has to be UTF-8: 'utf-8' codec can't decode"):
            client.infer("text_embedding", {"text": np.array([[b"\xff"]], dtype=object)}, "embedding")

    def test_more_sentences_than_a_batch_holds_are_refused(self, needs_export: None, client: Any) -> None:
        """The message names the limit, and the next request is served."""
        text = np.array([[b"word"]] * 33, dtype=object)
        with pytest.raises(InferenceServerException, match="32"):
            client.infer("text_embedding", {"text": text}, "embedding")
        assert client.infer("text_embedding", {"text": text[:32]}, "embedding").shape == (32, 384)


def test_the_benchmark_model_doubles(client: Any) -> None:
    numbers = np.arange(32, dtype=np.float32).reshape(2, 16)
    np.testing.assert_array_equal(client.infer("double", {"INPUT0": numbers}, "OUTPUT0"), numbers * 2)


class TestConfigurations:
    """Some of the models have a configuration, some a part of one, some none: all are complete when served."""

    def test_none_at_all(self, client: Any) -> None:
        config = client.config("text_detection")
        (pixels,), (score_map,) = config["input"], config["output"]
        assert (pixels["name"], pixels["data_type"]) == ("x", "TYPE_FP32")
        assert [int(size) for size in pixels["dims"]] == [3, -1, -1]
        assert [int(size) for size in score_map["dims"]] == [1, -1, -1]
        assert config["backend"] == "onnxruntime"

    def test_only_the_labels(self, client: Any) -> None:
        config = client.config("file_type")
        assert [(entry["name"], entry["data_type"]) for entry in config["input"]] == [("bytes", "TYPE_INT32")]
        assert [int(size) for size in config["input"][0]["dims"]] == [2048]
        assert config["output"][0]["label_filename"] == "labels.txt"
        assert config["max_batch_size"] == 16

    def test_completed_by_python_code(self, needs_export: None, client: Any) -> None:
        config = client.config("sentence_tokenizer")
        assert [entry["name"] for entry in config["input"]] == ["text"]
        assert [entry["name"] for entry in config["output"]] == ["input_ids", "attention_mask", "token_type_ids"]
        assert config["max_batch_size"] == 32
