"""``ts.handler_utils.utils``: answers in parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def send_intermediate_predict_response(
    ret: Sequence[Any],
    req_id_map: Mapping[int, str],
    message: str,  # noqa: ARG001 - TorchServe's signature
    code: int,  # noqa: ARG001
    context: Any,
) -> None:
    """Answer rows of the batch in part, from any thread; what ``handle`` returns is the last part.

    ``req_id_map`` says for each answer to be sent whose it is: all of ``context.request_ids``, or some.

    Raises :class:`~trivet.errors.InternalError` where the model is not decoupled, and :class:`RuntimeError` while no
    batch is executed.
    """
    send = context.send_intermediate
    if send is None:
        raise RuntimeError("send_intermediate_predict_response is for a batch that the handler has at hand")
    send(ret, req_id_map)
