"""How a protocol holds back a model that answers faster than its caller reads, without stopping its thread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable


class Throttle(ABC):
    """An ``InferenceRequest.throttle`` that can be asked: who cannot wait leaves the request out meanwhile.

    Belongs to one request. The engine asks before it brings a rescheduled request back to its scheduler.
    """

    @abstractmethod
    def __call__(self) -> None:
        """Called on the model's thread before each response; blocks while too many wait, but not on the event loop."""

    @abstractmethod
    def holds(self) -> bool:
        """Whether a call would block now. From any thread.

        False is a promise: the next call does not block, whatever the client does meanwhile. So a thread that answers
        many requests waits for none of them if it asks before each response.
        """

    @abstractmethod
    def when_room(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` once, when a call would no longer block, or when the request has ended.

        From the event loop, on which it is called back.
        """
