"""How the outputs of each family of models are recognised and read."""
