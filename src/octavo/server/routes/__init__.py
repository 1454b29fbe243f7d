"""One module a group of routes: it reads a body, asks the engine, and writes what came."""
