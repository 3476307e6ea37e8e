"""Functions on tensors, with the names and arguments of torch.nn.functional."""
