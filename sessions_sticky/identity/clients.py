"""The sources of ids that real clients send; docs/reference/identity.md has versions, evidence and remarks."""

from __future__ import annotations

_AFFINITY = ("header.x-session-affinity", "header.x-session-id")

CLIENTS: dict[str, tuple[str, ...]] = {
    "Claude Code": ("header.x-claude-code-session-id",),
    "Claude Code before 2.1.86": ("body.metadata.user_id",),
    "Codex": ("header.thread-id", "header.session-id"),
    "Codex before 0.131.0": ("header.session_id",),
    "OpenCode": _AFFINITY,
    "OpenCode, provider named `opencode...`": ("header.x-opencode-session",),
    "Crush": _AFFINITY,
    "pi": ("header.session_id", "header.session-id", "header.x-session-affinity"),
    "Goose": ("header.agent-session-id",),
    "Open WebUI": ("header.x-openwebui-chat-id",),
    "LibreChat": ("header.x-conversation-id",),
    "LangDB clients": ("header.x-thread-id",),
    "xAI clients": ("header.x-grok-conv-id",),
    "LiteLLM clients": ("header.x-litellm-session-id", "body.litellm_session_id", "body.metadata.session_id"),
    "OpenRouter clients": ("header.x-session-id", "body.session_id"),
    "Dynamo's plugins for OpenClaw and Hermes": ("header.x-*-session-id",),
}
"""Names of clients, or of versions of one, with the sources of their ids in `DEFAULT_SOURCES`."""
