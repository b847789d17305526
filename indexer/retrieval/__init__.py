"""Ways to score chunks against a query, and how their rankings are blended."""
