"""Serializers of turns, and of what they used."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers


@extend_schema_serializer(component_name="StickySessionTokens")
class TokensSerializer(serializers.Serializer[Any]):
    """Tokens of one turn."""

    input = serializers.IntegerField(help_text="All of the prompt: uncached, read from a cache and written to one.")
    read = serializers.IntegerField(help_text="Read from a prompt cache.")
    written = serializers.IntegerField(help_text="Written to a prompt cache.")
    output = serializers.IntegerField(help_text="Of the answer.")


@extend_schema_serializer(component_name="StickySessionAttempt")
class AttemptSerializer(serializers.Serializer[Any]):
    """A provider that was asked and did not answer."""

    provider = serializers.CharField(help_text="Provider that was asked.")
    status = serializers.IntegerField(help_text="Status of the failure.")
    code = serializers.CharField(help_text="Code of the failure; may be empty.")


@extend_schema_serializer(component_name="StickySessionTurn")
class TurnSerializer(serializers.Serializer[Any]):
    """One request of a conversation and its answer."""

    at = serializers.DateTimeField(help_text="When the request came, in UTC.")
    provider = serializers.CharField(help_text="Provider that answered.")
    bound_provider = serializers.CharField(help_text="Provider that the conversation was bound to; may be empty.")
    model = serializers.CharField(help_text="Model that answered.")
    outcome = serializers.CharField(help_text="How the conversation came to this provider.")
    id_source = serializers.CharField(source="source", help_text="Where the conversation id came from; may be empty.")
    reason = serializers.CharField(help_text="Why it was spilled or rebound; may be empty.")
    status = serializers.IntegerField(help_text="Status of the answer.")
    attempts = AttemptSerializer(many=True, help_text="Attempts that failed before.")
    first_byte_ms = serializers.IntegerField(allow_null=True, help_text="Time to the first byte; null if not known.")
    usage = TokensSerializer(allow_null=True, help_text="Tokens; null if not known.")
    expected = serializers.IntegerField(help_text="Tokens that this provider should have had in its prompt cache.")
    lost = serializers.IntegerField(help_text="Cached tokens at the former provider that this one did not read.")
    saved = serializers.IntegerField(help_text="Money that the cache saved, in millionths of the prices' currency.")


@extend_schema_serializer(component_name="StickySessionTurnTotals")
class TurnTotalsSerializer(TokensSerializer):
    """Sums over turns."""

    turns = serializers.IntegerField(help_text="Number of turns.")
    unknown = serializers.IntegerField(help_text="Number of turns whose tokens are not known.")
    expected = serializers.IntegerField(help_text="Tokens that should have been in prompt caches.")
    lost = serializers.IntegerField(help_text="Cached tokens that moves lost.")
    saved = serializers.IntegerField(help_text="Money that prompt caches saved, in millionths.")
    lost_money = serializers.IntegerField(help_text="Money that moves cost, in millionths.")


@extend_schema_serializer(component_name="StickySessionSpillOver")
class SpillOverSerializer(serializers.Serializer[Any]):
    """Turns in a row that another provider answered."""

    provider = serializers.CharField(help_text="Provider that answered.")
    bound_provider = serializers.CharField(help_text="Provider that the conversation was bound to.")
    first_at = serializers.DateTimeField(help_text="When the first request came, in UTC.")
    last_at = serializers.DateTimeField(help_text="When the last request came, in UTC.")
    turns = serializers.IntegerField(help_text="Number of turns.")
    reason = serializers.CharField(help_text="Why the first one was spilled; may be empty.")


@extend_schema_serializer(component_name="StickySessionTrail")
class TrailSerializer(serializers.Serializer[Any]):
    """The last turns of a session."""

    turns = TurnSerializer(many=True, help_text="Oldest first.")
    totals = TurnTotalsSerializer(help_text="Sums over all turns of the session.")
    spill_overs = SpillOverSerializer(many=True, help_text="The last ones, oldest first.")


@extend_schema_serializer(component_name="StickySessionRouteUsage")
class RouteUsageSerializer(serializers.Serializer[Any]):
    """What the turns with one outcome used at one provider and model."""

    provider = serializers.CharField(help_text="Provider of these turns.")
    model = serializers.CharField(help_text="Model of these turns.")
    outcome = serializers.CharField(help_text="Outcome of these turns; `failed` counts failed attempts.")
    totals = TurnTotalsSerializer(help_text="Sums over these turns.")
