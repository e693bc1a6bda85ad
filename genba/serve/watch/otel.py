"""Spans to OpenTelemetry, by OTLP over HTTP; where to is said in the variables of OpenTelemetry."""

from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from genba import __version__
from genba.serve.watch.tracing import Served

_HEX: Final = 16
_SERVICE: Final = "service.name"
_UNNAMED: Final = "unknown_service"  # what the SDK calls a service that nobody named


class Otlp:
    """Exports requests as spans with a child for each stage: queue, compute, write.

    The batch processor of the SDK holds a bounded number of spans and sends them on a thread of its
    own; what a collector does not take in time is dropped there.

    Args:
        server: Id of this server.
    """

    def __init__(self, server: str) -> None:
        known = {"service.version": __version__, "service.instance.id": server}
        resource = Resource.create(known)  # and what the variables say
        if str(resource.attributes.get(_SERVICE)).startswith(_UNNAMED):
            resource = resource.merge(Resource({_SERVICE: "genba"}))
        self._provider = TracerProvider(
            resource=resource, sampler=ALWAYS_ON, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("genba.serve", __version__)

    def export(self, served: Served) -> None:
        """Take one request."""
        context = None
        if served.trace and served.parent:
            ids = int(served.trace, _HEX), int(served.parent, _HEX)
            caller = SpanContext(*ids, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
            context = set_span_in_context(NonRecordingSpan(caller))
        span = self._tracer.start_span(
            f"infer {served.line}",
            context=context,
            kind=SpanKind.SERVER,
            start_time=served.received_ns,
            attributes={
                "genba.line": served.line,
                "genba.package": served.package,
                "genba.role": served.role,
                "genba.prediction": served.prediction,
                "genba.rows": served.rows,
            },
        )
        inside = set_span_in_context(span)
        for name, start_ns, end_ns in (
            ("queue", served.received_ns, served.started_ns),
            ("compute", served.started_ns, served.computed_ns),
            ("write", served.computed_ns, served.finished_ns),
        ):
            stage = self._tracer.start_span(name, context=inside, start_time=start_ns)
            stage.end(max(start_ns, end_ns))
        if served.error:
            span.set_attribute("error.type", served.error)
            span.set_status(StatusCode.ERROR)
        span.end(served.finished_ns)

    def close(self) -> None:
        """Send what waits and end."""
        self._provider.shutdown()
