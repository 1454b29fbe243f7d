"""Tools of a request, and calls in what a model writes: one file a format.

Knows no HTTP, no tokens and no engine; nothing here looks at a model's text with regular
expressions, so what comes out never depends on how the text was cut.
"""
