"""Package files of the registry in a cache; see `genba.runs.downloads`, which does the work."""

from genba.runs.downloads import PackageFile, cache_dir, fetch, member

__all__ = ["PackageFile", "cache_dir", "fetch", "member"]
