"""The simulated world: the same policies, and the engine's scheduling, in virtual time (simpy); no model computes."""
