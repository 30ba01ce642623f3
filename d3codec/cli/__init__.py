"""The command line: click, one file a command, no logic of its own, heavy imports inside the commands."""
