"""What docs/providers.md says of the file of providers is what the code says, and its entries can be loaded."""

from __future__ import annotations

import re
import tomllib
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import pytest

from sentinel_project.gateway.providers.file import ALLOWED, FIELDS, HINTS, load_providers
from sentinel_project.gateway.upstream import headers
from tests.docs.blocks import DOCS, blocks

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (DOCS / "providers.md").read_text()
ENTRIES = [block for block in blocks("providers.md") if block.language == "toml"]
KINDS = {str: "text", float: "number", int: "number", tuple: "list", dict: "table"}


def rows() -> dict[str, list[str]]:
    """The cells of the table of fields, by key."""
    table = PAGE.partition("## Fields")[2].partition("##")[0]
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines() if "| `" in line[:3]
    ]
    return {key.strip("`"): rest for key, *rest in cells}


def kinds(hint: Any) -> list[str]:
    """Return the types of TOML that a hint takes."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return kinds(args[0])
    if origin in (Union, UnionType):
        return [kind for arg in args if arg is not type(None) for kind in kinds(arg)]
    return ["text" if origin is Literal else KINDS[origin or hint]]


def load(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """Load a file, with all the variables that it names set."""
    for variable in re.findall(r'^api_key_env = "(\w+)"', text, re.MULTILINE):
        monkeypatch.setenv(variable, f"key-of-{variable}")
    file = folder / "providers.toml"
    file.write_text(text)
    return load_providers(str(file))


def test_page_has_every_key_with_type_default_and_what_is_allowed() -> None:
    assert {key: (cells[0], cells[2]) for key, cells in rows().items()} == {
        key: (" or ".join(kinds(HINTS[key])), ALLOWED[key]) for key in FIELDS
    }
    for key, (_, default, _, meaning) in rows().items():
        field = FIELDS[key]
        if field.required:
            assert default == "required"
        elif field.default is None:
            assert "`" not in default
        else:
            given = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
            assert tomllib.loads(f"x = {default.strip('`')}")["x"] == (list(given) if type(given) is tuple else given)
        assert meaning


def test_page_names_the_defaults_of_keys_that_depend_on_others(tmp_path, monkeypatch) -> None:
    (provider,) = load(tmp_path, ENTRIES[0].text, monkeypatch)
    assert (rows()["auth"][1], provider.auth) == ("bearer with a key", "bearer")
    assert (rows()["account"][1], provider.account) == ("the name", provider.name)


def test_page_has_entries_that_load(tmp_path, monkeypatch) -> None:
    providers = load(tmp_path, ENTRIES[1].text, monkeypatch)
    assert len(providers) == 11
    for provider in providers:
        assert provider.api_key is not None or provider.auth == "none"


def test_page_has_the_hint_and_a_source_for_every_entry() -> None:
    entries = tomllib.loads(ENTRIES[1].text)["provider"]
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \|", PAGE.partition("## Entries")[2].partition("##")[0], re.MULTILINE)
    assert [name for name, _ in rows] == [entry["name"] for entry in entries]
    for entry, (name, hint) in zip(entries, rows, strict=True):
        sent = entry.get("affinity_header") or entry.get("affinity_field")
        assert hint.startswith(f"`{sent}`" if sent else "none known")
        assert "](https://" in next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` | {hint}"))


def test_page_shows_the_error_that_the_file_above_it_gives(tmp_path, monkeypatch) -> None:
    with pytest.raises(ValueError, match="weight") as caught:
        load(tmp_path, ENTRIES[0].text.replace("weight = 2", "weight = -2"), monkeypatch)
    assert f"    new.toml{str(caught.value).removeprefix(str(tmp_path / 'providers.toml'))}\n" in PAGE


def test_page_names_every_header_and_parameter_that_is_passed_on() -> None:
    section = PAGE.partition("## Headers and query")[2]
    names = {name.lower().removesuffix("*") for name in re.findall(r"`([^`]+)`", section)}
    assert names >= {
        *headers.TO_PROVIDER,
        *headers.TO_PROVIDER_PREFIXES,
        *headers.TO_CLIENT,
        *headers.TO_CLIENT_PREFIXES,
    }
