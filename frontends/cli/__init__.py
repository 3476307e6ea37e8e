"""The commands of the quern program, one file each.

A command's file has SUMMARY, one line for `quern --help`; `configure(parser)`, which adds its
arguments; and `run(options)`, which does the work and only then imports what is large, so that
`--help` and `--version` are there at once.
"""
