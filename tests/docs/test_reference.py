"""What the reference says by hand is what the code says."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

import pytest
from django.urls import resolve
from drf_spectacular.generators import SchemaGenerator

import sessions_sticky
from sentinel_project.gateway.apis import APIS
from sentinel_project.gateway.apis.messages import ERROR_TYPES
from sentinel_project.gateway.errors import LEFT, REFUSED
from sessions_sticky import checks, testing
from sessions_sticky.api.bulk import OperationPermission
from sessions_sticky.api.permissions import NEEDED
from sessions_sticky.conf import DEFAULTS, MAX_NUMBER
from sessions_sticky.setting_values import DEFAULT_TTL_SECONDS, MAX_TTL_SECONDS
from sessions_sticky.turns import REBOUND, SPILLED, UNANSWERED
from tests.docs.blocks import DOCS

if TYPE_CHECKING:
    from collections.abc import Iterator

REFERENCE = DOCS / "reference"


def rows(page: str) -> Iterator[list[str]]:
    """The rows of all tables of a page of the reference."""
    for line in (REFERENCE / page).read_text().splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def shown() -> list[str]:
    pages = "".join(page.read_text() for page in REFERENCE.glob("*.md"))
    named = re.findall(r"^::: sessions_sticky\.(\w+)$|\{ #sessions_sticky\.(\w+) \}$", pages, re.MULTILINE)
    modules = ("exceptions", "queries.pages", "queries.usage", "session", "turns")
    return ["".join(found) for found in named] + [
        name for module in modules for name in members(pages, f"sessions_sticky.{module}")
    ]


def members(page: str, name: str) -> list[str]:
    """Return the members that a page shows of a module or class."""
    return [
        member
        for options in re.findall(rf"^::: {re.escape(name)}\n((?: .*\n)+)", page, re.MULTILINE)
        for listed in re.findall(r"members:\s+\[([^]]*)\]", options)
        for member in listed.split(", ")
    ]


def test_reference_shows_every_public_name_once() -> None:
    assert sorted(name for name in shown() if name in sessions_sticky.__all__) == sorted(sessions_sticky.__all__)


def test_reference_shows_every_method_once() -> None:
    methods = {name for name in dir(sessions_sticky.SessionManager) if not name.startswith("_")}
    blocking = {name for name in methods if not (name[0] == "a" and name[1:] in methods)}
    documented = re.findall(
        r"^::: sessions_sticky\.SessionManager\.(\w+)$", (REFERENCE / "manager.md").read_text(), re.MULTILINE
    )
    assert sorted(documented) == sorted({*blocking, "all"})


@pytest.mark.parametrize(
    "name",
    [
        *("Session", "Resolution", "Entry", "Page", "Stats", "RouteStats", "HourStats", "Event"),
        *("Turn", "Usage", "Price", "Attempt", "Trail", "RecordedTurn", "TurnTotals", "PromptCache"),
        *("UsageReport", "RouteUsage", "OwnerUsage", "SpillOver", "Activity", "MinuteTurns", "MinuteMoves"),
    ],
)
def test_reference_names_every_field_of_a_record(name: str) -> None:
    record: Any = getattr(sessions_sticky, name)
    pages = "".join((REFERENCE / page).read_text() for page in ("records.md", "trail.md"))
    (text,) = re.findall(rf"^\| \[`{name}`\]\[sessions_sticky\.{name}\] \| (.+) \|$", pages, re.MULTILINE)
    documented = re.findall(r"`(\w+)`", text)
    assert tuple(documented) == getattr(record, "__struct_fields__", None) or tuple(documented) == getattr(
        record, "_fields", None
    )


def test_reference_names_every_outcome() -> None:
    text = (REFERENCE / "records.md").read_text()
    assert dict(re.findall(r'`([A-Z]+)` is `"(\w+)"`', text)) == {each.name: each for each in sessions_sticky.Outcome}


def test_failover_page_names_every_outcome_of_the_gateway() -> None:
    table = (REFERENCE / "failover.md").read_text().partition("## Outcomes")[2].partition("| event |")[0]
    outcomes = {*sessions_sticky.Outcome, REBOUND, SPILLED, UNANSWERED, REFUSED, LEFT, "ranked", "none"}
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == outcomes


def test_reference_has_every_setting_with_its_default() -> None:
    documented = {name.strip("`"): default.strip("`") for name, default, *_ in rows("settings.md")}
    assert int(documented.pop("SESSION_TTL_SECONDS")) == DEFAULT_TTL_SECONDS
    assert {name: ast.literal_eval(default) for name, default in documented.items()} == DEFAULTS


def test_reference_has_the_limits_of_settings() -> None:
    allowed = {name.strip("`"): words for name, _, words, _ in rows("settings.md")}
    assert allowed["SESSION_TTL_SECONDS"] == f"1 to {MAX_TTL_SECONDS}"
    assert allowed["LAST_SEEN_SIZE"] == allowed["HISTORY_LENGTH"] == f"0 to {MAX_NUMBER}"


def test_reference_has_every_error_in_its_table() -> None:
    errors = {name for name in sessions_sticky.__all__ if name.startswith(("Invalid", "Session", "Unknown"))}
    raised = {name for name in errors if issubclass(getattr(sessions_sticky, name), sessions_sticky.SessionError)}
    table = (REFERENCE / "errors.md").read_text()
    assert set(re.findall(r"^\| \[`(\w+)`\]", table, re.MULTILINE)) == raised - {"SessionError"}


def test_reference_has_every_route_of_the_api() -> None:
    document = SchemaGenerator().get_schema(public=True)
    routes = {
        f"`{method.upper()} {path}`": operation["summary"]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert {call: what for call, what, *_ in rows("http-api.md") if "/" in call} == routes


def test_reference_has_the_permission_of_each_call() -> None:
    documented = [
        (*call.strip("`").split(" "), needed.strip("`"))
        for call, _, needed in rows("http-api.md")
        if "/api/sessions/" in call
    ]
    assert len(documented) > 10
    for method, path, needed in documented:
        view = resolve(path.format(conversation_id="conv-1", operation_key="0" * 32)).func.view_class
        if view.permission_classes == (OperationPermission,):
            assert needed == "as to start it"
        else:
            assert needed == NEEDED.get(method, getattr(view, "permission", "change"))


def test_page_about_monitoring_has_every_alert() -> None:
    alerts = re.findall(r"- alert: (\w+)", (DOCS / "alerts.yml").read_text())
    documented = re.findall(r"^\| `([A-Z]\w+)` \|", (DOCS / "how-to" / "monitoring.md").read_text(), re.MULTILINE)
    assert documented == alerts


def test_page_about_tests_shows_every_helper() -> None:
    page = (DOCS / "how-to" / "testing.md").read_text()
    documented = members(page, "sessions_sticky.testing")
    theirs = {name for name, value in vars(testing).items() if getattr(value, "__module__", "") == testing.__name__}
    assert sorted(documented) == sorted(name for name in theirs if not name.startswith("_"))


def test_checks_have_every_id_in_the_table_that_the_reference_shows() -> None:
    source = (DOCS.parent / "sessions_sticky" / "checks.py").read_text()
    assert set(re.findall(r"^\| (sessions_sticky\.[EW]\d+) \|", checks.__doc__ or "", re.MULTILINE)) == set(
        re.findall(r'id="(sessions_sticky\.[EW]\d+)"', source)
    )


def test_apis_page_names_every_api_and_every_type_of_error() -> None:
    page = (REFERENCE / "apis.md").read_text()
    assert [api.path for api in APIS if f"| `POST {api.route}` |" not in page] == []
    assert {int(status): kind.strip("`") for status, kind in rows_of_numbers(page)} == ERROR_TYPES


def rows_of_numbers(page: str) -> list[list[str]]:
    return re.findall(r"^\| (\d+) \| (`\w+`) \|$", page, re.MULTILINE)


def test_page_has_every_variable_that_the_gateway_reads():
    source = (DOCS.parent / "sentinel_project" / "settings.py").read_text()
    read = set(re.findall(r'environment\.\w+\(\s*"(\w+)"', source)) | {"SECRET_KEY", "PROMETHEUS_MULTIPROC_DIR"}
    assert sorted(name.strip("`") for name, *_ in rows("gateway-settings.md")) == sorted(read)


def test_page_has_the_default_and_the_range_of_every_number_of_the_gateway():
    source = (DOCS.parent / "sentinel_project" / "settings.py").read_text()
    numbers = re.findall(r'\.number\(\s*"(\w+)", default=([\d *]+), least=(\d+), most=([\d_* -]+?)\s*\)', source)
    documented = {
        name.strip("`"): (default.strip("`"), words) for name, default, words, _ in rows("gateway-settings.md")
    }
    assert len(numbers) == source.count("environment.number(")
    for name, *values in numbers:
        default, least, most = (eval(value) for value in values)
        assert documented[name] == (str(default), f"{least} to {most}"), name
