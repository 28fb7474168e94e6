"""The No-U-Turn sampler: where chains begin, how they move, and what they leave."""
