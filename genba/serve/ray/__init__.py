"""The server as replicas on a Ray cluster; `ray` itself is imported by `cluster` alone."""
