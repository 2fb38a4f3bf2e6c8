"""A real Redis Sentinel for the tests: a primary, two replicas, three Sentinels, and the faults they are there for."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import redis

from tests.access import Access
from tests.servers import VALKEY, Server
from tests.waiting import wait_until

SERVICE = "mymaster"
REPLICAS = 2
WATCHERS = 3
CALM_MS = 60_000
"""For tests that are not about failovers: a busy machine must not cause one."""


class Sentinel(Server):
    """One Sentinel process; `watch` configures the primary."""

    def __init__(self, program: str, *, access: Access, password: str) -> None:
        self._password = password
        super().__init__(program, tcp=True, access=access)

    def _arguments(self) -> list[str]:
        config = Path(self.folder, "sentinel.conf")  # it writes into this file what it learns
        config.write_text("")
        tls = self._access.tls_options(self.port) if self._access.certificates else []
        own = ["--requirepass", self._password, "--sentinel", "sentinel-pass", self._password] if self._password else []
        return [str(config), "--sentinel", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder] + (
            tls + own
        )

    def client(self, **options: Any) -> redis.Redis:
        """Return a client of one's own; use it as a context manager."""
        tls = Access(certificates=self._access.certificates).client_options()
        login = {"password": self._password} if self._password else {}
        return redis.Redis(port=self.port, decode_responses=True, **{"socket_timeout": 5, **tls, **login, **options})

    def watch(self, port: int, *, down_after_ms: int, failover_timeout_ms: int) -> None:
        """Watch the primary at a port, together with the other Sentinels that do."""
        options = {"down-after-milliseconds": down_after_ms, "failover-timeout": failover_timeout_ms}
        if self._access.password:
            options |= {"auth-user": self._access.user, "auth-pass": self._access.password}
        with self.client() as client:
            # For a quick start, and so that a pause of a busy machine does not silence the Sentinel for 30 seconds.
            client.execute_command("SENTINEL", "DEBUG", "publish-period", 100, "info-period", 200, "tilt-period", 500)
            client.execute_command("SENTINEL", "MONITOR", SERVICE, "127.0.0.1", port, WATCHERS // 2 + 1)
            for name, value in options.items():
                client.execute_command("SENTINEL", "SET", SERVICE, name, value)

    def be_usual(self) -> None:
        """Look and tell as often as Sentinels usually do."""
        with self.client() as client:
            client.execute_command("SENTINEL", "DEBUG", "publish-period", 2_000, "info-period", 10_000)

    def calm(self) -> None:
        """Ping and publish rarely, too: no server fails."""
        with self.client() as client:
            client.execute_command("SENTINEL", "DEBUG", "ping-period", CALM_MS // 6, "publish-period", CALM_MS // 6)

    def view(self) -> dict[str, Any]:
        """Return its view of the service."""
        with self.client() as client:
            return client.sentinel_master(SERVICE)

    def primary_port(self) -> int:
        """Return the port of the primary that it reports."""
        with self.client() as client:
            return int(client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", SERVICE)[1])


class Sentinels:
    """A primary with two replicas, watched by three Sentinels; a context manager that ends them all.

    `access` is of the data servers, `watcher_password` of the Sentinels. A primary that is silent for `down_after_ms`
    is replaced. `options` are further arguments of the data servers.
    """

    def __init__(
        self,
        program: str = VALKEY,
        *options: str,
        access: Access | None = None,
        watcher_password: str = "",
        down_after_ms: int = 1_000,
    ) -> None:
        self._access = access or Access()
        self._started = ExitStack()
        with ExitStack() as stack:
            started = [
                Server(program, "--repl-backlog-size", "1mb", *options, tcp=True, access=self._access)
                for _ in range(1 + REPLICAS)
            ]
            self.servers = [stack.enter_context(each) for each in started]
            watchers = [Sentinel(program, access=self._access, password=watcher_password) for _ in range(WATCHERS)]
            self.watchers = [stack.enter_context(each) for each in watchers]
            for replica in self.servers[1:]:
                self.follow(replica, self.servers[0])
            wait_until(lambda: all(self._is_linked(each) for each in self.servers[1:]))
            for watcher in self.watchers:
                watcher.watch(self.servers[0].port, down_after_ms=down_after_ms, failover_timeout_ms=2_000)
            self.wait_until_ready()
            for watcher in self.watchers:
                watcher.be_usual()
            self._started = stack.pop_all()
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.watchers)
        query = {"sentinel_password": watcher_password} if watcher_password else {}
        self.url = self._access.url("sentinel", hosts, "/0", service=SERVICE, **query)

    def wait_until_ready(self) -> None:
        """Wait until each Sentinel sees a healthy primary, all replicas and the other Sentinels."""
        wait_until(lambda: all(_is_content(each.view()) for each in self.watchers))

    @property
    def primary(self) -> Server:
        """The server that most Sentinels tell clients to use."""
        ports = sorted(self._reported_ports())
        return self._at(ports[len(ports) // 2])

    def client(self) -> redis.Redis:
        """Return a client of the primary; use it as a context manager."""
        return self.primary.client()

    @property
    def replicas(self) -> list[Server]:
        """The other servers, whatever became of them."""
        primary = self.primary
        return [each for each in self.servers if each is not primary]

    def wait_for_promotion(self, former: Server) -> Server:
        """Wait until another server is the primary, and takes writes; return it."""
        wait_until(lambda: former.port not in self._reported_ports())
        primary = self.primary
        wait_until(lambda: _role(primary) == "master")
        return primary

    def cut_replicas(self) -> None:
        """Stall the replicas and cut their links: the primary acknowledges writes that no replica has.

        Cut as well as stalled, otherwise writes would wait in their sockets.
        """
        primary = self.primary
        for replica in self.replicas:
            replica.stop()
        with primary.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")
            wait_until(lambda: client.info("replication")["connected_slaves"] == 0)

    def resume_replicas(self) -> None:
        """Resume the replicas with their data from before the cut."""
        for replica in self.replicas:
            replica.cont()

    def follow(self, replica: Server, primary: Server) -> None:
        """Make a server the replica of another."""
        with replica.client() as client:
            client.replicaof("127.0.0.1", primary.port)

    def restart(self, server: Server) -> None:
        """Start a server that was killed, as an empty replica of the present primary; wait until it has its data."""
        server.start()
        self.follow(server, self.primary)
        wait_until(lambda: self._is_linked(server))

    def _reported_ports(self) -> list[int]:
        return [each.primary_port() for each in self.watchers if each.is_running]

    def _is_linked(self, replica: Server) -> bool:
        with suppress(redis.RedisError), replica.client() as client:
            return bool(client.info("replication").get("master_link_status") == "up")
        return False

    def _at(self, port: int) -> Server:
        return next(each for each in self.servers if each.port == port)

    def __enter__(self) -> Sentinels:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._started.close()


def _is_content(view: dict[str, Any]) -> bool:
    others = (view["num-slaves"], view["num-other-sentinels"])
    return view["flags"] == "master" and others == (REPLICAS, WATCHERS - 1)


def _role(server: Server) -> str:
    with suppress(redis.RedisError), server.client() as client:
        return str(client.info("replication")["role"])
    return ""
