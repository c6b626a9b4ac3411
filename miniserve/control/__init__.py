"""Control loops: look at the fleet every few seconds, and say what should change. Pure, like `policies`."""
