"""Training on Lightning: the module, the optimiser, callbacks, the command line."""
