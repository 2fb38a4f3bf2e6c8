"""Each alert fires when it should and is silent otherwise, and the dashboard is valid: checked with promtool."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.missing import skip_or_fail

RULES = Path(__file__).resolve().parent.parent / "docs" / "alerts.yml"
SINCE = "sentinel_provider_failing_since_seconds{provider='north'}"
"""promtool's clock starts at 0, so a time since then is small."""

Series = dict[str, str]

FIRING: dict[str, tuple[str, Series, Series]] = {
    "SessionStoreDown": (
        "2m",
        {"sessions_sticky_breaker_open": "1x10"},
        {"sessions_sticky_breaker_open": "0x10"},
    ),
    "StoreNearlyFull": (
        "6m",
        {"sessions_sticky_store_memory_ratio": "0.81x20"},
        {"sessions_sticky_store_memory_ratio": "0.79x20"},
    ),
    "StoreFull": (
        "30s",
        {"sessions_sticky_store_memory_ratio": "0.96x20"},
        {"sessions_sticky_store_memory_ratio": "0.94x20"},
    ),
    "SessionsDegraded": (
        "12m",
        {
            "sessions_sticky_resolutions_total{outcome='degraded',provider='a'}": "0+2x30",
            "sessions_sticky_resolutions_total{outcome='hit',provider='a'}": "0+98x30",
        },
        {
            "sessions_sticky_resolutions_total{outcome='degraded',provider='a'}": "0x30",
            "sessions_sticky_resolutions_total{outcome='hit',provider='a'}": "0+98x30",
        },
    ),
    "SessionStoreRefuses": (
        "4m",
        {
            "sessions_sticky_resolutions_total{outcome='degraded',provider='a'}": "0+60x30",
            "sessions_sticky_resolutions_total{outcome='hit',provider='a'}": "0+40x30",
        },
        {
            "sessions_sticky_resolutions_total{outcome='degraded',provider='a'}": "0+40x30",
            "sessions_sticky_resolutions_total{outcome='hit',provider='a'}": "0+60x30",
        },
    ),
    "GatewayDown": ("2m", {"up{job='sentinel',instance='a'}": "0x10"}, {"up{job='another',instance='a'}": "0x10"}),
    # Without any chat the gauge is the only metric, and constant.
    "ProviderFailing": ("90s", {SINCE: "_ 50x10"}, {SINCE: "_ 70x10"}),
    "ProviderDown": ("150s", {SINCE: "_ 50x10"}, {SINCE: "0x10"}),
    "UpstreamErrors": (
        "12m",
        {
            "sentinel_upstream_failures_total{provider='north',code='503'}": "0+6x30",
            "sentinel_upstream_seconds_count{provider='north',stream='yes'}": "0+94x30",
        },
        {
            "sentinel_upstream_failures_total{provider='north',code='503'}": "0+4x30",
            "sentinel_upstream_seconds_count{provider='north',stream='yes'}": "0+96x30",
        },
    ),
    "UpstreamSlow": (
        "12m",
        {
            "sentinel_upstream_seconds_bucket{provider='north',stream='yes',le='10'}": "0+90x30",
            "sentinel_upstream_seconds_bucket{provider='north',stream='yes',le='30'}": "0+100x30",
            "sentinel_upstream_seconds_bucket{provider='north',stream='yes',le='+Inf'}": "0+100x30",
        },
        {
            "sentinel_upstream_seconds_bucket{provider='north',stream='yes',le='10'}": "0+96x30",
            "sentinel_upstream_seconds_bucket{provider='north',stream='yes',le='30'}": "0+100x30",
            "sentinel_upstream_seconds_bucket{provider='north',stream='yes',le='+Inf'}": "0+100x30",
        },
    ),
    "ManySpilled": (
        "16m",
        {
            "sentinel_spills_total{from_provider='north',to_provider='south'}": "0+11x40",
            "sentinel_requests_total{status='200',outcome='hit',provider='south',model='m'}": "0+100x40",
        },
        {
            "sentinel_spills_total{from_provider='north',to_provider='south'}": "0+9x40",
            "sentinel_requests_total{status='200',outcome='hit',provider='south',model='m'}": "0+100x40",
        },
    ),
    "PromptCacheCold": (
        "50m",
        {
            "sessions_sticky_tokens_total{provider='north',model='m',kind='read'}": "0+100x80",
            "sessions_sticky_tokens_total{provider='north',model='m',kind='expected'}": "0+1000x80",
        },
        {
            "sessions_sticky_tokens_total{provider='north',model='m',kind='read'}": "0+600x80",
            "sessions_sticky_tokens_total{provider='north',model='m',kind='expected'}": "0+1000x80",
        },
    ),
    "ProvidersFileRefused": (
        "3m",
        {"sentinel_provider_reloads_total{result='refused'}": "0 0 1x10"},
        {"sentinel_provider_reloads_total{result='taken'}": "0 0 1x10"},
    ),
    "ConversationsMoving": (
        "10m",
        {"sessions_sticky_rebinds_total{by='gateway',from_provider='north',to_provider='south'}": "0+20x30"},
        {"sessions_sticky_rebinds_total{by='operator',from_provider='north',to_provider='south'}": "0+20x30"},
    ),
    "ChatsFailing": (
        "12m",
        {
            "sentinel_requests_total{status='503',outcome='none',provider='',model=''}": "0+2x30",
            "sentinel_requests_total{status='200',outcome='hit',provider='north',model='m'}": "0+98x30",
        },
        {
            "sentinel_requests_total{status='404',outcome='none',provider='',model=''}": "0+50x30",
            "sentinel_requests_total{status='200',outcome='hit',provider='north',model='m'}": "0+98x30",
        },
    ),
    "ResolveSlow": (
        "16m",
        {
            "sessions_sticky_resolve_seconds_bucket{le='0.05'}": "0+90x40",
            "sessions_sticky_resolve_seconds_bucket{le='1.0'}": "0+100x40",
            "sessions_sticky_resolve_seconds_bucket{le='+Inf'}": "0+100x40",
        },
        {
            "sessions_sticky_resolve_seconds_bucket{le='0.05'}": "0+100x40",
            "sessions_sticky_resolve_seconds_bucket{le='1.0'}": "0+100x40",
            "sessions_sticky_resolve_seconds_bucket{le='+Inf'}": "0+100x40",
        },
    ),
}
"""By alert: when it must fire, for which series (one sample a minute), and series for which it must not."""


@pytest.fixture
def promtool() -> str:
    program = shutil.which("promtool")
    if program is None:
        skip_or_fail("no promtool on PATH (Debian's package prometheus)")
    return program


def fires(promtool: str, folder: Path, alert: str, at: str, series: Series) -> bool:
    """Return whether an alert fires at a time; fails when its texts have errors."""
    test = folder / "test.yml"
    case: dict[str, Any] = {
        "interval": "30s" if "failing_since" in str(series) else "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [{"alertname": alert, "eval_time": at, "exp_alerts": []}],
    }
    test.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "30s", "tests": [case]}))
    done = subprocess.run([promtool, "test", "rules", str(test)], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0 or "got:" in said, said
    assert "error" not in said.lower().replace("upstreamerrors", ""), said
    return done.returncode != 0


def test_every_alert_is_tested() -> None:
    assert re.findall(r"- alert: (\w+)", RULES.read_text()) == list(FIRING)


@pytest.mark.slow
@pytest.mark.parametrize("alert", FIRING)
def test_alert_fires_only_for_what_it_names(promtool: str, tmp_path: Path, alert: str) -> None:
    at, wrong, well = FIRING[alert]
    assert fires(promtool, tmp_path, alert, at, wrong)
    assert not fires(promtool, tmp_path, alert, at, well)


@pytest.mark.slow
def test_provider_alerts_fire_without_any_chat_until_it_answers(promtool: str, tmp_path: Path) -> None:
    series = {SINCE: "30x20 0x20"}  # fails at 0:30, answers at 10:30
    found = [fires(promtool, tmp_path, "ProviderDown", at, series) for at in ("1m30s", "3m", "9m", "11m")]
    assert found == [False, True, True, False]
    assert fires(promtool, tmp_path, "ProviderFailing", "1m30s", series)  # before conversations move


@pytest.mark.slow
def test_alert_names_the_provider(promtool: str, tmp_path: Path) -> None:
    test = tmp_path / "test.yml"
    case = {
        "interval": "30s",
        "input_series": [{"series": SINCE, "values": "30x20"}],
        "promql_expr_test": [
            {
                "expr": 'ALERTS{alertname="ProviderDown"}',
                "eval_time": "5m",
                "exp_samples": [
                    {
                        "labels": 'ALERTS{alertname="ProviderDown",alertstate="firing",'
                        'provider="north",severity="critical"}',
                        "value": 1,
                    }
                ],
            }
        ],
    }
    test.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "30s", "tests": [case]}))
    done = subprocess.run([promtool, "test", "rules", str(test)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_is_explained_and_its_expressions_are_valid(promtool: str, tmp_path: Path) -> None:
    dashboard = json.loads((RULES.parent / "grafana.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len(panels) > 10
    assert all(panel["description"] and panel["fieldConfig"]["defaults"]["unit"] for panel in panels)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    expressions += [each["expr"] for each in dashboard["annotations"]["list"]]
    rules = [
        {"record": "checked", "labels": {"number": str(number)}, "expr": each.replace("$__rate_interval", "5m")}
        for number, each in enumerate(expressions)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(expressions)} rules found" in done.stdout
