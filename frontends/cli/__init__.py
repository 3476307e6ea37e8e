"""The commands of the quern program."""
