"""Code that talks to a server from outside: the load generator, a single question, a client's retry loop."""
