"""llama.cpp in a process of its own.

`supervisor` keeps a connection to one worker process and `client.Engine` calls it; both run in the server. `worker` is
the process, and the only code that loads llama.cpp. Both sides know `messages` and `protocol`, and nothing else of each
other: this package imports neither side.
"""
