"""The loaded model: tensors in, tensors out."""
