"""Errors in the file of providers name the line, the entry, the key, the value and what is allowed."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

import pytest

from sentinel_project.gateway.apis import APIS
from sentinel_project.gateway.providers.config import CREDENTIALS, OF_A_CLIENT, OF_A_CONNECTION
from sentinel_project.gateway.providers.file import ALLOWED, load_providers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NORTH = '[[provider]]\nname = "north"\nbase_url = "https://north/v1"\nmodels = ["m"]\n\n'
SOUTH = '[[provider]]  # the second\nname = "south"\nbase_url = "https://south/v1"\nmodels = [\n  "m",\n]\n'
TWO = NORTH + SOUTH
SECOND = '[[provider]] number 2 "south": '
"""The entry in `TWO` that begins on line 6; a line that is added comes to be line 12."""


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | bytes], str]:
    """Return the error about a file, without the file's path."""
    monkeypatch.setenv("WITH_SPACE", "sk with space")
    monkeypatch.setenv("EMPTY", "")

    def load(content: str | bytes) -> str:
        file = tmp_path / "providers.toml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ValueError, match=r"\A[^\n]*\.\Z") as caught:
            load_providers(str(file))
        path, text = str(caught.value)[: len(str(file))], str(caught.value)[len(str(file)) :]
        assert path == str(file)
        return text

    return load


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (NORTH + "[[provider", ", line 6: the file must be TOML: "),
        (NORTH + "weight = \n", ", line 6: the file must be TOML: "),
        (NORTH + 'name = "again"\n', ", line 6: the file must be TOML: "),
        (NORTH + 'account = "open\n', ", line 6: the file must be TOML: "),
        ("x = " + "[" * 5000, ": the file must be TOML of few levels, not nested "),
        (NORTH.encode() + b'account = "\xff"\n', ", line 6: the file must be UTF-8, not byte 0xff."),
        ("", ": the file must have a table [[provider]], in two brackets, for each provider."),
        ("# none yet\n[provider]\n", ", line 2: the file must have a table [[provider]], in two brackets, "),
        ("provider = []\n", ", line 1: the file must have a table [[provider]], in two brackets, "),
        ("provider = [1]\n", ", line 1: the file must have a table [[provider]], in two brackets, "),
        (NORTH + "[[providers]]\n", ", line 6: providers is not known. The file may have [[provider]] tables only."),
        ("timeout = 3\n" + NORTH, ", line 1: timeout is not known. "),
    ],
)
def test_load_providers_names_the_line_when_the_file_is_not_a_list_of_providers(refused, content, error):
    assert refused(content).startswith(error)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("wieght = 2", "wieght is not a known key; did you mean weight."),
        ('api_key = "sk"', "api_key is not a known key; did you mean api_key_env."),
        ("region = 2", f"region is not a known key; allowed are {', '.join(ALLOWED)}."),
        ("weight = -1", "weight must be a number from 0 to 1000000, not -1."),
        ("weight = 1000001", "weight must be a number from 0 to 1000000, not 1000001."),
        ("weight = nan", "weight must be a number from 0 to 1000000, not nan."),
        ("weight = true", "weight must be a number from 0 to 1000000, not true."),
        ('weight = "2"', "weight must be a number from 0 to 1000000, not '2'."),
        ("weight = 1979-05-27", "weight must be a number from 0 to 1000000, not 1979-05-27."),
        ("weight = [1]", "weight must be a number from 0 to 1000000, not a list."),
        ("apis = []", f"apis must be {ALLOWED['apis']}, not an empty list."),
        ('apis = "chat"', f"apis must be {ALLOWED['apis']}, not 'chat'."),
        ('apis = ["chat", "responces"]', f"apis must be {ALLOWED['apis']}, not one with 'responces'."),
        ('auth = "basic"', "auth must be one of bearer, x-api-key, api-key, none, not 'basic'."),
        ('auth = "x-api-key"', "auth must be none where api_key_env is missing, not x-api-key."),
        ('auth = "bearer"', "auth must be none where api_key_env is missing, not bearer."),
        ('account = "a b"', f"account must be {ALLOWED['account']}, not 'a b'."),
        ('account = "line\\n"', rf"account must be {ALLOWED['account']}, not 'line\n'."),
        ('affinity_field = ""', f"affinity_field must be {ALLOWED['affinity_field']}, not ''."),
        ('affinity_field = "stream"', "affinity_field must not be stream, which has another meaning."),
        (
            'affinity_field = "previous_response_id"',
            "affinity_field must not be previous_response_id, which has another",
        ),
        ('affinity_header = "a b"', "affinity_header must be the name of a header; 'a b' is not the name of a header."),
        ("forward_headers = [1]", "forward_headers must be a list of header names, not one with 1."),
        ('forward_headers = ["X-A", "x-a"]', "forward_headers must not have x-a twice."),
        ('headers = ["X-A"]', f"headers must be {ALLOWED['headers']}, not a list."),
        ("headers = {X-A = 1}", f"headers must be {ALLOWED['headers']}, not one in which X-A is not text."),
        ('headers = {"X A" = "1"}', f"headers must be {ALLOWED['headers']}; 'X A' is not the name of a header."),
        ('headers = {X-A = "1", x-a = "2"}', "headers must not have x-a twice."),
        ("query = {version = 2}", f"query must be {ALLOWED['query']}, not one in which version is not text."),
    ],
)
def test_load_providers_names_line_entry_and_key_when_a_value_is_wrong(refused, line, error):
    assert refused(f"{TWO}{line}\n").startswith(f", line 12: {SECOND}{error}")


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ('name = "south"\n', "", ", line 6: [[provider]] number 2: name is missing. It must be "),
        ("models = [\n", "#", ", line 10: the file must be TOML: "),
        ('name = "', '"a\\nb" = "', ", line 6: [[provider]] number 2: 'a\\nb' is not a known key; "),
        ('"south"', '""', f', line 7: [[provider]] number 2 "": name must be {ALLOWED["name"]}, not \'\'.'),
        ('"south"', "2", f", line 7: [[provider]] number 2: name must be {ALLOWED['name']}, not 2."),
        ('"south"', '"north"', ', line 7: [[provider]] number 2 "north": name must differ from the name of number 1.'),
        ('[\n  "m",\n]', "[]", f", line 9: {SECOND}models must be {ALLOWED['models']}, not an empty list."),
        ('[\n  "m",\n]', "{}", f", line 9: {SECOND}models must be {ALLOWED['models']}, not an empty table."),
        ('  "m",', '  "m",\n  "a b",', f", line 11: {SECOND}models must be {ALLOWED['models']}, not one with 'a b'."),
        ('  "m",', '  "m",\n  {a = "b"},', f", line 9: {SECOND}models must be {ALLOWED['models']}, not one with a "),
        ('  "m",', '  "k",\n  "k",', f", line 10: {SECOND}models must not have 'k' twice."),
        ('  "m",', '  "k",\n  "M",', f", line 11: {SECOND}models must have 'm' as in number 1, not 'M'."),
        ('[\n  "m",\n]', '{k = "a b"}', f", line 9: {SECOND}models must be {ALLOWED['models']}, not one in which "),
        ('[\n  "m",\n]', '{M = "b"}', f", line 9: {SECOND}models must have 'm' as in number 1, not 'M'."),
        ("https://south/v1", "ftp://south", f", line 8: {SECOND}base_url must be {ALLOWED['base_url']}, not 'ftp://"),
        ("https://south/v1", "http://169.254.169.254", f", line 8: {SECOND}base_url must not lead to a cloud's own "),
    ],
)  # fmt: skip
def test_load_providers_names_the_line_when_a_required_key_is_wrong(refused, old, new, error):
    assert refused(NORTH + SOUTH.replace(old, new)).startswith(error)


@pytest.mark.parametrize("ending", ["", "/"])
@pytest.mark.parametrize("path", sorted(api.path for api in APIS))
def test_load_providers_refuses_a_base_url_with_the_path_of_an_api(refused, path, ending):
    error = refused(NORTH + SOUTH.replace("https://south/v1", f"https://south/v1{path}{ending}"))
    assert error == (
        f", line 8: {SECOND}base_url must not end in {path}, which the gateway adds: write 'https://south/v1'."
    )


@pytest.mark.parametrize(
    "base",
    [
        "",
        "/",
        "/v1",
        "/v1/",
        "/api/v1",
        "/openai/deployments/x",
        "/models",
        "/v1beta/openai",
        "/messages/v1",
        "/xmessages",
    ],
)
def test_load_providers_accepts_a_base_url_with_any_other_path(tmp_path, base):
    file = tmp_path / "providers.toml"
    file.write_text(SOUTH.replace("https://south/v1", f"https://south{base}"))
    (provider,) = load_providers(str(file))
    assert provider.base_url == f"https://south{base}".rstrip("/")


def test_load_providers_reads_files_of_editors_on_windows(tmp_path, refused):
    file = tmp_path / "providers.toml"
    file.write_bytes(codecs.BOM_UTF8 + (NORTH + SOUTH).replace("\n", "\r\n").encode())
    assert [provider.name for provider in load_providers(str(file))] == ["north", "south"]
    assert refused(file.read_bytes() + b"weight = -1\r\n").startswith(", line 12: ")


def test_load_providers_refuses_weights_that_are_all_0(refused, tmp_path):
    error = refused(f"{NORTH}weight = 0\n{SOUTH}weight = 0.0\n")
    assert "weight must be above 0 for at least one provider: none takes new conversations." in error
    file = tmp_path / "providers.toml"
    file.write_text(f"{NORTH}weight = 0\n{SOUTH}weight = 0.001\n")
    assert [provider.weight for provider in load_providers(str(file))] == [0, 0.001]


def test_load_providers_finds_the_line_when_a_key_is_a_separate_table(refused):
    tables = '[provider.query]\nversion = "1"\n\n[provider.headers]\nX-First = "1"\nX-Second = "\\t"\n'
    assert refused(TWO + tables).startswith(f", line 17: {SECOND}headers must be ")


@pytest.mark.parametrize(
    "content",
    ['provider = [{name = "south"}]\n', f'{NORTH}account = """\n[[provider]]\n"""\n[[provider]]\nname = "south"\n'],
    ids=["an inline list", "a text that quotes a table"],
)
def test_load_providers_names_no_line_when_it_cannot_know_it(refused, content):
    assert refused(content.replace('"""', "'''")).startswith(": [[provider]] number ")


@pytest.mark.parametrize("key", ["headers", "forward_headers", "affinity_header"])
@pytest.mark.parametrize("name", sorted({*CREDENTIALS, *OF_A_CONNECTION, "x-forwarded-for"}))
def test_load_providers_refuses_a_header_when_it_is_a_key_or_the_connections(refused, key, name):
    values = {"headers": '{%s = "secret"}', "forward_headers": '["%s"]', "affinity_header": '"%s"'}
    error = refused(f"{TWO}{key} = {values[key] % name.title()}\n")
    assert error.startswith(f", line 12: {SECOND}{key} must not have {name.title()}: ")
    assert "secret" not in error


@pytest.mark.parametrize("name", sorted(OF_A_CLIENT))
def test_load_providers_accepts_the_operators_header_of_an_account(refused, tmp_path, name):
    for key in ("forward_headers", "affinity_header"):
        value = f'["{name}"]' if key == "forward_headers" else f'"{name}"'
        assert f"{key} must not have {name}: " in refused(f"{TWO}{key} = {value}\n")
    (tmp_path / "right.toml").write_text(f'{NORTH}headers = {{{name.upper()} = "org-1"}}\n')
    (provider,) = load_providers(str(tmp_path / "right.toml"))
    assert provider.headers == {name: "org-1"}


@pytest.mark.parametrize(
    ("variable", "error"),
    [
        ("NOT_SET", "; NOT_SET is not set."),
        ("EMPTY", "; EMPTY is not set."),
        ("WITH_SPACE", "; WITH_SPACE is not printable ASCII without spaces."),
        ("sk-proj-secret", "; the one given is not set."),
        ("secret0123456789abcdef", "; the one given is not set."),
    ],
)
def test_load_providers_shows_no_key_when_api_key_env_has_none(refused, variable, error):
    text = refused(f'{TWO}api_key_env = "{variable}"\n')
    assert text == f", line 12: {SECOND}api_key_env must be {ALLOWED['api_key_env']}{error}"
    assert "sk with space" not in text


@pytest.mark.parametrize("value", ['"Secret\\n"', '" Secret"', '"Secret ☃"', '""', f'"{"s" * 4097}"'])
def test_load_providers_shows_no_value_when_a_header_cannot_be_sent(refused, value):
    error = refused(f"{TWO}headers = {{X-Token = {value}}}\n")
    assert error.startswith(
        f", line 12: {SECOND}headers must be {ALLOWED['headers']} of 1 to 4096 characters; X-Token's"
    )
    assert "Secret" not in error


def test_load_providers_returns_header_names_in_lower_case_when_the_file_has_others(tmp_path):
    file = tmp_path / "providers.toml"
    file.write_text(f'{NORTH}headers = {{X-A = "B"}}\nforward_headers = ["X-C"]\naffinity_header = "X-D"\n')
    (provider,) = load_providers(str(file))
    assert (provider.headers, provider.forward_headers, provider.affinity_header) == ({"x-a": "B"}, {"x-c"}, "x-d")
