"""An ensemble of generative models: at each position the weighted mean of their next-token
probabilities. They must share one vocabulary."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor


class AveragedNetwork:
    """Networks that act as one generator. Its logits and its model for ``generate`` are those of
    the mean; everything else is the first network's.

    The logits are log Σ_m w_m softmax(z_m), [N, vocabulary] in float32: their softmax is the mean.
    """

    def __init__(self, networks: Sequence[Any], weights: Sequence[float] | None = None) -> None:
        self.networks = tuple(networks)
        self.weights = tuple(weights or (1 / len(self.networks),) * len(self.networks))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "networks":
            raise AttributeError(name)
        return getattr(self.networks[0], name)

    def logits_at(self, where: Tensor, *given: Tensor, **inputs: Tensor) -> Tensor:
        """The logits of the mean at the flat places ``where`` [N]."""
        return mean_logits(
            [one.logits_at(where, *given, **inputs) for one in self.networks], self.weights
        )

    def to(self, *where: torch.device | str) -> Self:
        for one in self.networks:
            one.to(*where)
        return self

    def eval(self) -> Self:
        for one in self.networks:
            one.eval()
        return self

    def processors(self, **inputs: Tensor) -> Any:
        """What ``generate`` of the first one's model is given as ``logits_processor``, for a batch
        of these ``inputs``: it puts the mean in the place of that model's own scores."""
        from transformers import LogitsProcessorList

        return LogitsProcessorList([_MeanProcessor(self, inputs)])


def mean_logits(logits: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """log Σ_m w_m softmax(z_m) over the last dimension, in float32; a weight of 0 is left out."""
    pairs = [
        (torch.log_softmax(z.float(), dim=-1), w) for z, w in zip(logits, weights, strict=True)
    ]
    shares = [logs + torch.log(torch.tensor(w)) for logs, w in pairs if w > 0]
    return torch.logsumexp(torch.stack(shares), dim=0)


def processors_of(network: object, **inputs: Tensor) -> dict[str, Any]:
    """The additional arguments of ``generate`` for ``network``; none for a single model."""
    if not isinstance(network, AveragedNetwork):
        return {}
    return {"logits_processor": network.processors(**inputs)}


class _MeanProcessor:
    """A logits processor. The other models read the complete text again for each token: this needs
    no state, so beams may change places."""

    def __init__(self, together: AveragedNetwork, inputs: dict[str, Tensor]) -> None:
        self._average = together
        self._inputs = inputs
        self._encoded: dict[int, Any] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """``input_ids`` [rows · beams, T] so far, and the first model's ``scores`` of the next
        token [rows · beams, vocabulary] → the mean's log probabilities."""
        others = [
            self._next_logits(place, one, input_ids)
            for place, one in enumerate(self._average.networks[1:], start=1)
        ]
        logits = [z.to(scores.device) for z in (scores, *others)]
        mean = mean_logits(logits, self._average.weights)
        # What is forbidden or forced at this place stays so.
        return mean.masked_fill(torch.isneginf(scores), -math.inf)

    def _next_logits(self, place: int, network: Any, written: Tensor) -> Tensor:
        plain = network.plain
        beams = written.shape[0] // self._inputs["attention_mask"].shape[0]
        mask = self._inputs["attention_mask"].repeat_interleave(beams, dim=0)
        if plain.config.is_encoder_decoder:
            if place not in self._encoded:
                accepted = {n: v for n, v in self._inputs.items() if n in network.accepts}
                self._encoded[place] = plain.get_encoder()(**accepted).last_hidden_state
            states = self._encoded[place].repeat_interleave(beams, dim=0)
            output = plain(
                encoder_outputs=(states,),
                attention_mask=mask,
                decoder_input_ids=written,
                use_cache=False,
            )
        else:
            n_more = written.shape[1] - mask.shape[1]
            mask = torch.cat([mask, mask.new_ones(len(mask), n_more)], dim=1)
            positions = {}
            if "position_ids" in inspect.signature(plain.base_model.forward).parameters:
                positions["position_ids"] = (mask.cumsum(dim=1) - 1).clamp(min=0)
            output = plain(input_ids=written, attention_mask=mask, use_cache=False, **positions)
        logits: Tensor = output.logits[:, -1]
        return logits
