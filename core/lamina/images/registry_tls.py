"""TLS as a registry's table in the config says."""

from __future__ import annotations

import ssl

from lamina.errors import ConfigError
from lamina.images.registry_config import Host


def tls_of(host: Host) -> ssl.SSLContext:
    """Verified by the system's authorities and its own, unless it is called insecure; ConfigError."""
    context = ssl.create_default_context()
    try:
        if host.ca is not None:
            context.load_verify_locations(host.ca)
        if host.cert is not None:
            context.load_cert_chain(host.cert, host.key, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{host.cert or host.ca}: cannot be used for TLS: {error}") from error
    if host.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _no_password() -> str:
    raise ConfigError("a client key with a passphrase cannot be used: nobody could type it")
