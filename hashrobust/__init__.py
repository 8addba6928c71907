"""Deep hashing with sign-symmetry learning rules, and an honest measure of its robustness."""
