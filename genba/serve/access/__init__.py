"""Who may ask: keys, hosts, pages, rates, TLS."""
