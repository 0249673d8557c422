"""System R: one attention layer in front of an MLP memory of facts infers a relation and recalls."""
