"""The asyncio world: real processes, sockets, threads and time.

It performs what policies ask for and decides nothing itself.
"""
