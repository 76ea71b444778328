"""Parts that several models are built from; they know tensors, not observations."""
