"""A checkpoint that brings Python code of its own is refused, never run, and nobody is asked."""

from __future__ import annotations


def reason(error: Exception) -> str:
    """Why transformers did not open something, without its advice to run foreign code.

    >>> reason(ValueError("please pass trust_remote_code=True"))
    'it needs Python code of its own, which textdiff never runs'
    >>> reason(ValueError("no such file"))
    'no such file'
    """
    if "trust_remote_code" in str(error):
        return "it needs Python code of its own, which textdiff never runs"
    return str(error)
