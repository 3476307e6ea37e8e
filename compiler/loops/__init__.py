"""The loop IR: nodes, printer, interpreter, bounds proof and cost."""
