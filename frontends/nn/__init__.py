"""Networks declared in Python: modules and functions with PyTorch's names."""
