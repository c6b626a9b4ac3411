"""The command line, one module per name: each has `add_arguments(parser)` and `run(args) -> exit code`."""
