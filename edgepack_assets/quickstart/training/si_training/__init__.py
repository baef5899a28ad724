"""Training code of the state identifier. It ships with the model: the pickle names its modules."""
