"""Makes models faster: plan, convert, transform, validate, benchmark, select."""
