"""Commands on a model folder, one file each; `textdiff.cli` imports the one that is called."""
