"""The command line: one module per command or small group, each loaded only when it is used."""
