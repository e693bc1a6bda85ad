"""The agent of a device: takes new releases from a factory, tries them, goes back when it must."""
