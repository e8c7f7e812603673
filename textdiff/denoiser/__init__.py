"""What a network is asked and fed in one call: the protocol, who sees whom, rows, cache, head."""
