"""Books, members, loans and late fees of a small library."""
