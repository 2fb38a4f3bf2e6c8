"""A TCP proxy in front of a store: a network that is slow, cuts replies in half, or leads to another server."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Proxy:
    """Passes connections on to a loopback port; a context manager.

    Replies come `delay_seconds` late; with `cut` each is broken off in its middle, and the connection with it; with
    `script` requests are answered with these bytes, and go no further.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.delay_seconds = 0.0
        self.cut = False
        self.script: bytes | None = None
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def switch(self, port: int) -> None:
        """Lead to another port from now on; what is connected is cut off."""
        self.target = port
        self.cut_all()

    def cut_all(self) -> None:
        """Cut all connections."""
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def heal(self) -> None:
        """Be a good network again."""
        self.delay_seconds, self.cut, self.script = 0.0, False, None

    def _cuts(self) -> bool:
        """Tell whether to break off the reply that has come."""
        return self.cut

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=[client], daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        ends = {client, server}
        self._open |= ends
        there = threading.Thread(target=self._requests, args=[client, server], daemon=True)
        there.start()
        self._replies(server, client)
        there.join()
        self._open -= ends
        client.close()
        server.close()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self.script is None:
                    server.sendall(data)
                else:  # as many replies as there are commands in it
                    client.sendall(self.script * max(1, sum(line[:1] == b"*" for line in data.split(b"\r\n"))))
        _shut(server)

    def _replies(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                time.sleep(self.delay_seconds)
                cut = self._cuts()
                client.sendall(data[: len(data) // 2] if cut else data)
                if cut:
                    break
        _shut(client)
        _shut(server)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
