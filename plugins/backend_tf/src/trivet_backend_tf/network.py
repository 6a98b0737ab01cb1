"""A graph in a session, and the fastest way to run it.

Measured for a graph of one multiplication on 16 floats, on a CPU: ``session.run`` and the public
``session.make_callable`` take 110 us, a concrete function of ``tf.saved_model.load`` takes 125 us, and a callable of
``CallableOptions`` takes 7 to 30 us, or 4 us where it runs on the caller's thread. For guesslang they take 0.8 ms,
0.9 ms, 0.6 ms and 0.5 ms. What it saves is Python: the session's C++ code compiles the feeds and fetches once, and each
call hands arrays over. It is what Keras's own functions on graphs used; its name begins with an underscore.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from trivet_backend_tf.runtime import CallableOptions, dismantle
from trivet_backend_tf.signature import Signature

_MOST_CALLABLES = 32
"""How many sets of outputs are kept compiled; which ones are asked for is up to callers, and each takes memory."""

_CALLERS_THREAD = -1
"""Value of ``RunOptions.inter_op_thread_pool``."""


class Network:
    """What instances run, several at a time where they share it. Any thread."""

    def __init__(self, graph: Any, session: Any, signature: Signature, *, on_callers_thread: bool) -> None:
        """``on_callers_thread``: run operators one after the other there, not in TensorFlow's pool of threads."""
        self.signature = signature
        self._graph = graph
        self._session = session
        self._on_callers_thread = on_callers_thread
        self._compiled = lru_cache(_MOST_CALLABLES)(self._compile)

    def run(self, feeds: Mapping[str, Any], outputs: Iterable[str]) -> dict[str, Any]:
        """Arrays for ``outputs``, whose order says nothing. Raises what TensorFlow raises."""
        # In one order whatever the caller's is: each other one would be compiled for itself.
        inputs, wanted = tuple(sorted(feeds)), tuple(sorted(outputs))
        results = self._compiled(inputs, wanted)(*map(feeds.__getitem__, inputs))
        return dict(zip(wanted, results, strict=True))

    def compile(self, inputs: Iterable[str], outputs: Iterable[str]) -> None:
        """Do now what else the first run has to. Raises what TensorFlow raises."""
        self._compiled(tuple(sorted(inputs)), tuple(sorted(outputs)))

    def _compile(self, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Callable[..., Sequence[Any]]:
        feeds = [self.signature.inputs[name].graph_name for name in inputs]
        fetches = [self.signature.outputs[name].graph_name for name in outputs]
        # A tensor that is input and output at once is not for TensorFlow to fetch.
        computed = [name for name in fetches if name not in feeds]
        if not computed:
            # A session refuses to run for nothing.
            return lambda *values: [dict(zip(feeds, values, strict=True))[name] for name in fetches]
        options = CallableOptions(feed=feeds, fetch=computed)
        if self._on_callers_thread:
            options.run_options.inter_op_thread_pool = _CALLERS_THREAD
        call: Callable[..., Sequence[Any]] = self._session._make_callable_from_options(options)
        if len(computed) == len(fetches):
            return call

        def with_passed_on(*values: Any) -> Sequence[Any]:
            found = dict(zip(feeds, values, strict=True)) | dict(zip(computed, call(*values), strict=True))
            return [found[name] for name in fetches]

        return with_passed_on

    def close(self) -> None:
        """Free the session and the graph at once: they refer to each other, and would wait for a collection."""
        self._compiled.cache_clear()
        session, self._session = self._session, None
        graph, self._graph = self._graph, None
        if session is not None:
            session.close()
            del session
            dismantle(graph)
