"""Calls of the admin API, by name; ids that are hard to write in a path."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, NamedTuple

from rest_framework.authentication import BaseAuthentication
from rest_framework.test import APIClient

BASE = "/api/sessions/"


class Call(NamedTuple):
    """One way of calling; `permission` is the required permission, `status` the status of a successful answer."""

    method: str
    path: str
    permission: str
    status: int
    body: dict[str, Any] | None = None

    def by(self, client: APIClient, **headers: str) -> Any:
        return client.generic(
            self.method, self.path, *body_of(self.body), **{f"HTTP_{name}": value for name, value in headers.items()}
        )


def path_of(action: str, url: str) -> str:
    """The path of an action on the session at `url`."""
    return url.replace(f"{BASE}id/", f"{BASE}{action}/", 1)


def body_of(body: Any) -> tuple[Any, ...]:
    """The arguments of `client.generic` for a JSON body."""
    return () if body is None else (json.dumps(body), "application/json")


PROPOSAL = {"id": "conv-2", "provider": "anthropic", "model": "claude", "owner": "user-7"}
MOVE = {"provider": "mistral", "model": "large", "reason": "openai is being drained"}

CALLS = {
    "retrieve": Call("GET", f"{BASE}id/conv-1/", "view", 200),
    "head": Call("HEAD", f"{BASE}id/conv-1/", "view", 200),
    "options": Call("OPTIONS", f"{BASE}id/conv-1/", "view", 200),
    "create": Call("POST", BASE, "add", 201, PROPOSAL),
    "touch": Call("POST", f"{BASE}touch/conv-1/", "change", 200),
    "rebind": Call("POST", f"{BASE}rebind/conv-1/", "change", 200, MOVE),
    "delete": Call("DELETE", f"{BASE}id/conv-1/", "delete", 204),
    "put": Call("PUT", f"{BASE}id/conv-1/", "change", 405, PROPOSAL),
    "patch": Call("PATCH", f"{BASE}id/conv-1/", "change", 405, PROPOSAL),
    "list": Call("GET", BASE, "view", 200),
    "head of list": Call("HEAD", BASE, "view", 200),
    "stats": Call("GET", f"{BASE}stats/", "view", 200),
    "history": Call("GET", f"{BASE}history/conv-1/", "view", 200),
    "delete all": Call("DELETE", BASE, "delete", 405),
    "delete stats": Call("DELETE", f"{BASE}stats/", "delete", 405),
    "delete history": Call("DELETE", f"{BASE}history/conv-1/", "delete", 405),
    "post to a session": Call("POST", f"{BASE}id/conv-1/", "change", 405, PROPOSAL),
    "no slash": Call("GET", f"{BASE}id/conv-1", "view", 404),
}
INDEX_CALLS = {name: CALLS[name] for name in ("list", "head of list", "stats", "history")}
STORE_CALLS = {name: CALLS[name] for name in ("retrieve", "head", "create", "touch", "rebind", "delete", *INDEX_CALLS)}

HEX = "0123456789abcdef" * 2
HOSTILE_IDS = [
    *(".", "..", "...", "~", "~.", "~..", "~~.", "~~..", "~...", "~a", ".~", "..;", "./", "../", "/.", "/..", "./a"),
    *("a/..", "a/../b", "a/./b", "../../admin", "/", "//", "///", "/a", "a/", "//a", "a//b", "a//"),
    *("touch", "rebind", "touch/", "/touch", "../touch", "~./touch"),
    *("a/touch", "a/touch/", "a/rebind", "a/touch/touch"),
    *("stats", "~stats", "~~stats", "stats/", "/stats", "a/stats", "stats/a", "stats/history"),
    *("history", "~history", "a/history", "a/~history", "a/~~history", "a/history/", "a/history/history", "/history"),
    *("operations", "~operations", "operations/", f"operations/{HEX}", f"operations/~{HEX}", f"~operations/{HEX}"),
    *(f"operations/{HEX}/", f"operations/{HEX}/history", f"a/operations/{HEX}", HEX, f"operations/{HEX[1:]}"),
    *("delete", "a/delete", "rebind/", f"operations/{HEX}/stop", f"operations/{HEX}/resume"),
    *("%", "%2F", "%2e%2e", "%2E", "%25", "%zz", "a%", "%00", "%E4", "a%2Ftouch", "a+b", "a b", " ", " a ", "+"),
    *("?", "a?b=c", "#", "a#b", "a&b=c", "a;b", "a:b", "http://x/y", "//evil.example/", "a@b", "a\\b", "..\\.."),
    *("{a}", "*?[]\\", "<a>", "\"'`", "$a", "^a$", "|", "a,b", "a=b", "(a)", "[::1]", "!", "null", "0", "a.json"),
    *("äöü", "日本語", "😀", "👩‍👩‍👧", "e\u0301", "\u00e9", "ﬀ", "İ"),
    *("\u2028", "\u200b", "\ufeff", "\ufffd", "\U0010ffff"),
    *("x" * 256, "😀" * 256, "/" * 256, "." * 256, "~" * 256, "%" * 256),
]


class Anyone(BaseAuthentication):
    """Takes every caller for one who may do everything."""

    def authenticate(self, request: Any) -> tuple[Any, None]:
        return SimpleNamespace(
            is_authenticated=True, pk=1, has_perm=lambda permission: True, get_username=lambda: "anyone"
        ), None
