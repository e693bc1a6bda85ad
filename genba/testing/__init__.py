"""The contract kit: what every task, engine, source and target must do, as small named checks."""
