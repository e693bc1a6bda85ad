"""The requests of the OpenAI API as schemas, made of what reads them."""

from typing import Any, Final

import msgspec

from genba.serve.openai.chat import ChatRequest
from genba.serve.openai.completions import CompletionRequest
from genba.serve.openai.embeddings import EmbeddingRequest
from genba.serve.openai.responses import ResponseRequest
from genba.serve.openai.tokenizing import DetokenizeRequest, TokenizeRequest

_REQUESTS: Final = (
    ChatRequest, CompletionRequest, DetokenizeRequest, EmbeddingRequest, ResponseRequest,
    TokenizeRequest,
)  # fmt: skip
_, _COMPONENTS = msgspec.json.schema_components(
    _REQUESTS, ref_template="#/components/schemas/{name}"
)
#: By name, for the document of the server.
TALK_SCHEMAS: Final[dict[str, Any]] = {
    **_COMPONENTS,
    "TalkRefusal": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": "string", "pattern": "^G[0-9]{3}$"},
                },
            }
        },
    },
}
#: What an address does, by method and pattern: summary, body of the request, body of the answer.
TALK_OPERATIONS: Final = {
    ("POST", "v1/chat/completions"): ("Go on with a conversation.", "ChatRequest", "Anything"),
    ("POST", "v1/completions"): ("Go on with a text.", "CompletionRequest", "Anything"),
    ("POST", "v1/responses"): ("Go on with a conversation.", "ResponseRequest", "Anything"),
    ("POST", "v1/embeddings"): ("Turn texts into vectors.", "EmbeddingRequest", "Anything"),
    ("POST", "tokenize"): ("Turn a text into tokens.", "TokenizeRequest", "Anything"),
    ("POST", "detokenize"): ("Turn tokens into text.", "DetokenizeRequest", "Anything"),
    ("GET", "tokenizer_info"): ("What is known of the vocabulary.", "", "Anything"),
    ("GET", "v1/models"): ("The lines that talk, and their packages.", "", "Anything"),
    ("GET", "v1/models/*"): ("One of them.", "", "Anything"),
}
