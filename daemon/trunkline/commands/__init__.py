"""The commands: one module each, with `add_arguments(parser)` and `main(arguments) -> exit status`.

cli.py imports a module only when its command was asked for, so that `trunkline replay` pays for no web server.
"""
