"""Responses in the order of their requests (``preserve_ordering``)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trivet.inference import InferenceRequest, InferenceResponse


class ResponseOrder:
    """Holds back responses until every request before theirs has its final one.

    Requests that are rejected or cancelled leave the order, and are answered at once.
    """

    def __init__(self, answer: Callable[[InferenceRequest, InferenceResponse], None]) -> None:
        """``answer`` sends a response on its way; it must not raise."""
        self._answer = answer
        self._open: OrderedDict[InferenceRequest, list[InferenceResponse]] = OrderedDict()
        self._releasing = False

    def __len__(self) -> int:
        return len(self._open)

    def add(self, request: InferenceRequest) -> None:
        """The request is next in the order. Does nothing for one that has its place already."""
        self._open.setdefault(request, [])

    def remove(self, request: InferenceRequest) -> None:
        """Nobody waits for this request any more."""
        if self._open.pop(request, None) is not None:
            self._release()

    def deliver(self, request: InferenceRequest, response: InferenceResponse) -> None:
        """Answer now, or as soon as it is this request's turn."""
        held = self._open.get(request)
        if held is None:
            self._answer(request, response)
            return
        held.append(response)
        self._release()

    def _release(self) -> None:
        """Answer all whose turn it is."""
        if self._releasing:
            return  # whoever was answered has submitted or cancelled something; the loop below goes on with it
        self._releasing = True
        try:
            while self._open:
                request, held = next(iter(self._open.items()))
                if not held:
                    return
                response = held.pop(0)
                if response.final:
                    del self._open[request]
                self._answer(request, response)
        finally:
            self._releasing = False
