"""What is kept and seen of the work: captures, metrics, logs, traces."""
