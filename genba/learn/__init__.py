"""Learning without a framework: search, trees, ridge, conformal thresholds, intervals."""
