"""What happened: counted, measured and put into numbers that can be compared."""
