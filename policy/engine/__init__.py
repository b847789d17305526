"""Run llama.cpp in a separate process.

`supervisor` keeps a connection to one worker process, and `client.Engine` calls it; both run in the server. `worker` is
the process, and the only code that loads llama.cpp. The two sides share only `messages` and `protocol`. This module
imports neither side.
"""
