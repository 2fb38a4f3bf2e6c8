"""Serializers of turns, of what they used, and of statistics."""

from __future__ import annotations

from rest_framework import serializers

from sessions_sticky.api.serializers import Serializer


class TokensSerializer(Serializer):
    """Tokens of one turn."""

    input = serializers.IntegerField(help_text="All of the prompt: uncached, read from a cache and written to one.")
    read = serializers.IntegerField(help_text="Read from a prompt cache.")
    written = serializers.IntegerField(help_text="Written to a prompt cache.")
    output = serializers.IntegerField(help_text="Of the answer.")


class AttemptSerializer(Serializer):
    """A provider that was asked and did not answer."""

    provider = serializers.CharField(help_text="Provider that was asked.")
    status = serializers.IntegerField(help_text="Status of the failure.")
    code = serializers.CharField(help_text="Code of the failure; may be empty.")


class TurnSerializer(Serializer):
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


class TurnTotalsSerializer(TokensSerializer):
    """Sums over turns."""

    turns = serializers.IntegerField(help_text="Number of turns.")
    unknown = serializers.IntegerField(help_text="Number of turns whose tokens are not known.")
    expected = serializers.IntegerField(help_text="Tokens that should have been in prompt caches.")
    lost = serializers.IntegerField(help_text="Cached tokens that moves lost.")
    saved = serializers.IntegerField(help_text="Money that prompt caches saved, in millionths.")
    lost_money = serializers.IntegerField(help_text="Money that moves cost, in millionths.")


class SpillOverSerializer(Serializer):
    """Turns in a row that another provider answered."""

    provider = serializers.CharField(help_text="Provider that answered.")
    bound_provider = serializers.CharField(help_text="Provider that the conversation was bound to.")
    first_at = serializers.DateTimeField(help_text="When the first request came, in UTC.")
    last_at = serializers.DateTimeField(help_text="When the last request came, in UTC.")
    turns = serializers.IntegerField(help_text="Number of turns.")
    reason = serializers.CharField(help_text="Why the first one was spilled; may be empty.")


class TrailSerializer(Serializer):
    """The last turns of a session."""

    turns = TurnSerializer(many=True, help_text="Oldest first.")
    totals = TurnTotalsSerializer(help_text="Sums over all turns of the session.")
    spill_overs = SpillOverSerializer(many=True, help_text="The last ones, oldest first.")


class RouteUsageSerializer(Serializer):
    """What the turns with one outcome used at one provider and model."""

    provider = serializers.CharField(help_text="Provider of these turns.")
    model = serializers.CharField(help_text="Model of these turns.")
    outcome = serializers.CharField(help_text="Outcome of these turns; `failed` counts failed attempts.")
    totals = TurnTotalsSerializer(help_text="Sums over these turns.")


class RouteStatsSerializer(Serializer):
    """The sessions of one provider and model."""

    provider = serializers.CharField(help_text="Provider of these sessions.")
    model = serializers.CharField(help_text="Model of these sessions.")
    sessions = serializers.IntegerField(help_text="Current number of sessions.")
    created_last_hour = serializers.IntegerField(
        help_text="Number created in the last hour, including sessions that no longer exist."
    )
    created_last_day = serializers.IntegerField(
        help_text="Number created in the last day, including sessions that no longer exist."
    )


class StatsSerializer(Serializer):
    """Numbers of sessions, and what their turns used."""

    sessions = serializers.IntegerField(help_text="Current number of sessions.")
    routes = RouteStatsSerializer(many=True, help_text="Numbers for each provider and model, in alphabetical order.")
    usage = RouteUsageSerializer(many=True, help_text="What the turns of the last day used.")
