"""The commands of `neuralreg`. A command is one function `add_…(commands)`, listed in `cli.COMMANDS`."""
