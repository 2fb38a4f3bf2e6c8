"""`GET /v1/models`: the models that the providers serve."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse

from sentinel_project.gateway.auth import authenticate
from sentinel_project.gateway.endpoint import Call, endpoint
from sentinel_project.gateway.errors import json_response
from sentinel_project.gateway.providers.reload import providers
from sentinel_project.gateway.routing.plan import unknown_model


@endpoint("GET")
async def models(call: Call) -> HttpResponse:
    """List the models that the providers serve."""
    await authenticate(call.lower_headers)
    served = sorted({model for provider in providers() for model in provider.models})
    return json_response({"object": "list", "data": [_model(name) for name in served]})


@endpoint("GET")
async def model(call: Call, name: str) -> HttpResponse:
    """Describe one model."""
    await authenticate(call.lower_headers)
    if not any(name in provider.models for provider in providers()):
        raise unknown_model(name)
    return json_response(_model(name))


def _model(name: str) -> dict[str, Any]:
    owners = ",".join(provider.name for provider in providers() if name in provider.models)
    return {"id": name, "object": "model", "created": 0, "owned_by": owners}
