"""How a request goes on from what the head gives it: the strategies that it may ask for."""

from octavo.engine.decoding.draws import Draws
from octavo.engine.decoding.pooled import Pooled
from octavo.engine.nouns import Request
from octavo.engine.step import Decoding


def make_decoding(request: Request, draws: Draws) -> Decoding:
    """The strategy that a request asks for. Raises UsageError if the head cannot serve it."""
    if request.options.pooling is not None:
        return Pooled()
    if request.params.beam_width:
        from octavo.engine.decoding.beams import make_beams  # few ask for them: no start waits

        return make_beams(request, draws.eos_ids, draws.vocab_size)
    return draws
