"""The server: Open Inference Protocol over HTTP, rollout, capture. The only asynchronous code."""
