"""The scripted engine, its replica, and waiting for a condition, for the tests of this folder."""

from replica_fixtures import anyio_backend, engine, long_folder, make_request, replica_url, until

__all__ = ["anyio_backend", "engine", "long_folder", "make_request", "replica_url", "until"]
