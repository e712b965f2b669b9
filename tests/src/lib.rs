//! Everything that compares two things; the comparisons are in `tests/`.
