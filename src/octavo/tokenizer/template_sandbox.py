"""Jinja's sandbox with a meter on all that a template can make.

Comes in: template source, a meter. Goes out: code, and the environment of one rendering. A template
makes values with operators, literals, calls, filters and tests. What can be much larger than what
it is made of is refused before it is made, all else is counted after; every turn of a loop and
every call is a step. Nothing is computed while a template is compiled. Filters that no chat needs
and that take long over little are left out, and so is lipsum.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from types import BuiltinMethodType, CodeType, MethodType
from typing import Any

import jinja2
import jinja2.ext
import jinja2.filters
import jinja2.nodes
import jinja2.parser
import jinja2.runtime
import jinja2.sandbox
import jinja2.utils
import jinja2.visitor
import markupsafe

from octavo.tokenizer.template_meter import DEEPEST, Meter, expect, expect_bits, weigh
from octavo.tokenizer.template_sizes import FILTERS, METHODS, Size, filled, repeated, widths

_FILTERS_LEFT_OUT = (
    *("batch", "groupby", "pprint", "slice", "striptags", "urlencode", "urlize"),
    *("wordcount", "wordwrap", "xmlattr"),
)
# of text and numbers: what leads to bytes, which nothing here measures, or grows by a table
_METHODS_LEFT_OUT = ("encode", "to_bytes", "maketrans", "striptags", "translate")
_JINJAS_OWN = (jinja2.Environment, jinja2.runtime.Context, jinja2.nodes.EvalContext)
_OF_THE_COMPILER = ("_loop_vars", "_block_vars")  # keywords of every call
_MADE, _STEP, _CONCAT = "made by it", "step of it", "~"  # filters that no template can name


class TemplateSandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The environment that Hugging Face templates are written for, for one rendering."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, meter: Meter) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _GenerationTag],
            optimized=False,
            finalize=_shown,
        )
        self.meter = meter
        self.concat = meter.joined  # type: ignore[method-assign]  # of macros and blocks
        del self.globals["lipsum"]
        self.globals["namespace"] = _Namespace
        for name in _FILTERS_LEFT_OUT:
            del self.filters[name]
        self.filters |= {"join": self._join, "sort": self._sort, "tojson": self._to_json}
        for name in self.filters:
            self.filters[name] = self._metered(self.filters[name], FILTERS.get(name))
        for name in self.tests:
            self.tests[name] = self._metered(self.tests[name], None)
        self.filters |= {_MADE: meter.made, _STEP: self._step, _CONCAT: self._join}

    def code(self, source: str) -> CodeType:
        """Return what `jinja2.Template.from_code` takes, with any environment of this class."""
        return self.compile(_Metering().visit(self.parse(source)))

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        if operator == "*":
            expect(max(repeated(left, right), repeated(right, left)))
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            expect_bits((left.bit_length() - 1) * right)  # at least; at most twice as many
        elif operator == "%" and isinstance(left, str):
            expect(filled(left, right))
        return self.meter.made(super().call_binop(context, operator, left, right))

    def call(  # a template's keywords may have any name
        self, context: jinja2.runtime.Context, obj: Any, /, *args: Any, **kwargs: Any
    ) -> Any:
        self.meter.step()
        given = {name: kwargs[name] for name in kwargs if name not in _OF_THE_COMPILER}
        weigh((args, given))
        is_method = isinstance(obj, MethodType | BuiltinMethodType)
        of_text = is_method and isinstance(obj.__self__, str)
        if of_text:
            if obj.__name__ == "join" and args:
                args = (self.meter.made(list(args[0])), *args[1:])
            _expect(METHODS.get(obj.__name__), (obj.__self__, *args), given)
        value = self.meter.made(super().call(context, obj, *args, **kwargs))
        if of_text and isinstance(value, list | tuple):
            self.meter.step(weigh(value))  # the parts of a text are new too
        return value

    def getitem(self, obj: Any, argument: Any) -> Any:
        self.meter.step()
        return super().getitem(obj, argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _METHODS_LEFT_OUT and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if super().wrap_str_format(value) is None:
            return None
        text = value.__self__
        is_markup = isinstance(text, markupsafe.Markup)
        formatter = _EscapeFormatter(self, escape=text.escape) if is_markup else _Formatter(self)

        def run(*args: Any, **kwargs: Any) -> Any:
            if value.__name__ == "format_map":
                (kwargs,), args = args, ()
            return type(text)(formatter.vformat(text, args, kwargs))

        return run

    def _metered(self, function: Any, size: Size | None) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            self.meter.step()
            _expect(size, args[1:] if isinstance(args[0], _JINJAS_OWN) else args, kwargs)
            return self.meter.made(function(*args, **kwargs))

        # with Jinja's mark of those that take what is its own first
        return functools.update_wrapper(run, function, assigned=())

    def _step(self, value: object) -> object:
        self.meter.step()
        return value

    def _join(self, values: Any, d: object = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            values = map(jinja2.filters.make_attrgetter(self, attribute), values)
        return self.meter.joined(map(_text, values), str(d))

    def _sort(
        self,
        value: Any,
        reverse: bool = False,
        case_sensitive: bool = False,
        attribute: str | int | None = None,
    ) -> list[Any]:
        """Sort, and weigh all that is compared: a small object may have a large attribute."""
        items = list(value)
        weigh([*map(jinja2.filters.make_multi_attrgetter(self, attribute), items)])
        return jinja2.filters.do_sort(self, items, reverse, case_sensitive, attribute)

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        writer = json.JSONEncoder(
            ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        weigh(value)
        if indent is None and separators is None:
            return writer.encode(value)
        between = indent if isinstance(indent, int) else len(indent or "")
        expect(DEEPEST * (between + sum(map(len, separators or ()))))
        return self.meter.joined(writer.iterencode(value))


class _Namespace(jinja2.utils.Namespace):
    """A namespace whose text leaves out what it holds, which may be itself."""

    __repr__ = object.__repr__


class _Formatter(jinja2.sandbox.SandboxedFormatter):
    """Does what `str.format` does, and weighs it field by field."""

    def __init__(self, sandbox: TemplateSandbox, **kwargs: Any) -> None:
        super().__init__(sandbox, **kwargs)
        self._meter = sandbox.meter

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        self._meter.step(16 * len(field_name))  # which may be a path of millions of names
        return super().get_field(field_name, args, kwargs)

    def format_field(self, value: Any, format_spec: str) -> Any:
        expect(widths(format_spec))
        return self._meter.made(super().format_field(value, format_spec))


class _EscapeFormatter(_Formatter, markupsafe.EscapeFormatter):
    """Does the same for `Markup.format`, which escapes each field."""


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}` marks words for training; here it does nothing."""

    tags = {"generation"}  # noqa: RUF012  (Jinja declares it so)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Metering(jinja2.visitor.NodeTransformer):
    """Puts filters of the meter where compiled code would not ask the sandbox."""

    def visit_Concat(self, node: jinja2.nodes.Concat) -> jinja2.nodes.Node:
        self.generic_visit(node)
        return _filtered(_CONCAT, jinja2.nodes.List(node.nodes, lineno=node.lineno))

    def visit_List(self, node: jinja2.nodes.List) -> jinja2.nodes.Node:
        return _filtered(_MADE, self.generic_visit(node))

    visit_Dict = visit_Compare = visit_List

    def visit_Tuple(self, node: jinja2.nodes.Tuple) -> jinja2.nodes.Node:
        self.generic_visit(node)
        return _filtered(_MADE, node) if node.ctx == "load" else node

    def visit_Getitem(self, node: jinja2.nodes.Getitem) -> jinja2.nodes.Node:
        self.generic_visit(node)
        return _filtered(_MADE, node) if isinstance(node.arg, jinja2.nodes.Slice) else node

    def visit_For(self, node: jinja2.nodes.For) -> jinja2.nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(_STEP, node.iter)
        turn = _filtered(_STEP, jinja2.nodes.Const(None, lineno=node.lineno))
        node.body.insert(0, jinja2.nodes.ExprStmt(turn, lineno=node.lineno))
        return node


def _filtered(name: str, node: jinja2.nodes.Node) -> jinja2.nodes.Filter:
    return jinja2.nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


@jinja2.pass_context  # which also keeps the compiler from computing what is printed
def _shown(context: jinja2.runtime.Context, value: object) -> str:
    sandbox = context.environment
    assert isinstance(sandbox, TemplateSandbox)
    if isinstance(value, str):
        sandbox.meter.step()
        return value
    return sandbox.meter.made(_text(value))


def _text(value: object) -> str:
    weigh(value)
    return str(value)


def _expect(size: Size | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    if size is not None:
        expect(size(*args, **kwargs))
