"""Text to tokens and back: the byte-level vocabulary that a GGUF file carries."""

import codecs

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CONTROL = 3  # the type of tokens that are no text


def make_tokenizer(metadata):
    """The tokenizer whose vocabulary and merges are in the metadata of a GGUF file."""
    tokens = metadata["tokenizer.ggml.tokens"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = metadata["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer


def bytes_of_tokens(metadata):
    """The bytes of each token. A vocabulary of bytes writes those that do not print as other characters."""
    printed = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in printed]
    characters = {chr(byte): byte for byte in printed} | {chr(256 + at): byte for at, byte in enumerate(others)}
    return [
        bytes(characters[character] for character in token) if set(token) <= characters.keys() else token.encode()
        for token in metadata["tokenizer.ggml.tokens"]
    ]


class Detokenizer:
    """Text as far as it is known: a character may be spread over several tokens."""

    def __init__(self, token_bytes):
        self._bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token):
        """The text that is complete with this token."""
        return self._decoder.decode(self._bytes[token])

    def end(self):
        """What is left of a character that was never completed."""
        return self._decoder.decode(b"", final=True)
