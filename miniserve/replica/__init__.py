"""The replica's half: the engine's own thread, the internal routes beside the API, the wire format, draining."""
