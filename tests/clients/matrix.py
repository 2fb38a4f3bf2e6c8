"""The clients that the tests run, and how each keeps its conversation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.clients.clients import CHAT_MODEL, CLAUDE, MODULES, PYTHON, ClaudeCode, Client, Codex, OpenCode, Sdk

Start = Callable[[Path, str, str], Client]


@dataclass(frozen=True)
class Kind:
    """One client. `source` is what the gateway recognizes its conversation by; None: by what a provider stores."""

    name: str
    program: Path
    start: Start
    source: str | None = "content"
    error_type: str | None = None
    """The one type of all its errors; None: a type for each status, named as the SDKs of OpenAI and Anthropic do."""
    carries_history: bool = True
    """Whether each request has the whole conversation."""


def _sdk(
    script: str,
    manner: str,
    *,
    stored: bool = False,
    error_type: str | None = None,
    carries_history: bool | None = None,
) -> Kind:
    model = CLAUDE if script == "anthropic_sdk.py" or manner.startswith("messages") else CHAT_MODEL
    program = PYTHON if script.endswith(".py") else MODULES / "ai"
    name = script.partition(".")[0].removesuffix("_sdk").replace("_", "-")
    start = partial(Sdk, script=script, manner=manner, model=model)
    source = None if stored else "content"
    carries_history = not stored if carries_history is None else carries_history
    return Kind(f"{name}-{manner.replace('_', '-')}", program, start, source, error_type, carries_history)


OPENAI = [_sdk("openai_sdk.py", manner) for manner in ("chat", "chat_stream", "encrypted_stream")]
ANTHROPIC = [_sdk("anthropic_sdk.py", manner) for manner in ("plain", "thinking_stream")]
LANGCHAIN = [_sdk("langchain_sdk.py", manner) for manner in ("chat", "chat_stream", "responses")]
PYDANTIC_AI = [
    _sdk("pydantic_ai_sdk.py", manner, error_type="ModelHTTPError") for manner in ("chat", "responses", "messages")
]
AGENTS = [_sdk("agents_sdk.py", manner) for manner in ("chat", "responses")]
VERCEL = [
    _sdk("vercel.mjs", f"{api}{how}", error_type="AI_APICallError")
    for api in ("chat", "responses", "messages")
    for how in ("", "_stream")
]
CLAUDE_CODE = Kind("claude-code", MODULES / ".bin" / "claude", ClaudeCode, "header.x-claude-code-session-id")
CODEX = Kind("codex", MODULES / ".bin" / "codex", Codex, "header.thread-id")
OPENCODE = Kind("opencode", MODULES / ".bin" / "opencode", OpenCode, "header.x-session-affinity")
AGENT_PROGRAMS = [CLAUDE_CODE, CODEX, OPENCODE]

CARRYING = [*AGENT_PROGRAMS, *OPENAI, *ANTHROPIC, *LANGCHAIN, *PYDANTIC_AI, *AGENTS, *VERCEL]
STORED = [
    *(_sdk("openai_sdk.py", manner, stored=True) for manner in ("previous_response", "conversation", "background")),
    _sdk("langchain_sdk.py", "previous_response", stored=True),
    _sdk("agents_sdk.py", "previous_response", stored=True),
    # Its session reads the items that are stored and sends them all.
    _sdk("agents_sdk.py", "conversation", stored=True, carries_history=True),
]
ALL = [*CARRYING, *STORED]
