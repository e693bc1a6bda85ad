"""Ray Serve: one deployment per model, one replica each."""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, ANN202, ANN204

import json
import signal

import ray
from ray import serve
from sessions import BATCH, CONFIGURATION, CORES, PORT, SHAPES, WAIT_MS, Session
from starlette.responses import Response

BATCHED = CONFIGURATION == "batching"


class Graph:
    """The graph behind Ray Serve: JSON or a raw body."""

    def __init__(self, model):
        self._run = Session(model)
        self._many.set_max_batch_size(BATCH[model])

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=WAIT_MS / 1000)
    async def _many(self, rows):
        return list(self._run(self._run.rows(b"".join(row.tobytes() for row in rows))))

    async def __call__(self, request):
        """Answer in the form that was asked in."""
        body = await request.body()
        is_json = request.headers.get("content-type") == "application/json"
        x = self._run.rows(json.loads(body)["x"] if is_json else body)
        y = await self._many(x[0]) if BATCHED else self._run(x)
        if is_json:
            return {"y": y.reshape(-1).tolist()}
        return Response(y.tobytes(), media_type="application/octet-stream")


def main():
    """Serve until told to stop."""
    ray.init(num_cpus=CORES, include_dashboard=False, logging_level="warning")
    serve.start(
        http_options={"host": "127.0.0.1", "port": PORT},
        logging_config={"enable_access_log": False},
    )
    for model in SHAPES:
        options = {
            "num_replicas": 1,
            "max_ongoing_requests": 256,
            "ray_actor_options": {"num_cpus": 0.1},
        }
        app = serve.deployment(Graph, name=model, **options).bind(model)
        serve.run(app, name=model, route_prefix=f"/{model}")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
