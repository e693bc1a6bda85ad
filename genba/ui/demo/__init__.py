"""The demonstration: the whole closed loop on real wind-turbine records, without a shortcut."""
