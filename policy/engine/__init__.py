"""Run llama.cpp in a separate process.

`supervisor` keeps a connection to one worker process, and `client.Engine` calls it; both run in the server. The package
`worker` is that process, and the only code that loads llama.cpp. Neither side imports the other's code. Both use
`messages` and `protocol`, which define what they exchange, and small modules such as `endpoint` and `settings`.
"""
