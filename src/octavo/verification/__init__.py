"""Verification: proof on this machine that cache, batch, block size and threads change no bit of an
answer.

`reference` computes logits in the plainest way, `recorder` and `trial` run requests on an engine
and hand every row they are drawn from to the comparison, `cases` are the requests, `scenarios` the
ways to run them, `proof` goes through these. Needs a model's program and weights, and no text.
"""

from octavo.verification.proof import Proof, verify
from octavo.verification.recorder import Tamper
from octavo.verification.report import Report, ScenarioResult
from octavo.verification.trial import Subject

__all__ = ["Proof", "Report", "ScenarioResult", "Subject", "Tamper", "verify"]
