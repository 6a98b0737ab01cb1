"""The least a server can do with a large body: a loop over a blocking socket, which reads it once and sends it back.

    python -m bench.peers.echo_socket

Prints its port, and serves one connection after the other until it is ended. Speaks as much HTTP as the benchmark's
client needs: ``Content-Length`` in the head, the same bytes as the answer's body.
"""

from __future__ import annotations

import re
import socket


def serve(connection: socket.socket) -> None:
    received, body = bytearray(), bytearray()
    while True:
        while b"\r\n\r\n" not in received:
            data = connection.recv(65536)
            if not data:
                return
            received += data
        head, _, start = bytes(received).partition(b"\r\n\r\n")
        found = re.search(rb"(?im)^content-length: (\d+)", head)
        assert found is not None
        # One buffer of the payload's size, kept, filled by the kernel and emptied by the kernel.
        if len(body) != int(found[1]):
            body = bytearray(int(found[1]))
        body[: len(start)] = start
        view, filled = memoryview(body), len(start)
        while filled < len(body):
            filled += connection.recv_into(view[filled:])
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        connection.sendall(body)
        received.clear()


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                serve(connection)


if __name__ == "__main__":
    main()
