"""Ex-Model Continual Learning: one ex-model from a stream of trained experts, without their data."""
