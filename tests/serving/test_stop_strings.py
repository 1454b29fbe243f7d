"""Stop strings cut the text and hold back what may begin one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.serving.stop_strings import StopStrings


def test_text_that_may_begin_a_stop_string_waits() -> None:
    stops = StopStrings(["\n\nUser:"])
    assert stops.push("Hello\n") == "Hello"
    assert stops.push("\nUs") == ""
    assert stops.push("age") == "\n\nUsage"
    assert stops.push(" ends\n\nUser: hi") == " ends"
    assert stops.found == "\n\nUser:"
    assert stops.push("more") == ""
    assert stops.finish() == ""


def test_held_text_comes_out_at_the_end() -> None:
    stops = StopStrings(["END"])
    assert stops.push("the EN") == "the "
    assert stops.finish() == "EN"
    assert stops.found is None


def test_the_earliest_stop_wins() -> None:
    stops = StopStrings(["cd", "bc"])
    assert stops.push("abcd") == "a"
    assert stops.found == "bc"


def test_a_stop_string_may_hold_the_name_of_a_token_that_is_not_shown() -> None:
    stops = StopStrings(["\n<|start|>user"])
    assert stops.push("Hello\n") == "Hello"
    assert stops.push_hidden("<|start|>") == ""
    assert stops.push("us") == ""
    assert stops.push("ed") == "\nused"  # the name stays hidden
    assert stops.push("!\n") == "!"
    assert stops.push_hidden("<|start|>") == ""
    assert stops.push("user: hi") == ""
    assert stops.found == "\n<|start|>user"
    assert stops.finish() == ""


def test_what_is_shown_meets_a_stop_string_across_a_hidden_name() -> None:
    stops = StopStrings(["END"])
    assert stops.push("the E") == "the "
    assert stops.push_hidden("<|x|>") == ""
    assert stops.push("ND of") == ""
    assert stops.found == "END"


def test_a_part_of_a_hidden_name_is_no_stop_string() -> None:
    stops = StopStrings([">", "|>b", "a<|", "|x|"])
    assert stops.push("a") == ""
    assert stops.push_hidden("<|x|>") == ""  # "a" may still be followed by what is shown
    assert stops.push("b") == "ab"
    assert stops.push("c>d") == "c"
    assert stops.found == ">"


SHORT = st.text("ab", min_size=1, max_size=4)


@settings(max_examples=300)
@given(st.lists(st.tuples(SHORT, st.booleans()), max_size=12), st.lists(SHORT, max_size=3))
def test_names_and_text_in_any_pieces_meet_the_first_stop_of_either(
    pieces: list[tuple[str, bool]], stops: list[str]
) -> None:
    """A longer stop that begins earlier may lose to a shorter one that is complete first."""
    watcher = StopStrings(stops)
    whole, places, shown, inside = "", list[int](), "", set[int]()
    for piece, hidden in pieces:
        inside.update(range(len(whole) + 1, len(whole) + len(piece)) if hidden else ())
        places += [] if hidden else range(len(whole), len(whole) + len(piece))
        whole += piece
        visible = "".join(whole[i] for i in places)
        shown += (watcher.push_hidden if hidden else watcher.push)(piece)
        assert visible.startswith(shown)
        hits = [
            (at, stop)
            for stop in stops
            for at in range(len(whole))
            if whole.startswith(stop, at) and not {at, at + len(stop)} & inside
        ]
        hits += [(places[visible.find(stop)], stop) for stop in stops if stop in visible]
        if hits:
            first = min(hits)[0]
            assert (first, watcher.found) in hits
            assert shown + watcher.finish() == "".join(whole[i] for i in places if i < first)
            return
        assert watcher.found is None
        assert len(visible) - len(shown) < 4  # no more waits than may begin a stop string
    assert shown + watcher.finish() == "".join(whole[i] for i in places)
