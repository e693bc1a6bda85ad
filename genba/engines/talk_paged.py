"""A language model compiled by OpenVINO, with a cache of keys and values in pages."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

import numpy as np
import openvino as ov

from genba.core.problem import Problem
from genba.core.protocols import Array
from genba.edge.gguf import Gguf
from genba.engines.refusal import in_short
from genba.engines.talk_graph import PAGE, talk_graph
from genba.engines.talk_turns import Part

_CACHE: Final = ("key_cache.", "value_cache.")


class PagedModel:
    """A model that computes parts of many questions in one step.

    Args:
        file: The model.
        weights: See `genba.engines.talk_weights`.
        threads: Processor threads.
        pages: How many pages there are, of `PAGE` tokens.
        cache: Number format of keys and values: "u8", "f16" or "f32".

    Raises:
        Problem: G601 when OpenVINO cannot compute it.
    """

    def __init__(self, file: Gguf, weights: str, *, threads: int, pages: int, cache: str) -> None:
        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # pinned threads of two models would share one core
            "KV_CACHE_PRECISION": cache,
            "CACHE_DIR": "",
        }
        try:
            compiled = ov.Core().compile_model(talk_graph(file, weights), "CPU", options)
        except RuntimeError as error:
            raise Problem(
                "G601",
                "OpenVINO cannot compute this language model.",
                why=in_short(error),
                tries=['engines = ["llama-cpp"]', "genba explain G601"],
            ) from error
        self._request = compiled.create_infer_request()
        for port in compiled.inputs:
            if port.any_name.startswith(_CACHE):
                shape = [pages, *(n.get_length() for n in list(port.partial_shape)[1:])]
                tensor = ov.Tensor(port.element_type, ov.Shape(shape))
                self._request.set_tensor(port.any_name, tensor)

    def compute(self, parts: Sequence[Part]) -> tuple[Array, Array]:
        """Compute one step.

        Returns:
            The logits of all wanted rows in order (float32 [rows, tokens]), and the probability of
            the likeliest token of each (float32 [rows, 1]). Both are overwritten by the next step.

        Raises:
            RuntimeError: When OpenVINO fails.
        """
        lengths = [len(part.tokens) for part in parts]
        used = [-(-(part.past + n) // PAGE) for part, n in zip(parts, lengths, strict=True)]
        begins = [0, *accumulate(lengths)]
        pages = [page for part, n in zip(parts, used, strict=True) for page in part.pages[:n]]
        wanted = [
            row for part, end in zip(parts, begins[1:], strict=True)
            for row in range(end - part.wanted, end)
        ]  # fmt: skip
        ends = [part.past + n for part, n in zip(parts, lengths, strict=True)]
        places = [np.arange(part.past, end) for part, end in zip(parts, ends, strict=True)]
        whole: dict[str, Array] = {
            "input_ids": np.concatenate([part.tokens for part in parts]),
            "position_ids": np.concatenate(places),
            "wanted": np.array(wanted or [0], dtype=np.int64),
        }
        small: dict[str, Any] = {
            "past_lens": [part.past for part in parts],
            "subsequence_begins": begins,
            "block_indices": pages,
            "block_indices_begins": [0, *accumulate(used)],
            "max_context_len": max(ends),
        }
        for name, array in whole.items():
            self._request.set_tensor(name, ov.Tensor(array))
        for name, numbers in small.items():
            self._request.set_tensor(name, ov.Tensor(np.array(numbers, dtype=np.int32)))
        self._request.infer()
        outputs = (self._request.get_output_tensor(at).data for at in range(2))
        logits, best = (output[: len(wanted)] for output in outputs)
        return logits, best
