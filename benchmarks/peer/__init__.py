"""Engines beside each other on one machine: the same weights and requests, in turns.

`workloads` has what they do, `one` what a peer is; `llama_cpp` and `python_peer` are the peers,
`installed` finds them; `turns` takes the measurements, `limits` has what the machine allows,
`results` what is kept, `report` the page. `stepping`, `worker` and `on_*` run in the interpreters
of the peers, which have neither Octavo nor numpy: they import nothing else of this repository but
`workloads`.
"""
