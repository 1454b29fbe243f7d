"""One owner of the engine, and the two doors to it: `LLM` and `AsyncEngine`."""
