"""The command line, one module per command: each has `add_arguments(parser)` and `run(args) -> exit code`.

`options`, `live_table`, `status_table` and `cost_report` are shared by commands.
"""
