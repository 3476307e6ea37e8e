"""The compiler: from a declared graph to machine code."""
