"""What both ends of a link agree on: key format, verifier entries, allow rules, binding keys.

May import the standard library and nothing else; everybody may import it.
"""
