"""Continuous batching: one step of the network for all texts that are being answered.

A step reads all weights, for one text as for many. So each step takes the next token of every text that is being
answered, fills up with tokens of texts that are being read, and whoever comes joins at the next step. The network keeps
what it has read of a text in one of ``texts`` places, which is free again when the text is answered or its caller gone.
"""

import contextlib
import queue
from collections import deque

from cyllama.llama import llama_cpp as llama
from trivet.errors import InternalError
from trivet.metrics import Metric

from trivet_backend_llamacpp.settings import CACHES, ModelSettings
from trivet_backend_llamacpp.text import Text

LOOK_AGAIN_S = 0.01
"""How long to wait where the callers of all texts have yet to read what there is."""


class Generator:
    """Answers texts on the thread that calls :meth:`run`."""

    def __init__(self, weights: llama.LlamaModel, settings: ModelSettings, steps: Metric, tokens: Metric) -> None:
        parameters = llama.LlamaContextParams()
        parameters.n_ctx = settings.context * settings.texts
        parameters.n_seq_max = settings.texts
        parameters.n_batch = settings.batch
        parameters.n_threads = parameters.n_threads_batch = settings.threads
        parameters.type_k = parameters.type_v = CACHES[settings.cache]
        self._context = llama.LlamaContext(weights, parameters)
        self._batch = llama.LlamaBatch(n_tokens=settings.batch, embd=0, n_seq_max=1)
        self._settings = settings
        self._steps, self._tokens = steps, tokens
        self._arrived: queue.SimpleQueue[Text | None] = queue.SimpleQueue()
        self._waiting: deque[Text] = deque()
        self._free = list(range(settings.texts))
        self._texts: dict[int, Text] = {}  # by place

    def add(self, text: Text) -> None:
        """From any thread."""
        self._arrived.put(text)

    def stop(self) -> None:
        """Let :meth:`run` return. From any thread, when nobody waits for an answer any more."""
        self._arrived.put(None)

    def run(self) -> None:
        while self._take():
            try:
                self._step()
            except Exception as error:
                for place, text in list(self._texts.items()):
                    text.fail(InternalError(f"llama.cpp failed: {error}"))
                    self._leave(place)
        for text in (*self._texts.values(), *self._waiting):
            text.abandon()
        self._context.close()
        self._batch.close()

    def _take(self) -> bool:
        """Give places to texts that have come; wait while there is nothing to do. False when no more will come."""
        held_back = bool(self._texts) and all(text.held_back for text in self._texts.values())
        wait = held_back or not self._texts
        while wait or not self._arrived.empty():
            with contextlib.suppress(queue.Empty):
                text = self._arrived.get(timeout=LOOK_AGAIN_S if held_back else None)
                if text is None:
                    return False
                self._waiting.append(text)
            wait = False
        for place in [place for place, text in self._texts.items() if text.cancelled]:
            self._texts[place].abandon()
            self._leave(place)
        while self._free and self._waiting:
            text = self._waiting.popleft()
            if text.cancelled:
                text.abandon()
            else:
                self._texts[self._free.pop()] = text
        return True

    def _leave(self, place: int) -> None:
        del self._texts[place]
        self._context.memory_seq_rm(place, -1, -1)
        self._free.append(place)

    def _step(self) -> None:
        rows = self._fill()
        if self._batch.n_tokens:
            self._context.decode(self._batch)
            self._steps.increment(1)
            self._tokens.increment(self._batch.n_tokens)
        for place, row in rows.items():
            text = self._texts[place]
            if not text.take(self._context, row, self._settings.context - text.read):
                self._leave(place)

    def _fill(self) -> dict[int, int]:
        """Fill the batch. Returns the row of the last token of each text that has no other."""
        self._batch.clear()
        rows = {}
        going = [(place, text) for place, text in self._texts.items() if not text.held_back]
        # Those with one token first: nobody who is being answered waits for another's long question.
        for place, text in sorted(going, key=lambda item: len(item[1].unread)):
            tokens = text.unread[: self._settings.batch - self._batch.n_tokens]
            del text.unread[: len(tokens)]
            for last, token in enumerate(tokens, 1 - len(tokens)):
                self._batch.add(token, text.read, [place], last == 0 and not text.unread)
                text.read += 1
            if not text.unread:
                rows[place] = self._batch.n_tokens - 1
        return rows
