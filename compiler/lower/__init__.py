"""From a group of graph nodes to one loop kernel; one module a kernel family."""
