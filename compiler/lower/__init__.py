"""Groups of graph nodes become loop kernels, one file a kernel family."""
