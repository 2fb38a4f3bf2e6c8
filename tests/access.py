"""How the servers of a test let clients in: an ACL user, TLS, both or neither."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, NamedTuple


class Certificates(NamedTuple):
    """A certificate authority's certificate, and a server's certificate and key for the loopback address."""

    authority: Path
    certificate: Path
    key: Path


class Access(NamedTuple):
    """Users and transport of a server; by default without authentication and TLS."""

    user: str = ""
    password: str = ""
    certificates: Certificates | None = None

    def server_options(self, port: int) -> list[str]:
        """Return the arguments of a data server, replicas and cluster nodes included."""
        options: list[str] = []
        if self.certificates:
            options += [*self.tls_options(port), "--tls-cluster", "yes"]
        if self.password:
            options += ["--user", self.user, "on", f">{self.password}", "~*", "&*", "+@all", "--user", "default", "off"]
            options += ["--masteruser", self.user, "--masterauth", self.password]
        return options

    def tls_options(self, port: int) -> list[str]:
        """Return the arguments that make a server or a Sentinel speak TLS only, to its like as well."""
        assert self.certificates
        authority, certificate, key = map(str, self.certificates)
        files = ["--tls-ca-cert-file", authority, "--tls-cert-file", certificate, "--tls-key-file", key]
        return ["--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no", "--tls-replication", "yes", *files]

    def client_options(self) -> dict[str, Any]:
        """Return the keyword arguments of a redis-py client."""
        login = {"username": self.user, "password": self.password} if self.password else {}
        tls = {"ssl": True, "ssl_ca_certs": str(self.certificates.authority)} if self.certificates else {}
        return {**login, **tls}

    def url(self, kind: str, hosts: str, rest: str = "", **query: str) -> str:
        """Return a URL of the app's: `kind` is `sentinel` or `cluster`."""
        if self.certificates:
            query["ssl_ca_certs"] = str(self.certificates.authority)
        login = f"{self.user}:{self.password}@" if self.password else ""
        queried = "&".join(f"{name}={value}" for name, value in query.items())
        return f"{'rediss' if self.certificates else 'redis'}+{kind}://{login}{hosts}{rest}{queried and '?'}{queried}"


def make_certificates(folder: Path) -> Certificates:
    """Make an authority and a server's certificate, which are good for a day, with the `openssl` program."""
    authority, authority_key = folder / "authority.pem", folder / "authority-key.pem"
    certificate, key, request, names = (folder / name for name in ("server.pem", "key.pem", "request.pem", "names"))
    # Python 3.13 checks certificates as strictly as RFC 5280.
    names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\nauthorityKeyIdentifier=keyid\n")
    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made = ["-x509", "-days", "1", "-subj", "/CN=tests", "-addext", "keyUsage=critical,keyCertSign"]
    signed = ["x509", "-req", "-days", "1", "-CAcreateserial", "-CA", str(authority), "-CAkey", str(authority_key)]
    for command in (
        [*new, *made, "-keyout", str(authority_key), "-out", str(authority)],
        [*new, "-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(request)],
        [*signed, "-in", str(request), "-extfile", str(names), "-out", str(certificate)],
    ):
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    return Certificates(authority, certificate, key)
