"""Replicas on an existing Ray cluster, started, watched and taken away again.

What is Ray's stays Ray's: where replicas run, that dead ones are replaced, and how the proxy
divides requests among them (Ray Serve, `serve.run`). This module only asks for them.
"""

import socket
from dataclasses import replace
from typing import Any, Final

import ray
from ray import serve
from starlette.responses import Response

from genba.core.problem import Problem
from genba.serve.access.callers import is_loopback
from genba.serve.process.fleet import Count, Fleet
from genba.serve.ray.replica import Replica
from genba.serve.settings import Settings

_NAME: Final = "genba"
_ONGOING: Final = 1_024  # requests at one replica; it sheds by itself long before
_HEALTH_S: Final = 2.0
_GRACE_S: Final = 20.0
_RUNNING: Final = "RUNNING"


class RayFleet(Fleet):
    """The replicas of a home on a Ray cluster.

    Args:
        settings: How they serve; host and port are those of Ray Serve's proxy.
        count: How many they are.
        address: Of the cluster; empty for the one that this machine is part of.
    """

    def __init__(self, settings: Settings, count: Count, address: str = "") -> None:
        super().__init__(settings, replace(count, processes=max(1, count.processes)))
        self._address = address
        self._status = _RUNNING
        self._replaced = 0

    @property
    def restarts(self) -> int:
        """How often the cluster was seen to replace replicas."""
        return self._replaced

    def start(self) -> dict[str, Any]:
        """Connect, start the replicas and wait until they answer.

        Raises:
            Problem: G769 for what Ray's proxy cannot do, G770 when there is no cluster, G771 when
                its replicas do not start.
        """
        self._check()
        port = self.settings.port or _free_port(self.settings.host)
        self.settings = replace(self.settings, port=port)
        try:
            ray.init(address=self._address or "auto", namespace=_NAME, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise _no_cluster(self._address, error) from error
        options = {"host": self.settings.host, "port": port}
        serve.start(proxy_location="HeadOnly", http_options=options)
        deployment = serve.deployment(
            Replica,
            name=_NAME,
            num_replicas=self.count.processes,
            max_ongoing_requests=_ONGOING,
            health_check_period_s=_HEALTH_S,
            graceful_shutdown_timeout_s=_GRACE_S,
        )
        behind_proxy = self.settings.behind_proxy or not is_loopback(self.settings.host)
        home = str(self.settings.home)
        bound = deployment.bind(home, self.count.processes, Response, behind_proxy=behind_proxy)
        try:
            serve.run(bound, name=_NAME, route_prefix="/")
        except RuntimeError as error:
            self.stop()
            raise _not_started(home, error) from error
        workers = [{"server": f"replica {n + 1} on Ray"} for n in range(self.count.processes)]
        return {"ready": True, "port": port, **workers[0], "workers": workers}

    def look_after(self) -> str | None:
        """Say when the cluster has trouble with the replicas, and when it is over."""
        application = serve.status().applications.get(_NAME)
        status = "NOT_STARTED" if application is None else str(application.status.value)
        states = {} if application is None else application.deployments[_NAME].replica_states
        running = int(states.get("RUNNING", 0))
        now = _RUNNING if running >= self.count.processes else f"{status}, {running} replicas run"
        if now == self._status:
            return None
        self._replaced += self._status == _RUNNING
        self._status = now
        return f"on Ray: {now.lower()}"

    def renew(self) -> str:
        """Say how replicas are renewed: that is Ray's business."""
        return "replicas on Ray are renewed by starting genba up again"

    def stop(self) -> None:
        """Take the replicas away; the cluster stays."""
        if ray.is_initialized():
            serve.delete(_NAME)
            ray.shutdown()

    def _check(self) -> None:
        given = {"--tls-cert": self.settings.tls, "--grpc-port": self.settings.grpc_port}
        wanted = [name for name, value in given.items() if value is not None]
        if wanted:
            raise Problem(
                "G769",
                f"{wanted[0]} is not for replicas on Ray.",
                where="genba up --on ray",
                why="Requests come in through Ray Serve's proxy, which speaks HTTP.",
                tries=["genba up --on ray --behind-proxy", "genba explain G769"],
            )


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as free:
        return int(free.getsockname()[1])


def _no_cluster(address: str, error: Exception) -> Problem:
    return Problem(
        "G770",
        f"There is no Ray cluster at {address or 'this machine'}.",
        where=address or "auto",
        why=str(error).splitlines()[0],
        tries=["ray start --head", "genba up --on ray:HOST:6379", "genba explain G770"],
    )


def _not_started(home: str, error: Exception) -> Problem:
    return Problem(
        "G771",
        "The replicas on Ray did not start.",
        where=home,
        why=str(error).splitlines()[-1],
        tries=[f"ls {home}  # on every machine of the cluster", "ray status", "genba explain G771"],
    )
