"""What handlers get and return: the application's own authenticators and authorizers.

    from fanline.handlers import AuthenticateRequest, ClientIdentity

    async def authenticate(request: AuthenticateRequest) -> ClientIdentity | None:
        ...

See docs/reference/handlers.md. It needs nothing of the server, so that handlers can be tested anywhere.
"""

from fanline.protocol.handlers import AuthenticateRequest, AuthorizeAnswer, AuthorizeRequest, ClientIdentity

__all__ = ["AuthenticateRequest", "AuthorizeAnswer", "AuthorizeRequest", "ClientIdentity"]
