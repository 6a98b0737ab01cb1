"""Who listens on a port, from ``/proc``."""

from __future__ import annotations

from pathlib import Path

_LISTEN = "0A"  # TCP_LISTEN of linux/include/net/tcp_states.h, as /proc/net/tcp shows it


def listener_of(port: int) -> str:
    """``"PID (command)"`` of a process that listens on TCP ``port``; "" where that cannot be told.

    Only Linux has ``/proc``, and it shows other users' sockets to root alone.
    """
    inodes = _listening_inodes(port)
    if not inodes:
        return ""
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            for descriptor in (process / "fd").iterdir():
                target = str(descriptor.readlink())
                if target.startswith("socket:[") and target[8:-1] in inodes:
                    return f"process {process.name} ({(process / 'comm').read_text().strip()})"
        except OSError:
            continue  # it ended meanwhile, or belongs to somebody else
    return ""


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(fields[9])
    return inodes
