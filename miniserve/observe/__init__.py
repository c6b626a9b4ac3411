"""What happened: counted, measured and turned into numbers that can be compared.

The servers use `metrics` and `percentiles`; simulations, load tests and the chapters use most of the rest. `slo` and
`quality` are used only by tests so far.
"""
