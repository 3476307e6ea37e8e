"""Modules that hold modules, or parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Self, overload

from .module import Module
from .state import Parameter


class ModuleSequence(Module):
    """Base of what holds modules in order, named `0`, `1`, … unless told otherwise."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return (module for module in self._modules.values() if module is not None)

    def __setitem__(self, index: int, module: Module) -> None:
        self.add_module(self._name_at(index), module)

    def __delitem__(self, index: int | slice) -> None:
        modules = list(self)
        del modules[index]
        self._refill(modules)

    def append(self, module: Module) -> Self:
        """One more module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """More modules at the end."""
        for module in modules:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Self:
        """One more module before the one at `index`."""
        modules = list(self)
        modules.insert(index, module)
        return self._refill(modules)

    def _name_at(self, index: int) -> str:
        """The name of the module at a place, which may count from the end."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"{type(self).__name__} of {len(self)} modules has no place {index}")
        return list(self._modules)[index]

    def _refill(self, modules: Iterable[Module]) -> Self:
        self._modules.clear()
        return self.extend(modules)


class Sequential(ModuleSequence):
    """Modules one after the other: each gets what the one before it gives.

    Arguments:
        args: the modules, which are named `0`, `1`, …; or one dictionary of name -> module.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            for name, module in args[0].items():
                self.add_module(name, module)
        else:
            self.extend(args)

    def forward(self, input: Any) -> Any:
        for module in self:
            input = module(input)
        return input

    @overload
    def __getitem__(self, index: int) -> Module: ...

    @overload
    def __getitem__(self, index: slice) -> Sequential: ...

    def __getitem__(self, index: int | slice) -> Module | Sequential:
        if isinstance(index, slice):
            names = list(self._modules)[index]
            return Sequential({name: self.get_submodule(name) for name in names})
        return self.get_submodule(self._name_at(index))


class ModuleList(ModuleSequence):
    """A list of modules, named `0`, `1`, …"""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    @overload
    def __getitem__(self, index: int) -> Module: ...

    @overload
    def __getitem__(self, index: slice) -> ModuleList: ...

    def __getitem__(self, index: int | slice) -> Module | ModuleList:
        if isinstance(index, slice):
            return ModuleList(list(self)[index])
        return self.get_submodule(self._name_at(index))

    def _printed(self) -> Iterable[tuple[str, object]]:
        """Neighbours that print the same are printed once: `(0-2): 3 x ReLU()`."""
        for text, group in groupby(self._modules.items(), key=lambda item: repr(item[1])):
            names = [name for name, _ in group]
            if len(names) == 1:
                yield names[0], _Text(text)
            else:
                yield f"{names[0]}-{names[-1]}", _Text(f"{len(names)} x {text}")


class _Text(str):
    """Text that prints as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class ModuleDict(Module):
    """A dictionary of modules."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Adds or replaces modules."""
        for name, module in dict(modules).items():
            self.add_module(name, module)

    def __getitem__(self, key: str) -> Module:
        return self.get_submodule(key)

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        delattr(self, key)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def keys(self) -> Iterable[str]:
        """The names."""
        return self._modules.keys()

    def values(self) -> Iterable[Module]:
        """The modules."""
        return [self[name] for name in self._modules]

    def items(self) -> Iterable[tuple[str, Module]]:
        """Names and modules."""
        return [(name, self[name]) for name in self._modules]


class ParameterList(Module):
    """A list of parameters, named `0`, `1`, …; arrays are wrapped."""

    def __init__(self, values: Iterable[object] = ()) -> None:
        super().__init__()
        self.extend(values)

    def append(self, value: object) -> Self:
        """One more parameter at the end."""
        parameter = value if isinstance(value, Parameter) else Parameter(value)
        self.register_parameter(str(len(self)), parameter)
        return self

    def extend(self, values: Iterable[object]) -> Self:
        """More parameters at the end."""
        for value in values:
            self.append(value)
        return self

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[Parameter]:
        return (parameter for parameter in self._parameters.values() if parameter is not None)

    def __getitem__(self, index: int) -> Parameter:
        return list(self)[index]

    def __setitem__(self, index: int, value: object) -> None:
        parameter = value if isinstance(value, Parameter) else Parameter(value)
        self.register_parameter(list(self._parameters)[index], parameter)

    def extra_repr(self) -> str:
        return "\n".join(f"({i}): Parameter({p.type})" for i, p in enumerate(self))


class ParameterDict(Module):
    """A dictionary of parameters; arrays are wrapped."""

    def __init__(self, parameters: Mapping[str, object] | None = None) -> None:
        super().__init__()
        for name, value in (parameters or {}).items():
            self[name] = value

    def __setitem__(self, key: str, value: object) -> None:
        parameter = value if isinstance(value, Parameter) else Parameter(value)
        self.register_parameter(key, parameter)

    def __getitem__(self, key: str) -> Parameter:
        return self.get_parameter(key)

    def __len__(self) -> int:
        return len(self._parameters)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __contains__(self, key: object) -> bool:
        return key in self._parameters

    def extra_repr(self) -> str:
        return "\n".join(f"({name}): Parameter({self[name].type})" for name in self)
