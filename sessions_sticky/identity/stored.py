"""Parse the client's own id from a session id."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from sessions_sticky.identity import CONTENT_PREFIX, OBSERVED_FORM

_OWNER_SCOPE = re.compile(r"[0-9a-f]{32}:(?=.)", re.DOTALL)


class StoredId(NamedTuple):
    """The parts of a session id."""

    kind: Literal["named", "observed", "content"]
    client_id: str | None
    """The id as the client sent it, with `:{agent}` for a subagent; its SHA-256 if it was too long or invalid. None
    for `content`."""
    model: str | None
    """The model that was requested; its SHA-256 if it was invalid. None for `named`."""


def read_session_id(
    session_id: str, *, model: str | None = None, scope: Literal["shared", "owner"] = "shared"
) -> StoredId:
    """Return the parts of a session id that `identify` made with this `scope`.

    `model` is that of the session, which separates id and model if one of them contains an `@`.
    """
    observed = OBSERVED_FORM.match(session_id)
    if observed is None:
        owner = _OWNER_SCOPE.match(session_id) if scope == "owner" else None
        return StoredId("named", session_id[owner.end() :] if owner else session_id, None)
    rest = session_id[observed.end() :]
    if model and rest.endswith(f"@{model}"):
        name, requested = rest.removesuffix(f"@{model}"), model
    else:
        name, at, requested = rest.rpartition("@")
        if not at:
            return StoredId("observed", rest, None)
    if name.startswith(CONTENT_PREFIX):
        return StoredId("content", None, requested)
    return StoredId("observed", name, requested)
