"""Training of the feed-forward networks: a pack of subjects → random pairs → losses by name → checkpoints.

Only `neuralreg train` imports this; nothing here runs at inference.
"""
