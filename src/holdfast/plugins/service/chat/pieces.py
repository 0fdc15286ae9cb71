"""``Pieces``: tokens as they are written → pieces of text that never have to be taken back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# What a decoder writes for bytes that are no character, or not yet one.
BROKEN = "\ufffd"


class Pieces:
    """The text of an answer while it is written.

    ``decode`` makes a text of all tokens so far; ``ends`` are texts at the first of which the
    answer ends, which belong to it no more. Joined, the pieces are the ``text``, without white
    space around it: what may be the beginning of an end, half of a character or white space at the
    end is held back until it is known.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], ends: Sequence[str]) -> None:
        self._decode = decode
        self._ends = tuple(end for end in ends if end)
        self._tokens: list[int] = []
        self._told = ""
        self.ended = False
        self.text = ""

    @property
    def tokens(self) -> int:
        """How many tokens were written, one that ends the answer among them."""
        return len(self._tokens)

    def add(self, token: int, *, last: bool = False) -> str:
        """What may be shown now that ``token`` was written. ``ended`` says whether an end stands
        there; ``last`` that nothing follows."""
        self._tokens.append(token)
        whole = self._decode(self._tokens)
        cut = min((at for at in map(whole.find, self._ends) if at >= 0), default=-1)
        self.ended = cut >= 0
        if self.ended:
            return self._tell(whole[:cut], whole=True)
        return self._tell(whole, whole=last)

    def finish(self) -> str:
        """What was held back, where the last token turned out to be the last."""
        return self._tell(self._decode(self._tokens), whole=True) if not self.ended else ""

    def _tell(self, ready: str, *, whole: bool) -> str:
        if not whole:
            ready = ready[: len(ready) - self._held(ready)].rstrip(BROKEN)
        ready = ready.strip()
        # A tokenizer may write earlier tokens otherwise once later ones follow. What was told
        # stays.
        if not ready.startswith(self._told):
            ready = self._told + ready[len(self._told) :]
        piece, self._told = ready[len(self._told) :], ready
        self.text = ready
        return piece

    def _held(self, ready: str) -> int:
        """How much of its end may begin what ends the answer."""
        begun = (end[:size] for end in self._ends for size in range(1, len(end)))
        return max((len(one) for one in begun if ready.endswith(one)), default=0)
