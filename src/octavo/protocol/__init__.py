"""OpenAI's request and response bodies, for `octavo batch` and the server: dicts in, dicts out.

Knows no HTTP, no model and no engine.
"""
