"""Tokens per second of models that stream, many streams at a time beside one after the other.

Both models take each step for all streams that are open. The phonemes of g2p_en cost next to nothing, so that what
serving an event costs shows; the tokens of SmolLM2 cost what a small language model's do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import servers
from bench.report import Report, at_least
from bench.repositories import EXAMPLES, repository
from bench.settings import Settings, rounds
from bench.streams import events_per_second

TEXTS = [
    "activationist quizzaciously blockchain tensorflow kubernetes serendipitous",
    "flabbergasted zoologically borrower cromulent embiggens frobnicate",
]
QUESTIONS = [
    "Write a poem about the sea.",
    "Explain what a neural network is.",
    "Tell me a story about a fox.",
    "How do I cook rice?",
]
PRONUNCIATION, SMOLLM2 = EXAMPLES / "pronunciation", EXAMPLES / "smollm2"


def run(settings: Settings, report: Report) -> None:
    """The language model is measured where it was built (``build_repository.py --language-model``)."""
    documents: dict[Path, list[dict[str, Any]]] = {PRONUNCIATION: [{"text_input": text} for text in TEXTS]}
    if SMOLLM2.exists():
        documents[SMOLLM2] = [{"text_input": question, "max_tokens": 48} for question in QUESTIONS]
    with repository() as models:
        for model in documents:
            models.link(model)
        with servers.trivet(models.path) as server:
            contenders = [(model, in_flight) for model in documents for in_flight in (1, 32)]
            for order in rounds(settings, report, contenders):
                for model, in_flight in order:

                    def measure(model: Path = model, in_flight: int = in_flight) -> float:
                        asked = documents[model]
                        return events_per_second(server, model.name, asked, in_flight, settings.seconds)

                    report.add(_name(model, in_flight), report.quietly(measure), "tokens/s")
    for model in documents:
        report.ratio(f"{model.name}: 32 / 1", _name(model, 32), _name(model, 1), at_least(3))


def _name(model: Path, in_flight: int) -> str:
    return f"{model.name}, {in_flight} at a time"
