"""What ships to a device: load and verify a package, predict. Standard library and numpy only."""
