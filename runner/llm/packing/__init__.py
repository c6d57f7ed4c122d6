"""From documents to rows and steps: packed, balanced, in an order that a seed decides."""
