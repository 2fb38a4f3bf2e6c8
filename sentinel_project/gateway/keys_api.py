"""The API of keys: list, limit, pause and resume. Keys are created where they can be shown once, and revoked there."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.generics import ListAPIView, RetrieveUpdateAPIView
from rest_framework.pagination import CursorPagination
from rest_framework.permissions import DjangoModelPermissions

from sentinel_project.gateway.models import MAX_LIMIT, ApiKey


class KeySerializer(serializers.ModelSerializer[ApiKey]):
    """An API key; `key` is its public prefix."""

    key = serializers.CharField(source="hint", read_only=True)
    state = serializers.ChoiceField(choices=["live", "paused", "revoked"], read_only=True)
    paused = serializers.BooleanField(write_only=True, required=False, help_text="Pause or resume the key.")

    class Meta:
        model = ApiKey
        fields = ("id", "key", "owner", "state", "paused", "created_at", "last_used_at", *ApiKey.LIMITS)
        read_only_fields = ("owner", "created_at", "last_used_at")
        extra_kwargs = {name: {"max_value": MAX_LIMIT} for name in ApiKey.LIMITS}

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse fields that do not exist or cannot change, and changes of revoked keys."""
        if unknown := sorted(set(self.initial_data) - {"paused", *ApiKey.LIMITS}):
            refusal = f"Cannot be changed. Allowed: {', '.join(('paused', *ApiKey.LIMITS))}"
            raise serializers.ValidationError({ascii(name)[1:-1]: refusal for name in unknown})
        if self.instance is not None and self.instance.revoked_at is not None:
            raise serializers.ValidationError("The key is revoked")
        return attrs

    def update(self, instance: ApiKey, validated_data: dict[str, Any]) -> ApiKey:
        """Change a key, and record the user."""
        paused = validated_data.pop("paused", None)
        chosen = ApiKey.objects.filter(pk=instance.pk)
        if validated_data:
            chosen.limit(**validated_data)
        if paused is not None:
            (chosen.pause if paused else chosen.resume)()
        changes = [*validated_data, *([] if paused is None else ["paused" if paused else "resumed"])]
        user = self.context["request"].user
        LogEntry.objects.log_actions(user.pk, [instance], CHANGE, f"Changed by API: {', '.join(changes) or 'nothing'}.")
        instance.refresh_from_db()
        return instance


class KeyPermissions(DjangoModelPermissions):
    """Requires `view_apikey` to read and `change_apikey` to change."""

    perms_map = {
        **DjangoModelPermissions.perms_map,
        **{method: ["%(app_label)s.view_%(model_name)s"] for method in ("GET", "HEAD", "OPTIONS")},
    }


class KeyPages(CursorPagination):
    """The newest keys first."""

    ordering = ("-created_at", "-pk")
    page_size = 100


@extend_schema_view(get=extend_schema(summary="List API keys", tags=["keys"]))
class KeyList(ListAPIView[ApiKey]):
    """List API keys."""

    queryset = ApiKey.objects.all()
    serializer_class = KeySerializer
    permission_classes = (KeyPermissions,)
    pagination_class = KeyPages

    def get_queryset(self) -> QuerySet[ApiKey]:
        """Filter by `?owner=`."""
        owner = self.request.query_params.get("owner")
        return ApiKey.objects.all() if owner is None else ApiKey.objects.of(owner)


@extend_schema_view(
    get=extend_schema(summary="Show an API key", tags=["keys"]),
    patch=extend_schema(summary="Limit, pause or resume an API key", tags=["keys"]),
)
class KeyDetail(RetrieveUpdateAPIView[ApiKey]):
    """Show, limit, pause or resume an API key."""

    queryset = ApiKey.objects.all()
    serializer_class = KeySerializer
    permission_classes = (KeyPermissions,)
    http_method_names = ("get", "patch", "head", "options")
