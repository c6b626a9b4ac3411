"""Operating-system processes: the supervisor, the stack it runs, HTTP servers, signals, memory."""
