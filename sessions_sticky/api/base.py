"""The base class of all views of the admin API, and its parser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from django.apps import apps
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import APIException
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import JSONParser
from rest_framework.renderers import BaseRenderer, BrowsableAPIRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from sessions_sticky import audit
from sessions_sticky.api.permissions import SessionPermission
from sessions_sticky.api.problems import problem_handler
from sessions_sticky.api.throttling import SessionThrottle
from sessions_sticky.api.url_ids import OWN_KWARGS, id_in
from sessions_sticky.conf import conf
from sessions_sticky.manager import SessionManager, sessions

MAX_BODY_BYTES = 64 * 1024
"""Maximum body size, ten times the longest valid one; megabytes would take seconds to decode."""


class TooLarge(APIException):
    """413."""

    status_code = 413
    default_detail = f"The body is larger than {MAX_BODY_BYTES} bytes."


class ShortJSONParser(JSONParser):
    """JSON of at most `MAX_BODY_BYTES`. Raises `TooLarge` before anything is decoded."""

    def parse(
        self, stream: Any, media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the decoded body."""
        body = stream.read(MAX_BODY_BYTES + 1)
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge
        return super().parse(BytesIO(body), media_type, parser_context)


class AdminView(APIView):
    """JSON requests and responses, problem details for errors, and the project's authentication.

    Where the project has DRF's browsable API, browsers get it.
    """

    parser_classes = (ShortJSONParser,)
    renderer_classes = (JSONRenderer,)
    content_negotiation_class = DefaultContentNegotiation
    versioning_class = None  # the project's versioning would expect a version in the path
    permission_classes = (SessionPermission,)
    throttle_classes = (SessionThrottle,)

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Remove parameters of the project's prefix, such as a version or a tenant; unescape the conversation id."""
        own = {name: value for name, value in kwargs.items() if name in OWN_KWARGS}
        if "conversation_id" in own:
            own["conversation_id"] = id_in(own["conversation_id"])
        return super().dispatch(request, **own)

    def get_authenticators(self) -> list[BaseAuthentication]:
        """Return the authentication classes of the setting, else those of the project."""
        classes = conf.api_authentication_classes
        return super().get_authenticators() if classes is None else [each() for each in classes]

    def get_permissions(self) -> list[Any]:
        """Return the permissions of the app, and those of the setting: all must allow."""
        return [*super().get_permissions(), *(each() for each in conf.api_permission_classes)]

    def get_renderers(self) -> list[BaseRenderer]:
        """Return JSON, and the browsable renderers of the project."""
        renderers = super().get_renderers()
        if apps.is_installed("rest_framework"):  # it has the templates
            theirs: Any = api_settings.DEFAULT_RENDERER_CLASSES
            renderers += [each() for each in theirs if issubclass(each, BrowsableAPIRenderer)]
        return renderers

    @property
    def manager(self) -> SessionManager:
        """The manager that records the user as the author of changes."""
        return sessions.acting_as(audit.actor(self.request))

    def finalize_response(self, request: Request, response: Response, *args: Any, **kwargs: Any) -> Response:
        """Forbid caching: responses contain sessions and their owners."""
        final: Response = super().finalize_response(request, response, *args, **kwargs)
        final["Cache-Control"] = "no-store"
        if isinstance(request.accepted_renderer, BrowsableAPIRenderer):
            final.content_type = None  # HTML, also of a problem
        return final

    def get_exception_handler(self) -> Callable[..., Response | None]:
        """Return the handler of this API instead of the project's."""
        return problem_handler
