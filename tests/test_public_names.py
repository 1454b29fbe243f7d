"""What is at the top of the package, for programs, for editors and for type checkers."""

from __future__ import annotations

import ast
import inspect
import pydoc
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from textwrap import dedent

import pytest

import octavo
from octavo import LLM, EngineConfig, errors
from octavo.options import options_of
from tests.option_values import other_value

SOURCES = Path(octavo.__file__).parents[1]


def test_what_there_is_can_be_listed_and_had_and_every_error_is_there() -> None:
    assert dir(octavo) == sorted(octavo.__all__)
    for name in octavo.__all__:
        assert getattr(octavo, name) is not None
    with pytest.raises(AttributeError, match="module 'octavo' has no attribute 'LMM'"):
        _ = octavo.LMM  # type: ignore[attr-defined]
    classes = filter(inspect.isclass, vars(errors).values())
    kinds = {kind.__name__ for kind in classes if kind.__module__ == errors.__name__}
    assert "OctavoError" in kinds
    assert kinds <= set(octavo.__all__)


def test_so_are_the_nouns_that_an_output_is_made_of() -> None:
    """Every class that a field of a public dataclass names is public itself."""
    public = set(octavo.__all__)
    for name in public:
        noun = getattr(octavo, name)
        for field in getattr(noun, "__dataclass_fields__", {}).values():
            named = {n.id for n in ast.walk(ast.parse(field.type)) if isinstance(n, ast.Name)}
            known = vars(sys.modules[noun.__module__])
            own = {n for n in named if getattr(known.get(n), "__module__", "").startswith("octavo")}
            assert own <= public, (name, field.name)


def test_the_package_alone_brings_in_nothing() -> None:
    code = "import octavo, sys; print(*(m for m in sys.modules if m.startswith('octavo')))"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert loaded == "octavo\n"


def test_the_engine_brings_in_no_templates_before_a_chat() -> None:
    code = "import octavo, sys; octavo.LLM, octavo.AsyncEngine; print('jinja2' in sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert loaded == "False\n"


def test_every_keyword_of_an_llm_reaches_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is where it would fail to load: by then it has its configuration."""

    class Loaded(Exception):
        pass

    def refuse(model: object, config: EngineConfig) -> None:
        raise Loaded(model, config)

    monkeypatch.setattr("octavo.serving.llm.load_model", refuse)
    options = {each.name: other_value(each) for each in options_of(EngineConfig)}
    # These two go with no kv_cache=False, and with no tokens that are kept apart.
    slides = {name: options.pop(name) for name in ("sliding_context", "sinks")}
    for given in (options, slides):
        with pytest.raises(Loaded) as loaded:
            LLM("m", **given)
        assert loaded.value.args == ("m", EngineConfig.parse(given))
        for field in fields(EngineConfig):
            is_default = getattr(loaded.value.args[1], field.name) == field.default
            assert is_default == (field.name not in given), field.name
    with pytest.raises(TypeError, match="unexpected keyword argument 'contxt'"):
        LLM("m", contxt=5)  # type: ignore[call-arg]
    (_, _, *keywords) = inspect.signature(LLM.__init__).parameters.values()
    assert {p.kind for p in keywords} == {inspect.Parameter.KEYWORD_ONLY}
    defaults = {p.name: p.default for p in keywords}
    assert defaults == {f.name: f.default for f in fields(EngineConfig)}


def test_an_llm_says_what_its_keywords_mean() -> None:
    text = pydoc.render_doc(LLM, renderer=pydoc.plaintext)  # type: ignore[attr-defined]
    for each in options_of(EngineConfig):
        assert f"{each.name}  " in text, each.name
        assert each.help in text, each.name


def test_a_type_checker_finds_what_is_misspelt(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(
        dedent("""\
            import octavo
            from octavo import LLM, SamplingParams

            llm = LLM("x", context=5, kv_memory="1G", step_ms=None)
            answer: str = llm.generate("hi", SamplingParams(n=2))[0].outputs[0].text
            LLM("x", contxt=5)
            LLM("x", eviction="fifo")
            octavo.LMM("x")
        """)
    )
    # As where the package is installed: mypy looks for no errors in it, and into nothing below it.
    (tmp_path / "mypy.ini").write_text(
        dedent("""\
            [mypy]
            strict = True
            no_site_packages = True
            [mypy-octavo.*]
            follow_imports = silent
            follow_imports_for_stubs = True
        """)
    )
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "program.py"]
    command.append(f"--cache-dir={tmp_path}")
    environment = {"MYPYPATH": str(SOURCES), "PYTHONPATH": str(SOURCES)}
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    errors = [line for line in found.stdout.splitlines() if ": error: " in line]
    places = [line.partition(": error: ")[0] for line in errors]
    assert places == [f"program.py:{n}" for n in (6, 7, 8)], found.stdout + found.stderr
    assert 'Unexpected keyword argument "contxt" for "LLM"' in errors[0]
