"""From loop kernels to LLVM IR to machine code."""
