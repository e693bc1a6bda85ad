"""An OpenAI-compatible server of the tiny model, as vLLM would be one."""

import contextlib
import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from genba.core.talk import Ask, Piece
from genba.engines.openvino_talk import OpenVinoTalk


class Handler(BaseHTTPRequestHandler):
    engine: OpenVinoTalk
    broken: str = ""
    seen: list[dict[str, Any]]

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append({"path": self.path, "key": self.headers.get("authorization"), **body})
        if self.broken == "refuses":
            self.send_error(503, "loading")
            return
        self.send_response(200)
        self.end_headers()
        if body.get("echo"):
            self.wfile.write(json.dumps(self.scored(body)).encode())
            return
        with contextlib.suppress(BrokenPipeError):  # nobody reads on behind the end
            for event in self.events(body):
                self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
                if self.broken == "stops":
                    return
            self.wfile.write(b": over\n\ndata: [DONE]\n\n")

    def scored(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.broken == "no echo":
            return {"choices": [{"text": "", "logprobs": {"token_logprobs": [-1.0]}}]}
        tokens = np.array(body["prompt"])
        found = self.engine.score(tokens, likeliest=body["logprobs"])
        numbers = [None, *found.log_probability[1:].tolist()]
        tops = [None, *(self.tops(a) for a in found.likeliest[1:])]
        logged = {"token_logprobs": [*numbers, -1.0], "top_logprobs": [*tops, {}]}
        return {"choices": [{"text": "", "logprobs": logged}]}

    def tops(self, alternatives: Any) -> dict[str, float]:
        words = self.engine.vocabulary
        if self.seen[-1].get("return_tokens_as_token_ids"):
            return {f"token_id:{token}": value for token, value in alternatives}
        return {words.decode([token], special=True): value for token, value in alternatives}

    def events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        shape = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
        ask = Ask(
            tokens=np.array(body["prompt"]),
            most=body["max_tokens"],
            least=body.get("min_tokens", 0),
            temperature=body["temperature"],
            top_p=body["top_p"],
            seed=body.get("seed"),
            end=tuple(body.get("stop_token_ids", ())),
            ignore_end=body.get("ignore_eos", False),
            likeliest=body["logprobs"],
            schema=json.dumps(shape) if shape and self.broken != "no schema" else None,
        )
        pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        ticket = self.engine.ask(ask, pieces.put)
        try:
            piece = Piece()
            while not piece.finish:
                piece = pieces.get()
                yield self.event(piece, exact="return_token_ids" in body)
        finally:
            ticket.cancel()
        yield {"choices": [], "usage": {"completion_tokens": 1}}

    def event(self, piece: Piece, *, exact: bool) -> dict[str, Any]:
        reason = {"end": "stop"}.get(piece.finish, piece.finish or None)
        choice: dict[str, Any] = {
            "text": self.engine.vocabulary.decode(piece.tokens),
            "finish_reason": reason,
            "logprobs": {
                "token_logprobs": list(piece.log_probability),
                "top_logprobs": [self.tops(a) for a in piece.likeliest],
            },
        }
        return {"choices": [choice | ({"token_ids": list(piece.tokens)} if exact else {})]}


@contextmanager
def upstream(engine: OpenVinoTalk, broken: str = "") -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the address of a server, and what it is asked."""
    seen: list[dict[str, Any]] = []
    kind = type("Bound", (Handler,), {"engine": engine, "broken": broken, "seen": seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
