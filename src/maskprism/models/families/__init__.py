"""How the outputs of each family of models are told apart and read."""
