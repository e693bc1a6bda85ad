"""What is shown on a Ray cluster of two nodes; run by `test_ray.py` in an environment with Ray."""

import json
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.cluster_utils import Cluster
from ray.util.state import list_actors

from genba.core.problem import Problem
from genba.serve.client import Client
from genba.serve.process.fleet import Count
from genba.serve.ray.cluster import RayFleet
from genba.serve.settings import Settings
from genba.store.home import Store
from genba.testing.graphs import LAGS, SENSORS
from genba.testing.serving import place, running_server, small_package, until

LINE = "pump"
REPLICAS = 2
Told = dict[str, Any]


def windows(seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(4, LAGS, SENSORS)).astype(np.float32)


def ask(client: Client, seed: int) -> Any:
    return client.infer(LINE, {"window": windows(seed)}, entities=["R80711"] * 4)


def same(one: Any, other: Any) -> bool:
    return all(np.array_equal(one.outputs[n], other.outputs[n]) for n in one.outputs)


def swap(store: Store, url: str, package: str) -> Told:
    """Deploy another package while requests come; no request may fail."""
    answered: Counter[str] = Counter()
    failed: list[str] = []
    stop = threading.Event()

    def go_on() -> None:
        with Client(url) as client:
            seed = 0
            while not stop.is_set():
                seed += 1
                try:
                    answered[ask(client, seed).package] += 1
                except Problem as problem:
                    failed.append(str(problem))

    threads = [threading.Thread(target=go_on) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: answered.total() > 50)
        place(store, LINE, "deploy", package)
        until(lambda: answered[package] > 100)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    return {"answered": dict(answered), "failed": failed}


def kill(url: str) -> Told:
    """Kill a replica; another one takes its place and all is answered again."""
    actors = list_actors(filters=[("state", "=", "ALIVE"), ("ray_namespace", "=", "serve")])
    replicas = [a for a in actors if "Replica" in a.class_name and "genba" in a.class_name]
    ray.kill(ray.get_actor(replicas[0].name, namespace="serve"), no_restart=True)
    servers: set[str] = set()

    def both_answer() -> bool:
        with suppress(Problem), Client(url) as client:
            servers.add(ask(client, 1).predictions[0].rpartition("-")[0])
        time.sleep(0.05)
        return len(servers) >= REPLICAS and new_replica(replicas)

    until(both_answer)
    with Client(url) as client:
        fine = sum(len(ask(client, seed).predictions) == 4 for seed in range(50))
    return {"before": len(replicas), "servers": len(servers), "fine_after": fine}


def new_replica(before: list[Any]) -> bool:
    now = list_actors(filters=[("state", "=", "ALIVE"), ("ray_namespace", "=", "serve")])
    alive = {a.actor_id for a in now if "Replica" in a.class_name and "genba" in a.class_name}
    return len(alive) == REPLICAS and bool(alive - {a.actor_id for a in before})


def captured(store: Store) -> int:
    """Return how many predictions the replicas have written."""
    return sum(int(r.body.get("rows", 0)) for r in store.ledger.find("capture", line=LINE))


def story(home: Path) -> Told:
    told: Told = {}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    cluster.add_node(num_cpus=2)
    with Store.open(home) as store:
        first, second = (small_package(store, LINE, seed=seed) for seed in (1, 2))
        place(store, LINE, "deploy", first)
        fleet = RayFleet(Settings(home=home, port=0), Count(processes=REPLICAS), cluster.address)
        ready = fleet.start()
        url = f"http://127.0.0.1:{ready['port']}"
        try:
            told["nodes"] = len(ray.nodes())
            with running_server(home) as server, server.client() as here, Client(url) as there:
                pairs = [(ask(here, seed), ask(there, seed)) for seed in range(20)]
                told["equal"] = sum(same(one, other) for one, other in pairs)
                told["metadata"] = there.metadata(LINE)["versions"] == [first]
                with suppress(Problem):
                    there.infer("nothing", {"window": windows(1)})
                    told["unknown line was answered"] = True
            told["swap"] = swap(store, url, second)
            told["kill"] = kill(url)
            until(lambda: captured(store) > 0)
            told["captured"] = captured(store)
            told["news"] = fleet.look_after()
        finally:
            fleet.stop()
            cluster.shutdown()
    return told


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(story(Path(sys.argv[1]))) + "\n")
