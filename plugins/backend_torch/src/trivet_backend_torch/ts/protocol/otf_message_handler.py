"""``ts.protocol.otf_message_handler``: where older handlers import from what is in ``ts.handler_utils.utils`` now."""

from trivet_backend_torch.ts.handler_utils.utils import send_intermediate_predict_response

__all__ = ["send_intermediate_predict_response"]
