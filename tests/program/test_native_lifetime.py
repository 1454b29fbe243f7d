"""native.Program keeps what it was given, and is of one thread and one process at a time."""

from __future__ import annotations

import gc
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tests.program.parts import batch_of, make_parts, output_of, run


def test_a_step_holds_its_arrays_whatever_becomes_of_the_attributes() -> None:
    """Each read of this batch's tokens is a new array that nobody else holds."""

    class Fresh:
        def __getattr__(self, name: str) -> object:
            value = getattr(batch, name)
            return value.copy() if isinstance(value, np.ndarray) else value

    program, batch = make_parts().build(), batch_of([1, 2, 3])
    output = output_of(batch)
    program.run(Fresh(), output)  # type: ignore[arg-type]
    assert np.array_equal(output.logits, run(program, [1, 2, 3]))


def test_a_program_keeps_what_its_lists_held() -> None:
    parts = make_parts()
    program = parts.build()
    before = run(program, [1, 2, 3])
    parts.matrices.clear()
    parts.vectors.clear()
    del parts
    gc.collect()
    junk = [np.full(5000, 7, np.float32) for _ in range(200)]  # takes the place of what was freed
    assert np.array_equal(run(program, [1, 2, 3]), before)
    assert len(junk) == 200


def test_threads_that_run_one_program_take_turns() -> None:
    program = make_parts().build()
    prompts = [[1, 2, 3, 4, 5, 6, 7, 8] * 6, [9, 8, 7, 6] * 8]
    alone = [run(program, prompt, 4 * i) for i, prompt in enumerate(prompts)]

    def wrong_runs(i: int) -> int:
        runs = (run(program, prompts[i], 4 * i) for _ in range(150))
        return sum(not np.array_equal(logits, alone[i]) for logits in runs)

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(wrong_runs, range(2))) == [0, 0]


def test_a_program_is_refused_in_a_forked_child_even_in_the_midst_of_a_run() -> None:
    program = make_parts().build()
    run(program, [1])
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            run(program, [1, 2] * 30)

    busy = threading.Thread(target=work)
    busy.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # a child that waits for a lost lock would wait for ever
                try:
                    run(program, [1])
                except RuntimeError as error:
                    os._exit(0 if "fork" in str(error) else 2)
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        busy.join()
