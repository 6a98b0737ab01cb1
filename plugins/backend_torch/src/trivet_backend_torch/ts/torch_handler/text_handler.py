"""``ts.torch_handler.text_handler``: what handlers of text derive from that bring a tokenizer of their own."""

from __future__ import annotations

import html
import re
import string
import unicodedata
from pathlib import Path
from typing import Any

from trivet_backend_torch.ts.torch_handler.base_handler import BaseHandler

_TAG = re.compile(r"<[^>]*>")
_VOCABULARY = "source_vocab.pt"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class TextHandler(BaseHandler):
    """A :class:`BaseHandler` with some ways to clean text; there is no vocabulary of torchtext."""

    def initialize(self, context: Any) -> None:
        """As :class:`BaseHandler`. Raises :class:`RuntimeError` for an archive with a vocabulary of torchtext, too."""
        if Path(context.system_properties["model_dir"], _VOCABULARY).exists():
            raise RuntimeError(
                f"the archive has a vocabulary of torchtext, '{_VOCABULARY}', which is not made for PyTorch 2.4 and"
                " newer: derive the handler from BaseHandler, with a tokenizer of its own"
            )
        super().initialize(context)

    def _remove_html_tags(self, text: str) -> str:
        """Without tags and with the characters that entities stand for."""
        return html.unescape(_TAG.sub("", text))

    def _remove_accented_characters(self, text: str) -> str:
        """In ASCII, letters without their accents."""
        return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()

    def _remove_punctuation(self, text: str) -> str:
        """Without the punctuation of ASCII."""
        return text.translate(_NO_PUNCTUATION)
