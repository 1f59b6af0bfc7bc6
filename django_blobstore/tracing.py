"""How OpenTelemetry hears of the store's work, where its API is installed; elsewhere nothing is done at all."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

try:
    from opentelemetry import trace
except ImportError:
    HAS_TRACING = False
else:
    HAS_TRACING = True
    _tracer = trace.get_tracer("django_blobstore")

P = ParamSpec("P")
T = TypeVar("T")


def traced(function: Callable[P, T]) -> Callable[P, T]:
    """Have each call of `function` be a span by the name ``blobstore.function``, with its exception if there is one."""
    if not HAS_TRACING:
        return function
    name = f"blobstore.{function.__name__}"

    @wraps(function)
    def in_span(*args: P.args, **kwargs: P.kwargs) -> T:
        with _tracer.start_as_current_span(name):
            return function(*args, **kwargs)

    return in_span
