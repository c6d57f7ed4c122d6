"""What the layers of a model say of sound, as vectors."""
