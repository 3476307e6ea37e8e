"""The handle on a value, and what its methods are called: NumPy's and PyTorch's words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NoReturn

from ..errors import ShapeError, UnknownAttributeError, UsageError
from ..ops import linear
from ..ops import pointwise as pw
from ..ops.base import apply
from ..ops.stop_gradient import StopGradient
from ..types import DType, Shape, TensorType
from . import arithmetic, indexing, order, places, pointwise, products, reduction
from . import shape as shapes
from .advice import advice
from .promotion import Scalar

if TYPE_CHECKING:
    from ..graph import Graph, Value


@dataclass(frozen=True, eq=False)
class Tensor:
    """A handle on one value of a graph that is being built.

    Arguments:
        graph: the graph.
        value: which value of it.
    """

    graph: Graph
    value: Value
    # NumPy's own operators leave an array beside a tensor to those below.
    __array_ufunc__: ClassVar[None] = None

    # -- what it is -------------------------------------------------------------------------------

    @property
    def type(self) -> TensorType:
        return self.graph.type_of(self.value)

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    @property
    def rank(self) -> int:
        return self.type.rank

    ndim = rank

    @property
    def T(self) -> Tensor:
        """All axes in the opposite order."""
        return self.t()

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged: each matrix transposed."""
        return self.transpose()

    def dim(self) -> int:
        """The rank."""
        return self.rank

    ndimension = dim

    def __len__(self) -> int:
        return self.size(0)

    def __iter__(self) -> Iterator[Tensor]:
        """The slices along the first axis."""
        return (self[i] for i in range(self.size(0)))

    def __repr__(self) -> str:
        return f"Tensor({self.value}: {self.type})"

    def __bool__(self) -> bool:
        raise ShapeError(
            f"the truth of {self.value} is not known before the network runs; "
            "use where(condition, a, b) in place of Python's if"
        )

    def item(self) -> NoReturn:
        """
        Raises:
            UsageError: always; symbols have no numbers.
        """
        raise UsageError(
            f"the numbers of {self.value} are not known before the network runs; return it from "
            "forward, or compile the network and look at what it gives"
        )

    def __getattr__(self, name: str) -> NoReturn:
        """
        Raises:
            UnknownAttributeError: what to write in place of what PyTorch has there.
        """
        raise UnknownAttributeError(advice(type(self), name))

    def __setitem__(self, key: object, value: object) -> NoReturn:
        """
        Raises:
            UsageError: always; tensors do not change.
        """
        raise UsageError(
            f"elements of {self.value} cannot be assigned, tensors do not change; make a new one "
            "with where, masked_fill, scatter, cat or stack"
        )

    @property
    def device(self) -> str:
        """Where it is: always "cpu"."""
        return "cpu"

    def cpu(self) -> Tensor:
        """Itself."""
        return self

    def constant(self, value: Scalar) -> Tensor:
        """A scalar constant of this tensor's dtype."""
        return self.graph.constant(value, self.dtype)

    def detach(self) -> Tensor:
        """The same values as if they were constant: no gradient flows through."""
        return apply(StopGradient(), self)

    # -- operators --------------------------------------------------------------------------------

    __hash__ = object.__hash__
    # `object` says that these two give a bool; here they give a tensor, as NumPy's do.
    __eq__ = pointwise.operator(pw.Equal())  # type: ignore[assignment]
    __ne__ = pointwise.operator(pw.NotEqual())  # type: ignore[assignment]
    __lt__ = pointwise.operator(pw.Less())
    __le__ = pointwise.operator(pw.LessEqual())
    __gt__ = pointwise.operator(pw.Greater())
    __ge__ = pointwise.operator(pw.GreaterEqual())
    __add__ = pointwise.operator(pw.Add())
    __radd__ = pointwise.reflected(pw.Add())
    __sub__ = pointwise.operator(pw.Subtract())
    __rsub__ = pointwise.reflected(pw.Subtract())
    __mul__ = pointwise.operator(pw.Multiply())
    __rmul__ = pointwise.reflected(pw.Multiply())
    __truediv__ = pointwise.operator(pw.Divide(), of_floats=True)
    __rtruediv__ = pointwise.reflected(pw.Divide(), of_floats=True)
    __floordiv__ = pointwise.operator(pw.FloorDivide())
    __rfloordiv__ = pointwise.reflected(pw.FloorDivide())
    __mod__ = pointwise.operator(pw.Remainder())
    __rmod__ = pointwise.reflected(pw.Remainder())
    __pow__ = pointwise.raised
    __rpow__ = pointwise.raising
    __and__ = __rand__ = pointwise.operator(pw.And())
    __or__ = __ror__ = pointwise.operator(pw.Or())
    __xor__ = __rxor__ = pointwise.operator(pw.Xor())
    __invert__ = pointwise.bitwise_not
    __neg__ = pointwise.negative
    __abs__ = pointwise.absolute
    __getitem__ = indexing.getitem
    __matmul__ = linear.matmul

    # -- element by element -----------------------------------------------------------------------

    abs = absolute = pointwise.absolute
    acos = arccos = pointwise.acos
    acosh = arccosh = pointwise.acosh
    add = pointwise.add
    addcdiv = pointwise.addcdiv
    addcmul = pointwise.addcmul
    allclose = arithmetic.allclose
    asin = arcsin = pointwise.asin
    asinh = arcsinh = pointwise.asinh
    atan = arctan = pointwise.atan
    atan2 = arctan2 = arithmetic.atan2
    atanh = arctanh = pointwise.atanh
    bitwise_and = __and__
    bitwise_not = pointwise.bitwise_not
    bitwise_or = __or__
    bitwise_xor = __xor__
    ceil = pointwise.ceil
    clamp = clip = pointwise.clamp
    clamp_max = pointwise.clamp_max
    clamp_min = pointwise.clamp_min
    copysign = arithmetic.copysign
    cos = pointwise.cos
    cosh = pointwise.cosh
    deg2rad = arithmetic.deg2rad
    digamma = pointwise.digamma
    div = divide = true_divide = pointwise.divide
    eq = equal = pointwise.equal
    erf = pointwise.erf
    erfc = pointwise.erfc
    erfinv = pointwise.erfinv
    exp = pointwise.exp
    exp2 = arithmetic.exp2
    expm1 = pointwise.expm1
    floor = pointwise.floor
    floor_divide = __floordiv__
    fmax = arithmetic.fmax
    fmin = arithmetic.fmin
    fmod = arithmetic.fmod
    frac = arithmetic.frac
    ge = greater_equal = __ge__
    gt = greater = __gt__
    heaviside = arithmetic.heaviside
    hypot = arithmetic.hypot
    isclose = arithmetic.isclose
    isfinite = pointwise.isfinite
    isinf = pointwise.isinf
    isnan = pointwise.isnan
    isneginf = arithmetic.isneginf
    isposinf = arithmetic.isposinf
    le = less_equal = __le__
    lerp = pointwise.lerp
    lgamma = pointwise.lgamma
    log = pointwise.log
    log10 = pointwise.log10
    log1p = pointwise.log1p
    log2 = pointwise.log2
    logaddexp = arithmetic.logaddexp
    logaddexp2 = arithmetic.logaddexp2
    logical_and = pointwise.logical_and
    logical_not = pointwise.logical_not
    logical_or = pointwise.logical_or
    logical_xor = pointwise.logical_xor
    logit = arithmetic.logit
    lt = less = __lt__
    masked_fill = pointwise.masked_fill
    maximum = pointwise.maximum
    minimum = pointwise.minimum
    mul = multiply = pointwise.multiply
    nan_to_num = pointwise.nan_to_num
    ne = not_equal = pointwise.not_equal
    neg = negative = pointwise.negative
    pow = pointwise.power
    rad2deg = arithmetic.rad2deg
    reciprocal = pointwise.reciprocal
    relu = pointwise.relu
    remainder = __mod__
    round = pointwise.round
    rsqrt = pointwise.rsqrt
    sigmoid = pointwise.sigmoid
    sign = sgn = pointwise.sign
    signbit = arithmetic.signbit
    sin = pointwise.sin
    sinc = arithmetic.sinc
    sinh = pointwise.sinh
    sqrt = pointwise.sqrt
    square = pointwise.square
    sub = subtract = pointwise.subtract
    tan = pointwise.tan
    tanh = pointwise.tanh
    trunc = fix = pointwise.trunc
    where = pointwise.where
    xlogy = arithmetic.xlogy

    # -- along axes -------------------------------------------------------------------------------

    all = reduction.all
    amax = reduction.amax
    amin = reduction.amin
    aminmax = order.aminmax
    any = reduction.any
    argmax = reduction.argmax
    argmin = reduction.argmin
    argsort = reduction.argsort
    bincount = order.bincount
    bucketize = order.bucketize
    corrcoef = order.corrcoef
    count_nonzero = reduction.count_nonzero
    cov = order.cov
    cummax = order.cummax
    cummin = order.cummin
    cumprod = reduction.cumprod
    cumsum = reduction.cumsum
    diff = order.diff
    histc = order.histc
    isin = order.isin
    kthvalue = order.kthvalue
    log_softmax = reduction.log_softmax
    logcumsumexp = order.logcumsumexp
    logsumexp = reduction.logsumexp
    max = reduction.max
    mean = reduction.mean
    median = reduction.median
    min = reduction.min
    msort = order.msort
    nanmean = order.nanmean
    nansum = order.nansum
    norm = reduction.norm
    prod = reduction.prod
    quantile = order.quantile
    searchsorted = order.searchsorted
    softmax = reduction.softmax
    sort = reduction.sort
    std = reduction.std
    std_mean = reduction.std_mean
    sum = reduction.sum
    sum_to = reduction.sum_to
    topk = reduction.topk
    var = reduction.var
    var_mean = reduction.var_mean

    # -- shapes and places ------------------------------------------------------------------------

    broadcast_to = shapes.broadcast_to
    chunk = shapes.chunk
    clone = contiguous = shapes.itself
    diag = places.diag
    diag_embed = places.diag_embed
    diagflat = places.diagflat
    diagonal = shapes.diagonal
    expand = shapes.expand
    expand_as = shapes.expand_as
    flatten = shapes.flatten
    flip = shapes.flip
    fliplr = places.fliplr
    flipud = places.flipud
    gather = indexing.gather
    hsplit = places.hsplit
    index_add = indexing.index_add
    index_copy = places.index_copy
    index_fill = places.index_fill
    index_select = indexing.index_select
    movedim = moveaxis = shapes.movedim
    narrow = shapes.narrow
    new_empty = places.new_empty
    new_full = places.new_full
    new_ones = places.new_ones
    new_tensor = places.new_tensor
    new_zeros = places.new_zeros
    numel = nelement = shapes.numel
    permute = shapes.permute
    ravel = places.ravel
    repeat = shapes.repeat
    repeat_interleave = shapes.repeat_interleave
    reshape = view = shapes.reshape
    reshape_as = view_as = shapes.reshape_as
    roll = shapes.roll
    rot90 = places.rot90
    scatter = indexing.scatter
    scatter_add = indexing.scatter_add
    scatter_reduce = places.scatter_reduce
    select = shapes.select
    select_scatter = places.select_scatter
    size = shapes.size
    slice_axis = shapes.slice_axis
    slice_scatter = places.slice_scatter
    split = split_with_sizes = shapes.split
    squeeze = shapes.squeeze
    t = shapes.t
    tile = shapes.tile
    take = places.take
    take_along_dim = places.take_along_dim
    tensor_split = places.tensor_split
    transpose = swapaxes = swapdims = shapes.transpose
    tril = shapes.tril
    triu = shapes.triu
    unbind = shapes.unbind
    unflatten = shapes.unflatten
    unfold = shapes.unfold
    unsqueeze = shapes.unsqueeze
    vsplit = places.vsplit

    # -- products ---------------------------------------------------------------------------------

    addbmm = products.addbmm
    addmm = addmv = baddbmm = products.addmm
    addr = products.addr
    bmm = mm = mv = dot = vdot = matmul = linear.matmul
    cdist = products.cdist
    cross = products.cross
    dist = products.dist
    inner = products.inner
    kron = products.kron
    matrix_power = products.matrix_power
    outer = ger = products.outer
    pdist = products.pdist
    tensordot = products.tensordot
    trace = products.trace

    # -- types ------------------------------------------------------------------------------------

    bool = pointwise.converter(DType.BOOL)
    byte = pointwise.converter(DType.UINT8)
    cast = pointwise.cast
    double = pointwise.converter(DType.FLOAT64)
    float = pointwise.converter(DType.FLOAT32)
    int = pointwise.converter(DType.INT32)
    is_floating_point = arithmetic.is_floating_point
    long = pointwise.converter(DType.INT64)
    requires_grad_ = arithmetic.requires_grad_
    to = pointwise.to
    type_as = pointwise.type_as
