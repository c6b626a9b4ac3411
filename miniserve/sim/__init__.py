"""The simulated world: the same policies and the same scheduler in virtual time (simpy); only the model is replaced."""
