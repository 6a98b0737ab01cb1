"""Says how English words are pronounced, one phoneme (ARPAbet) after the other: g2p_en's network, as a stream.

An encoder reads a word's letters, a decoder says its phonemes, each of which depends on the one before. So one text
cannot be hurried, but a step of the decoder costs little more for many texts than for one. The scheduler executes each
request again and again (iterative sequence), together with those that are being said at the time (continuous
batching): a new one joins at the next step, one whose client reads slowly is left out. Between words comes a blank.
"""

import re
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


class Speech:
    """One request: the words that are left, and how far the current one is said."""

    def __init__(self, words, sender):
        self.words = words
        self.sender = sender
        self.hidden = None
        self.last = START
        self.said = 0

    def say(self, text):
        output = pb_utils.Tensor("text_output", np.array([[text]], np.object_))
        self.sender.send(pb_utils.InferenceResponse([output]))

    def take(self, phoneme):
        """Go on after a step."""
        if phoneme != STOP:
            self.say(PHONEMES[phoneme])
            self.last = phoneme
            self.said += 1
            if self.said < LONGEST:
                return
        self.words.pop(0)
        self.hidden, self.last, self.said = None, START, 0
        if self.words:
            self.say(" ")


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        weights = np.load(folder / "weights.npz")
        self._encoder, self._decoder = Gru(weights, "enc"), Gru(weights, "dec")
        self._out, self._out_bias = np.ascontiguousarray(weights["fc_w"].T), weights["fc_b"]
        self._speeches = {}

    def execute(self, requests):
        """One phoneme of each request, which goes back to the scheduler until all is said."""
        # A client that has gone takes its request with it, which is not executed again.
        self._speeches = {id: speech for id, speech in self._speeches.items() if not speech.sender.is_cancelled()}
        speeches = [self._speech(request) for request in requests]
        self._step([speech for speech in speeches if speech.words])
        for request, speech in zip(requests, speeches, strict=True):
            if speech.words:
                request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
            else:
                speech.sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
                del self._speeches[request.correlation_id()]

    def _speech(self, request):
        """What was said of a request so far; the scheduler gives each an id of its own."""
        speech = self._speeches.get(request.correlation_id())
        if speech is None:
            (text,) = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy().reshape(-1)
            words = re.findall(r"[a-z']+", text.decode("utf-8", "replace").lower())
            speech = self._speeches[request.correlation_id()] = Speech(words, request.get_response_sender())
        return speech

    def _step(self, speeches):
        if not speeches:
            return
        starting = [speech for speech in speeches if speech.hidden is None]
        for speech, hidden in zip(starting, self._encode([speech.words[0] for speech in starting]), strict=True):
            speech.hidden = hidden
        hidden = np.stack([speech.hidden for speech in speeches])
        hidden = self._decoder([speech.last for speech in speeches], hidden)
        phonemes = (hidden @ self._out + self._out_bias).argmax(axis=1).tolist()
        for speech, row, phoneme in zip(speeches, hidden, phonemes, strict=True):
            speech.hidden = row
            speech.take(phoneme)

    def _encode(self, words):
        """``hidden`` [N, 256] after each word's letters."""
        hidden = np.zeros((len(words), 256), np.float32)
        letters = [[*(LETTERS.get(letter, UNKNOWN_LETTER) for letter in word), END_OF_WORD] for word in words]
        for at in range(max(map(len, letters), default=0)):
            rows = [row for row, word in enumerate(letters) if at < len(word)]
            hidden[rows] = self._encoder([letters[row][at] for row in rows], hidden[rows])
        return hidden
