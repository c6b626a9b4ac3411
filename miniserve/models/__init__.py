"""Model files: where they come from, whether they are whole, what they say, and how text becomes tokens.

Torch-free, so the gateway can use it; `engine` computes with what is found here.
"""
