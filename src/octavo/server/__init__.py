"""The HTTP server: OpenAI's and Anthropic's APIs in front of an AsyncEngine, and nothing else.

It translates, limits and explains, and adds no meaning of its own.
"""
