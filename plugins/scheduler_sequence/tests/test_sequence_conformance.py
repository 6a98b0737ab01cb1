from __future__ import annotations

from typing import Any

from trivet.testing.conformance import SchedulerConformance


class OneStepSequences(SchedulerConformance):
    """Every request is a sequence of its own: traffic at random may cancel any of them."""

    scheduler = "sequence_batching"

    def request_fields(self, number: int) -> dict[str, Any]:
        return {"correlation_id": number + 1, "sequence_start": True, "sequence_end": True}


class TestDirect(OneStepSequences):
    config = "sequence_batching { direct { } }"


class TestOldest(OneStepSequences):
    config = "sequence_batching { oldest { max_candidate_sequences: 8 } }"
