"""llama.cpp as it is: one text alone, token after token."""

from functools import cache
from pathlib import Path

from cyllama.llama import llama_cpp as llama


class Plain:
    """What a model answers, without this package."""

    def __init__(self, path: Path) -> None:
        llama.disable_logging()
        llama.ggml_backend_load_all()
        self._model = llama.LlamaModel(str(path), llama.LlamaModelParams())
        self._vocabulary = self._model.get_vocab()
        self.tokens = cache(self._tokens)

    def _tokens(self, text: str, most: int) -> list[int]:
        """The likeliest tokens after ``text``."""
        parameters = llama.LlamaContextParams()
        parameters.n_ctx = parameters.n_batch = 512
        parameters.type_k = parameters.type_v = 0  # f32
        context = llama.LlamaContext(self._model, parameters)
        sampler = llama.LlamaSampler(llama.LlamaSamplerChainParams())
        sampler.add_greedy()
        batch = llama.LlamaBatch(n_tokens=512, embd=0, n_seq_max=1)
        unread, position, answer = self._vocabulary.tokenize(text, add_special=True, parse_special=True), 0, []
        while len(answer) < most:
            batch.clear()
            for token in unread:
                batch.add(token, position, [0], True)
                position += 1
            context.decode(batch)
            token = sampler.sample(context, len(unread) - 1)
            if self._vocabulary.is_eog(token):
                break
            answer.append(token)
            unread = [token]
        context.close()
        return answer
