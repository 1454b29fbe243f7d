"""The table of all routes, and the ASGI app that is made of it: guard, intake, route."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import Match, Route

from octavo.protocol.common import ApiError
from octavo.server.errors import wrong_method
from octavo.server.exchange import Scope
from octavo.server.guard import Guard
from octavo.server.intake import Handler, Intake
from octavo.server.routes import (
    cache,
    chat,
    completions,
    embeddings,
    messages,
    models,
    ops,
    page,
    responses,
    sessions,
    tokens,
)
from octavo.server.service import Service

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/v1/chat/completions", chat.create),
    ("POST", "/v1/completions", completions.create),
    ("POST", "/v1/messages", messages.create),
    ("POST", "/v1/messages/count_tokens", messages.count),
    ("POST", "/v1/responses", responses.create),
    ("POST", "/v1/responses/input_tokens", responses.count),
    ("GET", "/v1/responses", responses.refuse),
    ("GET", "/v1/responses/{id}", responses.show),
    ("DELETE", "/v1/responses/{id}", responses.delete),
    ("POST", "/v1/responses/{id}/cancel", responses.cancel),
    ("POST", "/v1/sessions", sessions.create),
    ("GET", "/v1/sessions/{id}", sessions.show),
    ("POST", "/v1/sessions/{id}/fork", sessions.fork),
    ("POST", "/v1/sessions/{id}/rewind", sessions.rewind),
    ("DELETE", "/v1/sessions/{id}", sessions.delete),
    ("POST", "/v1/embeddings", embeddings.create),
    ("POST", "/tokenize", tokens.tokenize),
    ("POST", "/detokenize", tokens.detokenize),
    ("GET", "/tokenizer_info", tokens.info),
    ("POST", "/apply-template", tokens.apply_template),
    ("GET", "/v1/models", models.list_all),
    ("GET", "/v1/models/{id:path}", models.show),
    ("GET", "/health", ops.health),
    ("GET", "/ready", ops.ready),
    ("GET", "/metrics", ops.metrics),
    ("GET", "/openapi.json", ops.openapi),
    ("GET", "/v1/cache", cache.show),
    ("GET", "/v1/cache/requests/{id}", cache.show_request),
    ("POST", "/v1/cache/clear", cache.clear),
    *page.ROUTES,
)


def make_app(service: Service) -> Guard:
    routes = [Route(path, handler, methods=[method]) for method, path, handler in ROUTES]
    return Guard(service, Intake(service, lambda scope: _find(routes, scope)))


def _find(routes: Sequence[Route], scope: Scope) -> Handler:
    """The handler of a path and method; raises ApiError with 404 or 405."""
    others: dict[str, set[str]] = {}  # methods by the paths of routes that this one is of
    for route in routes:
        match, found = route.matches(scope)
        if match is Match.FULL:
            scope.update(found, route=route.path)
            handler: Handler = found["endpoint"]
            return handler
        if match is Match.PARTIAL and route.endpoint is not responses.refuse:
            others.setdefault(route.path, set()).update(route.methods or ())
    if others:
        raise wrong_method(next(iter(others.values())))
    raise ApiError(404, "there is no such route")
