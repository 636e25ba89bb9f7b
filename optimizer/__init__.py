"""Makes models faster: plan, convert, transform, validate, benchmark, select."""

from optimizer.library import OptimizedModel, optimize

__all__ = ["OptimizedModel", "optimize"]
