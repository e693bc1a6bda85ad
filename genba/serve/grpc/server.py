"""The gRPC port of a server: where it listens, and what one connection may do."""

from typing import Any, Final

import grpc
import grpc.aio

from genba.core.problem import Problem
from genba.serve.access.callers import Access
from genba.serve.access.tls import Tls, check_tls
from genba.serve.grpc.methods import Host
from genba.serve.grpc.service import Service
from genba.serve.limits import Limits

_MILLI: Final = 1_000
_PING_STRIKES: Final = 2  # pings that came too early; after that the connection ends


class GrpcServer:
    """A gRPC port that is open.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, server: Any, port: int) -> None:
        self.port = port
        self._server = server

    async def stop(self, grace_s: float) -> None:
        """Take no calls any more, and answer those there are.

        Args:
            grace_s: After so many seconds they are cut off.
        """
        await self._server.stop(grace_s)


async def start(
    host: Host,
    access: Access,
    address: str,
    port: int,
    *,
    tls: Tls | None = None,
    share_port: bool = False,
) -> GrpcServer:
    """Listen for gRPC calls, on the running event loop.

    Args:
        host: The server.
        access: Who may ask.
        address: Such as ``127.0.0.1``.
        port: 0 takes a free one.
        tls: Certificate and key, None for a connection that others may read.
        share_port: Whether other processes listen on the same port (SO_REUSEPORT).

    Raises:
        Problem: G701 when the port is taken, G750 for a certificate that cannot be used.
    """
    server = grpc.aio.server(
        options=_options(host.limits, share_port=share_port),
        maximum_concurrent_rpcs=host.limits.connections,
    )
    server.add_generic_rpc_handlers((Service(host, access),))
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    try:
        if tls is None:
            bound = server.add_insecure_port(where)
        else:
            check_tls(tls)
            pair = tls.key.read_bytes(), tls.cert.read_bytes()
            bound = server.add_secure_port(where, grpc.ssl_server_credentials([pair]))
        await server.start()
    except RuntimeError as error:
        raise Problem(
            "G701",
            f"The server cannot listen on {address} port {port} for gRPC.",
            where=where,
            why="Most often another server has this port already.",
            tries=["genba up --grpc-port 0  # any free port"],
        ) from error
    return GrpcServer(server, bound)


def _options(limits: Limits, *, share_port: bool) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.max_receive_message_length", limits.body_bytes),  # also of what it unpacks to
        ("grpc.max_send_message_length", -1),  # as large as the outputs are
        ("grpc.max_metadata_size", limits.head_bytes),
        ("grpc.absolute_max_metadata_size", limits.head_bytes),
        ("grpc.max_concurrent_streams", limits.pipelined),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.server_handshake_timeout_ms", round(limits.head_s * _MILLI)),
        ("grpc.max_connection_idle_ms", round(limits.idle_s * _MILLI)),
        ("grpc.http2.min_ping_interval_without_data_ms", round(limits.ping_s * _MILLI)),
        ("grpc.http2.max_ping_strikes", _PING_STRIKES),
    ]
