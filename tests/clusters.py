"""A real Redis Cluster for the tests: three primaries, three replicas, and what happens to clusters."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple

import redis

from tests.access import Access
from tests.servers import VALKEY, Server, free_port
from tests.waiting import wait_until

PRIMARIES = 3
SLOTS = 16_384
CALM_MS = 60_000
"""For tests that are not about failovers: a busy machine must not cause one."""


class Known(NamedTuple):
    """What a node knows of a node: a line of CLUSTER NODES."""

    id: str
    port: int
    flags: set[str]
    primary_id: str
    linked: bool
    slots: list[range]

    @property
    def is_well(self) -> bool:
        return self.linked and not self.flags & {"fail", "fail?", "handshake", "noaddr"}

    @property
    def is_primary(self) -> bool:
        return "master" in self.flags and "fail" not in self.flags

    @classmethod
    def read(cls, line: str) -> Known:
        """Return what a line says."""
        id, address, flags, primary_id, _, _, _, link, *slots = line.split()
        port = int(address.partition("@")[0].rpartition(":")[2])
        held = [each.partition("-") for each in slots if not each.startswith("[")]
        ranges = [range(int(first), int(last or first) + 1) for first, _, last in held]
        return cls(id, port, set(flags.split(",")), primary_id, link == "connected", ranges)


class Node(Server):
    """One node; `port` is where clients come in."""

    def __init__(self, program: str, *options: str, access: Access, timeout_ms: int) -> None:
        self.bus_port = free_port()
        cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(timeout_ms)]
        cluster += ["--cluster-port", str(self.bus_port)]
        super().__init__(program, *cluster, *options, tcp=True, access=access)

    def cluster(self, *command: str | int) -> Any:
        """Send a CLUSTER command."""
        with self.client(decode_responses=True) as client:
            client.response_callbacks.clear()
            return client.execute_command("CLUSTER", *command)

    def known(self) -> list[Known]:
        """Return its view of the nodes."""
        return [Known.read(line) for line in self.cluster("NODES").splitlines()]

    def is_content(self, count: int) -> bool:
        """Return whether it sees all slots served, and this number of healthy nodes."""
        with suppress(redis.RedisError):
            known = self.known()
            primaries = {each.id for each in known if each.slots}
            well = [each for each in known if each.is_well and (each.slots or each.primary_id in primaries)]
            return "cluster_state:ok" in self.cluster("INFO") and len(well) == len(known) == count
        return False


class Cluster:
    """Three primaries with a replica each; a context manager that ends them all.

    A node that is silent for `timeout_ms` counts as failed. `options` are further arguments of the nodes.
    """

    def __init__(
        self, program: str = VALKEY, *options: str, access: Access | None = None, timeout_ms: int = 1_000
    ) -> None:
        self._access = access or Access()
        self._started = ExitStack()
        with ExitStack() as stack:
            self.nodes: list[Node] = []
            for _ in range(2 * PRIMARIES):
                node = Node(program, *options, access=self._access, timeout_ms=timeout_ms)
                self.nodes.append(stack.enter_context(node))
            self._form()
            self._started = stack.pop_all()
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.nodes[:PRIMARIES])
        self.url = self._access.url("cluster", hosts)

    def _form(self) -> None:
        for at, node in enumerate(self.nodes):
            node.cluster("SET-CONFIG-EPOCH", at + 1)
            for other in self.nodes[:at]:
                node.cluster("MEET", "127.0.0.1", other.port, other.bus_port)
        share = -(-SLOTS // PRIMARIES)
        for at, node in enumerate(self.nodes[:PRIMARIES]):
            node.cluster("ADDSLOTSRANGE", at * share, min((at + 1) * share, SLOTS) - 1)
        wait_until(lambda: all(len([k for k in node.known() if k.is_well]) == len(self.nodes) for node in self.nodes))
        for primary, replica in zip(self.nodes, self.nodes[PRIMARIES:], strict=False):
            replica.cluster("REPLICATE", primary.cluster("MYID"))
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until every node sees all slots served and all nodes well, and each replica has its primary's data."""
        wait_until(lambda: all(node.is_content(len(self.nodes)) for node in self.nodes))
        wait_until(lambda: all(_is_linked(node) for node in self.nodes))

    def wait_for_failover(self, former: Server) -> None:
        """Wait until all other nodes see all slots served without that node."""
        others = [node for node in self.nodes if node is not former]
        wait_until(lambda: all(_serves_without(node, former.port) for node in others))

    def primaries(self) -> list[Node]:
        """Return the nodes that have slots, as most nodes see it."""
        ports = [each.port for each in self._alive().known() if each.is_primary and each.slots]
        return [self._at(port) for port in ports]

    def owner(self, key: str) -> Node:
        """Return the primary of a key."""
        return self._owner(self.slot(key))

    def slot(self, key: str) -> int:
        """Return the slot of a key."""
        return int(self._alive().cluster("KEYSLOT", key))

    def move_slot(self, key: str, *, pause: Callable[[], object] = lambda: None) -> tuple[Node, Node]:
        """Move the slot of a key to another primary as `redis-cli --cluster reshard` does; return from where to where.

        The cluster answers requests of this slot with ASK and TRYAGAIN, and with MOVED after. `pause` is
        called after each key.
        """
        slot = self.slot(key)
        source = self._owner(slot)
        target = next(node for node in self.primaries() if node is not source)
        target.cluster("SETSLOT", slot, "IMPORTING", source.cluster("MYID"))
        source.cluster("SETSLOT", slot, "MIGRATING", target.cluster("MYID"))
        pause()
        with source.client() as client:
            while found := client.execute_command("CLUSTER GETKEYSINSLOT", slot, 1):
                self._migrate(client, target, found)
                pause()
        for node in [target, source, *self.primaries()]:
            node.cluster("SETSLOT", slot, "NODE", target.cluster("MYID"))
        return source, target

    def _migrate(self, client: redis.Redis, target: Node, names: list[bytes]) -> None:
        login = ["AUTH2", self._access.user, self._access.password] if self._access.password else []
        client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, *login, "KEYS", *names)

    def _owner(self, slot: int) -> Node:
        view = self._alive().known()
        return self._at(next(k.port for k in view if k.is_primary and any(slot in held for held in k.slots)))

    def _alive(self) -> Node:
        return next(node for node in self.nodes if node.is_running)

    def _at(self, port: int) -> Node:
        return next(node for node in self.nodes if node.port == port)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._started.close()


def _is_linked(node: Node) -> bool:
    with suppress(redis.RedisError), node.client() as client:
        replication = client.info("replication")
        return bool(replication["role"] == "master" or replication["master_link_status"] == "up")
    return False


def _serves_without(node: Node, port: int) -> bool:
    with suppress(redis.RedisError):
        primaries = [known for known in node.known() if known.is_primary and known.port != port]
        served = sum(len(held) for known in primaries for held in known.slots)
        return served == SLOTS and "cluster_state:ok" in node.cluster("INFO")
    return False
