"""A load for any server of OpenAI's API: requests as ShareGPT's are, and what became of them.

`config` has the choices, `asks` and `sharegpt` the requests, `client` and `stream` one request on
its way, `load` all of them, `summary` what they come to. Only `client` knows HTTP; it and `run`
need aiohttp. Knows no command line.
"""
