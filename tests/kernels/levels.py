"""The ISA levels that tests of the kernels run on: all that this machine has, and those of plain
code in place of instructions that it may not have."""

from __future__ import annotations

import pytest

from octavo.kernels import available_isas, native

ISAS = (*available_isas(), *native.plain_isas())
TILED = tuple(isa for isa in ISAS if isa.startswith("amx"))

every_isa = pytest.mark.parametrize("isa", ISAS)
every_tiled_isa = pytest.mark.parametrize("isa", TILED)
