"""SmolLM2-135M-Instruct answers, token by token, up to 32 texts at a time (continuous batching).

A step of the network reads all of its weights, for one text as for many; so each step is taken for all texts that are
being answered, and a new one joins at the next step. Parameter ``max_tokens``: where an answer ends at the latest.
"""

import json
import queue
import threading
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from gguf_file import read
from llama_network import Llama
from threadpoolctl import threadpool_limits
from vocabulary import Detokenizer, bytes_of_tokens, make_tokenizer

TEXTS = 32
CONTEXT = 512
"""Tokens of a question and its answer together. The keys and values of one take 46 kB."""
MAX_TOKENS = 128

INSTRUCTION = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
BEFORE = f"<|im_start|>system\n{INSTRUCTION}<|im_end|>\n<|im_start|>user\n"
AFTER = "<|im_end|>\n<|im_start|>assistant\n"
LAST = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class Text:
    """One request: its question in tokens, and how far it is answered."""

    def __init__(self, question, most, sender, detokenizer):
        self.question = question
        self.left = most
        self.sender = sender
        self.length = 0
        self.token = -1
        self._detokenizer = detokenizer

    def take(self, token):
        self.token = token
        self.left -= 1
        self._send(self._detokenizer.add(token))

    def end(self):
        self._send(self._detokenizer.end())
        self.sender.send(flags=LAST)

    def fail(self, message):
        self.sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(message)), flags=LAST)

    def _send(self, text):
        if text:
            output = pb_utils.Tensor("text_output", np.array([text], np.object_))
            self.sender.send(pb_utils.InferenceResponse([output]))


class TritonPythonModel:
    def initialize(self, args):
        metadata, tensors = read(Path(args["model_repository"], args["model_version"], "model.gguf"))
        self._tokenizer, self._bytes = make_tokenizer(metadata), bytes_of_tokens(metadata)
        self._stops = {self._tokenizer.token_to_id(token) for token in ("<|im_end|>", "<|endoftext|>")}
        # One row more, for what all texts begin with: it is read once.
        self._network = Llama(metadata, tensors, TEXTS + 1, CONTEXT)
        self._before = self._tokenizer.encode(BEFORE).ids
        self._network.begin(TEXTS, self._before, 0)
        self._arrived = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=args["model_instance_name"], daemon=True)
        self._thread.start()

    def execute(self, requests):
        for request in requests:
            question = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy()[0].decode("utf-8", "replace")
            tokens = self._tokenizer.encode(question, add_special_tokens=False).ids
            tokens += self._tokenizer.encode(AFTER).ids
            most = json.loads(request.parameters()).get("max_tokens", MAX_TOKENS)
            text = Text(tokens, most, request.get_response_sender(), Detokenizer(self._bytes))
            room = CONTEXT - len(self._before) - len(tokens)
            if type(most) is not int or most < 1:
                text.fail(f"parameter max_tokens is {most!r}, expected an integer from 1 on")
            elif room < 1:
                text.fail(f"the text has {len(tokens)} tokens, at most {CONTEXT - len(self._before) - 1} are answered")
            else:
                text.left = min(most, room)
                self._arrived.put(text)

    def finalize(self):
        self._arrived.put(None)
        self._thread.join()

    def _serve(self):
        """The thread that all texts are answered on, until the model is unloaded; each has the row of its place."""
        texts = []
        # The products are small: threads that share them would spend their time waiting for each other.
        with threadpool_limits(1, "blas"):
            while (arrived := self._take(wait=not texts, most=TEXTS - len(texts))) is not None:
                try:
                    texts += arrived
                    for row in range(len(texts) - len(arrived), len(texts)):
                        self._begin(texts[row], row)
                    texts = self._without_ended(texts)
                    if texts:
                        self._step(texts)
                        texts = self._without_ended(texts)
                except Exception as error:  # noqa: BLE001 - every text gets an answer, and the thread lives on
                    for text in texts:
                        text.fail(f"the network failed: {error}")
                    texts = []

    def _take(self, wait, most):
        """The texts that came since the last step, ``most`` at a time; ``None`` once no more will come."""
        arrived = []
        while len(arrived) < most and (wait or not self._arrived.empty()):
            text = self._arrived.get()
            if text is None:
                return None
            arrived.append(text)
            wait = False
        return arrived

    def _begin(self, text, row):
        start = len(self._before)
        self._network.copy(TEXTS, row, start)
        scores = self._network.begin(row, text.question, start)
        text.length = start + len(text.question)
        self._next(text, scores)

    def _step(self, texts):
        scores = self._network.step([text.token for text in texts], [text.length for text in texts])
        for text, of_text in zip(texts, scores, strict=True):
            text.length += 1
            self._next(text, of_text)

    def _next(self, text, scores):
        token = int(scores.argmax())
        if token in self._stops:
            text.left = 0
        else:
            text.take(token)

    def _without_ended(self, texts):
        """The texts that go on; the last row moves to where one has ended, so that rows stay without gaps."""
        row = 0
        while row < len(texts):
            text = texts[row]
            if text.sender.is_cancelled() or text.left == 0:
                if not text.sender.is_cancelled():
                    text.end()
                last = texts.pop()
                if row < len(texts):
                    self._network.copy(len(texts), row, last.length)
                    texts[row] = last
            else:
                row += 1
        return texts
