"""Where a base URL leads."""

from __future__ import annotations

import pytest

from sentinel_project.gateway.providers.address import Origin, parse_address


@pytest.mark.parametrize(
    ("base_url", "origin", "host", "path"),
    [
        ("http://h", ("h", 80, False), "h", ""),
        ("https://H/v1/", ("h", 443, True), "h", "/v1"),
        ("http://h:80/v1", ("h", 80, False), "h", "/v1"),
        ("https://h:443/v1", ("h", 443, True), "h", "/v1"),
        ("https://h:80/v1", ("h", 80, True), "h:80", "/v1"),
        ("http://h:8000/a b/%2F/\u00fc", ("h", 8000, False), "h:8000", "/a%20b/%2F/%C3%BC"),
        ("https://h.:8443", ("h.", 8443, True), "h:8443", ""),
        ("https://[::1]", ("::1", 443, True), "[::1]", ""),
        ("http://[::1]:8000/v1", ("::1", 8000, False), "[::1]:8000", "/v1"),
        ("https://b\u00fccher.example", ("xn--bcher-kva.example", 443, True), "xn--bcher-kva.example", ""),
        ("https://\uff48.example", ("h.example", 443, True), "h.example", ""),
    ],
)
def test_address_has_the_origin_the_host_header_and_the_path(base_url, origin, host, path):
    assert parse_address(base_url) == (Origin(*origin), host, path)


@pytest.mark.parametrize("host", ["fa\u00df.example", "\u03c3\u03c2.example", "a\u200d\u00fc.example"])
def test_parse_address_refuses_a_name_that_ascii_changes(host):
    with pytest.raises(ValueError, match="ASCII"):
        parse_address(f"https://{host}/v1")


@pytest.mark.parametrize(
    "base_url", ["ftp://h", "h", "//h", "http://", "http://:80", "http://h:0", "http://h:65536", "http://[h]"]
)
def test_parse_address_refuses_what_is_no_http_url_with_a_host(base_url):
    with pytest.raises(ValueError, match=r"."):
        parse_address(base_url)
