"""HTTP: connections, requests, addresses, and what each address answers."""
