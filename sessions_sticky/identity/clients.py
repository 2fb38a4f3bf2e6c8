"""Ids that real clients send, with sources; docs/reference/identity.md contains this table."""

from __future__ import annotations

from typing import NamedTuple

from sessions_sticky.identity.sources import CONTENT


class Client(NamedTuple):
    """A client, or a version of one."""

    name: str
    sources: tuple[str, ...]
    """Where its requests carry the id, as in `DEFAULT_SOURCES`; `content` for a client that sends none."""
    since: str
    """The first version, or the month, that sends it; empty where that is not known."""
    evidence: str
    """The address of the documentation or the change."""
    note: str = ""


_GITHUB = "https://github.com"
_AFFINITY = ("header.x-session-affinity", "header.x-session-id")

CLIENTS = (
    Client(
        "Claude Code",
        ("header.x-claude-code-session-id",),
        "2.1.86",
        "https://code.claude.com/docs/en/llm-gateway-protocol",
        "a subagent also sends `x-claude-code-agent-id` (since 2.1.139) and is a separate conversation",
    ),
    Client(
        "Claude Code before 2.1.86",
        ("body.metadata.user_id",),
        "",
        f"{_GITHUB}/ding113/claude-code-hub/pull/939",
        "`user_..._session_...`; JSON text since 2.1.78",
    ),
    Client(
        "Codex",
        ("header.thread-id", "header.session-id"),
        "0.131.0",
        f"{_GITHUB}/openai/codex/pull/22193",
        "subagents and forks share the session and have their own threads",
    ),
    Client(
        "Codex before 0.131.0",
        ("header.session_id",),
        "",
        f"{_GITHUB}/openai/codex/pull/21757",
        "nginx drops it unless `underscores_in_headers` is on",
    ),
    Client(
        "OpenCode",
        _AFFINITY,
        "",
        f"{_GITHUB}/anomalyco/opencode/pull/31511",
        "`x-session-id` since June 2026; the title request to the small model has the same id",
    ),
    Client(
        "OpenCode, provider named `opencode...`",
        ("header.x-opencode-session",),
        "",
        f"{_GITHUB}/anomalyco/opencode/blob/dev/packages/opencode/src/session/llm/request.ts",
    ),
    Client("Crush", _AFFINITY, "July 2026", f"{_GITHUB}/charmbracelet/crush/pull/3277"),
    Client(
        "pi",
        ("header.session_id", "header.session-id", "header.x-session-affinity"),
        "",
        f"{_GITHUB}/theopenco/llmgateway/pull/3011",
        "for a provider of your own only with `compat.sendSessionAffinityHeaders`",
    ),
    Client(
        "Goose",
        ("header.agent-session-id",),
        "January 2026",
        f"{_GITHUB}/aaif-goose/goose/pull/6626",
        "counted by day and installation: two installations with one key share an id",
    ),
    Client(
        "Open WebUI",
        ("header.x-openwebui-chat-id",),
        "July 2025",
        f"{_GITHUB}/open-webui/open-webui/issues/15737",
        "with `ENABLE_FORWARD_USER_INFO_HEADERS`; `FORWARD_SESSION_INFO_HEADER_CHAT_ID` renames it",
    ),
    Client(
        "LibreChat",
        ("header.x-conversation-id",),
        "August 2025",
        f"{_GITHUB}/danny-avila/LibreChat/pull/9095",
        "configured as `X-Conversation-Id: '{{LIBRECHAT_BODY_CONVERSATIONID}}'`; title requests have the same id",
    ),
    Client("LangDB clients", ("header.x-thread-id",), "", f"{_GITHUB}/danny-avila/LibreChat/pull/8647"),
    Client(
        "xAI clients",
        ("header.x-grok-conv-id",),
        "",
        "https://docs.x.ai/developers/advanced-api-usage/prompt-caching/maximizing-cache-hits",
    ),
    Client(
        "LiteLLM clients",
        ("header.x-litellm-session-id", "body.litellm_session_id", "body.metadata.session_id"),
        "",
        "https://docs.litellm.ai/docs/proxy/ui_logs_sessions",
    ),
    Client(
        "OpenRouter clients",
        ("header.x-session-id", "body.session_id"),
        "",
        "https://openrouter.ai/docs/guides/best-practices/prompt-caching",
    ),
    Client(
        "Dynamo's plugins for OpenClaw and Hermes",
        ("header.x-*-session-id",),
        "",
        "https://docs.nvidia.com/dynamo/dev/user-guides/agents/session-i-ds",
        "`x-dynamo-session-id`",
    ),
    Client(
        "VS Code, custom endpoint",
        (CONTENT,),
        "",
        f"{_GITHUB}/microsoft/vscode/issues/325237",
        "sends no id of the chat",
    ),
    Client(
        "Kimi Code",
        (CONTENT,),
        "",
        f"{_GITHUB}/MoonshotAI/kimi-code/issues/3506",
        "its `prompt_cache_key` is a part of the fingerprint",
    ),
)
