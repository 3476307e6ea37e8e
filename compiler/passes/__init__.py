"""Graph-to-graph rewrites, and the partition of a graph into kernels."""
