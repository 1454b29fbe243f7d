"""Anthropic's /v1/messages: the body in (`request`, of `blocks` and `tools`), the answer out
(`answer`). All that the other chats have too is a ChatRequest. Knows no HTTP."""
