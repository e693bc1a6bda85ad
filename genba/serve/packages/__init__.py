"""From the ledger to packages in memory: verified, tried, loaded, exchanged, put to sleep."""
