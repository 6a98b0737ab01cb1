"""Language models in GGUF files: a text in, a text out, whole or in pieces as they come."""

import threading
from collections.abc import Sequence
from pathlib import Path

from cyllama.llama import llama_cpp as llama
from trivet.backend import Backend, BackendInstance, BackendModel, InstanceContext, ModelContext, RequestInstance
from trivet.datatypes import BYTES
from trivet.errors import InvalidArgumentError, TrivetError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.metrics import MetricKind, MetricRegistry

from trivet_backend_llamacpp.generation import Generator
from trivet_backend_llamacpp.settings import GenerationSettings, ModelSettings
from trivet_backend_llamacpp.text import Text

INPUT, OUTPUT = "text_input", "text_output"
COUNTERS = {
    "llamacpp_steps_total": "Steps of the network",
    "llamacpp_tokens_total": "Tokens that the network has read, those of its answers included",
}


class LlamaBackend(Backend):
    def __init__(self) -> None:
        llama.disable_logging()
        llama.ggml_backend_load_all()

    def auto_complete(self, context: ModelContext) -> None:
        config = context.config
        if config.input or config.output:
            return
        config.input.add(name=INPUT, data_type=BYTES.config_value, dims=[1])
        config.output.add(name=OUTPUT, data_type=BYTES.config_value, dims=[1])
        config.model_transaction_policy.decoupled = True

    def load(self, context: ModelContext) -> BackendModel:
        config = context.config
        names = [*(tensor.name for tensor in config.input), *(tensor.name for tensor in config.output)]
        if names != [INPUT, OUTPUT] or config.max_batch_size:
            raise InvalidArgumentError(
                f"model '{context.name}': expected input '{INPUT}', output '{OUTPUT}' and max_batch_size 0, as a model"
                " without a configuration has them; texts are batched all the same, token by token"
            )
        settings = ModelSettings.read(context.parameters)
        path = context.version_path / (context.default_model_filename or "model.gguf")
        return LlamaModel(read(path, settings), settings, context)


class LlamaModel(BackendModel):
    """Weights and vocabulary, which do not change; and what is counted."""

    def __init__(self, weights: llama.LlamaModel, settings: ModelSettings, context: ModelContext) -> None:
        self.weights = weights
        self.vocabulary = weights.get_vocab()
        self.settings = settings
        self.decoupled = context.config.model_transaction_policy.decoupled
        self._metrics = context.metrics or MetricRegistry()
        self._families = [self._metrics.family(name, text, MetricKind.COUNTER) for name, text in COUNTERS.items()]
        labels = {"model": context.name, "version": str(context.version)}
        self.steps, self.tokens = (family.metric(labels) for family in self._families)
        template = "" if settings.raw else weights.get_default_chat_template()
        self._before, self._after = around(weights, template) if template else ("", "")

    def create_instance(self, context: InstanceContext) -> BackendInstance:
        return LlamaInstance(self, context.name)

    def close(self) -> None:
        for family in self._families:
            self._metrics.release(family)
        self.weights.close()

    def prompt(self, question: str) -> list[int]:
        """Tokens of what the model reads: the text as a user's message, where the model knows of messages."""
        # What a message may contain is text, whatever it looks like: only the template's own marks become tokens.
        return [
            *self.vocabulary.tokenize(self._before, add_special=True, parse_special=True),
            *self.vocabulary.tokenize(question, add_special=False, parse_special=False),
            *self.vocabulary.tokenize(self._after, add_special=False, parse_special=True),
        ]


class LlamaInstance(RequestInstance):
    """Hands requests to a thread that answers all of them together, a token at a time."""

    def __init__(self, model: LlamaModel, name: str) -> None:
        self._model = model
        self._generator = Generator(model.weights, model.settings, model.steps, model.tokens)
        self._thread = threading.Thread(target=self._generator.run, name=f"{name} generates", daemon=True)
        self._thread.start()

    def execute(self, requests: Sequence[InferenceRequest]) -> Sequence[InferenceResponse | None]:
        """Answers come from the generator's thread, but for those to what is refused."""
        return [self._begin(request) for request in requests]

    def close(self) -> None:
        self._generator.stop()
        self._thread.join()

    def _begin(self, request: InferenceRequest) -> InferenceResponse | None:
        try:
            settings = GenerationSettings.read(request.parameters, self._model.decoupled)
            (question,) = request.inputs[INPUT].numpy()
            prompt = self._model.prompt(question.decode("utf-8", "replace"))
            most = self._model.settings.context - 1
            if not 0 < len(prompt) <= most:
                raise InvalidArgumentError(f"the text has {len(prompt)} tokens, expected 1 to {most}")
            self._generator.add(Text(request, prompt, settings, self._model.vocabulary))
        except TrivetError as error:
            return InferenceResponse(error=error)
        return None


def read(path: Path, settings: ModelSettings) -> llama.LlamaModel:
    """The weights of a file, which are mapped into memory. Raises InvalidArgumentError, which the operator is shown."""
    # llama.cpp says what is wrong with a file only in its log.
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise InvalidArgumentError(f"'{path}' cannot be read: {error.strerror}") from error
    if magic != b"GGUF":
        raise InvalidArgumentError(f"'{path}' is no GGUF file: it begins with {magic!r}")
    parameters = llama.LlamaModelParams()
    parameters.n_gpu_layers = settings.gpu_layers
    try:
        return llama.LlamaModel(str(path), parameters)
    except Exception as error:
        raise InvalidArgumentError(f"'{path}' is nothing that llama.cpp can load: {error}") from error


def around(weights: llama.LlamaModel, template: str) -> tuple[str, str]:
    """What the template for messages puts before a user's message, and after it. Raises InvalidArgumentError."""
    mark = "\x01"
    try:
        text: str = weights.chat_apply_template(template, [llama.LlamaChatMessage("user", mark)], True)
    except Exception as error:
        raise InvalidArgumentError(
            f"llama.cpp does not know the template for messages in the model's file: {error}; with the parameter raw as"
            " 'true', texts are read as they are"
        ) from error
    before, _, after = text.partition(mark)
    return before, after
