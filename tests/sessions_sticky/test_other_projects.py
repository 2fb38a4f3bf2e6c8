"""What existing projects do with all their apps must work with this one, too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sessions_sticky.projects import run_project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

ROWS = """
from django.contrib.auth.models import User
from django.core import serializers
from django.db import connection
from sessions_sticky.models import Session

User.objects.create_user("ann")
call_command("dumpdata", output="dump.json")
call_command("dumpdata", "sessions_sticky", all=True, output="own.json")
call_command("flush", interactive=False, verbosity=0)
call_command("loaddata", "dump.json", verbosity=0)
call_command("remove_stale_contenttypes", interactive=False, verbosity=0)
print(json.dumps({
    "users": [user.username for user in User.objects.all()],
    "own": json.load(open("own.json")),
    "copied": connection.creation.serialize_db_to_string().count("sessions_sticky.session"),
    "counts": [Session.objects.count(), Session._base_manager.count(), Session._default_manager.all().count()],
    "found": [Session.objects.filter(pk="x").exists(), Session.objects.exclude(pk="x").first(),
              list(Session.objects.order_by("id").iterator()), Session.objects.values_list("id").distinct().count()],
}))
"""


def test_project_can_read_all_models_when_the_app_has_no_table(tmp_path: Path) -> None:
    printed = run_project(tmp_path, ROWS)
    assert printed == {
        "users": ["ann"],
        "own": [],
        "copied": 0,
        "counts": [0, 0, 0],
        "found": [False, None, [], 0],
    }


DRF = """
INSTALLED_APPS += ["rest_framework", "drf_spectacular"]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["rest_framework.authentication.SessionAuthentication"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "ALLOWED_VERSIONS": ["v1"],
}
"""
CALLS = """
from django.contrib.auth.models import User
from django.test import Client

client = Client()
client.force_login(User.objects.create_superuser("ann"))
from sessions_sticky.testing import valkey

found = {}
with valkey():
    for base, query in BASES:
        session = {"id": "conv/1", "provider": "p", "model": "m", "owner": "o"}
        created = client.post(f"{base}{query}", session, content_type="application/json")
        url = created.json()["url"]
        move = {"provider": "q", "model": "m", "reason": "r"}
        bulk = {"to_provider": "p", "everything": True, "reason": "r"}
        operation = client.post(f"{base}rebind/{query}", bulk, content_type="application/json")
        answers = [
            created,
            client.get(f"{base}{query}"),
            client.get(f"{base}stats/{query}"),
            client.get(url),
            client.get(f"{base}history/conv%2F1/{query}"),
            client.post(f"{base}touch/conv%2F1/"),
            client.post(f"{base}rebind/conv%2F1/", move, content_type="application/json"),
            operation,
            client.get(operation.json()["url"]),
            client.get(f"{base}operations/{query}"),
            client.delete(url),
        ]
        found[base] = [url, created["Location"], operation.json()["url"].rpartition("operations/")[0],
                       [answer.status_code for answer in answers]]
print(json.dumps(found))
"""
EVERY_CALL = [201, 200, 200, 200, 200, 200, 200, 200, 200, 200, 204]
OURS = 'include("sessions_sticky.urls")'


@pytest.mark.parametrize("scheme", ["URLPath", "Namespace", "AcceptHeader", "HostName", "QueryParameter", None])
def test_api_works_in_a_project_that_versions_its_own(tmp_path: Path, scheme: str | None) -> None:
    versions = f'REST_FRAMEWORK["DEFAULT_VERSIONING_CLASS"] = "rest_framework.versioning.{scheme}Versioning"\n'
    urls = f"""
from django.urls import include, path

urlpatterns += [
    path("fixed/v1/chats/", {OURS}),
    path("nested/", include(([path("chats/", {OURS})], "project"), namespace="v1")),
    path("renamed/", include("sessions_sticky.urls", namespace="chats")),
    path("versioned/<str:version>/chats/", include("sessions_sticky.urls", namespace="versioned")),
    path("<slug:id>/<int:key>/sessions/", include("sessions_sticky.urls", namespace="tenants")),
]
"""
    bases = ["/fixed/v1/chats/", "/nested/chats/", "/renamed/", "/versioned/v1/chats/", "/acme/7/sessions/"]
    query = "?version=v1" if scheme == "QueryParameter" else ""
    program = f"BASES = {[(base, query) for base in bases]!r}\n{CALLS}"
    printed = run_project(tmp_path, program, settings=DRF + (versions if scheme else ""), urls=urls)
    assert printed == {base: [f"{base}id/conv%2F1/", f"{base}id/conv%2F1/", base, EVERY_CALL] for base in bases}


BROWSE = """
from django.contrib.auth.models import User
from django.test import Client
from sessions_sticky import sessions
from sessions_sticky.testing import valkey

client = Client()
found = {}
with valkey():
    sessions.create("<b>conv", "p", "m", "o")
    for login in (None, User.objects.create_user("bob"), User.objects.create_superuser("ann")):
        if login:
            client.force_login(login)
        found[str(login)] = {}
        for path in ("", "stats/", "id/%3Cb%3Econv/", "id/missing/", "touch/%3Cb%3Econv/", "rebind/", "?format=api"):
            page = client.get(f"/chats/{path}", headers={"accept": "text/html"})
            text = page.content.decode()
            found[str(login)][path] = [page.status_code, page["Content-Type"], "<html" in text, "<b>conv" in text]
    asked = [("?format=json", "text/html,*/*;q=0.8"), ("", "*/*")]
    asked += [("", "application/json"), ("id/missing/", "application/json")]
    jsons = [client.get(f"/chats/{query}", headers={"accept": accept}) for query, accept in asked]
    found["json"] = [[each.status_code, each["Content-Type"]] for each in jsons]
print(json.dumps(found))
"""
HTML = "text/html; charset=utf-8"


def test_api_is_browsable_where_the_project_is(tmp_path: Path) -> None:
    urls = f'from django.urls import include, path\nurlpatterns += [path("chats/", {OURS})]\n'
    found = run_project(tmp_path, BROWSE, settings=DRF, urls=urls)
    paths = ["", "stats/", "id/%3Cb%3Econv/", "id/missing/", "touch/%3Cb%3Econv/", "rebind/", "?format=api"]
    statuses = {"None": [403] * 7, "bob": [403] * 7, "ann": [200, 200, 200, 404, 405, 405, 200]}
    for login, expected in statuses.items():
        assert found[login] == {path: [status, HTML, True, False] for path, status in zip(paths, expected, strict=True)}
    assert found["json"] == [[200, "application/json"]] * 3 + [[404, "application/problem+json"]]


@pytest.mark.parametrize(
    "without",
    [
        'INSTALLED_APPS.remove("rest_framework")\n',
        'REST_FRAMEWORK["DEFAULT_RENDERER_CLASSES"] = ["rest_framework.renderers.JSONRenderer"]\n',
    ],
)
def test_api_is_json_only_where_the_project_is_not_browsable(tmp_path: Path, without: str) -> None:
    urls = f'from django.urls import include, path\nurlpatterns += [path("chats/", {OURS})]\n'
    program = """
from django.test import Client

answers = [Client().get("/chats/", headers={"accept": accept}) for accept in ("text/html", "text/html,*/*;q=0.8")]
print(json.dumps([[answer.status_code, answer["Content-Type"]] for answer in answers]))
"""
    found = run_project(tmp_path, program, settings=DRF + without, urls=urls)
    assert [content_type for _, content_type in found] == ["application/problem+json"] * 2
    assert found[1][0] == 403


SCHEMA_VIEWS = """
from rest_framework import serializers
from rest_framework.permissions import IsAuthenticated
from rest_framework.viewsets import ViewSet
from drf_spectacular.utils import extend_schema

NAMES = ["Session", "Event", "Page", "Operation", "Operations", "Stats", "RouteStats", "History", "Preview", "Problem",
         "Conflict", "Rebind", "RebindAll", "DeleteAll", "CountOrOperation"]


def serializer(name):
    fields = {
        "token": serializers.CharField(),
        "kind": serializers.ChoiceField(["a", "b"]),
        "state": serializers.ChoiceField(["c", "d"]),
    }
    return type(f"{name}Serializer", (serializers.Serializer,), fields)


def viewset(name):
    theirs = serializer(name)

    class Theirs(ViewSet):
        permission_classes = [IsAuthenticated]

        @extend_schema(operation_id=f"{name.lower()}s_list", responses=theirs(many=True))
        def list(self, request):
            ...

        @extend_schema(operation_id=f"{name.lower()}s_create", request=theirs, responses=theirs)
        def create(self, request):
            ...

    return Theirs
"""
SCHEMA_URLS = """
from django.urls import include, path
from rest_framework.routers import SimpleRouter
from theirs.views import NAMES, viewset

router = SimpleRouter()
for name in NAMES:
    router.register(name.lower(), viewset(name), basename=name.lower())
ours = path("<slug:tenant>/chats/", include("sessions_sticky.urls"))
urlpatterns += [path("api/", include(router.urls)), ours]
"""
SCHEMA = """
import yaml

call_command("spectacular", file="schema.yml", validate=True, fail_on_warn=True)
document = yaml.safe_load(open("schema.yml"))
from theirs.views import NAMES

ids = [each["operationId"] for path in document["paths"].values() for each in path.values() if "operationId" in each]
print(json.dumps({
    "theirs": {name: sorted(document["components"]["schemas"][name]["properties"]) for name in NAMES},
    "ours": sorted({name for name in document["components"]["schemas"] if not name.startswith("Sticky")}),
    "ids": len(ids) - len(set(ids)),
    "sticky": sum(each.startswith("sticky_") for each in ids) > 5,
}))
"""


def test_document_shares_no_name_with_the_project(tmp_path: Path) -> None:
    files = {"views": SCHEMA_VIEWS}
    printed = run_project(tmp_path, SCHEMA, settings=DRF, urls=SCHEMA_URLS, files=files)
    assert printed["sticky"]
    assert printed["ids"] == 0
    assert set(map(tuple, printed["theirs"].values())) == {("kind", "state", "token")}
    own = [name for name in printed["ours"] if name.removesuffix("Request") not in printed["theirs"]]
    assert own == ["KindEnum", "StateEnum"]
