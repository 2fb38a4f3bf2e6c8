"""Every route of the project: how it is entered, what each method needs and answers. A route that is not here fails.

`needs status` is read as: `view 200` the permission `view` on the route's model, `view|change` one of the two,
`view+delete` both, `-` none, `never` a permission that no user has. The status is the answer to a user who has it,
`200/204` with the permission `view` and without. A user without it gets `refused`; a user who fails at the door gets
the answer of the door.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Door = Literal["open", "exempt", "pages", "api", "key"]
"""How a route is entered: `open` to all, `exempt` also without a CSRF token, `pages` by staff who are logged
in, `api` by users with a token or logged in, `key` with an API key of the chat API."""

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
SAFE = ("GET", "HEAD", "OPTIONS")
OWNER, OTHER = "the owner's key", "another owner's key"
KINDS = (
    OWNER,
    OTHER,
    "revoked key",
    "deleted key",
    "unknown key",
    "no key",
    "the stored hash of a key",
    "the key as a password",
    "a superuser's cookie",
    "a superuser's token",
    "a superuser's token as a key",
)
"""Who calls the chat API."""

PROPOSAL = {"id": "conv-2", "provider": "anthropic", "model": "claude", "owner": "user-7"}
MOVE = {"provider": "mistral", "model": "large", "reason": "openai is being drained"}
MOVE_FORM = {"to-provider": "mistral", "to-model": "large", "to-reason": "openai is being drained"}
MOVE_ALL = {"from_provider": "openai", "provider": "mistral", "model": "large", "reason": "maintenance"}
OBJECT = "resp_1"
ALL_APIS = {
    "model": "echo-small",
    "messages": [{"role": "user", "content": "hello"}],
    "input": "hello",
    "prompt": "hello",
    "conversation_id": "conv-3",
}
"""A request that each API of `/v1/` can serve."""


@dataclass(frozen=True)
class Route:
    """One entry; `{name}` in the path stands for something that there is, `body` goes with POST, PUT and PATCH."""

    door: Door
    path: str
    model: str
    calls: dict[str, str]
    body: dict[str, Any] = field(default_factory=dict)
    refused: int = 403
    outside: dict[str, int | str] = field(default_factory=lambda: {"other": "login"})

    def call(self, method: str) -> tuple[str, int, int]:
        """Return the permission that a method needs, and its answers to users who may view and to others."""
        same = "GET" if method == "HEAD" and "HEAD" not in self.calls else method
        needs, statuses = self.calls.get(same, self.calls["other"]).split()
        seen, _, unseen = statuses.partition("/")
        return needs, int(seen), int(unseen or seen)


def _open(path: str, *, door: Door = "open", other: str = "- 405", **calls: str) -> Route:
    return Route(door, path, "", {"GET": "- 200", "other": other, **calls})


def _page(path: str, model: str = "session", *, body: dict[str, Any] | None = None, **calls: str) -> Route:
    return Route("pages", f"/admin/{path}", model, calls, body or {})


def _api(path: str, body: dict[str, Any] | None = None, *, other: str = "change 405", **calls: str) -> Route:
    calls = {"OPTIONS": "view 200", "DELETE": "delete 405", "other": other, **calls}
    return Route("api", f"/api/sessions/{path}", "session", calls, body or {})


def _keys(path: str, **calls: str) -> Route:
    calls = {"GET": "view 200", "OPTIONS": "view 200", "DELETE": "delete 405", "other": "change 405", **calls}
    return Route("api", f"/api/keys/{path}", "apikey", calls)


def _key(path: str, *, other: str = "- 405", **calls: str) -> Route:
    return Route("key", path, "", {"other": other, **calls}, ALL_APIS)


def _stored(pattern: str, path: str, *methods: str) -> dict[str, Route]:
    """Return a path of a stored object; the echo answers 404 to its owner, and no other owner's request reaches it."""
    calls = dict.fromkeys(methods, "object 404")
    return {rf"^v1/{pattern}\Z": _key(f"/v1/{path}", **calls)}


def _table(
    app: str, name: str, pk: str, *, body: dict[str, Any], add: str = "add", made: int = 302, edit: str = "change 200"
) -> dict[str, Route]:
    """Return the pages that Django admin has for a table; none but POST changes anything."""
    base = f"{app}/{name}/"
    item = f"admin/{base}<path:object_id>/"
    return {
        f"admin/{base}": _page(base, name, other="view|change 200"),
        f"admin/{base}add/": _page(f"{base}add/", name, body=body, POST=f"{add} {made}", other=f"{add} 200"),
        f"{item}history/": _page(f"{base}{pk}/history/", name, other="view|change 200"),
        f"{item}delete/": _page(
            f"{base}{pk}/delete/", name, body={"post": "yes"}, POST="delete 302", other="delete 200"
        ),
        f"{item}change/": _page(f"{base}{pk}/change/", name, POST=edit, other="view|change 200"),
        item: _page(f"{base}{pk}/", name, GET="- 302", POST="- 302", other="- 302"),
    }


SESSION = "sessions_sticky/session/"
ID = "[A-Za-z0-9_][A-Za-z0-9_.:~-]{0,255}"
OBJECT_ID = f"(?P<object_id>{ID})"
ANY_ID = r"(?P<conversation_id>(?s:.*))/\Z"
OPERATION = "api/sessions/^operations/(?P<operation_key>[0-9a-f]{32})"
SESSION_PAGES = {
    "": _page(SESSION, GET="view 200", other="view 405"),
    "search/": _page(f"{SESSION}search/?q=conv-1", GET="view 302", other="view 405"),
    "overview/": _page(f"{SESSION}overview/", GET="view 200", other="view 405"),
    "providers/": _page(f"{SESSION}providers/", GET="view 200", other="view 405"),
    "providers/change/": _page(
        f"{SESSION}providers/change/?provider=echo-one&action=try",
        body={"provider": "echo-one", "action": "try"},
        GET="change 200",
        POST="change 302",
        other="change 405",
    ),
    "move-all/": _page(f"{SESSION}move-all/", body=MOVE_ALL, GET="view 200", POST="view+change 302", other="view 405"),
    "drain/": _page(f"{SESSION}drain/", GET="view 302", other="view 405"),
    "bulk/": _page(f"{SESSION}bulk/?provider=openai", GET="view 200", other="view 405"),
    "bulk/export/": _page(f"{SESSION}bulk/export/?provider=openai", GET="view 200", other="view 405"),
    "owners/": _page(f"{SESSION}owners/", GET="view 200", other="view 405"),
    "events/": _page(f"{SESSION}events/", GET="view 200", other="view 405"),
    "help/": _page(f"{SESSION}help/", GET="view 200", other="view 405"),
    "operations/": _page(f"{SESSION}operations/", GET="view 200", other="view 405"),
    "move-back/": _page(
        f"{SESSION}move-back/",
        body={"all": "1", "moved_from": "x"},
        GET="change 302",
        POST="change 200",
        other="change 405",
    ),
    "operations/<job_key:key>/": _page(f"{SESSION}operations/{{job}}/", GET="view 200", other="view 405"),
    "operations/<job_key:key>/stop/": _page(
        f"{SESSION}operations/{{job}}/stop/", GET="view 302", POST="view+delete 302", other="view 405"
    ),
    "operations/<job_key:key>/resume/": _page(
        f"{SESSION}operations/{{job}}/resume/", GET="view 302", POST="view+delete 302", other="view 405"
    ),
    "delete/": _page(
        f"{SESSION}delete/",
        body={"selected": "{binding}", "confirmed": "1"},
        GET="delete 302",
        POST="delete 302",
        other="delete 405",
    ),
    "move/": _page(
        f"{SESSION}move/",
        body={"selected": "{binding}", **MOVE_FORM},
        GET="change 302",
        POST="change 302",
        other="change 405",
    ),
    "<quoted_id:conversation_id>/change/": _page(f"{SESSION}conv-1/change/", GET="view 200", other="view 405"),
    "<quoted_id:conversation_id>/touch/": _page(
        f"{SESSION}conv-1/touch/", GET="change 302", POST="change 302", other="change 405"
    ),
    "<quoted_id:conversation_id>/history/": _page(f"{SESSION}conv-1/history/", GET="view 200", other="view 405"),
}
USER_FORM = {"username": "new", "usable_password": "true", "password1": "a-long-one-7", "password2": "a-long-one-7"}

ROUTES: dict[str, Route] = {
    "": _open(
        "/", GET="- 302", HEAD="- 200", POST="- 302", OPTIONS="- 302", PUT="- 302", PATCH="- 302", DELETE="- 302"
    ),
    "healthz": _open("/healthz", other="- 200"),
    "readyz": _open("/readyz", other="- 200"),
    "metrics": _open("/metrics", other="- 200"),
    "api/schema/": _open("/api/schema/", door="exempt", OPTIONS="- 200"),
    "api/docs/": _open("/api/docs/"),
    # Django admin itself
    "admin/login/": Route(
        "pages",
        "/admin/login/",
        "",
        {"GET": "- 302", "HEAD": "- 200", "OPTIONS": "- 200", "POST": "- 200", "PUT": "- 200", "other": "- 405"},
        outside={"GET": 200, "HEAD": 200, "OPTIONS": 200, "POST": 200, "PUT": 200, "other": 405},
    ),
    "admin/logout/": Route(
        "pages", "/admin/logout/", "", {"OPTIONS": "- 200", "POST": "- 200", "other": "- 405"}, outside={"other": 302}
    ),
    "admin/": _page("", other="- 302/200"),
    "admin/all/": _page("all/", other="- 200"),
    "favicon.ico": _open("/favicon.ico", GET="- 302", HEAD="- 302", POST="- 302", OPTIONS="- 302", other="- 302"),
    "admin/password_change/": _page(
        "password_change/", GET="- 200", OPTIONS="- 200", POST="- 200", PUT="- 200", other="- 405"
    ),
    "admin/password_change/done/": _page("password_change/done/", GET="- 200", OPTIONS="- 200", other="- 405"),
    "admin/autocomplete/": _page("autocomplete/", GET="- 403", OPTIONS="- 200", other="- 405"),
    "admin/jsi18n/": _page("jsi18n/", GET="- 200", OPTIONS="- 200", other="- 405"),
    "admin/r/<path:content_type_id>/<path:object_id>/": _page("r/{type}/1/", other="- 404"),
    "admin/^(?P<app_label>sessions_sticky|gateway|auth)/$": Route(
        "pages", "/admin/sessions_sticky/", "session", {"other": "view 200"}, refused=404
    ),
    "admin/(?P<url>.*)$": _page("nothing/", other="- 404"),
    # What the project puts into it
    **{f"admin/{SESSION}{pattern}": route for pattern, route in SESSION_PAGES.items()},
    **_table("gateway", "apikey", "{key}", body={"owner": "new"}, made=200, edit="change 302"),  # shown in the answer
    **{
        f"admin/gateway/apikey/<int:pk>/{action}/": _page(
            f"gateway/apikey/{{key}}/{action}/", "apikey", POST="change 302", other="change 200"
        )
        for action in ("revoke", "pause")
    },
    **_table("auth", "group", "{group}", body={"name": "new"}),
    **_table("auth", "user", "{user}", body=USER_FORM, add="add+change"),
    "admin/auth/user/<id>/password/": _page("auth/user/{user}/password/", "user", other="change 200"),
    # The admin API
    "api/providers/": Route(
        "api",
        "/api/providers/",
        "session",
        {"GET": "view 200", "OPTIONS": "view 200", "DELETE": "delete 405", "other": "change 405"},
    ),
    "api/providers/<path:name>/": Route(
        "api",
        "/api/providers/echo-one/",
        "session",
        {"GET": "view 405", "OPTIONS": "view 200", "POST": "change 200", "DELETE": "delete 405", "other": "change 405"},
        {"action": "try"},
    ),
    "api/keys/": _keys("", POST="add 405", PATCH="change 405"),
    "api/keys/<int:pk>/": _keys("{key}/", POST="add 405", PATCH="change 200"),
    "api/sessions/": _api("", PROPOSAL, GET="view 200", POST="add 201", other="add 405"),
    "api/sessions/stats/": _api("stats/", GET="view 200"),
    "api/sessions/delete/": _api(
        "delete/", {"provider": "missing"}, GET="view 405", POST="delete 200", other="delete 405"
    ),
    "api/sessions/rebind/": _api(
        "rebind/", {"provider": "missing", "to_provider": "x", "reason": "y"}, GET="view 405", POST="change 200"
    ),
    "api/sessions/events/": _api("events/", GET="view 200"),
    "api/sessions/operations/": _api("operations/", GET="view 200"),
    rf"{OPERATION}/\Z": _api("operations/{job}/", GET="view 200"),
    rf"{OPERATION}/stop/\Z": _api("operations/{job}/stop/", GET="view 405", POST="delete 200"),
    rf"{OPERATION}/resume/\Z": _api("operations/{job}/resume/", GET="view 405", POST="delete 200"),
    rf"api/sessions/^id/{ANY_ID}": _api("id/conv-1/", PROPOSAL, GET="view 200", DELETE="delete 204"),
    rf"api/sessions/^history/{ANY_ID}": _api("history/conv-1/", GET="view 200"),
    rf"api/sessions/^touch/{ANY_ID}": _api("touch/conv-1/", GET="view 405", POST="change 200/204"),
    rf"api/sessions/^rebind/{ANY_ID}": _api("rebind/conv-1/", MOVE, GET="view 405", POST="change 200/204"),
    "api/sessions/^": _api("conv-1", GET="view 404", OPTIONS="view 404", DELETE="delete 404", other="change 404"),
    # The chat API
    "v1/chat/completions": _key("/v1/chat/completions", POST="owner 200"),
    "v1/messages": _key("/v1/messages", POST="owner 200"),
    "v1/messages/count_tokens": _key("/v1/messages/count_tokens", POST="key 200"),
    "v1/responses": _key("/v1/responses", POST="owner 200"),
    "v1/responses/compact": _key("/v1/responses/compact", POST="owner 400"),
    "v1/responses/input_tokens": _key("/v1/responses/input_tokens", POST="key 200"),
    "v1/completions": _key("/v1/completions", POST="owner 200"),
    "v1/embeddings": _key("/v1/embeddings", POST="owner 200"),
    **_stored(f"responses/{OBJECT_ID}", f"responses/{OBJECT}", "GET", "DELETE"),
    **_stored(f"responses/{OBJECT_ID}/cancel", f"responses/{OBJECT}/cancel", "POST"),
    **_stored(f"responses/{OBJECT_ID}/input_items", f"responses/{OBJECT}/input_items", "GET"),
    r"^v1/conversations\Z": _key("/v1/conversations", POST="key 404"),
    **_stored(f"conversations/{OBJECT_ID}", f"conversations/{OBJECT}", "GET", "POST", "DELETE"),
    **_stored(f"conversations/{OBJECT_ID}/items", f"conversations/{OBJECT}/items", "GET", "POST"),
    **_stored(f"conversations/{OBJECT_ID}/items/{ID}", f"conversations/{OBJECT}/items/msg_1", "GET", "DELETE"),
    "v1/models": _key("/v1/models", GET="key 200"),
    "v1/models/<path:name>": _key("/v1/models/echo-small", GET="key 200"),
    "^v1(?:/|$)": _key("/v1/nothing", other="- 404"),
}
