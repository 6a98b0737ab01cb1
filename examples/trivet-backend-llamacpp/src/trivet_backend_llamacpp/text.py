"""One text that is being answered."""

from cyllama.llama import llama_cpp as llama
from trivet.errors import RequestCancelledError, TrivetError
from trivet.inference import InferenceRequest, InferenceResponse
from trivet.tensor import Tensor, object_array
from trivet.throttle import Throttle

from trivet_backend_llamacpp.settings import GenerationSettings

MOST_TOKENS_OF_A_CHARACTER = 4
UNFINISHED = "\ufffd"


class Text:
    """A request: how much of it is read, and how far it is answered. Used by the generator's thread alone."""

    def __init__(
        self, request: InferenceRequest, prompt: list[int], settings: GenerationSettings, vocabulary: llama.LlamaVocab
    ) -> None:
        self._request = request
        self._settings = settings
        self._vocabulary = vocabulary
        self._sampler = sampler(settings)
        self.unread = prompt
        """Tokens that the network has yet to read: of the question, then the last one of the answer."""
        self.read = 0
        """How many tokens the network keeps of it."""
        self._left = settings.max_tokens
        self._characters = Characters(vocabulary)
        self._held = ""  # what may yet be the beginning of `stop`
        self._answer: list[str] = []

    @property
    def cancelled(self) -> bool:
        return self._request.cancelled

    @property
    def held_back(self) -> bool:
        """Whether its caller has yet to read what there is: an answer now would wait, and all others with it."""
        throttle = self._request.throttle
        return isinstance(throttle, Throttle) and throttle.holds()

    def take(self, context: llama.LlamaContext, row: int, room: int) -> bool:
        """Choose the next token by the scores at ``row`` of the last step. Returns whether the answer goes on.

        ``room`` is how many tokens the network can still read of it. Responds once at most.
        """
        token = self._sampler.sample(context, row)
        if self._vocabulary.is_eog(token):
            return self._end(self._held + self._characters.end(), "stop")
        self._held += self._characters.add(token)
        if self._settings.stop and (at := self._held.find(self._settings.stop)) >= 0:
            return self._end(self._held[:at], "stop")
        self._left -= 1
        if self._left == 0 or room == 0:
            return self._end(self._held + self._characters.end(), "length")
        said = self._held[: len(self._held) - self._stop_begins()]
        self._held = self._held[len(said) :]
        if said and self._settings.stream:
            self._request.respond(InferenceResponse([output(said)], final=False))
        elif said:
            self._answer.append(said)
        self.unread = [token]
        return True

    def fail(self, error: TrivetError) -> None:
        self._request.respond(InferenceResponse(error=error))

    def abandon(self) -> None:
        """Nobody waits for it any more."""
        self.fail(RequestCancelledError("the request was cancelled"))

    def _stop_begins(self) -> int:
        """How many characters at the end of what is held may be the beginning of ``stop``."""
        stop = self._settings.stop
        longest = min(len(stop) - 1, len(self._held))
        return next((size for size in range(longest, 0, -1) if self._held.endswith(stop[:size])), 0)

    def _end(self, said: str, why: str) -> bool:
        text = "".join((*self._answer, said))
        outputs = [output(text)] if text or not self._settings.stream else []
        self._request.respond(InferenceResponse(outputs, parameters={"finish_reason": why}))
        return False


class Characters:
    """Tokens to text, as far as it is known: a character may be spread over several tokens."""

    def __init__(self, vocabulary: llama.LlamaVocab) -> None:
        self._vocabulary = vocabulary
        self._unfinished: list[int] = []

    def add(self, token: int) -> str:
        """The text that is complete with this token."""
        if not self._unfinished:
            piece: str = self._vocabulary.token_to_piece(token, 0, False)
            if UNFINISHED not in piece:
                return piece
        self._unfinished.append(token)
        piece = self._vocabulary.detokenize(self._unfinished, 256, False, False)
        if piece.endswith(UNFINISHED) and len(self._unfinished) < MOST_TOKENS_OF_A_CHARACTER:
            return ""
        self._unfinished = []
        return piece

    def end(self) -> str:
        """What is left of a character that was never completed."""
        return UNFINISHED if self._unfinished else ""


def output(text: str) -> Tensor:
    return Tensor.from_numpy("text_output", object_array([text.encode()], (1,)))


def sampler(settings: GenerationSettings) -> llama.LlamaSampler:
    """What chooses a token by its score; has the random numbers of its text."""
    chain = llama.LlamaSampler(llama.LlamaSamplerChainParams())
    if settings.temperature == 0:
        chain.add_greedy()
    else:
        chain.add_top_p(settings.top_p, 1)
        chain.add_temp(settings.temperature)
        chain.add_dist(settings.seed)
    return chain
