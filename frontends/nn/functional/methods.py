"""Methods of tensors as functions: `exp(x)` is `x.exp()`, as in PyTorch."""

from __future__ import annotations

from ....compiler.tensor import Tensor
from ..eager import on_arrays
from .convolution import einsum as einsum_of_tensors

abs = on_arrays(Tensor.abs)
acos = on_arrays(Tensor.acos)
acosh = on_arrays(Tensor.acosh)
add = on_arrays(Tensor.add)
addcdiv = on_arrays(Tensor.addcdiv)
addcmul = on_arrays(Tensor.addcmul)
all = on_arrays(Tensor.all)
amax = on_arrays(Tensor.amax)
amin = on_arrays(Tensor.amin)
any = on_arrays(Tensor.any)
arccos = on_arrays(Tensor.arccos)
arccosh = on_arrays(Tensor.arccosh)
arcsin = on_arrays(Tensor.arcsin)
arcsinh = on_arrays(Tensor.arcsinh)
arctan = on_arrays(Tensor.arctan)
arctanh = on_arrays(Tensor.arctanh)
argsort = on_arrays(Tensor.argsort)
asin = on_arrays(Tensor.asin)
asinh = on_arrays(Tensor.asinh)
atan = on_arrays(Tensor.atan)
atanh = on_arrays(Tensor.atanh)
bitwise_and = on_arrays(Tensor.bitwise_and)
bitwise_not = on_arrays(Tensor.bitwise_not)
bitwise_or = on_arrays(Tensor.bitwise_or)
bitwise_xor = on_arrays(Tensor.bitwise_xor)
broadcast_to = on_arrays(Tensor.broadcast_to)
ceil = on_arrays(Tensor.ceil)
clamp = on_arrays(Tensor.clamp)
clamp_max = on_arrays(Tensor.clamp_max)
clamp_min = on_arrays(Tensor.clamp_min)
clip = on_arrays(Tensor.clip)
clone = on_arrays(Tensor.clone)
cos = on_arrays(Tensor.cos)
cosh = on_arrays(Tensor.cosh)
count_nonzero = on_arrays(Tensor.count_nonzero)
cumprod = on_arrays(Tensor.cumprod)
cumsum = on_arrays(Tensor.cumsum)
detach = on_arrays(Tensor.detach)
diagonal = on_arrays(Tensor.diagonal)
div = on_arrays(Tensor.div)
divide = on_arrays(Tensor.divide)
dot = on_arrays(Tensor.dot)
einsum = on_arrays(einsum_of_tensors)
eq = on_arrays(Tensor.eq)
equal = on_arrays(Tensor.equal)
erf = on_arrays(Tensor.erf)
expm1 = on_arrays(Tensor.expm1)
flip = on_arrays(Tensor.flip)
floor = on_arrays(Tensor.floor)
floor_divide = on_arrays(Tensor.floor_divide)
ge = on_arrays(Tensor.ge)
gt = on_arrays(Tensor.gt)
index_add = on_arrays(Tensor.index_add)
index_select = on_arrays(Tensor.index_select)
isfinite = on_arrays(Tensor.isfinite)
isinf = on_arrays(Tensor.isinf)
isnan = on_arrays(Tensor.isnan)
le = on_arrays(Tensor.le)
lerp = on_arrays(Tensor.lerp)
log10 = on_arrays(Tensor.log10)
log1p = on_arrays(Tensor.log1p)
log2 = on_arrays(Tensor.log2)
logical_and = on_arrays(Tensor.logical_and)
logical_not = on_arrays(Tensor.logical_not)
logical_or = on_arrays(Tensor.logical_or)
logical_xor = on_arrays(Tensor.logical_xor)
logsumexp = on_arrays(Tensor.logsumexp)
lt = on_arrays(Tensor.lt)
masked_fill = on_arrays(Tensor.masked_fill)
max = on_arrays(Tensor.max)
mean = on_arrays(Tensor.mean)
median = on_arrays(Tensor.median)
min = on_arrays(Tensor.min)
mm = on_arrays(Tensor.mm)
moveaxis = on_arrays(Tensor.moveaxis)
movedim = on_arrays(Tensor.movedim)
mul = on_arrays(Tensor.mul)
multiply = on_arrays(Tensor.multiply)
mv = on_arrays(Tensor.mv)
nan_to_num = on_arrays(Tensor.nan_to_num)
narrow = on_arrays(Tensor.narrow)
ne = on_arrays(Tensor.ne)
neg = on_arrays(Tensor.neg)
norm = on_arrays(Tensor.norm)
numel = on_arrays(Tensor.numel)
permute = on_arrays(Tensor.permute)
pow = on_arrays(Tensor.pow)
prod = on_arrays(Tensor.prod)
reciprocal = on_arrays(Tensor.reciprocal)
remainder = on_arrays(Tensor.remainder)
repeat_interleave = on_arrays(Tensor.repeat_interleave)
reshape = on_arrays(Tensor.reshape)
roll = on_arrays(Tensor.roll)
round = on_arrays(Tensor.round)
rsqrt = on_arrays(Tensor.rsqrt)
scatter = on_arrays(Tensor.scatter)
scatter_add = on_arrays(Tensor.scatter_add)
select = on_arrays(Tensor.select)
sign = on_arrays(Tensor.sign)
sin = on_arrays(Tensor.sin)
sinh = on_arrays(Tensor.sinh)
sort = on_arrays(Tensor.sort)
square = on_arrays(Tensor.square)
squeeze = on_arrays(Tensor.squeeze)
std = on_arrays(Tensor.std)
sub = on_arrays(Tensor.sub)
subtract = on_arrays(Tensor.subtract)
sum = on_arrays(Tensor.sum)
swapaxes = on_arrays(Tensor.swapaxes)
t = on_arrays(Tensor.t)
tan = on_arrays(Tensor.tan)
tile = on_arrays(Tensor.tile)
topk = on_arrays(Tensor.topk)
transpose = on_arrays(Tensor.transpose)
tril = on_arrays(Tensor.tril)
triu = on_arrays(Tensor.triu)
trunc = on_arrays(Tensor.trunc)
unbind = on_arrays(Tensor.unbind)
unsqueeze = on_arrays(Tensor.unsqueeze)
var = on_arrays(Tensor.var)

__all__ = [
    "abs",
    "acos",
    "acosh",
    "add",
    "addcdiv",
    "addcmul",
    "all",
    "amax",
    "amin",
    "any",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctanh",
    "argsort",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "broadcast_to",
    "ceil",
    "clamp",
    "clamp_max",
    "clamp_min",
    "clip",
    "clone",
    "cos",
    "cosh",
    "count_nonzero",
    "cumprod",
    "cumsum",
    "detach",
    "diagonal",
    "div",
    "divide",
    "dot",
    "einsum",
    "eq",
    "equal",
    "erf",
    "expm1",
    "flip",
    "floor",
    "floor_divide",
    "ge",
    "gt",
    "index_add",
    "index_select",
    "isfinite",
    "isinf",
    "isnan",
    "le",
    "lerp",
    "log1p",
    "log2",
    "log10",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "logsumexp",
    "lt",
    "masked_fill",
    "max",
    "mean",
    "median",
    "min",
    "mm",
    "moveaxis",
    "movedim",
    "mul",
    "multiply",
    "mv",
    "nan_to_num",
    "narrow",
    "ne",
    "neg",
    "norm",
    "numel",
    "permute",
    "pow",
    "prod",
    "reciprocal",
    "remainder",
    "repeat_interleave",
    "reshape",
    "roll",
    "round",
    "rsqrt",
    "scatter",
    "scatter_add",
    "select",
    "sign",
    "sin",
    "sinh",
    "sort",
    "square",
    "squeeze",
    "std",
    "sub",
    "subtract",
    "sum",
    "swapaxes",
    "t",
    "tan",
    "tile",
    "topk",
    "transpose",
    "tril",
    "triu",
    "trunc",
    "unbind",
    "unsqueeze",
    "var",
]
