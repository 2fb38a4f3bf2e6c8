"""Serializers of the bulk routes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import msgspec
from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request

from sessions_sticky.api.serializers import MAX_LENGTH, TEXT, NamedChoiceField, TextField, not_blank, valid_target
from sessions_sticky.api.url_ids import sessions_path
from sessions_sticky.jobs.records import Job, Kind, Plan, State
from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.filters import Filters


class FlagField(serializers.BooleanField):
    """A JSON boolean; strings and numbers are invalid."""

    def to_internal_value(self, data: Any) -> bool:
        """Return the boolean unchanged."""
        if not isinstance(data, bool):
            self.fail("invalid", input=ascii(data)[:100])
        return data


@extend_schema_serializer(component_name="StickySessionDeleteAll")
class DeleteAllSerializer(serializers.Serializer[Any]):
    """The sessions to delete: those that match all filters given, or everything."""

    provider = TextField(
        required=False,
        allow_null=True,
        max_length=MAX_LENGTH,
        validators=[not_blank],
        help_text="Only sessions on this provider.",
    )
    model = TextField(
        required=False,
        allow_null=True,
        max_length=MAX_LENGTH,
        validators=[not_blank],
        help_text="Only sessions on this model.",
    )
    external_id = TextField(
        required=False,
        allow_null=True,
        allow_blank=True,
        max_length=MAX_LENGTH,
        help_text="Only sessions of this owner; empty for sessions without an owner.",
    )
    everything = FlagField(default=False, help_text="True instead of a filter: all sessions.")
    dry_run = FlagField(default=False, help_text="True: only count.")

    def to_internal_value(self, data: Any) -> Any:
        """Refuse unknown fields: a misspelt filter must not select everything."""
        if isinstance(data, Mapping) and (unknown := [name for name in data if name not in self.fields]):
            message = f"Unknown field; allowed: {', '.join(self.fields)}."
            raise serializers.ValidationError({ascii(name)[1:-1][:100]: [message] for name in unknown[:10]})
        return super().to_internal_value(data)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Require either a filter or `everything`."""
        given = self._filters(attrs) != Filters()
        if given and attrs["everything"]:
            raise serializers.ValidationError("Pass either filters or everything, not both.")
        if not given and not attrs["everything"]:
            raise serializers.ValidationError("Pass a filter (provider, model, external_id) or everything: true.")
        return attrs

    def plan(self) -> Plan:
        """Return the plan of the validated input."""
        data = self.validated_data
        return Plan(self._filters(data), self._move(data), data["everything"])

    @staticmethod
    def _filters(data: dict[str, Any]) -> Filters:
        return Filters(data.get("provider"), data.get("model"), data.get("external_id"))

    def _move(self, data: dict[str, Any]) -> Move | None:
        return None


@extend_schema_serializer(component_name="StickySessionRebindAll")
class RebindAllSerializer(DeleteAllSerializer):
    """The sessions to move, as for deleting, and the target."""

    to_provider = TextField(max_length=MAX_LENGTH, validators=[*TEXT, valid_target], help_text="Provider to move to.")
    to_model = TextField(
        required=False,
        allow_null=True,
        max_length=MAX_LENGTH,
        validators=TEXT,
        help_text="Model to move to; by default each session keeps its model.",
    )
    reason = TextField(max_length=500, validators=TEXT, help_text="Reason, stored in the history.")

    def _move(self, data: dict[str, Any]) -> Move | None:
        return Move(data["to_provider"], data.get("to_model"), data["reason"])


@extend_schema_serializer(component_name="StickySessionCount")
class CountSerializer(serializers.Serializer[Any]):
    """The result of a dry run."""

    count = serializers.IntegerField(help_text="Number of sessions it would change, according to the index.")


@extend_schema_serializer(component_name="StickySessionOperation")
class OperationSerializer(serializers.Serializer[Any]):
    """A bulk operation. Kept for a day after its last change."""

    url = serializers.CharField(read_only=True, help_text="Path of this operation.")
    kind = NamedChoiceField("StickySessionOperationKind", get_args(Kind), read_only=True, help_text="What it does.")
    state = NamedChoiceField(
        "StickySessionOperationState",
        get_args(State),
        read_only=True,
        help_text="A stopped or failed one can be resumed.",
    )
    done = serializers.IntegerField(read_only=True, help_text="Sessions changed so far.")
    expected = serializers.IntegerField(
        read_only=True, help_text="Estimate of the sessions to change, made at the start or the last resume."
    )
    provider = serializers.CharField(read_only=True, allow_null=True, help_text="Filter; null: any.")
    model = serializers.CharField(read_only=True, allow_null=True, help_text="Filter; null: any.")
    external_id = serializers.CharField(read_only=True, allow_null=True, help_text="Filter; null: any.")
    everything = serializers.BooleanField(read_only=True, help_text="Whether it applies to all sessions.")
    to_provider = serializers.CharField(
        read_only=True, allow_null=True, help_text="Provider to move to; null for deleting."
    )
    to_model = serializers.CharField(
        read_only=True, allow_null=True, help_text="Model to move to; null if each session keeps its model."
    )
    reason = serializers.CharField(read_only=True, help_text="Reason; empty for deleting.")
    actor = serializers.CharField(read_only=True, help_text="User who started it.")
    detail = serializers.CharField(read_only=True, help_text="Error message if it failed, else empty.")
    started_at = serializers.IntegerField(read_only=True, help_text="Start time in Unix seconds.")
    updated_at = serializers.IntegerField(read_only=True, help_text="Time of the last heartbeat, in Unix seconds.")

    def to_representation(self, instance: Job) -> dict[str, Any]:
        """Return the fields of the job and its path."""
        return super().to_representation(
            {**msgspec.structs.asdict(instance), "url": operation_path(self.context["request"], instance.key)}
        )


@extend_schema_serializer(component_name="StickySessionOperations")
class OperationsSerializer(serializers.Serializer[Any]):
    """The most recent operations."""

    results = OperationSerializer(many=True, read_only=True, help_text="At most 100, the most recently started first.")


def operation_path(request: Request, key: str) -> str:
    """Return the absolute path of an operation."""
    return f"{sessions_path(request)}operations/{key}/"
