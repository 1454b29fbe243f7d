"""`octavo bench`: runs the workloads of `octavo.bench` and prints what they came to."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from statistics import median
from typing import Annotated

from octavo.bench import workloads
from octavo.bench.shared_prefix import Turn, Workload, turns
from octavo.bench.sweep import Point
from octavo.cli.bench_kv_dtype import kv_dtype
from octavo.cli.bench_kv_heads import kv_heads
from octavo.cli.bench_run import WHOLE_STEPS, Bench, check_counts
from octavo.cli.bench_serve import serve
from octavo.cli.command import Flag, Group
from octavo.cli.figures import number, percent
from octavo.cli.flags import ENGINE, AsJson, Model, with_flags, without
from octavo.cli.loading import open_llm
from octavo.cli.screen import Screen
from octavo.errors import counted

# bench says itself how long the sequences are, `kv` and `prefix` also which caches there are.
FLAGS = without(ENGINE, "context", "kv_cache")
CACHE_FLAGS = without(FLAGS, "prefix_cache")

Context = Annotated[int, Flag(help="Tokens of the prompt.")]
Tokens = Annotated[int, Flag(help="New tokens after it.")]
Rounds = Annotated[int, Flag(help="Rounds measured; medians are over them.")]
Warmups = Annotated[int, Flag(help="Rounds before, not measured.")]


def register(app: Group) -> None:
    bench = Group("bench", help="Measure speed, beside what this machine can do.")
    bench.add("decode", decode)
    bench.add("prefill", prefill)
    bench.add("depth", depth)
    bench.add("batch", batch)
    bench.add("kv", kv)
    bench.add("kv-dtype", kv_dtype)
    bench.add("kv-heads", kv_heads)
    bench.add("prefix", prefix)
    bench.add("serve", serve)
    app.add_command(bench)


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
    check_counts(context=(context, 1), tokens=(tokens, 2), rounds=(rounds, 1), warmups=(warmups, 0))
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
    check_counts(context=(context, 1), rounds=(rounds, 1), warmups=(warmups, 0))
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


@with_flags(engine=FLAGS)
def depth(
    model: Model,
    *,
    depths: Annotated[
        list[int], Flag("--depth", help="Tokens before the new ones; may be given again.")
    ] = [128, 2048],  # noqa: B006
    tokens: Tokens = 64,
    rounds: Rounds = 3,
    json: AsJson = False,
    engine: dict[str, object],
) -> None:
    """One stream at several depths: what the tokens before it cost."""
    check_counts(depth=(min(depths), 1), tokens=(tokens, 2), rounds=(rounds, 1))
    llm = open_llm(model, {**WHOLE_STEPS, **engine, "context": max(depths) + tokens})
    bench = Bench(llm, model, Screen(json))
    points = [
        Point(
            size=before,
            run=partial(workloads.decode_round, llm, before, tokens),
            cost=workloads.decode_cost(bench.sizes, before, tokens),
        )
        for before in depths
    ]
    bench.sweep("depth", f"{counted(tokens, 'new token')} at each depth", points, rounds=rounds)


@with_flags(engine=without(FLAGS, "max_num_seqs"))
def batch(
    model: Model,
    *,
    streams: Annotated[
        list[int], Flag("--streams", help="Answers at once; may be given again.")
    ] = [1, 8, 32],  # noqa: B006
    context: Context = 128,
    tokens: Tokens = 64,
    rounds: Rounds = 3,
    json: AsJson = False,
    engine: dict[str, object],
) -> None:
    """Many streams at once: new tokens a second of all together."""
    check_counts(streams=(min(streams), 1), context=(context, 1), tokens=(tokens, 2))
    check_counts(rounds=(rounds, 1))
    options = {**WHOLE_STEPS, **engine, "context": context + tokens, "max_num_seqs": max(streams)}
    llm = open_llm(model, options)
    bench = Bench(llm, model, Screen(json))
    points = [
        Point(
            size=many,
            run=partial(workloads.batch_round, llm, many, context, tokens),
            cost=workloads.batch_cost(bench.sizes, many, context, tokens),
        )
        for many in streams
    ]
    what = f"{counted(tokens, 'new token')} after {context:,} in each stream"
    bench.sweep("batch", what, points, rounds=rounds)


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
    check_counts(context=(context, 1), tokens=(tokens, 1))
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
    shared: Annotated[int, Flag(help="Tokens that all prompts begin with.")] = 512,
    own: Annotated[int, Flag(help="Tokens of each prompt after them.")] = 32,
    prompts: Annotated[int, Flag(help="Prompts, offered together.")] = 16,
    tokens: Tokens = 16,
    rounds: Rounds = 3,
    json: AsJson = False,
    engine: dict[str, object],
) -> None:
    """Prompts that begin alike: how many times faster with reuse."""
    check_counts(shared=(shared, 0), own=(own, 1), prompts=(prompts, 1), tokens=(tokens, 1))
    check_counts(rounds=(rounds, 1))
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


def _speed(seconds: float, tokens: int) -> dict[str, float]:
    return {"seconds": seconds, "tokens_per_second": tokens / seconds}
