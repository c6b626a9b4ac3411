"""Who speaks to a server from outside: the load generator, one question, a client's retry loop."""
