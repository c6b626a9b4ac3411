"""Model files: where they come from, whether they are complete, what they contain, and how text becomes tokens.

Torch-free, so the gateway can use it; `engine` does the computing.
"""
