"""Transformers (Vaswani et al., Attention is all you need, 2017)."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import ClassVar

from ...compiler.errors import UsageError
from ...compiler.tensor import Tensor
from ...compiler.types import Array
from . import init
from .attention import Mask, MultiheadAttention, causal_mask
from .container import ModuleList
from .dropout import Dropout
from .functional import activation as functions
from .linear import Linear
from .module import Module
from .normalization import LayerNorm

Activation = str | Callable[[Tensor], Tensor]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functions.relu,
    "gelu": functions.gelu,
}


def _function(activation: Activation) -> Callable[[Tensor], Tensor]:
    if not isinstance(activation, str):
        return activation
    if activation not in _ACTIVATIONS:
        raise UsageError(f"the activation is relu, gelu or a function, not {activation!r}")
    return _ACTIVATIONS[activation]


class _Layer(Module):
    """Base of the layers: attention and a network of two layers, each added to its input.

    Arguments: those of `Transformer`, but for the numbers of layers.
    """

    attentions: ClassVar[tuple[str, ...]]
    self_attn: MultiheadAttention

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        for name in self.attentions:
            attention = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first)
            setattr(self, name, attention)
        self.linear1 = Linear(d_model, dim_feedforward, bias)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias)
        self.norm_first = norm_first
        parts = range(1, len(self.attentions) + 2)
        for number in parts:
            setattr(self, f"norm{number}", LayerNorm(d_model, layer_norm_eps, bias=bias))
        for number in parts:
            setattr(self, f"dropout{number}", Dropout(dropout))
        self.activation = _function(activation)

    def added(self, number: int, x: Tensor, part: Callable[[Tensor], Tensor]) -> Tensor:
        """The sum of x and part(x), normalised in front of the part or behind the sum.

        Arguments:
            number: of the part, from 1.
            x: of any shape that the part keeps.
            part: what is added.
        """
        norm, dropout = getattr(self, f"norm{number}"), getattr(self, f"dropout{number}")
        y: Tensor
        if self.norm_first:
            y = x + dropout(part(norm(x)))
        else:
            y = norm(x + dropout(part(x)))
        return y

    def feed(self, x: Tensor) -> Tensor:
        """The network of two layers."""
        y: Tensor = self.linear2(self.dropout(self.activation(self.linear1(x))))
        return y


def _attended(
    attention: MultiheadAttention,
    x: Tensor,
    memory: Tensor,
    mask: Mask,
    padding: Mask,
    is_causal: bool,
) -> Tensor:
    """What x finds in memory."""
    y: Tensor
    y, _ = attention(x, memory, memory, padding, False, mask, True, is_causal)
    return y


class TransformerEncoderLayer(_Layer):
    """Attention to the sequence itself and a network of two layers, each added to its input.

    Arguments: those of `Transformer`, but for the numbers of layers.
    """

    attentions = ("self_attn",)

    def forward(
        self,
        src: Tensor,
        src_mask: Mask = None,
        src_key_padding_mask: Mask = None,
        is_causal: bool = False,
    ) -> Tensor:
        """For masks see `MultiheadAttention`: attn_mask and key_padding_mask."""
        own = (src_mask, src_key_padding_mask, is_causal)
        x = self.added(1, src, lambda x: _attended(self.self_attn, x, x, *own))
        return self.added(2, x, self.feed)


class TransformerDecoderLayer(_Layer):
    """Attention to the sequence itself, attention to the encoder's, and a network of two layers.

    Arguments: those of `Transformer`, but for the numbers of layers.
    """

    attentions = ("self_attn", "multihead_attn")
    multihead_attn: MultiheadAttention

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Mask = None,
        memory_mask: Mask = None,
        tgt_key_padding_mask: Mask = None,
        memory_key_padding_mask: Mask = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """For masks see `MultiheadAttention`: attn_mask and key_padding_mask."""
        own = (tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        other = (memory_mask, memory_key_padding_mask, memory_is_causal)
        x = self.added(1, tgt, lambda x: _attended(self.self_attn, x, x, *own))
        x = self.added(2, x, lambda x: _attended(self.multihead_attn, x, memory, *other))
        return self.added(3, x, self.feed)


class _Stack(Module):
    """Base of the encoder and the decoder: copies of a layer, one after the other."""

    norm: LayerNorm | None

    def __init__(self, layer: Module, num_layers: int, norm: LayerNorm | None) -> None:
        super().__init__()
        self.layers = ModuleList(deepcopy(layer) for _ in range(num_layers))
        self.num_layers = num_layers
        self.norm = norm

    def through(self, x: Tensor, *arguments: object) -> Tensor:
        """What the last layer gives, normalised; all of them get the arguments."""
        for layer in self.layers:
            x = layer(x, *arguments)
        return x if self.norm is None else self.norm(x)


class TransformerEncoder(_Stack):
    """Copies of an encoder layer, one after the other.

    Arguments:
        encoder_layer: what is copied.
        num_layers: how often.
        norm: of the last one's results.
    """

    def __init__(
        self,
        encoder_layer: TransformerEncoderLayer,
        num_layers: int,
        norm: LayerNorm | None = None,
    ) -> None:
        super().__init__(encoder_layer, num_layers, norm)

    def forward(
        self,
        src: Tensor,
        mask: Mask = None,
        src_key_padding_mask: Mask = None,
        is_causal: bool = False,
    ) -> Tensor:
        """For masks see `MultiheadAttention`: attn_mask and key_padding_mask."""
        return self.through(src, mask, src_key_padding_mask, is_causal)


class TransformerDecoder(_Stack):
    """Copies of a decoder layer, one after the other.

    Arguments:
        decoder_layer: what is copied.
        num_layers: how often.
        norm: of the last one's results.
    """

    def __init__(
        self,
        decoder_layer: TransformerDecoderLayer,
        num_layers: int,
        norm: LayerNorm | None = None,
    ) -> None:
        super().__init__(decoder_layer, num_layers, norm)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Mask = None,
        memory_mask: Mask = None,
        tgt_key_padding_mask: Mask = None,
        memory_key_padding_mask: Mask = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """For masks see `MultiheadAttention`: attn_mask and key_padding_mask."""
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        return self.through(tgt, memory, *masks, tgt_is_causal, memory_is_causal)


class Transformer(Module):
    """An encoder of one sequence and a decoder of another that looks at it.

    Arguments:
        d_model: features of an element of a sequence.
        nhead: heads of attention.
        num_encoder_layers: of the encoder.
        num_decoder_layers: of the decoder.
        dim_feedforward: features between the two layers.
        dropout: of the weights of attention, between the two layers, and behind each part.
        activation: "relu", "gelu" or a function.
        layer_norm_eps: of the norms.
        batch_first: sequences are (N, L, E) in place of (L, N, E).
        norm_first: norms stand in front of the parts, not behind the sums.
        bias: whether linear layers and norms have biases.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        options = (dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first)
        encoder_layer = TransformerEncoderLayer(d_model, nhead, *options, bias)
        decoder_layer = TransformerDecoderLayer(d_model, nhead, *options, bias)
        self.encoder = TransformerEncoder(
            encoder_layer, num_encoder_layers, LayerNorm(d_model, layer_norm_eps, bias=bias)
        )
        self.decoder = TransformerDecoder(
            decoder_layer, num_decoder_layers, LayerNorm(d_model, layer_norm_eps, bias=bias)
        )
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first
        for parameter in self.parameters():
            if parameter.rank > 1:
                init.xavier_uniform_(parameter)

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Mask = None,
        tgt_mask: Mask = None,
        memory_mask: Mask = None,
        src_key_padding_mask: Mask = None,
        tgt_key_padding_mask: Mask = None,
        memory_key_padding_mask: Mask = None,
        src_is_causal: bool = False,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """For masks see `MultiheadAttention`: attn_mask and key_padding_mask."""
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        y: Tensor = self.decoder(tgt, memory, *masks, tgt_is_causal, memory_is_causal)
        return y

    @staticmethod
    def generate_square_subsequent_mask(size: int) -> Array:
        """(size, size), -inf above the diagonal: element i sees elements 0 to i only."""
        return causal_mask(size)
