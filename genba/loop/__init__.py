"""The controller: ledger in, next actions out, and a thin runner that carries them out."""
