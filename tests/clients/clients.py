"""Real clients, each a program that holds one conversation."""

from __future__ import annotations

import json
import os
import re
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.docs.blocks import blocks
from tests.gateway.live import ROOT as PROJECT

INSTALLED = PROJECT / ".venv" / "clients"
PYTHON = INSTALLED / "bin" / "python"
MODULES = INSTALLED / "node_modules"
SDKS = Path(__file__).parent / "sdks"
TURN_SECONDS = 100.0
CHAT_MODEL, CLAUDE = "gpt-5.2", "claude-opus-4-6"


def configuration(path: str, root: str) -> str:
    """Return the configuration that docs/how-to/agents.md shows under a title, for the gateway at `root`."""
    (block,) = [block for block in blocks("how-to/agents.md") if block.path == path]
    return block.text.replace("http://localhost:8000", root)


class ClientError(Exception):
    """A turn failed; `types` are the client's own types of the error, where it has types, the most special first."""

    def __init__(self, message: str, types: Sequence[str] = (), status: int | None = None) -> None:
        super().__init__(message)
        self.types = types
        self.status = status


class Client(ABC):
    """One conversation of a client in a folder of its own; a context manager."""

    def __init__(self, folder: Path, root: str, api_key: str) -> None:
        self.folder = folder
        self.root = root
        self.api_key = api_key

    @abstractmethod
    def say(self, text: str) -> str:
        """Return the answer to the next turn; raise ClientError where it fails."""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End the process of a client that keeps one."""
        return

    def environment(self, **variables: str) -> dict[str, str]:
        """Return an environment with nothing of this one but where programs are."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), **variables}


class CommandLine(Client):
    """An agent that is run once for each turn."""

    program: str
    first: tuple[str, ...]
    next: tuple[str, ...]

    def __init__(self, folder: Path, root: str, api_key: str) -> None:
        super().__init__(folder, root, api_key)
        self._turns = 0
        self.work = folder / "work"
        self.work.mkdir()
        self.configure()

    def configure(self) -> None:
        """Write its configuration, if it has files."""

    def variables(self) -> dict[str, str]:
        """Return what it reads from the environment."""
        return {"GATEWAY_KEY": self.api_key}

    def say(self, text: str) -> str:
        """Run it to its end."""
        arguments = self.next if self._turns else self.first
        done = subprocess.run(
            [MODULES / ".bin" / self.program, *arguments, text],
            cwd=self.work,
            env=self.environment(**self.variables()),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TURN_SECONDS,
        )
        self.stderr = done.stderr
        if done.returncode:
            raise ClientError(f"{done.stdout}\n{done.stderr}")
        self._turns += 1
        return done.stdout.strip()


class ClaudeCode(CommandLine):
    """Anthropic's agent, over Messages."""

    program, first, next = "claude", ("-p",), ("-p", "--continue")

    def __init__(self, folder: Path, root: str, api_key: str, *, key_variable: str = "ANTHROPIC_AUTH_TOKEN") -> None:
        self.key_variable = key_variable
        super().__init__(folder, root, api_key)

    def variables(self) -> dict[str, str]:
        """Return what it reads from the environment; it has no file."""
        exported = dict(re.findall(r"^export (\w+)=(\S+)$", configuration("shell", self.root), re.MULTILINE))
        del exported["ANTHROPIC_AUTH_TOKEN"]
        return {
            **exported,
            self.key_variable: self.api_key,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_RETRIES": "1",
            "DISABLE_TELEMETRY": "1",
        }


class Codex(CommandLine):
    """OpenAI's agent, over Responses."""

    program, first = "codex", ("exec", "--skip-git-repo-check")
    next = ("exec", "resume", "--last", "--skip-git-repo-check")

    def __init__(self, folder: Path, root: str, api_key: str, *, supports_websockets: str = "false") -> None:
        self.supports_websockets = supports_websockets
        super().__init__(folder, root, api_key)

    def configure(self) -> None:
        """Name the gateway as the provider."""
        (self.folder / ".codex").mkdir()
        text = configuration("~/.codex/config.toml", self.root)
        text = text.replace("supports_websockets = false", f"supports_websockets = {self.supports_websockets}")
        (self.folder / ".codex" / "config.toml").write_text(
            f"check_for_update_on_startup = false\n{text}request_max_retries = 1\nstream_max_retries = 1\n"
            "[analytics]\nenabled = false\n"
        )


class OpenCode(CommandLine):
    """An agent over chat completions, which requests the title of a conversation from a small model in parallel."""

    program, first, next = "opencode", ("run",), ("run", "-c")

    def configure(self) -> None:
        """Name the gateway as the only provider."""
        config = json.loads(configuration("~/.config/opencode/opencode.json", self.root))
        config |= {"autoupdate": False, "share": "disabled"}
        file = self.folder / ".config" / "opencode" / "opencode.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(config))

    def variables(self) -> dict[str, str]:
        """Return what keeps it from the internet."""
        names = ("AUTOUPDATE", "DEFAULT_PLUGINS", "LSP_DOWNLOAD", "MODELS_FETCH")
        disabled = {f"OPENCODE_DISABLE_{name}": "1" for name in names}
        return {**super().variables(), **disabled, "npm_config_offline": "true"}


class Sdk(Client):
    """A script in `sdks`, one process for all turns."""

    def __init__(self, folder: Path, root: str, api_key: str, *, script: str, manner: str, model: str) -> None:
        super().__init__(folder, root, api_key)
        program = PYTHON if script.endswith(".py") else "node"
        variables = {"ROOT": root, "API_KEY": api_key, "MODEL": model, "MODULES": str(MODULES)}
        self._log = folder / "stderr"
        with ExitStack() as stack:
            self._process = subprocess.Popen(
                [program, SDKS / script, manner],
                cwd=folder,
                env=self.environment(**variables),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stack.enter_context(self._log.open("wb")),
                text=True,
            )

    def say(self, text: str) -> str:
        """Write a line and read one."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(text) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self._log.read_text()
        answer: Mapping[str, Any] = json.loads(line)
        if "error" in answer:
            raise ClientError(answer["message"], answer["error"], answer["status"])
        return str(answer["text"]).strip()

    def __exit__(self, *exc_info: object) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
