from __future__ import annotations

import pytest

from sessions_sticky import cache_config
from sessions_sticky.connections.url import read_url


def test_read_gives_addresses_service_and_credentials_of_a_sentinel_url():
    servers = read_url("redis+sentinel://user:p%40ss@h1:26380,h2,[::1]:5/3?service=My%20Primary&sentinel_password=s")
    assert servers.addresses == [("h1", 26380), ("h2", 26379), ("::1", 5)]
    assert servers.service == "My Primary"
    assert servers.sentinel_options == {"password": "s"}
    assert servers.tls == {}
    assert servers.node_url("10.0.0.1", 6379) == "redis://user:p%40ss@10.0.0.1:6379/3"


def test_read_gives_addresses_and_options_of_a_cluster_url_with_tls():
    servers = read_url("rediss+cluster://h1:7000,h2/?ssl_ca_certs=%2Fca.pem")
    assert servers.addresses == [("h1", 7000), ("h2", 6379)]
    assert servers.tls == {"ssl": True}
    assert servers.node_url("::1", 1) == "rediss://[::1]:1?ssl_ca_certs=%2Fca.pem"


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("redis+sentinel://:hunter2@h1:1,h2:1/0", "service="),
        ("redis+cluster://:hunter2@h1:1/2", "database '2'"),
        ("redis+cluster://:hunter2@h1:1,h2:x", "'h2:x'"),
        ("redis+cluster://:hunter2@h1:1,,h2", "''"),
        ("redis+cluster://:hunter2@h1:99999", "'h1:99999'"),
        ("redis+cluster://", "''"),
        ("redis+sentinel://:hunter2@[::1/0?service=a", "invalid host or port"),
        ("redis+other://:hunter2@h1:1", "redis\\+other"),
        ("redis+cluster://:9/hunter2@h1:1", "percent-encoded"),
        ("redis+cluster://me:hunter2/9@h1:1", "percent-encoded"),
        ("redis+sentinel://:hunter2?9@h1:1/0?service=a", "percent-encoded"),
        ("redis+sentinel://:hunter2#9@h1:1/0?service=a", "percent-encoded"),
    ],
)
def test_cache_config_error_has_no_password_when_a_url_of_many_servers_is_bad(url, wrong):
    with pytest.raises(ValueError, match=wrong) as caught:
        cache_config(url)
    assert "hunter2" not in str(caught.value)
