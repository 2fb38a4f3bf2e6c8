"""The least that a proxy in Python does, the gateway's upper bound: `uvicorn bench.bare_proxy:application`.

It reads the body, posts it to $UPSTREAM with aiohttp and sends the answer: no key, no session, no limits, no log.
"""

from __future__ import annotations

import os
from typing import Any

import aiohttp

UPSTREAM = os.environ.get("UPSTREAM", "http://127.0.0.1:19101/v1")
HEADERS = {"Content-Type": "application/json"}
_clients: list[aiohttp.ClientSession] = []


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Pass one request on to the upstream, and its answer back."""
    if scope["type"] != "http":
        return
    if not _clients:  # a session belongs to the loop that runs
        connector = aiohttp.TCPConnector(limit=0)
        _clients.append(aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()))
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    url = UPSTREAM + scope["path"].removeprefix("/v1")
    async with _clients[0].post(url, data=body, headers=HEADERS) as response:
        answer = await response.read()
        kind, length = response.content_type.encode(), str(len(answer)).encode()
        headers = [(b"content-type", kind), (b"content-length", length)]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
