"""Who may do what: scopes and roles, API keys, passwords, access tokens, and what slows down who guesses.

Knows nothing of HTTP. Invariants: of a key, a password or a refresh token only a hash is kept; whoever is revoked,
disabled or logged out is refused KNOWN_FOR_S later at the latest; an unknown user cannot be told from a known one.
"""
