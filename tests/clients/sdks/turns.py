"""A conversation over standard input and output: a line of JSON for each turn, a line of JSON for its answer."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

ROOT = os.environ["ROOT"]
BASE_URL = f"{ROOT}/v1"
API_KEY = os.environ["API_KEY"]
MODEL = os.environ["MODEL"]

Say = Callable[[str], str]


def serve(**conversations: Callable[[], Say]) -> None:
    """Hold the conversation that the first argument names, until standard input ends."""
    say = conversations[sys.argv[1]]()
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {"text": say(json.loads(line))}
        except Exception as error:
            types = [base.__name__ for base in type(error).__mro__]
            answer = {"error": types, "message": str(error), "status": getattr(error, "status_code", None)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
