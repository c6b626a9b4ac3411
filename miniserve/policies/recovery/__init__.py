"""What to do when something fails: retries, waits, retry budgets, breakers, ejection, the progress watch."""
