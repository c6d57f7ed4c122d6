"""What a user may write: specs, their blocks, the loader. pydantic and yaml only; never torch."""
