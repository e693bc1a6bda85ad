"""Sockets that listen: one process alone, or several that share a port (SO_REUSEPORT)."""

import socket
from typing import Final

from genba.core.problem import Problem

BACKLOG: Final = 1_024  # connections that wait to be accepted
CAN_SHARE: Final = hasattr(socket, "SO_REUSEPORT")


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket that listens; a shared one is only bound, and listens when it is served.

    Otherwise a process that shares a port would be given connections while it loads packages.

    Args:
        host: Address to bind.
        port: 0 takes a free one.
        shared: Let other processes of the same user listen there as well.

    Raises:
        Problem: G701 when that is not possible.
    """
    if shared:
        return _bind(host, port)
    try:
        return socket.create_server((host, port), family=_family(host), backlog=BACKLOG)
    except OSError as error:
        raise _taken(host, port, error) from error


def reserve(host: str, port: int) -> socket.socket:
    """Take a port for processes that will share it, without listening there.

    While the socket is open the port stays ours, whichever of the processes dies. Nothing arrives
    at it: only sockets that listen are given connections.

    Args:
        host: Address to bind.
        port: 0 takes a free one.

    Raises:
        Problem: G701 when another server has the port, also one that would share it.
    """
    listen(host, port).close()  # alone: who listens there already is not joined by mistake
    reserved = _bind(host, port)
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # else others could bind it too
    return reserved


def _bind(host: str, port: int) -> socket.socket:
    bound = socket.socket(_family(host), socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise _taken(host, port, error) from error
    return bound


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _taken(host: str, port: int, error: OSError) -> Problem:
    return Problem(
        "G701",
        f"The server cannot listen on {host} port {port}: {error.strerror}.",
        where=f"{host}:{port}",
        why="Most often another server has this port already.",
        tries=[f"genba up --port {port + 1}", "genba up --port 0  # any free port"],
    )
