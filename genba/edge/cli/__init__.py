"""The command of a device: `genba-edge`."""
