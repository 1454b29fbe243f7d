"""`octavo bench`: runs the workloads of `octavo.bench` and prints what they came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.bench import workloads
from octavo.bench.machine import Machine, Probe, cpu_model
from octavo.bench.rounds import Round, Summary, TokenCost, measure, summarize
from octavo.bench.shared_prefix import Turn, Workload, turns
from octavo.cli.figures import number, pairs, percent, size
from octavo.cli.flags import ENGINE, AsJson, Model, with_flags, without
from octavo.cli.loading import open_llm
from octavo.cli.screen import Screen
from octavo.errors import UsageError, counted
from octavo.kernels import KV_FORMATS
from octavo.weights.model_header import read_header
from octavo.weights.packed_formats import packed_bytes

if TYPE_CHECKING:
    from octavo.serving.llm import LLM

# bench says itself how long the sequences are, `kv` and `prefix` also which caches there are.
FLAGS = without(ENGINE, "context", "kv_cache")
CACHE_FLAGS = without(FLAGS, "prefix_cache")

# Nobody waits beside these streams, so a step may last as long as its rows take.
WHOLE_STEPS: dict[str, object] = {"step_ms": None}

Context = Annotated[int, typer.Option(help="Tokens of the prompt.")]
Tokens = Annotated[int, typer.Option(help="New tokens after it.")]
Rounds = Annotated[int, typer.Option(help="Rounds measured; medians are over them.")]
Warmups = Annotated[int, typer.Option(help="Rounds before, not measured.")]


def register(app: typer.Typer) -> None:
    bench = typer.Typer(rich_markup_mode=None, no_args_is_help=False)
    bench.command("decode")(decode)
    bench.command("prefill")(prefill)
    bench.command("kv")(kv)
    bench.command("prefix")(prefix)
    app.add_typer(bench, name="bench", help="Measure speed, beside what this machine can do.")


@with_flags(engine=FLAGS)
def decode(
    model: Model,
    *,
    context: Context = 128,
    tokens: Tokens = 128,
    rounds: Rounds = 5,
    warmups: Warmups = 1,
    json: AsJson = False,
    engine: dict[str, object],
) -> None:
    """One stream: new tokens a second, beside memory bandwidth."""
    _check(context=(context, 1), tokens=(tokens, 2), rounds=(rounds, 1), warmups=(warmups, 0))
    llm = open_llm(model, {**WHOLE_STEPS, **engine, "context": context + tokens})
    bench = Bench(llm, model, Screen(json))
    bench.run(
        "decode",
        f"{counted(tokens, 'new token')} after {context:,}",
        lambda i: workloads.decode_round(llm, context, tokens, i),
        workloads.decode_cost(bench.sizes, context, tokens),
        context=context,
        rounds=rounds,
        warmups=warmups,
    )


@with_flags(engine=FLAGS)
def prefill(
    model: Model,
    *,
    context: Context = 512,
    rounds: Rounds = 5,
    warmups: Warmups = 1,
    json: AsJson = False,
    engine: dict[str, object],
) -> None:
    """One prompt: its tokens a second, beside the integer peak."""
    _check(context=(context, 1), rounds=(rounds, 1), warmups=(warmups, 0))
    llm = open_llm(model, {**WHOLE_STEPS, **engine, "context": context + 1})
    bench = Bench(llm, model, Screen(json))
    bench.run(
        "prefill",
        f"a prompt of {counted(context, 'token')}",
        lambda i: workloads.prefill_round(llm, context, i),
        workloads.prefill_cost(bench.sizes, context, llm.config.max_batch_tokens),
        context=context,
        rounds=rounds,
        warmups=warmups,
    )


@with_flags(engine=CACHE_FLAGS)
def kv(
    model: Model,
    *,
    context: Context = 16,
    tokens: Tokens = 512,
    json: AsJson = False,
    engine: dict[str, object],
) -> None:
    """One answer: how many times faster the KV cache makes it."""
    _check(context=(context, 1), tokens=(tokens, 1))
    screen = Screen(json)
    seconds, answers = {}, {}
    for cached in (True, False):
        screen.note(f"{counted(tokens, 'new token')} {'with' if cached else 'without'} the cache …")
        options = {**WHOLE_STEPS, **engine, "context": context + tokens, "kv_cache": cached}
        llm = open_llm(model, options)
        workloads.timed_generation(llm, context, 2, seed=1)  # warm-up
        seconds[cached], answers[cached] = workloads.timed_generation(llm, context, tokens, 0)
    found = {
        "model": model,
        "context": context,
        "new_tokens": tokens,
        "with_cache": _speed(seconds[True], tokens),
        "without_cache": _speed(seconds[False], tokens),
        "ratio": seconds[False] / seconds[True],
        "same_tokens": answers[True] == answers[False],
    }
    screen.say(
        f"with the cache {number(seconds[True])} s, without {number(seconds[False])} s: "
        f"{number(seconds[False] / seconds[True])} times faster; the tokens are "
        f"{'the same' if found['same_tokens'] else 'NOT THE SAME'}"
    )
    screen.result(found)


@with_flags(engine=CACHE_FLAGS)
def prefix(
    model: Model,
    *,
    shared: Annotated[int, typer.Option(help="Tokens that all prompts begin with.")] = 512,
    own: Annotated[int, typer.Option(help="Tokens of each prompt after them.")] = 32,
    prompts: Annotated[int, typer.Option(help="Prompts, offered together.")] = 16,
    tokens: Tokens = 16,
    rounds: Rounds = 3,
    json: AsJson = False,
    engine: dict[str, object],
) -> None:
    """Prompts that begin alike: how many times faster with reuse."""
    _check(shared=(shared, 0), own=(own, 1), prompts=(prompts, 1), tokens=(tokens, 1))
    _check(rounds=(rounds, 1))
    work = Workload(shared, own, prompts, tokens)
    screen = Screen(json)
    options = {**engine, "context": shared + own + tokens}
    on, off = (open_llm(model, {**options, "prefix_cache": cached}) for cached in (True, False))
    each = f"{shared:,} shared and {counted(own, 'own token')}"
    screen.say(f"{model}: {counted(prompts, 'prompt')} of {each}")
    for llm in (on, off):
        workloads.timed_generation(llm, own, 2, seed=0)  # warm-up
    done: list[Turn] = []
    for turn in turns(on, off, work, rounds):
        done.append(turn)
        screen.say(
            f"  round {len(done)}: {number(turn.with_cache)} s with the cache, "
            f"{number(turn.without_cache)} s without: {number(turn.ratio)} times faster"
        )
    found = {
        "bench": "prefix",
        "model": model,
        **asdict(work),
        "ratio": median(turn.ratio for turn in done),
        "ratios": [turn.ratio for turn in done],
        "found": median(turn.found for turn in done),
        "same_tokens": all(turn.same_tokens for turn in done),
    }
    screen.say(
        f"prefix     {number(median(t.ratio for t in done))} times faster; "
        f"{percent(median(t.found for t in done))} of the prompts' tokens were found; the tokens "
        f"are {'the same' if found['same_tokens'] else 'NOT THE SAME'}"
    )
    screen.result(found)


class Bench:
    """One model under measurement on one machine."""

    def __init__(self, llm: LLM, model: str, screen: Screen) -> None:
        self._screen = screen
        self._model = model
        self._weights = llm.config.weights or "+".join(llm.info.tensor_types)
        self.sizes = _sizes(llm)
        self._machine = Machine(cpu_model(), llm.info.isa, llm.info.threads)
        self._probe = open_probe(self._machine)

    def run(
        self,
        kind: str,
        what: str,
        run_round: Callable[[int], float],
        token_cost: TokenCost,
        *,
        context: int,
        rounds: int,
        warmups: int,
    ) -> None:
        """Measure, print as it goes, then the medians."""
        machine = self._machine
        self._screen.say(f"{machine.cpu}, {machine.isa}, {counted(machine.threads, 'thread')}")
        self._screen.say(f"{self._model}, weights {self._weights}: {what}")
        done: list[Round] = []
        for each in measure(run_round, self._probe, warmups=warmups, rounds=rounds):
            done.append(each)
            self._screen.say(_round_line(len(done), each))
        summary = summarize(done, token_cost)
        self._screen.say(_summary_text(kind, summary, token_cost))
        found = {
            "bench": kind,
            "model": self._model,
            "weights": self._weights,
            "context": context,
            **asdict(machine),
            **asdict(summary),
        }
        self._screen.result(found)


def open_probe(machine: Machine) -> Probe:
    from octavo.bench.native_probe import NativeProbe  # needs the compiled core; tests have none

    return NativeProbe(machine.isa, machine.threads)


def _sizes(llm: LLM) -> workloads.Sizes:
    header = read_header(llm.info.path)
    in_memory = packed_bytes(header, llm.program.weights(), llm.config.weights)
    k_format, v_format = KV_FORMATS[llm.config.k_dtype], KV_FORMATS[llm.config.v_dtype]
    return workloads.Sizes(llm.program, in_memory, k_format, v_format)


def _check(**counts: tuple[int, int]) -> None:
    for name, (value, least) in counts.items():
        if value < least:
            raise UsageError(f"--{name} {value}: expected at least {least}")


def _speed(seconds: float, tokens: int) -> dict[str, float]:
    return {"seconds": seconds, "tokens_per_second": tokens / seconds}


def _round_line(index: int, each: Round) -> str:
    reading = each.reading
    return (
        f"  round {index}: {number(each.tokens_per_second)} tok/s; around it "
        f"{number(reading.bytes_per_second / 1e9)} GB/s read, "
        f"{number(reading.ops_per_second / 1e9)} GOP/s integer peak"
    )


def _summary_text(kind: str, found: Summary, token_cost: TokenCost) -> str:
    used = found.tokens_per_second * token_cost.bytes_per_token / 1e9
    rows = [
        (kind, f"{number(found.tokens_per_second)} tok/s, spread {percent(found.spread)}"),
        (
            "bandwidth",
            f"{size(found.bytes_per_token)} a token, {number(used)} GB/s: "
            f"{percent(found.bandwidth_fraction)} of {number(found.read_bandwidth_gbps)} GB/s",
        ),
        (
            "compute",
            f"{number(found.gops)} GOP/s: "
            f"{percent(found.compute_fraction)} of {number(found.peak_gops)} GOP/s",
        ),
        ("roofline", percent(found.roofline_fraction)),
    ]
    return pairs(rows)
