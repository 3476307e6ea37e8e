"""Networks from PyTorch: a `torch.nn.Module` becomes a `quern.nn.Module`.

PyTorch itself says what a module computes (`torch.export`), as a list of calls of its operators
without side effects; each is mapped onto the functions of `quern.nn.functional` by the table in
`operators/`. PyTorch is not needed to compile, run or save what came of it.
"""

from __future__ import annotations

from .module import TorchModule as TorchModule
from .module import from_torch as from_torch
from .module import is_torch_module as is_torch_module
