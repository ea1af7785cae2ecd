"""TLS files for tests."""

import ssl
from pathlib import Path

import trustme

from fanline.engine.settings import EngineSettings


class Certificates:
    """A throw-away authority and the server files it signed."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        self.cert, self.key = str(directory / "cert.pem"), str(directory / "key.pem")
        for number, blob in enumerate(certificate.cert_chain_pems):
            blob.write_to_path(self.cert, append=number > 0)
        certificate.private_key_pem.write_to_path(self.key)
        self.client_context = ssl.create_default_context()
        authority.configure_trust(self.client_context)
        self.settings = EngineSettings(ssl_certfile=self.cert, ssl_keyfile=self.key)
