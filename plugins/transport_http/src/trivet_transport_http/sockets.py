"""Listening sockets, bound before anything is served so that every failure names its address."""

from __future__ import annotations

import socket
import stat
from contextlib import suppress
from pathlib import Path


def bind(
    host: str, port: int, option: str, *, reuse_port: bool = False, kind: int = socket.SOCK_STREAM
) -> list[socket.socket]:
    """Sockets on all addresses that ``host`` means, on the same port; ``port`` 0 takes a free one.

    Raises :class:`OSError` that names the address and ``option``, the one that says the port.
    """
    sockets: list[socket.socket] = []
    try:
        infos = socket.getaddrinfo(host or None, port, type=kind, flags=socket.AI_PASSIVE)
        for family, _, proto, _, address in dict.fromkeys(infos):
            sock = socket.socket(family, kind, proto)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                # Else [::] takes the port of 0.0.0.0 too, and binding both fails.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            taken = sockets[0].getsockname()[1] if len(sockets) > 1 else port
            sock.bind((address[0], taken, *address[2:]))
            sock.setblocking(False)
    except OSError as error:
        for sock in sockets:
            sock.close()
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot listen on {host}:{port} (--{option}): {reason}") from error
    return sockets


def bind_unix(path: Path, option: str) -> socket.socket:
    """A UNIX socket at ``path``, in place of one that a server which has ended left there.

    Raises :class:`OSError` that names the path and ``option``.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.stat().st_mode) and not _answers(path):
                path.unlink()
        sock.bind(str(path))
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot listen on {path} (--{option}): {reason}") from error
    return sock


def url(scheme: str, sock: socket.socket) -> str:
    """The URL of a bound socket, e.g. ``http://127.0.0.1:8000``, ``http+unix:/run/trivet.sock``."""
    address = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"{scheme}+unix:{address}"
    host = f"[{address[0]}]" if sock.family == socket.AF_INET6 else address[0]
    return f"{scheme}://{host}:{address[1]}"


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True
