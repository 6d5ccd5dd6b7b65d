"""The command line: one file per verb, each thin over an importable function. Nothing else parses arguments.

A verb imports the rest of the package inside its function: help stays quick, and `runtime.configure` runs before JAX is
imported.
"""
