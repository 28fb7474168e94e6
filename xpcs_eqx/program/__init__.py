"""What the program does with a configuration, apart from arguments, exit codes and messages."""
