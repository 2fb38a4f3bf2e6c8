"""Which hosts no provider may have: the metadata services of clouds, however their addresses are written."""
# ruff: noqa: RUF001

from __future__ import annotations

import sys
import unicodedata
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from sentinel_project.gateway.providers.file import load_providers

LINK_LOCAL = int(IPv4Address("169.254.169.254"))


def embedded(prefix: str, position: int = 0) -> str:
    """Return the address that holds 169.254.169.254 so many bits from its end."""
    return str(IPv6Address(int(IPv6Address(prefix)) | LINK_LOCAL << position))


def load(folder: Path, host: str) -> str:
    """Return the host of a provider that is configured with a host."""
    file = folder / "providers.toml"
    file.write_text(f'[[provider]]\nname = "one"\nbase_url = "http://{host}/v1"\nmodels = ["m"]\n')
    (provider,) = load_providers(str(file))
    return str(provider.base_url)


IPV4 = ["169.254.169.254", "169.254.169.254.", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518"]
CLOUDS = [
    *("169.254.170.2", "169.254.170.23", "169.254.0.23", "169.254.42.42", "100.100.100.200", "168.63.129.16"),
    *("192.0.0.192", "[fe80::a9fe:a9fe]", "[fe80::1%25eth0]", "[fd00:ec2::254]", "[fd00:ec2::23]", "[fd20:ce::254]"),
    *("[fd00:c1::a9fe:a9fe]", "[fd00:42::42]", "[fd00:a9fe:a9fe::1]", "[fd00:100::100:200]"),
    *("metadata", "metadata.google.internal", "METADATA.Google.Internal.", "metadata.goog", "instance-data"),
    *("metadata.tencentyun.com", "api.metadata.cloud.ibm.com", "metadata.platformequinix.com", "metadata.exoscale.com"),
]
OTHERS = ["0.0.0.0", "0", "[::]", "[::ffff:0.0.0.0]", "224.0.0.1", "[ff02::1]", "[::ffff:224.0.0.1]"]
UNICODE = [
    "１６９.254.169.254",  # full-width digits
    "169。254｡169．254",  # ideographic, half-width and full-width full stops
    "①⑥⑨.②⑤④.①⑥⑨.②⑤④",  # circled digits
    "169.254.169.²⁵⁴",  # superscripts
    "𝟏𝟔𝟗.𝟚𝟝𝟜.169.254",  # mathematical digits
    "ｍｅｔａｄａｔａ.google.internal",  # full-width letters
    "ⓜⓔⓣⓐⓓⓐⓣⓐ。goog",  # circled letters
]
TUNNELS = [
    embedded("::"),
    embedded("::ffff:0:0"),
    embedded("::ffff:0:0:0"),
    embedded("64:ff9b::"),
    embedded("64:ff9b:1::"),
    embedded("64:ff9b:1:2:3::"),
    "64:ff9b:1:a9fe:a9:fe00::",  # RFC 6052, prefix of 48 bits
    "64:ff9b:1:aba9:fe:a9fe::",  # 56 bits
    "64:ff9b:1:abcd:a9:fea9:fe00:0",  # 64 bits
    embedded("2002::", 80),
    embedded("2002:0:0:1::1", 80),
    embedded("2001::", 64),  # Teredo's server
    str(IPv6Address(int(IPv6Address("2001::")) | (LINK_LOCAL ^ 0xFFFFFFFF))),  # Teredo's client
    embedded("2001:db8::5efe:0:0"),  # ISATAP
    embedded("2001:db8::200:5efe:0:0"),
]


@pytest.mark.parametrize("host", [*IPV4, *CLOUDS, *OTHERS, *UNICODE, *(f"[{address}]" for address in TUNNELS)])
def test_load_providers_refuses_a_host_when_it_is_a_clouds_service(tmp_path: Path, host: str) -> None:
    with pytest.raises(ValueError, match="must not lead to a cloud's own services"):
        load(tmp_path, host)


ALLOWED = [
    *("127.0.0.1", "127.1", "10.0.0.1", "192.168.1.2", "100.100.100.201", "168.63.129.17", "8.8.8.8", "localhost"),
    *("[::1]", "[fd12:3456::1]", "[fd20:ce::255]", "[fd00:42::43]", "[2001:db8::a9fe:a9fe]", "[64:ff9b::808:808]"),
    *(
        "[64:ff9b:1::808:808]",
        "[2002:808:808::]",
        "[::ffff:10.0.0.1]",
        "vllm_server",
        "api.openai.com",
        "bücher.example",
    ),
    *("metadata.example.com", "my-metadata", "instance-data.example"),
]


@pytest.mark.parametrize("host", ALLOWED)
def test_load_providers_takes_a_host_when_it_is_another(tmp_path: Path, host: str) -> None:
    assert load(tmp_path, host) == f"http://{host}/v1"


def test_load_providers_refuses_a_host_when_a_digit_is_spelled_otherwise(tmp_path: Path) -> None:
    spellings = [chr(code) for code in range(0x80, sys.maxunicode) if unicodedata.normalize("NFKC", chr(code)) == "1"]
    assert len(spellings) >= 10
    for spelling in spellings:
        with pytest.raises(ValueError, match="base_url"):
            load(tmp_path, f"{spelling}69.254.169.254")
