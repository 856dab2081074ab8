"""Many adapters in one pass: what is added to a module's output for rows that belong to different updates.

`grouped`: rows in segments, an update each. `combined`: each block of rows a linear combination of the same units.
`linear`: the module's own product and its updates together. Each begins with its `reference`, the definition; the
rest computes the same numbers faster, where `dispatch` says how.
"""
