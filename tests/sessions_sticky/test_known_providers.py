"""Every way to create or move sessions refuses providers that the project does not have."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured

from sentinel_project import settings as project
from sessions_sticky import InvalidSession, UnknownProvider
from sessions_sticky.admin.forms import MoveForm
from sessions_sticky.api.bulk_serializers import RebindAllSerializer
from sessions_sticky.api.serializers import RebindSerializer, SessionSerializer
from sessions_sticky.conf import conf
from sessions_sticky.jobs.job import Plan
from sessions_sticky.queries.bulk import Move
from sessions_sticky.queries.filters import Filters
from sessions_sticky.testing import make_session
from tests.sessions_sticky.calls import MOVE, PROPOSAL
from tests.sessions_sticky.cli.conftest import run
from tests.sessions_sticky.indexed import fill, on_valkey

KNOWN = ["openai", "mistral"]
UNKNOWN = "Unknown provider 'mistrol': must be one of mistral, openai. Did you mean 'mistral'?"
UNKNOWN_IN_FORM = ["Unknown provider “mistrol”: must be one of mistral, openai.", "Did you mean “mistral”?"]


def provider_names():
    return KNOWN


@pytest.fixture(params=[KNOWN, {"openai": 1, "mistral": 2}, provider_names, f"{__name__}.provider_names"])
def known(request, settings):
    settings.SESSIONS_STICKY = {"PROVIDERS": request.param}


@on_valkey
def test_rebind_refuses_an_unknown_provider(call, manager, known):
    session = call("create", "conv-0", **PROPOSAL)
    with pytest.raises(UnknownProvider) as caught:
        call("rebind", session, **{**MOVE, "provider": "mistrol"})
    assert str(caught.value) == UNKNOWN
    assert call("rebind", session, **MOVE).provider == "mistral"


def names_in_the_database():
    return list(User.objects.values_list("username", flat=True))


@on_valkey
@pytest.mark.django_db(transaction=True)
def test_providers_may_be_in_the_database(call, manager, settings):
    settings.SESSIONS_STICKY = {"PROVIDERS": names_in_the_database}
    User.objects.bulk_create(User(username=name) for name in KNOWN)
    session = call("create", "conv-0", **PROPOSAL)
    assert call("rebind", session, **MOVE).provider == "mistral"
    for name, arguments in (("create", ("conv-1",)), ("rebind", (call("get", "conv-0"),))):
        with pytest.raises(UnknownProvider):
            call(name, *arguments, **{**(PROPOSAL if name == "create" else MOVE), "provider": "mistrol"})


@pytest.mark.parametrize("replace", [False, True])
def test_create_refuses_an_unknown_provider(call, manager, known, replace):
    with pytest.raises(UnknownProvider) as caught:
        call("create", "conv-0", **{**PROPOSAL, "provider": "mistrol"}, replace=replace)
    assert str(caught.value) == UNKNOWN
    assert call("get", "conv-0") is None
    assert call("create", "conv-0", **PROPOSAL, replace=replace).provider == "openai"


def test_resolve_binds_its_proposal_to_an_unknown_provider(call, manager, known):
    session, _ = call("resolve", "conv-0", **{**PROPOSAL, "provider": "mistrol"})
    assert call("get", "conv-0") == session


@pytest.mark.parametrize("providers", [KNOWN, ["xai", "mistral"], None])
def test_make_session_uses_a_known_provider_by_default(settings, providers):
    settings.SESSIONS_STICKY = {"PROVIDERS": providers}
    assert make_session().provider == ("mistral" if providers == ["xai", "mistral"] else "openai")


@on_valkey
def test_moving_many_refuses_an_unknown_provider(manager, known):
    fill(manager, 2)
    for provider in ("mistrol", "xai"):
        with pytest.raises(InvalidSession, match=f"Unknown provider '{provider}'"):
            manager.all().rebind(to_provider=provider, reason="a test")
        with pytest.raises(UnknownProvider):
            Plan(Filters("openai"), Move(provider, None, "a test")).check()
    assert manager.all().rebind(to_provider="mistral", reason="a test") == 2


@on_valkey
@pytest.mark.parametrize("command", [("rebind", "conv-0", "--reason", "x"), ("move-all", "openai", "--yes")])
def test_command_refuses_an_unknown_provider(manager, known, command):
    fill(manager, 1)
    found = run(*command, "--to-provider", "mistrol")
    assert (found.code, UNKNOWN in found.err) == (2, True)
    assert run(*command, "--to-provider", "mistral").code == 0


@pytest.mark.parametrize("target", ["mistrol", "mistral"])
def test_api_and_pages_refuse_an_unknown_provider(known, target):
    session = SessionSerializer(data={"id": "conv-0", "model": "m", "owner": "o", "provider": target})
    one = RebindSerializer(data={"provider": target, "model": "m", "reason": "x"})
    many = RebindAllSerializer(data={"provider": "openai", "to_provider": target, "reason": "x"})
    form = MoveForm({"to-provider": target, "to-reason": "x"})
    errors = [
        *(
            serializer.errors.get(name)
            for serializer, name in ((session, "provider"), (one, "provider"), (many, "to_provider"))
            if not serializer.is_valid()
        ),
        *([form.errors["provider"]] if not form.is_valid() else []),
    ]
    assert errors == ([[UNKNOWN], [UNKNOWN], [UNKNOWN], UNKNOWN_IN_FORM] if target == "mistrol" else [])


@pytest.mark.parametrize("value", [5, [], [5], "no.such.path", "nopath", lambda: 5])
def test_providers_raises_when_the_setting_is_bad(settings, value):
    settings.SESSIONS_STICKY = {"PROVIDERS": value}
    with pytest.raises(ImproperlyConfigured, match="PROVIDERS"):
        _ = conf.providers


def test_gateway_knows_the_providers_of_its_file(settings):
    settings.SESSIONS_STICKY = {"PROVIDERS": "sentinel_project.gateway.providers.current.provider_names"}
    assert conf.providers == {provider.name for provider in project.SENTINEL_PROVIDERS}
    settings.SESSIONS_STICKY = {"PROVIDERS": lambda: None}
    assert conf.providers is None
