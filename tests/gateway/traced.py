"""Serves some requests with spans of OpenTelemetry; run by test_tracing.py in a process of its own."""

from __future__ import annotations

import asyncio
import json
import sys

from django.conf import settings
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sentinel_project.gateway import auth
from tests.gateway.asgi import ask, chat
from tests.gateway.conftest import FixedKeys, provider
from tests.gateway.upstreams import Exchange, Upstream


def breaks(exchange: Exchange) -> None:
    exchange.send(503, b'{"error": {"message": "secret text", "code": "overloaded"}}')


async def serve(upstreams: list[Upstream]) -> list[str]:
    """Send a chat, one whose first provider fails, a stream, and others; return what the first provider was sent."""
    auth.keys = FixedKeys()
    headers = [("traceparent", sys.argv[1]), ("baggage", "user=ann")]
    await ask(chat(conversation_id="plain"), headers=headers)
    first = next(upstream for upstream in upstreams if upstream.exchanges)
    sent = dict(first.exchanges[-1].headers)
    first.script.append(breaks)
    await ask(chat(conversation_id="plain"))
    await ask(chat(conversation_id="plain", stream=True))
    await ask(chat(), key="sk-wrong")
    await ask(chat("unknown"))
    await ask(method="GET", path="/v1/models/model-a")
    await asyncio.sleep(0.1)  # a stream's spans end when it is collected
    return [sent.get("traceparent", ""), sent.get("baggage", "")]


def main() -> None:
    """Serve, and print the spans."""
    exporter = InMemorySpanExporter()
    spans = TracerProvider()
    spans.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(spans)
    with Upstream("north") as north, Upstream("south") as south:
        settings.SENTINEL_PROVIDERS = (provider(north), provider(south))
        sent = asyncio.run(serve([north, south]))
    found = [json.loads(span.to_json()) for span in exporter.get_finished_spans()]
    sys.stdout.write(json.dumps({"spans": found, "sent": sent}))
