"""The part of the sandbox that lets people sign in: OAuth 2.0 with PKCE."""
