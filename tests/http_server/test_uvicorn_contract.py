"""What `LimitedProtocol` expects of uvicorn: these fail when a release of uvicorn changes it."""

from __future__ import annotations

import inspect
import re

import pytest
import uvicorn
import uvicorn.server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

from sentinel_project import http_protocol
from sentinel_project.http_protocol import LimitedProtocol


def attributes(name: str, *sources: object) -> set[str]:
    """The attributes of `name` that source code uses."""
    return {each for source in sources for each in re.findall(rf"\b{name}\.(\w+)", inspect.getsource(source))}  # type: ignore[arg-type]


def test_protocol_is_created_with_the_arguments_that_uvicorn_gives_its_own() -> None:
    assert list(inspect.signature(LimitedProtocol).parameters) == list(inspect.signature(HttpToolsProtocol).parameters)
    call = re.search(r"config\.http_protocol_class\((.*?)\)", inspect.getsource(uvicorn.Server.startup), re.DOTALL)
    assert call is not None
    assert re.findall(r"(\w+)=", call[1]) == list(inspect.signature(LimitedProtocol).parameters)


def test_server_calls_nothing_but_shutdown_of_a_connection() -> None:
    assert attributes("connection", uvicorn.Server) == {"shutdown"}


def test_server_state_has_nothing_that_the_protocol_does_not_maintain() -> None:
    maintained = attributes("_state", http_protocol)
    assert maintained == set(vars(uvicorn.server.ServerState()))
    assert attributes("server_state", uvicorn.Server) == maintained


@pytest.mark.parametrize("name", sorted(attributes("_config", http_protocol) | {"limit_concurrency"}))
def test_configuration_has_the_settings_that_the_protocol_reads(name: str) -> None:
    config = uvicorn.Config("sentinel_project.asgi:application")
    config.load()
    assert hasattr(config, name)


def test_configuration_takes_the_protocol_as_documented() -> None:
    config = uvicorn.Config("bench.upstream:application", http="sentinel_project.http_protocol:LimitedProtocol")
    config.load()
    assert config.http_protocol_class is LimitedProtocol


def test_supervisor_has_the_methods_and_attributes_that_serving_overrides() -> None:
    assert attributes("self", Multiprocess.terminate_all) == {"processes"}
    assert list(inspect.signature(Multiprocess.__init__).parameters) == ["self", "config", "sockets"]
