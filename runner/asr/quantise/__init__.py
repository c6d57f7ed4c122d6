"""What the variants of a CTC model are made with: rounding, storage, int8 products, ONNX, and how they are measured."""
