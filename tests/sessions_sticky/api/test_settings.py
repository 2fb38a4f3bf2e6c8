"""Settings of a project for this API alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from rest_framework.authentication import BaseAuthentication, BasicAuthentication
from rest_framework.permissions import BasePermission

from sessions_sticky.conf import conf
from tests.sessions_sticky.api.calls import BASE

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from django.contrib.auth.models import User
    from rest_framework.test import APIClient


class ByHeader(BaseAuthentication):
    user: Any = None

    def authenticate(self, request: Any) -> Any:
        return (self.user, None) if request.headers.get("X-Operator") == "yes" else None


class OnlyFromHome(BasePermission):
    def has_permission(self, request: Any, view: Any) -> bool:
        return request.headers.get("X-From") == "home"


@pytest.mark.parametrize("classes", [[ByHeader], (f"{__name__}.ByHeader",)])
def test_api_authenticates_by_the_classes_of_its_setting(
    settings: Any, session_cache: redis.Redis, api: APIClient, make_user: Callable[..., User], classes: Any
) -> None:
    settings.SESSIONS_STICKY = {"API_AUTHENTICATION_CLASSES": classes}
    ByHeader.user = make_user(name="ann", is_superuser=True)
    api.credentials()
    assert api.get(BASE, headers={"x-operator": "yes"}).status_code == 200
    assert api.get(BASE).status_code == 403


def test_api_asks_for_the_permissions_of_its_setting_besides_its_own(
    settings: Any, session_cache: redis.Redis, api: APIClient, by_token: Callable[[User], APIClient], make_user: Any
) -> None:
    settings.SESSIONS_STICKY = {"API_PERMISSION_CLASSES": [f"{__name__}.OnlyFromHome"]}
    assert api.get(BASE).status_code == 403
    assert api.get(BASE, headers={"x-from": "home"}).status_code == 200
    stranger = by_token(make_user(name="stranger"))
    assert stranger.get(BASE, headers={"x-from": "home"}).status_code == 403


@pytest.mark.parametrize("name", ["API_AUTHENTICATION_CLASSES", "API_PERMISSION_CLASSES"])
@pytest.mark.parametrize("value", [5, "rest_framework", ["no.such.Class"], ["nopath"], [5]])
def test_classes_raise_when_the_setting_is_bad(settings: Any, name: str, value: Any) -> None:
    settings.SESSIONS_STICKY = {name: value}
    with pytest.raises(ImproperlyConfigured, match=name):
        getattr(conf, name.lower())


def test_classes_are_those_of_the_project_when_nothing_is_set(settings: Any) -> None:
    settings.SESSIONS_STICKY = {}
    assert (conf.api_authentication_classes, conf.api_permission_classes) == (None, [])
    settings.SESSIONS_STICKY = {"API_AUTHENTICATION_CLASSES": [BasicAuthentication]}
    assert conf.api_authentication_classes == [BasicAuthentication]
