"""Metadata services of clouds, which give credentials to any program; providers must not use them.

Names are not resolved: what they stand for may change at any time. Loopback and private addresses are allowed, because
many models run there.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

NAMES = frozenset(
    {
        "metadata",  # Google Cloud's search domain completes it: cloud.google.com/compute/docs/metadata
        "metadata.google.internal",
        "metadata.goog",
        "instance-data",  # Amazon's search domain completes it: docs.aws.amazon.com/vpc/latest/userguide/vpc-dns.html
        "instance-data.ec2.internal",
        "metadata.tencentyun.com",  # Tencent: cloud.tencent.com/document/product/213/4934
        "api.metadata.cloud.ibm.com",  # IBM: cloud.ibm.com/apidocs/vpc-metadata
        "metadata.platformequinix.com",  # Equinix Metal: deploy.equinix.com/developers/docs/metal/server-metadata
        "metadata.packet.net",
        "metadata.exoscale.com",  # Exoscale: community.exoscale.com/documentation/compute/cloud-init
    }
)
NETWORKS = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local: Amazon, Azure, Google, Oracle, Tencent, Scaleway and most others
        "fe80::/10",  # link-local: OpenStack
        "100.100.100.200/32",  # Alibaba: alibabacloud.com/help/en/ecs/user-guide/view-instance-metadata
        "fd00:100::100:200/128",
        "168.63.129.16/32",  # Azure: learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
        "192.0.0.192/32",  # Oracle Cloud Classic
        "fd00:c1::a9fe:a9fe/128",  # Oracle: oracle/oci-python-sdk, instance_principals_security_token_signer.py
        "fd00:ec2::/32",  # Amazon: docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
        "fd20:ce::254/128",  # Google: cloud.google.com/compute/docs/metadata/querying-metadata
        "fd00:42::42/128",  # Scaleway: cloudinit.readthedocs.io/en/latest/reference/datasources/scaleway.html
        "fd00:a9fe:a9fe::1/128",  # Akamai: cloudinit.readthedocs.io/en/latest/reference/datasources/akamai.html
    )
)
LAST_32_BITS = tuple(
    IPv6Network(text)
    for text in (
        "::/96",  # IPv4-compatible, RFC 4291
        "::ffff:0:0/96",  # IPv4-mapped, RFC 4291
        "::ffff:0:0:0/96",  # IPv4-translated, RFC 2765
        "64:ff9b::/96",  # NAT64, RFC 6052
        "64:ff9b:1::/48",  # NAT64 of a network's own, RFC 8215
    )
)
"""Networks whose addresses end with an IPv4 address."""
LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
ISATAP = 0x5EFE
"""RFC 5214: in front of the IPv4 address in an interface identifier, apart from the bit that marks it as global."""


def is_metadata_host(host: str) -> bool:
    """Return whether a host as the HTTP client connects to it (ASCII) is a cloud's own service, or no host at all.

    IPv4 addresses are found in any notation (`0xa9fea9fe`) and in IPv6 addresses that lead to them.
    """
    host = host.lower().rstrip(".")
    address = _address(host)
    if address is None:
        return host in NAMES
    return any(
        each.is_unspecified or each.is_multicast or any(each in network for network in NETWORKS)
        for each in (address, *_embedded(address))
    )


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.partition("%")[0])  # a zone may follow
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def _embedded(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address]:
    """Yield the IPv4 addresses that routers or translators may send packets for an IPv6 address to."""
    if isinstance(address, IPv4Address):
        return
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo
    number = int(address)
    is_isatap = (number >> 32) & 0xFDFFFFFF == ISATAP
    if number > 1 and (is_isatap or any(address in network for network in LAST_32_BITS)):
        yield IPv4Address(number & 0xFFFFFFFF)
    if address in LOCAL_NAT64:  # RFC 6052: around bits 64 to 71, which are zero
        bits = (number >> 64 << 56) | (number & 0xFFFFFFFFFFFFFF)
        for prefix_length in (48, 56, 64):
            if found := bits >> (120 - 32 - prefix_length) & 0xFFFFFFFF:
                yield IPv4Address(found)
