"""The HTTP edge: OpenAI's API over anything that generates tokens. The gateway and every replica use the same one.

It never imports torch: a gateway process is small and starts at once.
"""
