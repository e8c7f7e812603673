"""A model behind HTTP, with OpenAI's routes: `textdiff serve RUN` (extra `textdiff[serve]`).

    request -> fields (what it says) -> limits (what it may cost) -> cache? -> worker -> answers

One thread, the worker, owns the engine; every request has its own clock in it. An answer is a pure
function of weights and request, so it can be cached, redone after a failure, and given by any of
several servers.
"""
