"""The walk for many chips and workloads: a sweep file, its points, what each engine says of them, and a store."""
