"""Where everything durable goes: files, blobs and the ledger. The only writer of either."""
