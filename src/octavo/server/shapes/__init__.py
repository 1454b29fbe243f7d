"""Shapes: what the fields of bodies hold, where their tables say only that it is a list or an
object. The OpenAPI document has them as its components. Knows no route.
"""

from octavo.server.shapes import chat, messages, responses, shared
from octavo.server.shapes.words import Insides

SHAPES: Insides = {**shared.SHAPES, **chat.SHAPES, **messages.SHAPES, **responses.SHAPES}
