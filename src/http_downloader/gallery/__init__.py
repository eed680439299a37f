"""All that knows gallery-dl.

`pool` and `messages` are the parent's side and never import gallery-dl; `forkserver`, `child`, `job`, `config`,
`cookies`, `hooks`, `network` and `resolver` run in the processes that do.
"""
