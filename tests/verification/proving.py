"""A tiny model that is verified, whole or tampered with."""

from __future__ import annotations

from octavo.config import EngineConfig
from octavo.kernels import native
from octavo.verification import Proof, Report, Subject, Tamper
from octavo.weights.ggml_type import GGMLType
from tests.program.test_native_groups import two_groups
from tests.tiny import TINY, TinyModel, random_model, tiny_model

NAMES = [
    "alone", "batched", "chunked", "no cache",
    "shared: full hit", "shared: partial hit", "shared: next turn", "shared: together",
    "forked: n answers", "forked: beams",
    "preempted, resumed", "preempted, no reuse", "evicted", "all at once",
    "blocks of 16", "blocks of 64", "2 threads", "3 threads",
]  # fmt: skip
MODEL = tiny_model(TINY, native.ThreadPool(2))


WINDOWED = random_model(two_groups(), native.ThreadPool(2), type=GGMLType.F32)


def prove(
    tamper: Tamper | None = None, *, model: TinyModel = MODEL, context: int = 128, **options: object
) -> Report:
    # One thread where a test asks for no more: several in each of the suite's own processes wait
    # for each other's cores most of the time.
    config = EngineConfig.parse({"threads": 1, **options})
    subject = Subject(model.program, model.weights, context)
    return Proof(subject, config, tamper).run(lambda _: None)


def failed(report: Report) -> list[str]:
    return [s.name for s in report.scenarios if not s.ok]
