"""Says how English words are pronounced, one phoneme (ARPAbet) after the other: g2p_en's network, as a stream.

An encoder reads a word's letters, a decoder says its phonemes, each of which depends on the one before. So one text
cannot be hurried, but a step of the decoder costs little more for many texts than for one: all that are being said at a
time take each step together, and a new one joins at the next step (continuous batching). Between words comes a blank.
"""

import queue
import re
import threading
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

LETTERS = {letter: index for index, letter in enumerate("abcdefghijklmnopqrstuvwxyz", start=3)}
UNKNOWN_LETTER, END_OF_WORD = 1, 2
START, STOP = 2, 3
LONGEST = 20
"""Phonemes of a word, as in g2p_en."""

VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = ("B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG", "P", "R", "S", "SH", "T", "TH")
CONSONANTS += ("V", "W", "Y", "Z", "ZH")
# As the checkpoint numbers them. Vowels carry their stress; it knows one of them without, too.
SOUNDS = sorted((*CONSONANTS, *(vowel + stress for vowel in VOWELS for stress in "012"), "UW"))
PHONEMES = ("<pad>", "<unk>", "<s>", "</s>", *SOUNDS)


class Gru:
    """A gated recurrent unit over embedded symbols."""

    def __init__(self, weights, name):
        # What a symbol contributes is the same each time, so it is looked up and not computed.
        self._symbols = weights[f"{name}_emb"] @ weights[f"{name}_w_ih"].T + weights[f"{name}_b_ih"]
        self._hidden = np.ascontiguousarray(weights[f"{name}_w_hh"].T)
        self._bias = weights[f"{name}_b_hh"]

    def __call__(self, symbols, hidden):
        """The next ``hidden`` [N, 256] after each row's next symbol."""
        of_symbol = self._symbols[symbols]
        of_hidden = hidden @ self._hidden + self._bias
        size = hidden.shape[1]
        gates = 1 / (1 + np.exp(-(of_symbol[:, : 2 * size] + of_hidden[:, : 2 * size])))
        reset, update = gates[:, :size], gates[:, size:]
        candidate = np.tanh(of_symbol[:, 2 * size :] + reset * of_hidden[:, 2 * size :])
        return (1 - update) * candidate + update * hidden


class Stream:
    """One request: the words that are left, and how far the current one is said."""

    def __init__(self, words, sender):
        self.words = words
        self.sender = sender
        self.last = START
        self.said = 0

    def say(self, text):
        self.sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("text_output", np.array([text], np.object_))]))

    def take(self, phoneme):
        """Go on after a step. Returns whether the word is at its end."""
        if phoneme != STOP:
            self.say(PHONEMES[phoneme])
            self.last = phoneme
            self.said += 1
            if self.said < LONGEST:
                return False
        self.words.pop(0)
        self.last, self.said = START, 0
        if self.words:
            self.say(" ")
        return True


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        weights = np.load(folder / "weights.npz")
        self._encoder, self._decoder = Gru(weights, "enc"), Gru(weights, "dec")
        self._out, self._out_bias = np.ascontiguousarray(weights["fc_w"].T), weights["fc_b"]
        self._arrived = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="pronunciation", daemon=True)
        self._thread.start()

    def execute(self, requests):
        for request in requests:
            text = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy()[0].decode("utf-8", "replace")
            words = re.findall(r"[a-z']+", text.lower())
            sender = request.get_response_sender()
            if words:
                self._arrived.put(Stream(words, sender))
            else:
                sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def finalize(self):
        self._arrived.put(None)
        self._thread.join()

    def _serve(self):
        """The thread that all texts are said on, until the model is unloaded."""
        streams, hidden = [], np.empty((0, 256), np.float32)
        while (arrived := self._take(wait=not streams)) is not None:
            streams += arrived
            hidden = np.concatenate([hidden, self._encode([stream.words[0] for stream in arrived])])
            try:
                streams, hidden = self._step(streams, hidden)
            except Exception as error:  # noqa: BLE001 - every text gets an answer, and the thread lives on
                failure = pb_utils.InferenceResponse(error=pb_utils.TritonError(f"the decoder failed: {error}"))
                for stream in streams:
                    stream.sender.send(failure, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
                streams, hidden = [], hidden[:0]

    def _take(self, wait):
        """The streams that came since the last step; ``None`` once no more will come."""
        arrived = []
        while wait or not self._arrived.empty():
            stream = self._arrived.get()
            if stream is None:
                return None
            arrived.append(stream)
            wait = False
        return arrived

    def _encode(self, words):
        """``hidden`` [N, 256] after each word's letters."""
        hidden = np.zeros((len(words), 256), np.float32)
        letters = [[*(LETTERS.get(letter, UNKNOWN_LETTER) for letter in word), END_OF_WORD] for word in words]
        for at in range(max(map(len, letters), default=0)):
            rows = [row for row, word in enumerate(letters) if at < len(word)]
            hidden[rows] = self._encoder([letters[row][at] for row in rows], hidden[rows])
        return hidden

    def _step(self, streams, hidden):
        """One phoneme of each stream. Returns those that go on, and their ``hidden``."""
        hidden = self._decoder([stream.last for stream in streams], hidden)
        phonemes = (hidden @ self._out + self._out_bias).argmax(axis=1).tolist()
        kept, started = [], []
        for row, (stream, phoneme) in enumerate(zip(streams, phonemes, strict=True)):
            if stream.sender.is_cancelled():
                continue
            at_end = stream.take(phoneme)
            if not stream.words:
                stream.sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
                continue
            kept.append(row)
            if at_end:
                started.append(row)
        if started:
            hidden[started] = self._encode([streams[row].words[0] for row in started])
        return [streams[row] for row in kept], hidden[kept]
