# Claude Code. Its own prompt is long: serve a model with a long context. Where the server has no keys,
# any token does.
export ANTHROPIC_BASE_URL=http://127.0.0.1:8000
export ANTHROPIC_AUTH_TOKEN=KEY
export ANTHROPIC_MODEL=MODEL ANTHROPIC_DEFAULT_HAIKU_MODEL=MODEL
claude
