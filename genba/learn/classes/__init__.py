"""Telling classes apart by features: heads, calibration, answers, and how good those are."""
