"""How a request goes on from what the head gives it: one Decoding a request."""

from octavo.engine.decoding.beams import make_beams
from octavo.engine.decoding.decoding import Decoding
from octavo.engine.decoding.drawing import Drawing
from octavo.engine.decoding.draws import Draws
from octavo.request import Request


def make_decoding(
    request: Request, drawing: Drawing, eos_ids: frozenset[int], vocab_size: int
) -> Decoding:
    """The strategy that a request asks for. Raises UsageError if the head cannot serve it."""
    if request.params.beam_width:
        return make_beams(request, eos_ids, vocab_size)
    return Draws(drawing, eos_ids)
