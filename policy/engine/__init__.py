"""Run llama.cpp in a separate process, the worker process.

In the server, `supervisor` keeps a worker process running, and `client.Engine` sends requests to it. The package
`worker` has the code of the worker process, and is the only code that loads llama.cpp. Neither side imports the other's
code. Both import `messages` and `protocol`, which define the messages between them, and small modules such as
`endpoint` and `settings`.
"""
