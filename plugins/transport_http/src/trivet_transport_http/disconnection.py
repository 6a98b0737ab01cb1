"""What becomes of a request whose client has gone, over any version of HTTP. On the event loop."""

from __future__ import annotations

import logging

from trivet.http import HttpRequest

logger = logging.getLogger(__name__)


def tell_disconnected(request: HttpRequest) -> None:
    """Call ``on_disconnect`` of a request, once: nobody reads what is, or would be, sent for it. Does not raise."""
    callback, request.on_disconnect = request.on_disconnect, None
    if callback is not None:
        try:
            callback()
        except Exception:
            logger.exception("on_disconnect of %s %s failed", request.method, request.path)
