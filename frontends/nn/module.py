"""`Module`: a network, or a part of one, as a Python object. The interface is PyTorch's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self, TypeVar

from ...compiler.errors import QuernError, UsageError
from ...compiler.graph import user_location
from ...compiler.tensor import Tensor
from ...compiler.types import Array, DType
from .annotations import checked
from .context import Trace, current_trace, require_trace
from .paths import joined, named_states, state_at
from .state import Buffer, Parameter, State
from .state_dict import IncompatibleKeys, load_states

S = TypeVar("S", bound=State)

_PACKAGE = __name__.partition(".")[0]


_BACKWARD_HOOK = (
    "in forward, qn.autograd.grad(y, x) gives the gradient by any tensor; a forward hook that "
    "returns what a qn.autograd.Function makes of the output changes it"
)


class RemovableHandle:
    """Takes a hook back.

    Arguments:
        hooks: those that it is one of, under this handle.
    """

    def __init__(self, hooks: dict[object, Any]) -> None:
        self._hooks = hooks

    def remove(self) -> None:
        """The hook is not called any more."""
        Module._version += 1
        self._hooks.pop(self, None)


def _no_forward(self: Module, *args: Any, **kwargs: Any) -> Any:
    raise UsageError(f"{type(self).__name__} has no forward(); say there what it computes")


class Module:
    """Base of all networks and layers.

    Parameters, buffers and modules that are assigned to attributes are registered under those
    names. `forward` says what the module computes. It is reached by calling the module: on symbolic
    tensors while a network is traced, or on NumPy arrays, which runs it at once.

    Attributes:
        training: whether it is in training mode (`train()`) or not (`eval()`).
    """

    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Buffer | None]
    _modules: dict[str, Module | None]

    # A layer is one operation to its user: the main node gets the layer's own name.
    _is_layer: ClassVar[bool] = False

    # Counts changes to any module, because what was traced before them may be out of date.
    _version: ClassVar[int] = 0

    forward: Callable[..., Any] = _no_forward

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Modules of this package check what they are made with."""
        super().__init_subclass__(**kwargs)
        if cls.__module__.partition(".")[0] == _PACKAGE and "__init__" in vars(cls):
            cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]  # as a decorator would

    def __init__(self) -> None:
        self.__dict__.update(training=True, _parameters={}, _buffers={}, _modules={})

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        trace = current_trace()
        if trace is None:
            from .eager import run

            return run(self, args, kwargs)
        with trace.inside(self) as path:
            try:
                return self._hooked(self.forward(*args, **kwargs), args, trace)
            except QuernError as error:
                place = path or self._get_name()
                raise error.at(place, user_location(error.__traceback__)) from None
            except (AttributeError, TypeError) as error:
                if not self._is_layer or not args or isinstance(args[0], Tensor):
                    raise
                name, given = self._get_name(), type(args[0]).__name__
                way = "; take one of its elements" if isinstance(args[0], tuple) else ""
                usage = UsageError(f"{name} takes a tensor, got a {given}{way}")
                raise usage.at(path or name, user_location(error.__traceback__)) from error

    def _hooked(self, output: Any, args: tuple[Any, ...], trace: Trace) -> Any:
        for hook in self.__dict__.get("_forward_hooks", {}).values():
            if trace.observed is not None:
                trace.observed.append((hook, self, args, output))
                continue
            replaced = hook(self, args, output)
            output = output if replaced is None else replaced
        return output

    def register_forward_hook(self, hook: Callable[[Module, Any, Any], Any]) -> RemovableHandle:
        """Calls `hook(module, inputs, output)` when `forward` is done.

        In a trace it gets tensors, and what it returns, other than None, replaces the output. Of a
        network that is called on arrays it gets arrays once the network has run, and cannot change
        them. Compiled networks call no hooks.
        """
        Module._version += 1
        hooks: dict[object, Any] = self.__dict__.setdefault("_forward_hooks", {})
        handle = RemovableHandle(hooks)
        hooks[handle] = hook
        return handle

    # -- attributes -------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        if "_modules" not in self.__dict__:
            raise UsageError(
                f"{type(self).__name__} must call super().__init__() before it assigns {name}"
            )
        buffer = self._buffers.get(name)
        if buffer is not None and isinstance(value, Tensor) and not isinstance(value, State):
            require_trace(name).assign(buffer, value)
            return
        Module._version += 1
        if isinstance(value, Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self.add_module(name, value)
        elif isinstance(value, Buffer):
            self.register_buffer(name, value)
        elif name in self._buffers:
            self.register_buffer(name, value, persistent=buffer is None or buffer.persistent)
        elif name in self._parameters or name in self._modules:
            self._clear(name, value)
        else:
            object.__setattr__(self, name, value)

    def _clear(self, name: str, value: object) -> None:
        """Parameters and modules are only replaced by their like, or by nothing."""
        registry: dict[str, Any] = self._parameters if name in self._parameters else self._modules
        if value is not None:
            kind = "an nn.Parameter" if name in self._parameters else "an nn.Module"
            raise UsageError(
                f"{name} of {type(self).__name__} holds {kind}, it cannot become {value!r}; "
                "assign its like, or None"
            )
        registry[name] = None

    def __getattr__(self, name: str) -> Any:
        for registry in ("_parameters", "_buffers", "_modules"):
            found = self.__dict__.get(registry, {})
            if name in found:
                return found[name]
        if name in self.__dict__.get("_computed", {}):
            return self._computed[name](self)
        advice = f": {_BACKWARD_HOOK}" if "backward" in name and "hook" in name else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{advice}")

    def compute_attribute(self, name: str, rule: Callable[[Module], Any] | None) -> None:
        """An attribute becomes what `rule(module)` gives whenever it is read; None: no more. What
        is registered under the name comes first.
        """
        Module._version += 1
        rules: dict[str, Any] = self.__dict__.setdefault("_computed", {})
        rules.pop(name, None)
        if rule is not None:
            rules[name] = rule

    def __delattr__(self, name: str) -> None:
        Module._version += 1
        for registry in (self._parameters, self._buffers, self._modules):
            if name in registry:
                del registry[name]
                return
        object.__delattr__(self, name)

    def __dir__(self) -> Iterable[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """A parameter under a name; None keeps the name for one that may come."""
        if param is not None and not isinstance(param, Parameter):
            raise UsageError(f"{name} is {param!r}, wrap it in nn.Parameter")
        self._register(self._parameters, name, param)

    def register_buffer(self, name: str, tensor: object, persistent: bool = True) -> None:
        """A buffer under a name, from an array; None keeps the name for one that may come."""
        made = None if tensor is None else Buffer(tensor, persistent)
        self._register(self._buffers, name, tensor if isinstance(tensor, Buffer) else made)

    def add_module(self, name: str, module: Module | None) -> None:
        """A module under a name; None keeps the name for one that may come."""
        if module is not None and not isinstance(module, Module):
            raise UsageError(f"{name} is {module!r}, which is no nn.Module")
        self._register(self._modules, name, module)

    register_module = add_module

    def _register(self, registry: dict[str, Any], name: str, value: object) -> None:
        if not name or "." in name:
            raise UsageError(f"{name!r} cannot name a part of {type(self).__name__}")
        Module._version += 1
        self.__dict__.pop(name, None)
        for other in (self._parameters, self._buffers, self._modules):
            if other is not registry:
                other.pop(name, None)
        registry[name] = value

    # -- what is in it ----------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly in it, each once, with their names."""
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """The modules directly in it, each once."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """Itself and all modules below, with dotted names; each once unless told otherwise."""
        seen = set[Module]() if memo is None else memo
        if self in seen:
            return
        if remove_duplicate:
            seen.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(seen, joined(prefix, name), remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """Itself and all modules below, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their keys in the state dict; tied ones once, under the first key."""
        return named_states(self, "_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters, each once."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Buffer]]:
        """All buffers with their keys in the state dict, each once."""
        return named_states(self, "_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Buffer]:
        """All buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module below of a dotted name; itself for "".

        Raises:
            UsageError: when there is none.
        """
        module: Module = self
        for name in target.split(".") if target else ():
            found = module._modules.get(name)
            if found is None:
                have = ", ".join(module._modules) or "no modules"
                raise UsageError(
                    f"{type(self).__name__} has no module {target!r}: "
                    f"{type(module).__name__} holds {have}"
                )
            module = found
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter of a dotted name."""
        found: Parameter = state_at(self, "_parameters", target)
        return found

    def get_buffer(self, target: str) -> Buffer:
        """The buffer of a dotted name."""
        found: Buffer = state_at(self, "_buffers", target)
        return found

    # -- contents ---------------------------------------------------------------------------------

    def state_dict(self, prefix: str = "") -> dict[str, Array]:
        """The contents of all parameters and persistent buffers, by dotted name, without a copy."""
        return {prefix + key: state.data for key, state in self._saved().items()}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True
    ) -> IncompatibleKeys:
        """Takes the contents of all parameters and persistent buffers from a state dict.

        Contents are copied, and converted between float types. Nothing changes when it fails.

        Arguments:
            state_dict: dotted name -> array, or whatever NumPy takes as an array.
            strict: keys that are missing or unexpected are an error.

        Raises:
            InputError: with the keys that do not match and the shapes that clash.
        """
        return load_states(self._saved(), state_dict, strict, type(self).__name__)

    def _named_states(self, prefix: str = "") -> Iterator[tuple[str, State]]:
        """All states with the keys they have in a graph; tied ones once, under the first key."""
        yield from self.named_parameters(prefix)
        yield from self.named_buffers(prefix)

    def _saved(self) -> dict[str, State]:
        """What the state dict holds; tied states under each of their keys, as in PyTorch."""
        result: dict[str, State] = {}
        for path, module in self.named_modules(remove_duplicate=False):
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    result[joined(path, name)] = parameter
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.persistent:
                    result[joined(path, name)] = buffer
        return result

    # -- modes ------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Puts it and all modules below into training mode, or into inference mode."""
        for module in self.modules():
            module.__dict__["training"] = bool(mode)
        return self

    def eval(self) -> Self:
        """Puts it and all modules below into inference mode."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freezes or thaws all parameters."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def apply(self, fn: Callable[[Module], object]) -> Self:
        """Calls a function on all modules below, then on itself."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def to(self, dtype: DType | str) -> Self:
        """Converts all float parameters and buffers to another float type; "cpu" is where all are.

        Raises:
            UsageError: another device, or a type that is not of floats.
        """
        if isinstance(dtype, str) and dtype.partition(":")[0] in ("cpu", "cuda", "mps", "xpu"):
            if dtype == "cpu":
                return self
            raise UsageError(f"there is no device {dtype}; networks run on the CPU")
        wanted = DType.of(dtype)
        if not wanted.is_float:
            raise UsageError(f"a network's parameters are floats, they cannot become {wanted}")
        for _, state in self._named_states():
            if state.dtype.is_float:
                state.data = state.data.astype(wanted.numpy, copy=False)
        return self

    def cpu(self) -> Self:
        """Itself."""
        return self.to("cpu")

    def cuda(self, device: object = None) -> Self:
        """
        Raises:
            UsageError: always; networks run on the CPU.
        """
        return self.to("cuda")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing: every step has gradients of its own."""

    def float(self) -> Self:
        """Converts all float parameters and buffers to float32."""
        return self.to(DType.FLOAT32)

    def double(self) -> Self:
        """Converts all float parameters and buffers to float64."""
        return self.to(DType.FLOAT64)

    # -- printing ---------------------------------------------------------------------------------

    def _get_name(self) -> str:
        """What it is called in print and as a graph: the name of its class."""
        return type(self).__name__

    def extra_repr(self) -> str:
        """What is printed between the brackets before the modules below."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr().splitlines()
        parts = [f"({name}): {_indented(repr(m))}" for name, m in self._printed()]
        if len(extra) <= 1 and not parts:
            return f"{self._get_name()}({''.join(extra)})"
        lines = "".join(f"  {line}\n" for line in extra + parts)
        return f"{self._get_name()}(\n{lines})"

    def _printed(self) -> Iterable[tuple[str, object]]:
        return self._modules.items()


def _indented(text: str) -> str:
    return text.replace("\n", "\n  ")


class Layer(Module):
    """Base of modules that are one operation to their users: the main node of what `forward`
    computes is called as the layer itself is.
    """

    _is_layer = True
