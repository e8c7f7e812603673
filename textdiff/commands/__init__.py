"""Commands on a model folder, one file each; `commands.cli` imports the one that is called."""
