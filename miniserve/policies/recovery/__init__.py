"""What to do when something fails: retries, waits, budgets, breakers, ejection, the progress watch."""
