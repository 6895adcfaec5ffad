"""The verbs of the command: their arguments, and where they lead."""
