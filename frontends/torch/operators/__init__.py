"""What ATen's operators mean, one file a family; each enters its functions into the table."""

from __future__ import annotations

from . import create as create
from . import layers as layers
from . import places as places
from . import pointwise as pointwise
from . import recurrent as recurrent
from . import reduce as reduce
from . import shape as shape
