"""The inside of one replica: sequences, blocks, the scheduler; and the model's step, which alone needs torch."""
