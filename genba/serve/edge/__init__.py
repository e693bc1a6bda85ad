"""What a factory has for its devices: a signed repository of releases, and an ear for telemetry."""
