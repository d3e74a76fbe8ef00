"""Layer tables of named networks."""
