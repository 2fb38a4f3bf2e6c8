"""The API of providers: their state, and actions on them."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from sentinel_project.gateway.provider_status import State, as_data, statuses
from sentinel_project.gateway.providers import actions
from sentinel_project.gateway.providers.actions import Action, ControlsUnavailable, UnknownProvider
from sessions_sticky import audit
from sessions_sticky.api.permissions import SessionPermission
from sessions_sticky.api.problems import StoreUnavailable


class ProviderSerializer(serializers.Serializer[Any]):
    """The state of a provider. Rates, times and shares are of the last 5 minutes, null if not known."""

    name = serializers.CharField(help_text="Name in the providers file.")
    models = serializers.ListField(child=serializers.CharField(), help_text="Models that it serves.")
    state = serializers.ChoiceField(
        [str(state) for state in State],
        help_text="`lost`: its active conversations move to other providers; `unknown`: without the session store.",
    )
    failing_since = serializers.DateTimeField(allow_null=True, help_text="First failure since its last answer.")
    error = serializers.CharField(allow_blank=True, help_text="Last error, empty while it is healthy.")
    cooling_models = serializers.ListField(child=serializers.CharField(), help_text="Models that cool down alone.")
    next_try_at = serializers.DateTimeField(allow_null=True, help_text="End of the cooldown.")
    seconds_left = serializers.IntegerField(help_text="Seconds until the end of the cooldown, 0 without one.")
    weight = serializers.FloatField(help_text="Configured weight.")
    share = serializers.FloatField(help_text="Share of new conversations, 0 to 1.")
    is_drained = serializers.BooleanField(help_text="An operator drains it: it takes no new conversations.")
    is_held = serializers.BooleanField(help_text="An operator holds it: its conversations do not move.")
    in_flight = serializers.IntegerField(help_text="Requests in flight on this machine.")
    requests_per_minute = serializers.FloatField(allow_null=True, help_text="Requests to it, failed ones included.")
    errors_per_minute = serializers.FloatField(allow_null=True, help_text="Failed requests to it.")
    first_byte_p50_ms = serializers.IntegerField(allow_null=True, help_text="Upper bound; 0: more than a minute.")
    first_byte_p95_ms = serializers.IntegerField(allow_null=True, help_text="Upper bound; 0: more than a minute.")
    cached_share = serializers.FloatField(allow_null=True, help_text="Share of the input read from its prompt cache.")


class ProvidersSerializer(serializers.Serializer[Any]):
    """All providers, in the order of the file."""

    providers = ProviderSerializer(many=True, help_text="In the order of the file.")


class ActionSerializer(serializers.Serializer[Any]):
    """What to do with a provider."""

    action = serializers.ChoiceField(
        [str(action) for action in Action],
        error_messages={"invalid_choice": f"Must be one of {', '.join(Action)}."},  # DRF's text repeats the value
        help_text="`drain`: no new conversations; `try`: end the cooldown; `hold`: its conversations do not move;"
        " `release`: end drain and hold.",
    )


class ProviderList(APIView):
    """The providers."""

    permission_classes = (SessionPermission,)

    @extend_schema(summary="List providers", tags=["providers"], responses=ProvidersSerializer)
    def get(self, request: Request) -> Response:
        """Return the state of every provider."""
        return Response(ProvidersSerializer({"providers": [as_data(each) for each in statuses()]}).data)


class ProviderDetail(APIView):
    """One provider."""

    permission_classes = (SessionPermission,)

    @extend_schema(
        summary="Drain, try, hold or release a provider",
        tags=["providers"],
        request=ActionSerializer,
        responses=ProviderSerializer,
    )
    def post(self, request: Request, name: str) -> Response:
        """Act on a provider, in all workers within a second; return its state."""
        given = ActionSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        action = Action(given.validated_data["action"])
        try:
            actions.act(name, action, by=audit.actor(request))
        except UnknownProvider as exc:
            raise NotFound(str(exc)) from exc
        except ControlsUnavailable as exc:
            raise StoreUnavailable(str(exc)) from exc
        message = f"Provider {name!r}: {action}"
        audit.record(request, audit.Flag.CHANGE, None, message, object_repr=message)
        (status,) = (each for each in statuses() if each.provider.name == name)
        return Response(ProviderSerializer(as_data(status)).data)
